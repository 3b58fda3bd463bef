//! Compiles the kernels crate in the folder given, for the architecture given: `ptx kernels-gpu sm_90a`.
use cuda_builder::{Arch, CudaBuilder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("which crate?")?;
    let arch = match args.next().as_deref() {
        None | Some("sm_80") => Arch::Sm80,
        Some("sm_90a") => Arch::Sm90a,
        Some(other) => return Err(format!("sm_80 or sm_90a, not {other}").into()),
    };
    println!("{}", CudaBuilder::new(path).arch(arch).build()?.display());
    Ok(())
}
