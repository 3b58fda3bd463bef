//! What `cust` sees through this crate.
use cust::error::CudaError;

#[test]
fn cust_reports_no_device_without_a_driver() {
    libcuda::link();
    match cust::init(cust::CudaFlags::empty()) {
        // A driver, perhaps without a device.
        Ok(()) => assert!(libcuda::available()),
        Err(_) if libcuda::available() => {}
        Err(error) => {
            assert_eq!(error, CudaError::NoDevice);
            assert!(matches!(cust::quick_init(), Err(CudaError::NoDevice)));
            assert!(error.to_string().contains("no CUDA-capable device is detected"));
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn this_executable_does_not_ask_the_loader_for_the_driver() {
    libcuda::link();
    let executable = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let needed = needed_libraries(&executable);
    assert!(needed.iter().any(|name| name.starts_with("libc.so")), "{needed:?}");
    assert!(!needed.iter().any(|name| name.starts_with("libcuda")), "{needed:?}");
}

/// The `DT_NEEDED` names of a little-endian 64-bit ELF file, found through its section headers.
#[cfg(target_os = "linux")]
fn needed_libraries(elf: &[u8]) -> Vec<String> {
    let number = |at: usize, bytes: usize| {
        (0..bytes).rev().fold(0, |value, byte| value << 8 | u64::from(elf[at + byte])) as usize
    };
    let sections = number(0x28, 8);
    let (size, count) = (number(0x3a, 2), number(0x3c, 2));
    let section = |index: usize| sections + index * size;
    const SHT_DYNAMIC: usize = 6;
    const DT_NEEDED: usize = 1;
    let dynamic = (0..count).map(section).find(|&header| number(header + 4, 4) == SHT_DYNAMIC).unwrap();
    let (start, length) = (number(dynamic + 0x18, 8), number(dynamic + 0x20, 8));
    let strings = number(section(number(dynamic + 0x28, 4)) + 0x18, 8);
    (start..start + length)
        .step_by(16)
        .filter(|&entry| number(entry, 8) == DT_NEEDED)
        .map(|entry| {
            let name = &elf[strings + number(entry + 8, 8)..];
            String::from_utf8_lossy(&name[..name.iter().position(|&byte| byte == 0).unwrap()]).into_owned()
        })
        .collect()
}
