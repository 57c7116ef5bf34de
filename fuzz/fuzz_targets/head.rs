#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| siogate_fuzz::head(data));
