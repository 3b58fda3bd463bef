//! What was typed.
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use flash_kmeans::{Backend, DType, EmptyClusters, Metric, Precision};
use std::num::NonZeroUsize;
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Point files: .npy (u1, f2, f4, f8; (n, d) or (batch, n, d)), .fvecs, .bvecs, .fbin, .u8bin

Exit codes:
  0  done
  1  a failure at run time: the device, the disk
  2  bad input or usage; nothing was written
  130  stopped by Ctrl-C; fit has written the centroids of the last complete iteration

Logs go to stderr; RUST_LOG sets what is logged (RUST_LOG=flash_kmeans=debug).";

/// Exact k-means on GPU and CPU.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP, propagate_version = true)]
pub(crate) struct Args {
    /// Print nothing but errors, and results that were asked for with --json
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Cluster the points of a file
    #[command(after_help = AFTER_HELP)]
    Fit(FitArgs),
    /// Find the nearest of given centroids for each point of a file
    #[command(after_help = AFTER_HELP)]
    Predict(PredictArgs),
    /// Write the distance of each point of a file to every one of given centroids
    #[command(after_help = AFTER_HELP)]
    Transform(TransformArgs),
    /// Write a file of Gaussian blobs: the same bytes for the same options on every machine
    #[command(after_help = AFTER_HELP)]
    Generate(GenerateArgs),
    /// List the devices that a fit can run on
    Devices(DevicesArgs),
    /// Time fits of normal points of a given shape on this machine
    #[command(after_help = AFTER_HELP)]
    Bench(BenchArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(ManArgs),
}

/// Centroids that were found before
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub(crate) struct GivenArgs {
    /// The centroids, as fit wrote them
    #[arg(long, value_name = "C.npy")]
    pub(crate) centroids: Option<PathBuf>,
    /// The model, as fit wrote it; it says the type of the points
    #[arg(long, value_name = "MODEL.safetensors")]
    pub(crate) model: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct FitArgs {
    /// The points
    pub(crate) input: PathBuf,
    /// Number of clusters
    #[arg(short = 'k', long = "clusters", value_name = "K", value_parser = at_least_one)]
    pub(crate) n_clusters: NonZeroUsize,
    /// What is near. cosine and spherical-dot have centroids of length 1, dot has means
    #[arg(long, value_enum, default_value_t)]
    pub(crate) metric: MetricArg,
    /// Whether labels are exact, or may be what the tensor cores of a GPU find
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: PrecisionArg,
    /// How often each point counts: float64 or float32, (n) or (batch, n)
    #[arg(long, value_name = "W.npy")]
    pub(crate) weights: Option<PathBuf>,
    /// First centroids: random, k-means++, k-means||, or those of a file of K rows or a model
    #[arg(long, default_value = "k-means++", value_name = "START|FILE")]
    pub(crate) init: InitArg,
    /// Fit from this many starts and keep the one of least inertia
    #[arg(long, default_value = "1", value_name = "R", value_parser = at_least_one)]
    pub(crate) n_init: NonZeroUsize,
    /// Fit at most M * K points, drawn without replacement; all of them are labelled
    #[arg(long, value_name = "M", value_parser = at_least_one)]
    pub(crate) max_points_per_centroid: Option<NonZeroUsize>,
    /// Iterations at most
    #[arg(long, default_value = "100", value_name = "T", value_parser = at_least_one)]
    pub(crate) max_iter: NonZeroUsize,
    /// Stop when the centroids move less: the sum of their squared moves, as a share of the points' mean
    /// variance. With 0, only when no label changes
    #[arg(long, default_value = "1e-4", value_parser = tolerance, allow_negative_numbers = true)]
    pub(crate) tol: f64,
    /// What becomes of clusters that lose all their points: they keep their centroids, or are given the farthest points
    #[arg(long, value_enum, default_value_t)]
    pub(crate) empty_clusters: EmptyClustersArg,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Type of the points in memory [default: f16 and f64 files as they are, f32 otherwise]
    #[arg(long, value_enum)]
    pub(crate) dtype: Option<DTypeArg>,
    /// auto, cpu, cuda, cuda:N, cuda:N,M or cuda:all. f64 points run on the CPU
    #[arg(long, default_value = "auto", value_parser = backend, value_name = "BACKEND")]
    pub(crate) backend: Backend,
    /// What a row with NaN or infinity does: stop the fit, or stay out of it with the label 4294967295
    #[arg(long, value_enum, default_value = "error", value_name = "error|skip-row")]
    pub(crate) nan: NanArg,
    /// Write the centroids: float32, or float64 for f64 points
    #[arg(long, value_name = "OUT.npy")]
    pub(crate) centroids: Option<PathBuf>,
    /// Write the labels: uint32
    #[arg(long, value_name = "OUT.npy")]
    pub(crate) labels: Option<PathBuf>,
    /// Write the model, to predict with
    #[arg(long, value_name = "OUT.safetensors")]
    pub(crate) model: Option<PathBuf>,
    /// Draw the clusters on their first two principal components
    #[arg(long, value_name = "OUT.svg")]
    pub(crate) picture: Option<PathBuf>,
    /// Write a page that needs no network: that picture, inertia by iteration, cluster sizes, parameters and time
    #[arg(long, value_name = "OUT.html")]
    pub(crate) report: Option<PathBuf>,
    /// Read the points a chunk at a time where they take more memory than this; 4 bytes a point for the labels come on
    /// top [default: half of the machine's]
    #[arg(long, value_name = "BYTES|2GiB|500MB", value_parser = bytes)]
    pub(crate) memory: Option<u64>,
    /// Take at most this much of each GPU's memory; points that have no room there are copied in each iteration
    #[arg(long, value_name = "BYTES|2GiB|500MB", value_parser = bytes)]
    pub(crate) gpu_memory: Option<u64>,
    /// GPUs to fit on: as --backend cuda:N,M. Under mpirun, those that the processes of a machine share out
    #[arg(long, value_name = "all|N,M", value_parser = devices, conflicts_with = "backend")]
    pub(crate) devices: Option<Backend>,
    /// Write where the fit stands to this file now and then, and when it ends or is stopped
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Iterations from one checkpoint to the next
    #[arg(long, default_value = "10", value_name = "M", requires = "checkpoint", value_parser = at_least_one)]
    pub(crate) every: NonZeroUsize,
    /// Go on from the checkpoint
    #[arg(long, requires = "checkpoint")]
    pub(crate) resume: bool,
    /// Tell of each iteration on stderr, where that is no terminal, which has a bar
    #[arg(long)]
    pub(crate) progress: bool,
    /// Print one JSON object instead of the summary
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PredictArgs {
    /// The points
    pub(crate) input: PathBuf,
    #[command(flatten)]
    pub(crate) given: GivenArgs,
    /// What is near: 1 - cos and -x.c are distances too [default: the model's; euclidean for centroids]
    #[arg(long, value_enum)]
    pub(crate) metric: Option<MetricArg>,
    /// Whether labels are exact, or may be what the tensor cores of a GPU find
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: PrecisionArg,
    /// Write the labels: uint32
    #[arg(long, value_name = "OUT.npy")]
    pub(crate) labels: PathBuf,
    /// Write the distances to the centroids of the labels: float32, or float64 for f64 points
    #[arg(long, value_name = "OUT.npy")]
    pub(crate) distances: Option<PathBuf>,
    /// Find the M nearest centroids of each point: labels and distances have M columns, nearest first. On the CPU
    #[arg(long, value_name = "M", value_parser = at_least_one)]
    pub(crate) nearest: Option<NonZeroUsize>,
    /// Type of the points in memory [default: f16 and f64 files as they are, f32 otherwise]
    #[arg(long, value_enum)]
    pub(crate) dtype: Option<DTypeArg>,
    /// auto, cpu, cuda, cuda:N, cuda:N,M or cuda:all. f64 points run on the CPU
    #[arg(long, default_value = "auto", value_parser = backend, value_name = "BACKEND")]
    pub(crate) backend: Backend,
    /// Print one JSON object instead of the summary
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TransformArgs {
    /// The points
    pub(crate) input: PathBuf,
    #[command(flatten)]
    pub(crate) given: GivenArgs,
    /// What is near: 1 - cos and -x.c are distances too [default: the model's; euclidean for centroids]
    #[arg(long, value_enum)]
    pub(crate) metric: Option<MetricArg>,
    /// Write the distances, a column for each centroid: float32, or float64 for f64 points
    #[arg(long, value_name = "OUT.npy")]
    pub(crate) distances: PathBuf,
    /// Type of the points in memory [default: the model's; f16 and f64 files as they are, f32 otherwise]
    #[arg(long, value_enum)]
    pub(crate) dtype: Option<DTypeArg>,
    /// Print one JSON object instead of the summary
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ManArgs {
    /// The folder to write them to, made if it is not there
    pub(crate) folder: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct GenerateArgs {
    /// The file to write: .npy, .fbin or .fvecs
    pub(crate) output: PathBuf,
    /// Number of points, in each problem of a batch
    #[arg(short, long, value_parser = at_least_one)]
    pub(crate) n: NonZeroUsize,
    /// Dimensions
    #[arg(short, long, value_parser = at_least_one)]
    pub(crate) d: NonZeroUsize,
    /// Number of blobs
    #[arg(short, long, default_value = "8", value_parser = at_least_one)]
    pub(crate) clusters: NonZeroUsize,
    /// Seed
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Type of the values; f16 in .npy alone
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dtype: GenerateDType,
    /// Standard deviation of a blob; their centres are uniform in a cube of side 20
    #[arg(long, default_value = "1", value_parser = spread, allow_negative_numbers = true)]
    pub(crate) spread: f64,
    /// Write a (batch, n, d) array of this many problems
    #[arg(short, long, value_parser = at_least_one)]
    pub(crate) batch: Option<NonZeroUsize>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DevicesArgs {
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BenchArgs {
    /// Number of points, in each problem of a batch
    #[arg(short, long, default_value = "50000", value_parser = at_least_one)]
    pub(crate) n: NonZeroUsize,
    /// Dimensions
    #[arg(short, long, default_value = "64", value_parser = at_least_one)]
    pub(crate) d: NonZeroUsize,
    /// Number of clusters
    #[arg(short = 'k', long = "clusters", default_value = "100", value_name = "K", value_parser = at_least_one)]
    pub(crate) n_clusters: NonZeroUsize,
    /// Number of problems that are fitted in one call
    #[arg(short, long, default_value = "1", value_parser = at_least_one)]
    pub(crate) batch: NonZeroUsize,
    /// Type of the points
    #[arg(long, value_enum, default_value = "f32")]
    pub(crate) dtype: DTypeArg,
    /// Whether labels are exact, or may be what the tensor cores of a GPU find
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: PrecisionArg,
    /// First centroids of a whole call: random, k-means++ or k-means||. Iterations are timed from the first points as
    /// centroids
    #[arg(long, default_value = "k-means++", value_parser = drawn, value_name = "START")]
    pub(crate) init: InitArg,
    /// Iterations of a call; fewer where no label changes any more
    #[arg(long, default_value = "10", value_name = "T", value_parser = at_least_one)]
    pub(crate) iterations: NonZeroUsize,
    /// Time this many calls
    #[arg(long, default_value = "5", value_name = "R", value_parser = at_least_one)]
    pub(crate) repeats: NonZeroUsize,
    /// Seed of the points and of everything random
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// auto, cpu, cuda, cuda:N, cuda:N,M or cuda:all. f64 points run on the CPU
    #[arg(long, default_value = "auto", value_parser = backend, value_name = "BACKEND")]
    pub(crate) backend: Backend,
    /// GPUs to fit on: as --backend cuda:N,M
    #[arg(long, value_name = "all|N,M", value_parser = devices, conflicts_with = "backend")]
    pub(crate) devices: Option<Backend>,
    /// Print one JSON object instead of the summary; times are in seconds
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum MetricArg {
    #[default]
    Euclidean,
    Cosine,
    Dot,
    SphericalDot,
}

impl From<MetricArg> for Metric {
    fn from(metric: MetricArg) -> Metric {
        match metric {
            MetricArg::Euclidean => Metric::Euclidean,
            MetricArg::Cosine => Metric::Cosine,
            MetricArg::Dot => Metric::Dot,
            MetricArg::SphericalDot => Metric::SphericalDot,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum EmptyClustersArg {
    #[default]
    Keep,
    Relocate,
}

impl From<EmptyClustersArg> for EmptyClusters {
    fn from(empty_clusters: EmptyClustersArg) -> EmptyClusters {
        match empty_clusters {
            EmptyClustersArg::Keep => EmptyClusters::Keep,
            EmptyClustersArg::Relocate => EmptyClusters::Relocate,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum PrecisionArg {
    /// The nearest centroid in float64
    #[default]
    Exact,
    /// Near ties are left to products of 10 bits of fraction
    Tf32,
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Precision {
        match precision {
            PrecisionArg::Exact => Precision::Exact,
            PrecisionArg::Tf32 => Precision::Tf32,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum GenerateDType {
    #[default]
    F32,
    F16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NanArg {
    Error,
    SkipRow,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DTypeArg {
    F32,
    F16,
    Bf16,
    F64,
}

impl From<DTypeArg> for DType {
    fn from(dtype: DTypeArg) -> DType {
        match dtype {
            DTypeArg::F32 => DType::F32,
            DTypeArg::F16 => DType::F16,
            DTypeArg::Bf16 => DType::BF16,
            DTypeArg::F64 => DType::F64,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum InitArg {
    Random,
    KMeansPlusPlus,
    KMeansParallel,
    File(PathBuf),
}

impl std::fmt::Display for InitArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            InitArg::Random => f.write_str("random"),
            InitArg::KMeansPlusPlus => f.write_str("k-means++"),
            InitArg::KMeansParallel => f.write_str("k-means||"),
            InitArg::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl std::str::FromStr for InitArg {
    type Err = String;
    fn from_str(typed: &str) -> Result<Self, String> {
        match typed {
            "random" => Ok(InitArg::Random),
            "k-means++" | "kmeans++" => Ok(InitArg::KMeansPlusPlus),
            "k-means||" | "kmeans||" => Ok(InitArg::KMeansParallel),
            file if file.contains(['.', '/']) => Ok(InitArg::File(file.into())),
            _ => {
                Err("none of random, k-means++ and k-means||, nor the name of a file such as start.npy"
                    .into())
            }
        }
    }
}

/// First centroids that need no file.
fn drawn(typed: &str) -> Result<InitArg, String> {
    match typed.parse() {
        Ok(InitArg::File(_)) | Err(_) => Err("none of random, k-means++ and k-means||".into()),
        drawn => drawn,
    }
}

fn at_least_one(typed: &str) -> Result<NonZeroUsize, String> {
    let number: usize = typed.parse().map_err(|_| "not a whole number from 1 on".to_string())?;
    NonZeroUsize::new(number).ok_or_else(|| "there must be at least one".into())
}

fn bytes(typed: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1000),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
    ];
    let unit = UNITS.iter().find_map(|(unit, bytes)| typed.strip_suffix(unit).map(|number| (number, *bytes)));
    let (number, unit) = unit.unwrap_or((typed, 1));
    let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| "a whole number of bytes, or one with a unit such as 2GiB or 500MB".into())
}

fn tolerance(typed: &str) -> Result<f64, String> {
    match typed.parse::<f64>() {
        Ok(tol) if tol >= 0.0 && tol.is_finite() => Ok(tol),
        _ => Err("the tolerance must be a finite number, 0 or more".into()),
    }
}

fn spread(typed: &str) -> Result<f64, String> {
    match typed.parse::<f64>() {
        Ok(spread) if (0.0..=1000.0).contains(&spread) => Ok(spread),
        _ => Err("the spread must be a number from 0 to 1000".into()),
    }
}

fn backend(typed: &str) -> Result<Backend, String> {
    let ordinals = match typed {
        "auto" => return Ok(Backend::Auto),
        "cpu" => return Ok(Backend::Cpu),
        "cuda" => "0",
        _ => typed
            .strip_prefix("cuda:")
            .ok_or("backends are auto, cpu, cuda, cuda:N, cuda:N,M and cuda:all")?,
    };
    devices(ordinals)
}

/// `0`, `0,2` or `all`.
fn devices(typed: &str) -> Result<Backend, String> {
    let number = |word: &str| word.trim().parse().map_err(|_| format!("{word} is no number of a device"));
    let ordinals: Vec<u32> = match typed {
        "all" => {
            let found = flash_kmeans::devices().into_iter().filter_map(|device| match device.backend {
                Backend::Cuda { ordinal } => Some(ordinal),
                _ => None,
            });
            found.collect()
        }
        _ => typed.split(',').map(number).collect::<Result<_, _>>()?,
    };
    match ordinals.as_slice() {
        &[ordinal] => Ok(Backend::Cuda { ordinal }),
        [] => Err("there is no GPU here".into()),
        several => Backend::cuda_devices(several.iter().copied()).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn sizes_parse() {
        assert_eq!((bytes("17"), bytes("2GiB"), bytes("500 MB")), (Ok(17), Ok(2 << 30), Ok(500_000_000)));
        for bad in ["", "0", "GiB", "-1", "2.5GiB", "2gib", "99999999999TiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn backends_and_inits_parse() {
        assert_eq!(backend("cuda:3"), Ok(Backend::Cuda { ordinal: 3 }));
        assert_eq!(backend("cuda:0,2"), Ok(Backend::CudaSet { ordinals: 5 }));
        assert!(devices("0,64").is_err() && devices("").is_err() && devices("0,x").is_err());
        assert_eq!(backend("cuda"), Ok(Backend::Cuda { ordinal: 0 }));
        assert!(backend("cuda:x").is_err() && backend("gpu").is_err());
        assert!(matches!("start.npy".parse(), Ok(InitArg::File(_))));
        assert!("kmeans".parse::<InitArg>().is_err());
    }
}
