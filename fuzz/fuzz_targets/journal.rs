//! See `roundel_fuzz::journal`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roundel_fuzz::journal(data));
