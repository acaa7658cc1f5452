//! See `roundel_fuzz::node_primary_side`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roundel_fuzz::node_primary_side(data));
