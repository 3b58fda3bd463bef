//! `flash-kmeans completions` and `flash-kmeans man`: what a packager installs beside the command.
use crate::args::{Args, CompletionsArgs, ManArgs};
use crate::failure::Failure;
use crate::stdout::print;
use clap::CommandFactory;
use flash_kmeans::Error;

/// Prints a completion script.
pub(crate) fn completions(args: CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "flash-kmeans", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())
}

/// Writes a manual page for the command and for each of its subcommands.
pub(crate) fn man(args: ManArgs) -> Result<(), Failure> {
    let failed = |source| Failure::from(Error::Io { path: args.folder.clone(), source });
    std::fs::create_dir_all(&args.folder).map_err(failed)?;
    clap_mangen::generate_to(Args::command(), &args.folder).map_err(failed)
}
