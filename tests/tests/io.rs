//! Readers and writers: what is written is read back bit for bit, and no file, however damaged, does more
//! than return an error.
use flash_kmeans::io::{PointFile, PointWriter, StoredType, Value, check_writable, write_npy};
use flash_kmeans::{Element, Error};
use half::{bf16, f16};
use ndarray::{Array2, Array3, ArrayD, IxDyn};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// The reason that `open` gives.
fn reason(path: &Path) -> String {
    match PointFile::open(path) {
        Err(error @ Error::Format { .. }) => error.to_string(),
        other => panic!("{path:?}: {other:?}"),
    }
}

/// A `.npy` file of version 1 with any header text.
fn npy(dict: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((dict.len() as u16).to_le_bytes());
    bytes.extend(dict.as_bytes());
    bytes.extend(data);
    bytes
}

fn le(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Writes, reads and compares bits; `read` must be a view of the file.
fn round_trip<T: Element + Value>(array: &ArrayD<T>) {
    let folder = folder();
    let path = folder.path().join("points.npy");
    write_npy(&path, array.view()).unwrap();
    let file = PointFile::open(&path).unwrap();
    assert_eq!(file.shape(), array.shape());
    let read = file.read::<T>().unwrap();
    assert!(read.is_view());
    let bytes = |values: &[T]| values.iter().flat_map(|v| bytes_of(v).to_vec()).collect::<Vec<u8>>();
    assert_eq!(bytes(read.as_slice().unwrap()), bytes(array.as_slice().unwrap()));
    // Nothing temporary stays behind.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn bytes_of<T: Element>(value: &T) -> [u8; 8] {
    value.to_f64().to_bits().to_le_bytes()
}

fn shape() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        (1usize..20, 1usize..20).prop_map(|(n, d)| vec![n, d]),
        (1usize..5, 1usize..10, 1usize..10).prop_map(|(b, n, d)| vec![b, n, d]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn npy_round_trips(shape in shape(), seed in any::<u32>()) {
        // Every bit pattern that is not NaN, of which only the payload could differ.
        let mut state = seed;
        let mut next = || { state = state.wrapping_mul(1664525).wrapping_add(1013904223); state };
        let floats = ArrayD::from_shape_simple_fn(IxDyn(&shape), || {
            let value = f32::from_bits(next());
            if value.is_nan() { 0.0 } else { value }
        });
        round_trip(&floats);
        round_trip(&floats.mapv(f64::from));
        round_trip(&floats.mapv(f16::from_f32));
    }

    #[test]
    fn the_other_formats_round_trip(n in 1usize..30, d in 1usize..30, seed in any::<u8>()) {
        let folder = folder();
        let bytes: Vec<u8> = (0..n * d).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        let floats: Vec<f32> = bytes.iter().map(|b| f32::from(*b) / 7.0 - 11.0).collect();
        for name in ["points.fvecs", "points.fbin", "points.npy"] {
            let path = folder.path().join(name);
            let mut out = PointWriter::<f32>::create(&path, &[n, d]).unwrap();
            floats.chunks(3 * d).for_each(|rows| out.write_rows(rows).unwrap());
            prop_assert!(!path.exists(), "the final name is given at the end");
            out.finish().unwrap();
            let file = PointFile::open(&path).unwrap();
            prop_assert_eq!(file.shape(), &[n, d]);
            prop_assert_eq!(file.read::<f32>().unwrap().iter().copied().collect::<Vec<_>>(), floats.clone());
            // A range is the same rows.
            let mut rows = vec![0.0f32; (n - n / 2) * d];
            file.rows(n / 2..n, &mut rows).unwrap();
            prop_assert_eq!(&rows[..], &floats[n / 2 * d..]);
        }
        for name in ["points.bvecs", "points.u8bin", "bytes.npy"] {
            let path = folder.path().join(name);
            let mut out = PointWriter::<u8>::create(&path, &[n, d]).unwrap();
            out.write_rows(&bytes).unwrap();
            out.finish().unwrap();
            let file = PointFile::open(&path).unwrap();
            prop_assert_eq!(file.stored_type(), StoredType::U8);
            let exact: Vec<f64> = bytes.iter().map(|b| f64::from(*b)).collect();
            prop_assert_eq!(file.read::<f64>().unwrap().iter().copied().collect::<Vec<_>>(), exact.clone());
            let halves = file.read::<bf16>().unwrap();
            prop_assert_eq!(halves.iter().map(|v| v.to_f64()).collect::<Vec<_>>(), exact);
        }
    }

    /// Cut anywhere, changed anywhere: an error or points, never a panic, and never more points than bytes.
    #[test]
    fn damaged_files_never_panic(
        format in 0usize..5, cut in 0usize..400, at in 0usize..400, value in any::<u8>(), more in 0usize..9,
    ) {
        let folder = folder();
        let name = ["p.npy", "p.fvecs", "p.bvecs", "p.fbin", "p.u8bin"][format];
        let path = folder.path().join(name);
        if name.ends_with("vecs") && name.contains('b') || name.contains("u8") {
            let mut out = PointWriter::<u8>::create(&path, &[9, 7]).unwrap();
            out.write_rows(&[3; 63]).unwrap();
            out.finish().unwrap();
        } else {
            let mut out = PointWriter::<f32>::create(&path, &[9, 7]).unwrap();
            out.write_rows(&[3.5; 63]).unwrap();
            out.finish().unwrap();
        }
        let mut bytes = fs::read(&path).unwrap();
        let len = bytes.len();
        bytes[at % len] = value;
        bytes.truncate(len - cut % len);
        bytes.extend(std::iter::repeat_n(value, more));
        fs::write(&path, &bytes).unwrap();
        if let Ok(file) = PointFile::open(&path) {
            prop_assert!(file.n_rows() * file.n_features() <= bytes.len());
            if let Ok(points) = file.read::<f32>() {
                prop_assert_eq!(points.shape(), file.shape());
            }
            let _ = file.read::<f64>();
        }
    }

    /// Headers of lies: any bytes after a good beginning.
    #[test]
    fn hostile_headers_never_panic(
        format in 0usize..5, tail in proptest::collection::vec(any::<u8>(), 0..80),
        counts in any::<[u32; 2]>(), dims in proptest::collection::vec(any::<u64>(), 0..4), fortran in any::<bool>(),
    ) {
        let folder = folder();
        let name = ["p.npy", "p.fvecs", "p.bvecs", "p.fbin", "p.u8bin"][format];
        let mut bytes = if format == 0 {
            let dims: String = dims.iter().map(|d| format!("{d}, ")).collect();
            let fortran = if fortran { "True" } else { "False" };
            npy(&format!("{{'descr': '<f8', 'fortran_order': {fortran}, 'shape': ({dims})}}"), &[])
        } else {
            counts.iter().flat_map(|c| c.to_le_bytes()).collect()
        };
        bytes.extend(tail);
        let path = put(folder.path(), name, &bytes);
        if let Ok(file) = PointFile::open(&path) {
            let _ = file.read::<f32>();
        }
    }

    #[test]
    fn any_header_text_never_panics(text in ".{0,80}", dict in "[{}()'a-z_:, <|f0-9L\\[\\]TrueFalse]{0,60}") {
        let folder = folder();
        for header in [text, dict] {
            let path = put(folder.path(), "p.npy", &npy(&header, &[0; 8]));
            let _ = PointFile::open(&path).map(|file| file.read::<f32>().map(|_| ()));
        }
    }
}

#[test]
fn fortran_order_is_converted() {
    let folder = folder();
    // Column by column: the value of (i, j) is 10 i + j.
    let data = le(&[0.0, 10.0, 20.0, 1.0, 11.0, 21.0]);
    let path = put(
        folder.path(),
        "p.npy",
        &npy("{'descr': '<f4', 'fortran_order': True, 'shape': (3, 2), }", &data),
    );
    let file = PointFile::open(&path).unwrap();
    let expected = Array2::from_shape_fn((3, 2), |(i, j)| (10 * i + j) as f32).into_dyn();
    assert_eq!(file.read::<f32>().unwrap(), expected);

    let cube = Array3::from_shape_fn((2, 3, 4), |(b, i, j)| (100 * b + 10 * i + j) as f32);
    let data: Vec<f32> = cube.t().iter().copied().collect();
    let path = put(
        folder.path(),
        "c.npy",
        &npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3, 4), }", &le(&data)),
    );
    let file = PointFile::open(&path).unwrap();
    assert_eq!(file.read::<f32>().unwrap(), cube.clone().into_dyn());
    let mut rows = [0.0f64; 8];
    file.rows(2..4, &mut rows).unwrap();
    assert_eq!(rows, [20.0, 21.0, 22.0, 23.0, 100.0, 101.0, 102.0, 103.0]);

    // Shapes whose order makes no difference, and those whose rows overlap: one row, one column, problems of one value.
    for shape in [[1, 1, 3], [1, 3, 1], [3, 1, 1], [3, 1, 2], [3, 2, 1], [1, 1, 1]] {
        let values = Array3::from_shape_fn(shape, |(b, i, j)| (100 * b + 10 * i + j) as f32);
        let data: Vec<f32> = values.t().iter().copied().collect();
        let [b, n, d] = shape;
        let dims = if b == 1 { format!("({n}, {d})") } else { format!("({b}, {n}, {d})") };
        let dict = format!("{{'descr': '<f4', 'fortran_order': True, 'shape': {dims}, }}");
        let file = PointFile::open(put(folder.path(), "s.npy", &npy(&dict, &le(&data)))).unwrap();
        let values: Vec<f32> = values.iter().copied().collect();
        assert_eq!(file.read::<f32>().unwrap().iter().copied().collect::<Vec<_>>(), values, "{dims}");
        let mut rows = vec![0.0f32; values.len()];
        file.rows(0..b * n, &mut rows).unwrap();
        assert_eq!(rows, values, "{dims}");
        let mut rows = vec![0.0f64; values.len()];
        file.rows(0..b * n, &mut rows).unwrap();
        assert_eq!(rows, values.iter().copied().map(f64::from).collect::<Vec<_>>(), "{dims}");
    }
}

#[test]
fn a_column_has_one_value_a_point() {
    let folder = folder();
    let open =
        |dict: &str, data: &[u8]| PointFile::open_column(put(folder.path(), "w.npy", &npy(dict, data)));
    let header = |order: &str, shape: &str| {
        format!("{{'descr': '<f4', 'fortran_order': {order}, 'shape': {shape}, }}")
    };
    let data = le(&[0.5, 1.0, 2.0, 4.0, 8.0, 16.0]);
    let read = |file: PointFile| file.read::<f64>().unwrap().into_owned();
    let one = open(&header("False", "(6,)"), &data).unwrap();
    assert_eq!((one.shape(), one.n_points(), one.n_features()), (&[6, 1][..], 6, 1));
    assert_eq!(read(one).into_raw_vec_and_offset().0, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]);
    let batch = open(&header("False", "(2, 3)"), &data).unwrap();
    assert_eq!((batch.shape(), batch.batch()), (&[2, 3, 1][..], Some(2)));
    assert_eq!(read(batch)[[1, 0, 0]], 4.0);
    assert_eq!(read(open(&header("True", "(2, 3)"), &data).unwrap())[[1, 0, 0]], 1.0);
    for (shape, len) in [("()", 1), ("(1, 2, 3)", 6), ("(0,)", 0), ("(5,)", 6), ("(7,)", 6), ("(2, 0)", 0)] {
        let refused = open(&header("False", shape), &data[..4 * len]);
        assert!(matches!(refused, Err(Error::Format { .. })), "{shape}: {refused:?}");
    }
    assert!(PointFile::open_column(put(folder.path(), "w.fvecs", &data)).is_err());
}

#[test]
fn each_kind_of_damage_has_its_message() {
    let folder = folder();
    let put = |name, bytes: &[u8]| put(folder.path(), name, bytes);
    let good = |shape: &str| format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let cases: Vec<(PathBuf, &str)> = vec![
        (put("empty.npy", b""), "is empty"),
        (put("empty.fvecs", b""), "is empty"),
        (put("magic.npy", b"not an array at all"), "does not begin with"),
        (put("points.csv", b"1,2,3"), "unknown extension .csv"),
        (put("points", b"1,2,3"), "no extension"),
        (put("short.npy", &npy(&good("(2, 2)"), &[0; 15])), "is truncated"),
        (put("long.npy", &npy(&good("(2, 2)"), &[0; 17])), "1 trailing bytes"),
        (put("one.npy", &npy(&good("(4,)"), &[0; 16])), "1 dimensions"),
        (put("four.npy", &npy(&good("(1, 1, 1, 1)"), &[0; 4])), "4 dimensions"),
        (put("none.npy", &npy(&good("(0, 4)"), &[])), "holds no points"),
        (put("flat.npy", &npy(&good("(4, 0)"), &[])), "holds no points"),
        (put("unbatched.npy", &npy(&good("(0, 2, 2)"), &[])), "holds no points"),
        (put("deep.npy", &npy(&good(&format!("({})", "1, ".repeat(64))), &[0; 4])), "has 64 dimensions"),
        (
            put("deeper.npy", &npy(&good(&format!("({})", "1, ".repeat(65))), &[0; 4])),
            "more than 64 dimensions",
        ),
        (put("tail.npy", &npy(&(good("(1, 1)") + " 1"), &[0; 4])), "malformed"),
        (
            put("quotes.npy", &npy("{xdescrx: '<f4', 'fortran_order': False, 'shape': (1, 1)}", &[0; 4])),
            "malformed",
        ),
        (
            put("huge.npy", &npy(&good("(18446744073709551615, 18446744073709551615)"), &[0; 4])),
            "is truncated",
        ),
        (put("head.fbin", &[1, 0, 0, 0]), "is truncated"),
        (put("short.fbin", &[2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), "is truncated"),
        (put("long.u8bin", &[1, 0, 0, 0, 1, 0, 0, 0, 7, 7]), "1 trailing bytes"),
        (put("huge.fbin", &[255; 20]), "is truncated"),
        (put("negative.fvecs", &[255; 20]), "-1 columns"),
        (put("none.fvecs", &[0; 20]), "has 0 columns"),
        (put("cut.fvecs", &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "its first row has 2 columns"),
        // Its last row, which is cut, lies beyond what is read first.
        (put("long.bvecs", &[1, 0, 0, 0, 9].repeat(40_000)[..199_998]), "3 bytes follow row 39998"),
        (put("short.fvecs", &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]), "is truncated"),
        (put("uneven.bvecs", &[1, 0, 0, 0, 9, 2, 0, 0, 0, 9, 9]), "row 1 has 2 columns"),
    ];
    for (path, expected) in cases {
        let reason = reason(&path);
        assert!(reason.contains(expected), "{reason}");
        assert!(reason.contains(&path.display().to_string()), "{reason}");
    }
    assert!(matches!(PointFile::open(folder.path().join("absent.npy")), Err(Error::Io { .. })));
    fs::create_dir(folder.path().join("folder.npy")).unwrap();
    assert!(PointFile::open(folder.path().join("folder.npy")).is_err());
}

#[test]
fn rows_that_disagree_are_found_when_read() {
    let folder = folder();
    // As long as three rows of one column, so that only the second row's own count tells.
    let path = put(folder.path(), "p.bvecs", &[1, 0, 0, 0, 9, 7, 0, 0, 0, 9, 1, 0, 0, 0, 9]);
    let file = PointFile::open(&path).unwrap();
    let error = file.read::<f32>().unwrap_err().to_string();
    assert!(error.contains("row 1 has 7 columns"), "{error}");
    assert!(file.rows(0..1, &mut [0.0f32]).is_ok());
    assert!(file.rows(0..2, &mut [0.0f32; 2]).is_err());
}

#[test]
fn ranges_and_buffers_are_checked() {
    let folder = folder();
    let path = folder.path().join("p.npy");
    write_npy(&path, Array2::<f32>::zeros((4, 3)).view()).unwrap();
    let file = PointFile::open(&path).unwrap();
    assert!(file.rows(0..4, &mut [0.0f32; 12]).is_ok());
    assert!(file.rows(4..4, &mut [] as &mut [f32]).is_ok());
    assert!(matches!(file.rows(3..5, &mut [0.0f32; 6]), Err(Error::Shape { .. })));
    assert!(matches!(file.rows(0..2, &mut [0.0f32; 5]), Err(Error::Shape { .. })));
    #[expect(clippy::reversed_empty_ranges)]
    let reversed = file.rows(3..1, &mut [0.0f32; 6]);
    assert!(matches!(reversed, Err(Error::Shape { .. })));
    #[expect(clippy::reversed_empty_ranges)]
    let reversed = file.rows(3..1, &mut [] as &mut [f32]);
    assert!(matches!(reversed, Err(Error::Shape { .. })));
    assert!(matches!(file.rows(0..2, &mut [0.0f32; 7]), Err(Error::Shape { .. })));
    assert!(matches!(file.rows(4..5, &mut [0.0f32; 3]), Err(Error::Shape { .. })));
    // Where values are converted as well.
    assert!(file.rows(4..4, &mut [] as &mut [f64]).is_ok());
    assert!(matches!(file.rows(0..2, &mut [0.0f64; 7]), Err(Error::Shape { .. })));
}

/// Rows of more values than are converted at a time, and more rows than are read at a time.
#[test]
fn long_rows_and_many_rows_are_converted() {
    let folder = folder();
    for (n, d) in [(2, (1 << 18) + 1), (3, (1 << 20) + 1), (70_001, 31)] {
        let bytes: Vec<u8> = (0..n * d).map(|i| (i % 251) as u8).collect();
        for name in ["p.u8bin", "p.bvecs"] {
            let path = folder.path().join(name);
            let mut out = PointWriter::<u8>::create(&path, &[n, d]).unwrap();
            out.write_rows(&bytes).unwrap();
            out.finish().unwrap();
            let file = PointFile::open(&path).unwrap();
            let read = file.read::<f32>().unwrap();
            assert!(read.iter().zip(&bytes).all(|(v, b)| *v == f32::from(*b)), "{name} {n} {d}");
            let mut part = vec![0.0f32; (n - 1) * d];
            file.rows(1..n, &mut part).unwrap();
            assert!(part.iter().zip(&bytes[d..]).all(|(v, b)| *v == f32::from(*b)), "{name} {n} {d}");
        }
    }
    // The count of a row that is not in the first part that is read.
    let path = folder.path().join("p.bvecs");
    let mut bytes = fs::read(&path).unwrap();
    bytes[60_000 * 35] = 7;
    fs::write(&path, bytes).unwrap();
    let file = PointFile::open(&path).unwrap();
    let error = file.rows(1..70_001, &mut vec![0.0f32; 70_000 * 31]).unwrap_err().to_string();
    assert!(error.contains("row 60000 has 7 columns"), "{error}");
}

/// A file that was as long as its header says when it was opened.
#[test]
fn a_file_that_shrinks_is_refused() {
    let folder = folder();
    for order in ["False", "True"] {
        let dict = format!("{{'descr': '<f4', 'fortran_order': {order}, 'shape': (4, 3), }}");
        let path = put(folder.path(), "p.npy", &npy(&dict, &[0; 48]));
        let file = PointFile::open(&path).unwrap();
        let len = fs::metadata(&path).unwrap().len();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 1).unwrap();
        // However often it is asked.
        for _ in 0..2 {
            let error = file.read::<f32>().unwrap_err().to_string();
            assert!(error.contains("was truncated while it was open"), "{error}");
            assert!(file.rows(0..4, &mut [0.0f32; 12]).is_err());
            assert!(file.rows(0..4, &mut [0.0f64; 12]).is_err());
        }
    }
}

#[test]
fn extensions_may_be_capitals() {
    let folder = folder();
    let path = folder.path().join("P.U8BIN");
    let mut out = PointWriter::<u8>::create(&path, &[1, 2]).unwrap();
    out.write_rows(&[3, 4]).unwrap();
    out.finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), [1, 0, 0, 0, 2, 0, 0, 0, 3, 4]);
    assert_eq!(PointFile::open(&path).unwrap().shape(), [1, 2]);
}

/// A header as NumPy writes it, so that every reader takes it.
#[test]
fn the_header_is_that_of_numpy() {
    let folder = folder();
    let path = folder.path().join("p.npy");
    let header = |values: ndarray::ArrayViewD<'_, f32>| {
        write_npy(&path, values).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes[..10], *b"\x93NUMPY\x01\x00\x76\x00");
        String::from_utf8(bytes[10..128].to_vec()).unwrap()
    };
    for (shape, text) in [(&[7][..], "(7,)"), (&[7, 1], "(7, 1)"), (&[2, 3, 4], "(2, 3, 4)")] {
        let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {text}, }}");
        assert_eq!(header(ArrayD::zeros(shape).view()), format!("{text:117}\n"));
    }
}

#[test]
fn a_writer_that_is_not_finished_leaves_nothing() {
    let folder = folder();
    let path = folder.path().join("p.npy");
    let mut out = PointWriter::<f32>::create(&path, &[2, 2]).unwrap();
    out.write_rows(&[1.0, 2.0]).unwrap();
    assert!(matches!(out.write_rows(&[1.0]), Err(Error::Shape { .. })));
    assert!(matches!(out.write_rows(&[1.0; 4]), Err(Error::Shape { .. })));
    assert!(matches!(out.finish(), Err(Error::Shape { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

    assert!(PointWriter::<f16>::create(folder.path().join("p.fbin"), &[2, 2]).is_err());
    assert!(PointWriter::<f32>::create(folder.path().join("p.fvecs"), &[2, 2, 2]).is_err());
    assert!(PointWriter::<f32>::create(folder.path().join("p.npy"), &[usize::MAX, 2]).is_err());
    for shape in [&[usize::MAX / 2, 1][..], &[1 << 40, 1 << 40], &[1 << 40, 1 << 40, 1]] {
        assert!(PointWriter::<f32>::create(folder.path().join("p.npy"), shape).is_err(), "{shape:?}");
    }
    // Counts are signed in the one format, and unsigned in the other.
    for (name, shape) in [("p.bvecs", [1, 1 << 31]), ("p.u8bin", [1 << 32, 1]), ("p.bvecs", [1 << 32, 1])] {
        assert!(PointWriter::<u8>::create(folder.path().join(name), &shape).is_err(), "{name} {shape:?}");
    }
    assert!(PointWriter::<u8>::create(folder.path().join("p.u8bin"), &[u32::MAX as usize, 1]).is_ok());
    assert!(PointWriter::<f32>::create(folder.path().join("no/such/p.npy"), &[2, 2]).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_devices_are_left_alone() {
    let folder = folder();
    let (target, link) = (folder.path().join("target.npy"), folder.path().join("link.npy"));
    write_npy(&target, Array2::<f32>::zeros((1, 1)).view()).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    write_npy(&link, Array2::<f32>::zeros((2, 2)).view()).unwrap();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(PointFile::open(&target).unwrap().shape(), [2, 2]);

    // Not a device of the machine's, which a mistake would replace.
    let socket = folder.path().join("socket.npy");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(matches!(write_npy(&socket, Array2::<f32>::zeros((1, 1)).view()), Err(Error::Io { .. })));
    assert!(!socket.metadata().unwrap().is_file());

    // A link that leads nowhere stays one.
    let circle = folder.path().join("circle.npy");
    std::os::unix::fs::symlink(&circle, &circle).unwrap();
    assert!(matches!(write_npy(&circle, Array2::<f32>::zeros((1, 1)).view()), Err(Error::Io { .. })));
    assert!(circle.symlink_metadata().unwrap().is_symlink());
}

/// What is being written lies beside what it will be, so that it is renamed and not copied; and whoever may read a new file
/// may read this one.
#[cfg(unix)]
#[test]
fn a_file_is_written_where_it_will_be() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let path = folder.path().join("p.fbin");
    let out = PointWriter::<f32>::create(&path, &[1, 1]).unwrap();
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(matches!(&names[..], [name] if name.to_string_lossy().ends_with(".tmp")), "{names:?}");
    drop(out);
    write_npy(&path, Array2::<f32>::zeros((1, 1)).view()).unwrap();
    fs::write(folder.path().join("new"), b"").unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
    assert_eq!(mode("p.fbin"), mode("new"));
    for path in ["", "absent/.."] {
        let error = check_writable(path).unwrap_err();
        assert!(error.to_string().contains("names no file"), "{error}");
    }
}
