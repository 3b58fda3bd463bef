//! Where the values of a file lie. Every length is checked against the file's before it is believed.
use super::{StoredType, npy};
use std::path::Path;

/// Bytes of a file that its layout is found from: more than any `.npy` header that has a shape of points.
pub(super) const HEAD: usize = 1 << 17;

/// The formats, by the ending of the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Npy,
    /// `.fvecs` and `.bvecs`.
    Vecs(StoredType),
    /// `.fbin` and `.u8bin`.
    Bin(StoredType),
}

impl Format {
    /// The format of `path` by its name. The error is the reason alone.
    pub(super) fn of(path: &Path) -> Result<Self, String> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "npy" => Ok(Format::Npy),
            "fvecs" => Ok(Format::Vecs(StoredType::F32)),
            "bvecs" => Ok(Format::Vecs(StoredType::U8)),
            "fbin" => Ok(Format::Bin(StoredType::F32)),
            "u8bin" => Ok(Format::Bin(StoredType::U8)),
            "" => Err("has no extension; point files are .npy, .fvecs, .bvecs, .fbin or .u8bin".into()),
            other => Err(format!(
                "has the unknown extension .{other}; point files are .npy, .fvecs, .bvecs, .fbin or .u8bin"
            )),
        }
    }
}

/// Shape and strides of the values in a file. All positions that [`Layout::row_start`] and the strides give
/// lie within the file: the functions below made sure of that.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    pub(super) stored: StoredType,
    /// `(batch, n, d)`; the batch is 1 and not shown for a 2-D file.
    pub(super) shape: [usize; 3],
    pub(super) is_batch: bool,
    /// The first value's byte.
    pub(super) start: usize,
    pub(super) problem_stride: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
    /// Whether an int32 with `d` stands before each row.
    pub(super) prefixed: bool,
}

impl Layout {
    /// The layout of a file of `len` bytes, more than none, that begins with `head`: [`HEAD`] bytes, or all there are.
    /// The error is the reason alone.
    pub(super) fn of(format: Format, head: &[u8], len: usize) -> Result<Self, String> {
        match format {
            Format::Npy => npy_layout(npy::parse(head)?, len),
            Format::Vecs(stored) => vecs_layout(head, len, stored),
            Format::Bin(stored) => bin_layout(head, len, stored),
        }
    }

    /// The layout of a `.npy` file of one value for each point, `(n)` or `(batch, n)`: a column of points.
    pub(super) fn of_column(head: &[u8], len: usize) -> Result<Self, String> {
        let mut header = npy::parse(head)?;
        if !matches!(header.shape.len(), 1 | 2) {
            let dims = header.shape.len();
            return Err(format!("has {dims} dimensions; one value a point is (n), or (batch, n)"));
        }
        header.shape.push(1);
        npy_layout(header, len)
    }

    /// The byte where row `row` of `batch · n` begins.
    pub(super) fn row_start(&self, row: usize) -> usize {
        let n = self.shape[1];
        self.start + row / n * self.problem_stride + row % n * self.row_stride
    }

    /// The byte after the last value of a file whose values lie one after another.
    pub(super) fn end(&self) -> usize {
        self.start + self.shape.iter().product::<usize>() * self.stored.size_bytes()
    }

    /// Whether the values lie one after another in row-major order.
    pub(super) fn is_contiguous(&self) -> bool {
        // Then problems do as well: only Fortran's order spreads them, and with them the columns of a row.
        self.column_stride == self.stored.size_bytes()
            && self.row_stride == self.shape[2] * self.column_stride
    }
}

/// A layout without gaps from byte `start` to the end of a file of `len` bytes.
fn dense(stored: StoredType, shape: &[usize], start: usize, len: usize) -> Result<Layout, String> {
    let (is_batch, [batch, n, d]) = match *shape {
        [n, d] => (false, [1, n, d]),
        [batch, n, d] => (true, [batch, n, d]),
        _ => {
            let dims = shape.len();
            return Err(format!("has {dims} dimensions; points are (n, d), or (batch, n, d)"));
        }
    };
    if batch == 0 || n == 0 || d == 0 {
        return Err(format!("holds no points: its shape is {shape:?}"));
    }
    let size = stored.size_bytes();
    let needed = batch.checked_mul(n).and_then(|v| v.checked_mul(d)).and_then(|v| v.checked_mul(size));
    let held = len - start;
    match needed {
        Some(needed) if needed == held => {}
        Some(needed) if needed < held => {
            return Err(format!(
                "has {} trailing bytes: its header promises {stored} values of shape {shape:?}, {needed} bytes, \
                 and {held} bytes follow",
                held - needed
            ));
        }
        _ => {
            let needed = needed.map_or("more than can be counted".into(), |needed| needed.to_string());
            return Err(format!(
                "is truncated: its header promises {stored} values of shape {shape:?}, {needed} bytes, \
                 and {held} bytes follow"
            ));
        }
    }
    let (row_stride, problem_stride) = (d * size, n * d * size);
    Ok(Layout {
        stored,
        shape: [batch, n, d],
        is_batch,
        start,
        problem_stride,
        row_stride,
        column_stride: size,
        prefixed: false,
    })
}

fn npy_layout(header: npy::Header, len: usize) -> Result<Layout, String> {
    let mut layout = dense(header.stored, &header.shape, header.len_bytes, len)?;
    if header.fortran_order {
        let [batch, n, _] = layout.shape;
        layout.problem_stride = layout.stored.size_bytes();
        layout.row_stride = batch * layout.problem_stride;
        layout.column_stride = n * layout.row_stride;
    }
    Ok(layout)
}

fn bin_layout(head: &[u8], len: usize, stored: StoredType) -> Result<Layout, String> {
    let (Some(n), Some(d)) = (u32_at(head, 0), u32_at(head, 4)) else {
        return Err("is truncated: n and d, 8 bytes, are not there".into());
    };
    dense(stored, &[n as usize, d as usize], 8, len)
}

fn vecs_layout(head: &[u8], len: usize, stored: StoredType) -> Result<Layout, String> {
    let Some(d) = u32_at(head, 0) else {
        return Err("is truncated: the first row's dimension, 4 bytes, is not there".into());
    };
    let d = match i32::try_from(d) {
        Ok(d) if d > 0 => d as usize,
        _ => return Err(format!("says that its first row has {} columns", d as i32)),
    };
    // d is below 2^31, so this fits even 32 bits' usize by way of the check that the file is as long.
    let row = d.checked_mul(stored.size_bytes()).and_then(|row| row.checked_add(4));
    let row = row.filter(|row| *row <= len).ok_or_else(|| {
        format!("is truncated: its first row has {d} columns of {stored}, and {} bytes follow", len - 4)
    })?;
    let n = len / row;
    let left = len % row;
    if left != 0 {
        if let Some((at, found)) = odd_row(head, row, 0..head.len() / row, d) {
            return Err(odd_row_reason(at, found, d));
        }
        return Err(format!("is truncated: {left} bytes follow row {}, and a row has {row}", n - 1));
    }
    Ok(Layout {
        stored,
        shape: [1, n, d],
        is_batch: false,
        start: 4,
        problem_stride: len,
        row_stride: row,
        column_stride: stored.size_bytes(),
        prefixed: true,
    })
}

/// The first of `rows` whose own dimension is not `d`.
pub(super) fn odd_row(
    file: &[u8],
    row_bytes: usize,
    rows: std::ops::Range<usize>,
    d: usize,
) -> Option<(usize, i32)> {
    rows.map(|row| (row, u32_at(file, row * row_bytes).unwrap_or(0)))
        .find(|&(_, found)| found as usize != d)
        .map(|(row, found)| (row, found as i32))
}

pub(super) fn odd_row_reason(row: usize, found: i32, d: usize) -> String {
    format!("says that row {row} has {found} columns, and row 0 has {d}: all rows must agree")
}

fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*file.get(at..)?.first_chunk()?))
}
