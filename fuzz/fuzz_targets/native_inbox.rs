//! See `roundel_fuzz::native_inbox`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roundel_fuzz::native_inbox(data));
