//! See `roundel_fuzz::primary_inputs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roundel_fuzz::primary_inputs(data));
