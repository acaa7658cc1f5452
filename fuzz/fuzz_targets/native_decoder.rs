//! See `roundel_fuzz::native_decoder`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roundel_fuzz::native_decoder(data));
