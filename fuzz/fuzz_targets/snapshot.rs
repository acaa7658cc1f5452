//! See `roundel_fuzz::snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roundel_fuzz::snapshot(data));
