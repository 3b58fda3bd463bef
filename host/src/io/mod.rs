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

use crate::error::Error;
use std::path::Path;

fn malformed(path: &Path, reason: impl Into<String>) -> Error {
    Error::Format { path: path.into(), reason: reason.into() }
}

fn io_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.into(), source }
}
