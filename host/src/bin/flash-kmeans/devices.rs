//! `flash-kmeans devices`.
use crate::args::DevicesArgs;
use crate::failure::Failure;
use crate::stdout::{print, print_json};
use flash_kmeans::devices;

#[derive(serde::Serialize)]
struct Device {
    backend: String,
    name: String,
    memory_bytes: u64,
}

/// Runs the command.
pub(crate) fn run(args: DevicesArgs) -> Result<(), Failure> {
    for device in devices() {
        let backend = device.backend.to_string();
        if args.json {
            print_json(&Device { backend, name: device.name, memory_bytes: device.memory_bytes })?;
        } else if device.memory_bytes > 0 {
            let gib = device.memory_bytes as f64 / (1u64 << 30) as f64;
            print(&format!("{backend:<8}  {}, {gib:.1} GiB", device.name))?;
        } else {
            print(&format!("{backend:<8}  {}", device.name))?;
        }
    }
    Ok(())
}
