//! See `roundel_fuzz::worker_inputs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roundel_fuzz::worker_inputs(data));
