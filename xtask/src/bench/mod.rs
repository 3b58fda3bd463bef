//! Side by side with every other implementation, in one run: the same bytes, the same first centroids, and no time
//! that counts before its result does.
mod case;
mod charts;
mod data;
mod gate;
mod init;
mod process;
mod record;
mod report;
mod run;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

pub(crate) use case::{Case, DType};
pub(crate) use process::Program;
pub(crate) use run::{ceilings, in_workspace, worker};

use crate::Result;
use case::Suite;

/// What to measure, and against whom.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// What of an iteration is timed, and where.
    #[arg(required = true)]
    suite: Option<Choice>,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
struct Options {
    /// Also measures the implementations that this machine's python3 can import.
    #[arg(long)]
    peers: bool,
    /// A few shapes of each suite.
    #[arg(long)]
    quick: bool,
    /// The shapes B,N,K,D,TYPE, in place of the suite's own.
    #[arg(long = "shape", value_parser = Case::parse)]
    shapes: Vec<Case>,
    /// Implementations to leave out, by name.
    #[arg(long)]
    without: Vec<String>,
    /// Minutes after which nothing new is begun; 3.5 for a quick run, else 8.5.
    #[arg(long)]
    minutes: Option<f64>,
    /// Where the points are written for the time of the run; /dev/shm where that has room.
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Where records, tables, charts and the other processes' messages go.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Measures what first centroids take, beside ten iterations of the same problem.
    Init {
        /// The shapes B,N,K,D,TYPE.
        #[arg(value_parser = Case::parse, default_values = ["1,1048576,1024,128,f16", "1,1048576,1024,128,f32"])]
        shapes: Vec<Case>,
    },
    /// Renders docs/benchmarks.md, its charts included, from a run's records.
    Report {
        /// The records.jsonl of a run.
        records: PathBuf,
        /// The file to write, and the folder of the same name for charts.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// Labels of all points under given centroids.
    Assign,
    /// Means of the points of each label.
    Update,
    /// A whole iteration.
    Iteration,
    /// A whole call of ten iterations, and a process from its start.
    Latency,
    /// Points in host memory.
    Streaming,
    /// An iteration on the CPU.
    Cpu,
    /// All of these.
    All,
}

impl Choice {
    fn suites(self) -> Vec<Suite> {
        match self {
            Choice::Assign => vec![Suite::Assign],
            Choice::Update => vec![Suite::Update],
            Choice::Iteration => vec![Suite::Iteration],
            Choice::Latency => vec![Suite::Latency],
            Choice::Streaming => vec![Suite::Streaming],
            Choice::Cpu => vec![Suite::Cpu],
            Choice::All => Suite::ALL.to_vec(),
        }
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<()> {
    match (arguments.command, arguments.suite) {
        (Some(Command::Init { shapes }), _) => init::run(&shapes),
        (Some(Command::Report { records, out }), _) => report::write(&records, out),
        (None, Some(choice)) => run::run(&choice.suites(), &arguments.options),
        (None, None) => Err("name a suite".into()),
    }
}
