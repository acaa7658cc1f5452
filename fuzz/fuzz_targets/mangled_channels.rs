//! See `roundel_fuzz::mangled_channels`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roundel_fuzz::mangled_channels(data));
