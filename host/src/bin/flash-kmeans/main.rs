//! The `flash-kmeans` command: clusters point files from the shell.
//!
//! `args` is what was typed; each command turns its arguments into a plan, which has opened and checked
//! every file, and then runs it. Results go to stdout, everything else to stderr.

mod args;
mod bench;
mod check;
mod devices;
mod failure;
mod fit;
mod generate;
mod given;
mod job;
mod predict;
mod shell;
mod stdout;
mod transform;
mod watch;

use args::{Args, Command};
use clap::Parser;
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let args = Args::parse();
    let quiet = args.quiet;
    log_to_stderr(quiet);
    let done = match args.command {
        Command::Fit(args) => fit::run(args, quiet),
        Command::Predict(args) => predict::run(args, quiet),
        Command::Transform(args) => transform::run(args, quiet),
        Command::Generate(args) => generate::run(args, quiet),
        Command::Devices(args) => devices::run(args),
        Command::Bench(args) => bench::run(args, quiet),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}

fn log_to_stderr(quiet: bool) {
    let default = if quiet { "error" } else { "warn,flash_kmeans=info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let colours =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .without_time()
        .init();
}
