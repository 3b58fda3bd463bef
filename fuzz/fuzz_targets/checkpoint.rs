#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| flash_kmeans_fuzz::checkpoint(data));
