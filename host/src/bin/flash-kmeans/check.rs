//! Checks of named files, all made before any work.
use crate::failure::{Failure, bad_file};
use flash_kmeans::io::{PointFile, check_writable};
use flash_kmeans::{DType, Error};
use std::path::{Path, PathBuf};

/// Opens a point file.
pub(crate) fn input(path: &Path) -> Result<PointFile, Failure> {
    PointFile::open(path).map_err(bad_file)
}

/// The files that a command is to write: none is an input or another output, each has an ending that says
/// what is asked of it, where endings are asked for, and each could be written.
pub(crate) struct Outputs {
    taken: Vec<PathBuf>,
}

impl Outputs {
    pub(crate) fn beside<'a>(inputs: impl IntoIterator<Item = &'a Path>) -> Self {
        Outputs { taken: inputs.into_iter().map(resolved).collect() }
    }

    pub(crate) fn check(&mut self, option: &str, path: &Path, endings: &[&str]) -> Result<(), Failure> {
        let ending = ending(path);
        if !endings.is_empty() && !endings.contains(&ending.as_str()) {
            let needed = endings.iter().map(|e| format!(".{e}")).collect::<Vec<_>>().join(" or ");
            return Err(Failure::bad_input(format!(
                "{}: unknown extension: {option} writes {needed} files",
                path.display()
            )));
        }
        let place = resolved(path);
        if self.taken.contains(&place) {
            return Err(Failure::bad_input(format!(
                "{}: {option} names a file that this command reads or writes already",
                path.display()
            )));
        }
        self.taken.push(place);
        check_writable(path)
            .map_err(|e| bad_file(e).hint(format!("{option} must name a file that can be written")))
    }
}

/// The letters after the last dot, in lower case.
pub(crate) fn ending(path: &Path) -> String {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase()
}

/// The same path for the same file, there or not.
fn resolved(path: &Path) -> PathBuf {
    if let Ok(whole) = path.canonicalize() {
        return whole;
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_path_buf(),
    }
}

/// The error of a fit or prediction on `file`, with the file's name where the library could not know it, and
/// the reason when a value is finite in the file and not in memory.
pub(crate) fn of_points(error: Error, file: &PointFile, dtype: DType) -> Failure {
    let Error::NonFinite { what: "points", row, column, .. } = error else {
        return error.into();
    };
    let name = file.path().display().to_string();
    let mut stored = vec![0.0f64; file.n_features()];
    let overflown = file.rows(row..row + 1, &mut stored).is_ok() && stored[column].is_finite();
    let failure = Failure::from(error).of(&name);
    if overflown && dtype != DType::F64 {
        failure.hint(format!(
            "the file has {:e} there, too large for {dtype}: use --dtype f32 or f64",
            stored[column]
        ))
    } else {
        failure
    }
}

/// Bytes of memory that this process can have, as far as the system tells.
pub(crate) fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let machine = line.split_whitespace().next()?.parse::<u64>().ok()? * 1024;
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse::<u64>().ok());
    Some(group.map_or(machine, |group| group.min(machine)))
}

/// Evaluates `$body` with `$t` as the type that `$dtype` names.
macro_rules! with_dtype {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            flash_kmeans::DType::F16 => {
                type $t = half::f16;
                $body
            }
            flash_kmeans::DType::BF16 => {
                type $t = half::bf16;
                $body
            }
            flash_kmeans::DType::F64 => {
                type $t = f64;
                $body
            }
            _ => {
                type $t = f32;
                $body
            }
        }
    };
}
pub(crate) use with_dtype;
