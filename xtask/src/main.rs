//! The workspace's own commands: `cargo xtask help`.
mod bench;
mod dist;
mod lint;
mod profile;
mod ptx;
mod public_api;
mod resources;
mod setup;
mod tune;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::ptx::Target;

/// A failure, put into words where it happens: these commands have only people as their callers.
type Result<T> = std::result::Result<T, String>;

/// The workspace's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetches what building kernels takes: the library sources of rustc, and ptxas to assemble them.
    Setup,
    /// Compiles the kernels to kernels-gpu/ptx, with launch bounds, assembles them, and checks the result.
    BuildKernels {
        /// Writes nothing; fails when the files that are checked in differ.
        #[arg(long)]
        check: bool,
    },
    /// Shows what ptxas makes of each kernel: registers, spills, shared memory, occupancy.
    PtxInfo {
        /// One architecture only.
        #[arg(long)]
        arch: Option<Target>,
    },
    /// Brings the assembled kernels and kernels-gpu/resources.txt up to date with the PTX that is checked in.
    Resources {
        /// Writes nothing; fails when machine code or counts differ, or registers or spills grew.
        #[arg(long)]
        check: bool,
    },
    /// Measures side by side with other implementations.
    Bench(Box<bench::Arguments>),
    /// Shows what a kernel makes of the hardware.
    Profile(profile::Arguments),
    /// Finds the launch plan of the present GPU by measuring, and writes it to a table of plans.
    Tune(tune::Arguments),
    /// Writes what users of the library can name to docs/public-api.txt.
    PublicApi {
        /// Writes nothing; fails when the file that is checked in differs.
        #[arg(long)]
        check: bool,
    },
    /// Gathers release executables and the GPU tests in dist, for a machine without this workspace.
    Dist,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Setup => setup::run(),
        Command::BuildKernels { check } => ptx::build_kernels(check),
        Command::PtxInfo { arch } => resources::print_table(arch),
        Command::Resources { check: true } => resources::check(),
        Command::Resources { check: false } => resources::update(),
        Command::Bench(arguments) => bench::run(*arguments),
        Command::Profile(arguments) => profile::run(&arguments),
        Command::Tune(arguments) => tune::run(&arguments),
        Command::PublicApi { check } => public_api::run(check),
        Command::Dist => dist::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
