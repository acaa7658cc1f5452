//! See `roundel_fuzz::node_worker_side`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roundel_fuzz::node_worker_side(data));
