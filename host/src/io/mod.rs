/*!
Readers and writers of point files.

| name     | content                                                              |
|----------|----------------------------------------------------------------------|
| `.npy`   | NumPy, versions 1 to 3; `u1`, `<f2`, `<f4` or `<f8`; 2-D or 3-D      |
| `.fvecs` | each row: `d` as an int32, then `d` float32                          |
| `.bvecs` | each row: `d` as an int32, then `d` bytes                            |
| `.fbin`  | `n` and `d` as uint32, then `n · d` float32                          |
| `.u8bin` | `n` and `d` as uint32, then `n · d` bytes                            |

[`PointFile`] maps a file into memory and checks its header against its length before it looks at, or
allocates for, a single point. [`write_npy`] and [`PointWriter`] write under a temporary name in the same
folder and rename at the end, so a file of the final name is always whole.

```
use flash_kmeans::io::{PointFile, write_npy};
use ndarray::array;

# let folder = std::env::temp_dir().join(format!("flash-kmeans-doc-{}", std::process::id()));
# std::fs::create_dir_all(&folder).unwrap();
let path = folder.join("points.npy");
write_npy(&path, array![[0.5f32, 1.0], [2.0, 4.0]].view())?;

let file = PointFile::open(&path)?;
assert_eq!(file.shape(), [2, 2]);
let points = file.read::<f32>()?;
assert!(points.is_view(), "the file's own memory");
# std::fs::remove_dir_all(&folder).unwrap();
# Ok::<(), flash_kmeans::Error>(())
```
*/

mod convert;
mod format;
mod npy;
mod read;
mod write;

pub use convert::{StoredType, Value};
pub use read::PointFile;
pub use write::{PointWriter, check_writable, write_atomically, write_npy};

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Opens a regular file; its length in bytes. Anything else is refused unopened: a pipe would wait for a writer,
/// and a device may never end.
fn open_regular(path: &Path) -> Result<(File, u64)> {
    let fail = |e| io_error(path, e);
    if !std::fs::metadata(path).map_err(fail)?.is_file() {
        return Err(malformed(path, "is not a regular file"));
    }
    let file = File::open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if !metadata.is_file() {
        return Err(malformed(path, "is not a regular file"));
    }
    Ok((file, metadata.len()))
}

/// The bytes of a regular file.
#[cfg_attr(not(feature = "safetensors"), expect(dead_code))]
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let (file, len) = open_regular(path)?;
    read_exactly(file, len).map_err(|e| io_error(path, e))
}

/// `len` bytes, in an allocation of that size.
fn read_exactly(mut from: impl Read, len: u64) -> std::io::Result<Vec<u8>> {
    let no_memory = || std::io::Error::from(ErrorKind::OutOfMemory);
    let len = usize::try_from(len).map_err(|_| no_memory())?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| no_memory())?;
    bytes.resize(len, 0);
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Text of a file as a message may show it: without control characters, and not all of it when it is long.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 40;
    let mut shown: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

fn malformed(path: &Path, reason: impl Into<String>) -> Error {
    Error::Format { path: path.into(), reason: reason.into() }
}

fn io_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte a call, is interrupted before each, and fails at byte `fail_at`.
    struct Unsteady {
        given: usize,
        interrupted: bool,
        fail_at: usize,
        len: usize,
    }

    impl Read for Unsteady {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            self.interrupted = !self.interrupted;
            if self.interrupted {
                return Err(ErrorKind::Interrupted.into());
            }
            if self.given == self.fail_at {
                return Err(ErrorKind::PermissionDenied.into());
            }
            if self.given == self.len {
                return Ok(0);
            }
            into[0] = self.given as u8;
            self.given += 1;
            Ok(1)
        }
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(shown(&"n".repeat(40)), "n".repeat(40));
        assert_eq!(shown(&"n".repeat(41)), "n".repeat(40) + "…");
    }

    #[test]
    fn short_reads_and_interruptions_are_no_errors_and_an_early_end_is() {
        let source = |fail_at, len| Unsteady { given: 0, interrupted: false, fail_at, len };
        let all: Vec<u8> = (0..100).collect();
        assert_eq!(read_exactly(source(usize::MAX, 100), 100).unwrap(), all);
        let kind = |fail_at, len, want| read_exactly(source(fail_at, len), want).unwrap_err().kind();
        assert_eq!(kind(usize::MAX, 99, 100), ErrorKind::UnexpectedEof);
        assert_eq!(kind(50, 100, 100), ErrorKind::PermissionDenied);
        assert_eq!(kind(50, 100, u64::MAX), ErrorKind::OutOfMemory);
    }
}
