//! The points, the same bytes for all, and float64's answers on a sample of them.
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;

use super::case::{Case, DType};
use super::gate::Difference;
use crate::Result;
use crate::workspace::create_folder;

/// Of the points.
pub(crate) const SEED: u64 = 1;
/// Rows of a sample, at most.
const SAMPLE: usize = 2048;
/// Products of a sample with all centroids, about at most.
const SAMPLE_PRODUCTS: usize = 1 << 30;
/// Products of a whole fit in float64, at most.
const FIT_PRODUCTS: usize = 60_000_000_000;

/// A standard normal value, nearly: a counter through a 64-bit mixer, four 16-bit uniforms added up (Irwin–Hall).
fn normal(at: u64) -> f32 {
    let mut z = at.wrapping_add(SEED.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    let sum = (z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48);
    (sum as f32 / 65_536.0 - 2.0) * 1.732_050_8
}

/// Files of values, one for each type: the points of a case are its first `B·N·D`, and the centroids that all start
/// from are the first `K` points of each problem. Deleted when dropped.
pub(crate) struct Data {
    folder: PathBuf,
    files: Vec<(DType, PathBuf, Mmap)>,
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Data {
    /// Writes what `cases` need under `scratch`.
    pub(crate) fn write(scratch: &Path, cases: &[Case]) -> Result<Self> {
        let folder = scratch.join(format!("flash-kmeans-bench-{}", std::process::id()));
        create_folder(&folder)?;
        let mut data = Data { folder, files: Vec::new() };
        for dtype in [DType::F16, DType::BF16, DType::F32] {
            let of_type = cases.iter().filter(|case| case.dtype == dtype);
            let Some(count) = of_type.map(Case::values).max() else { continue };
            let path = data.folder.join(format!("{}.bin", dtype.name()));
            let failed = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
            write_values(&path, count, dtype).map_err(failed)?;
            let file = File::open(&path).map_err(failed)?;
            // SAFETY: the file is this process's own, and nothing writes to it any more.
            let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
            data.files.push((dtype, path, map));
        }
        Ok(data)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn file(&self, dtype: DType) -> &(DType, PathBuf, Mmap) {
        self.files.iter().find(|file| file.0 == dtype).expect("written for a case of this type")
    }

    /// The file with the points of a type.
    pub(crate) fn points(&self, dtype: DType) -> &Path {
        &self.file(dtype).1
    }

    /// `rows` of the points of `case`, counted over all its problems, in float64.
    fn rows(&self, case: &Case, rows: impl Iterator<Item = usize>) -> Vec<f64> {
        let map = &self.file(case.dtype).2;
        let mut values = Vec::new();
        for row in rows {
            let range = row * case.d..(row + 1) * case.d;
            match case.dtype {
                DType::F16 => {
                    values.extend(bytemuck::cast_slice::<u8, f16>(map)[range].iter().map(|v| v.to_f64()))
                }
                DType::BF16 => {
                    values.extend(bytemuck::cast_slice::<u8, bf16>(map)[range].iter().map(|v| v.to_f64()))
                }
                DType::F32 => {
                    values.extend(bytemuck::cast_slice::<u8, f32>(map)[range].iter().map(|&v| f64::from(v)))
                }
            }
        }
        values
    }

    /// Float64's answers for `case`.
    pub(crate) fn reference(&self, case: &Case) -> Reference {
        let count = (SAMPLE_PRODUCTS / (case.k * case.d)).clamp(32, SAMPLE).min(case.rows());
        let sample: Vec<usize> = (0..count).map(|i| i * case.rows() / count).collect();
        let points = self.rows(case, sample.iter().copied());
        let starts = (0..case.batch).flat_map(|batch| batch * case.n..batch * case.n + case.k);
        let centroids = self.rows(case, starts);
        let nearest = nearest(case, &sample, &points, &centroids);
        Reference { sample, points, centroids, nearest }
    }

    /// The centroids after `iterations` in float64 throughout, a cluster without points keeping its centroid; `None`
    /// where that would take too long.
    pub(crate) fn fit(&self, case: &Case, start: &[f64], iterations: usize) -> Option<Vec<f64>> {
        if case.values().saturating_mul(case.k).saturating_mul(iterations) > FIT_PRODUCTS {
            return None;
        }
        let rows: Vec<usize> = (0..case.rows()).collect();
        let points = self.rows(case, rows.iter().copied());
        let mut centroids = start.to_vec();
        for _ in 0..iterations {
            let labels = nearest(case, &rows, &points, &centroids);
            let mut sums = vec![0.0; centroids.len()];
            let mut counts = vec![0.0; case.batch * case.k];
            for (row, (label, _)) in labels.iter().enumerate() {
                let cluster = row / case.n * case.k + label;
                counts[cluster] += 1.0;
                let point = &points[row * case.d..][..case.d];
                for (sum, value) in sums[cluster * case.d..][..case.d].iter_mut().zip(point) {
                    *sum += value;
                }
            }
            for (cluster, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0.0) {
                let range = cluster * case.d..(cluster + 1) * case.d;
                for (centroid, sum) in centroids[range.clone()].iter_mut().zip(&sums[range]) {
                    *centroid = sum / count;
                }
            }
        }
        Some(centroids)
    }
}

fn write_values(path: &Path, count: usize, dtype: DType) -> std::io::Result<()> {
    const BLOCK: usize = 1 << 24;
    let mut file = File::create(path)?;
    for from in (0..count).step_by(BLOCK) {
        let block = from..(from + BLOCK).min(count);
        let values = block.into_par_iter().with_min_len(1 << 12).map(|at| normal(at as u64));
        match dtype {
            DType::F16 => {
                let values: Vec<f16> = values.map(f16::from_f32).collect();
                file.write_all(bytemuck::cast_slice(&values))?;
            }
            DType::BF16 => {
                let values: Vec<bf16> = values.map(bf16::from_f32).collect();
                file.write_all(bytemuck::cast_slice(&values))?;
            }
            DType::F32 => file.write_all(bytemuck::cast_slice(&values.collect::<Vec<f32>>()))?,
        }
    }
    Ok(())
}

/// Float64's answers for the centroids that all start from.
pub(crate) struct Reference {
    /// Rows, counted over all problems.
    pub(crate) sample: Vec<usize>,
    points: Vec<f64>,
    pub(crate) centroids: Vec<f64>,
    nearest: Vec<(usize, f64)>,
}

impl Reference {
    /// How far `labels` of the sample are from float64's. A label that is no cluster makes the inertia NaN.
    pub(crate) fn compare_labels(&self, case: &Case, labels: &[u32]) -> Difference {
        if labels.len() != self.sample.len() {
            return Difference { inertia: f64::NAN, labels: Some(0.0) };
        }
        let (mut right, mut theirs) = (0, 0.0);
        for (i, &label) in labels.iter().enumerate() {
            let label = label as usize;
            right += usize::from(label == self.nearest[i].0);
            theirs += if label < case.k {
                let cluster = self.sample[i] / case.n * case.k + label;
                distance(&self.points[i * case.d..][..case.d], &self.centroids[cluster * case.d..][..case.d])
            } else {
                f64::NAN
            };
        }
        let best: f64 = self.nearest.iter().map(|nearest| nearest.1).sum();
        let share = right as f64 / labels.len() as f64;
        Difference { inertia: relative(theirs, best), labels: Some(share) }
    }

    /// The sample's inertia under other centroids; NaN when they are not as many as there should be.
    pub(crate) fn inertia(&self, case: &Case, centroids: &[f64]) -> f64 {
        if centroids.len() != self.centroids.len() {
            return f64::NAN;
        }
        let nearest = nearest(case, &self.sample, &self.points, centroids);
        nearest.iter().map(|nearest| nearest.1).sum()
    }
}

/// `value` over `reference`, less one.
pub(crate) fn relative(value: f64, reference: f64) -> f64 {
    if reference == 0.0 && value == 0.0 { 0.0 } else { value / reference - 1.0 }
}

/// The nearest centroid of each point and its squared distance, the lowest index among equals. `rows` tells which
/// problem a point belongs to.
fn nearest(case: &Case, rows: &[usize], points: &[f64], centroids: &[f64]) -> Vec<(usize, f64)> {
    let of_row = |(i, row): (usize, &usize)| {
        let point = &points[i * case.d..][..case.d];
        let problem = &centroids[row / case.n * case.k * case.d..][..case.k * case.d];
        let mut best = (0, f64::INFINITY);
        for (label, centroid) in problem.chunks_exact(case.d).enumerate() {
            let distance = distance(point, centroid);
            // A centroid that is not a number is never near.
            if distance < best.1 {
                best = (label, distance);
            }
        }
        best
    };
    rows.par_iter().enumerate().map(of_row).collect()
}

/// `‖a − b‖²`, in an order that vectorises.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 =
        a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| (a - b) * (a - b)).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..8 {
            lanes[lane] += (a[lane] - b[lane]) * (a[lane] - b[lane]);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::gate::{Grade, judge};

    fn data(case: Case) -> (tempfile::TempDir, Data, Reference) {
        let folder = tempfile::tempdir().unwrap();
        let data = Data::write(folder.path(), &[case]).unwrap();
        let reference = data.reference(&case);
        (folder, data, reference)
    }

    #[test]
    fn right_labels_pass_and_wrong_ones_do_not() {
        for text in ["1,3000,20,12,f16", "3,700,20,12,f32", "2,900,9,5,bf16"] {
            let case = Case::parse(text).unwrap();
            let (_folder, _data, reference) = data(case);
            let right: Vec<u32> = reference.nearest.iter().map(|nearest| nearest.0 as u32).collect();
            let difference = reference.compare_labels(&case, &right);
            assert_eq!(difference, Difference { inertia: 0.0, labels: Some(1.0) });
            assert_eq!(judge(&case, difference).grade, Grade::Holds);

            // All one too high, one that is no cluster, none.
            let grade = |labels: &[u32]| judge(&case, reference.compare_labels(&case, labels)).grade;
            let shifted: Vec<u32> = right.iter().map(|label| (label + 1) % case.k as u32).collect();
            assert_eq!(grade(&shifted), Grade::Wrong);
            let mut outside = right.clone();
            outside[0] = case.k as u32;
            assert_eq!(grade(&outside), Grade::Wrong);
            assert_eq!(grade(&[]), Grade::Wrong);

            // One of hundreds costs little, but f32 has no excuse for it.
            let mut one = right.clone();
            one[7] = (one[7] + 1) % case.k as u32;
            assert_ne!(grade(&one), Grade::Wrong, "{text}");
            if case.dtype == DType::F32 {
                assert_eq!(grade(&one), Grade::Imprecise);
            }
        }
    }

    #[test]
    fn fitted_centroids_are_compared_by_their_inertia() {
        let case = Case::parse("2,600,8,6,f32").unwrap();
        let (_folder, data, reference) = data(case);
        let fitted = data.fit(&case, &reference.centroids, 5).unwrap();
        let before = reference.inertia(&case, &reference.centroids);
        let after = reference.inertia(&case, &fitted);
        assert!(after < 0.9 * before, "{after} {before}");
        let grade = |inertia| judge(&case, Difference { inertia, labels: None }).grade;
        assert_eq!(grade(relative(before, after)), Grade::Wrong);
        assert_eq!(grade(relative(after * (1.0 + 1e-4), after)), Grade::Imprecise);
        assert_eq!(grade(relative(reference.inertia(&case, &fitted[1..]), after)), Grade::Wrong);
    }

    #[test]
    fn the_points_of_a_case_are_the_first_of_the_file() {
        let (small, large) = (Case::parse("1,50,3,7,f16").unwrap(), Case::parse("2,100,3,7,f16").unwrap());
        let folder = tempfile::tempdir().unwrap();
        let data = Data::write(folder.path(), &[small, large]).unwrap();
        assert_eq!(fs::metadata(data.points(DType::F16)).unwrap().len(), 2 * 100 * 7 * 2);
        assert_eq!(data.rows(&small, 0..50), data.rows(&large, 0..50));
        let all = data.rows(&large, 0..200);
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let variance = all.iter().map(|v| v * v).sum::<f64>() / all.len() as f64;
        assert!(mean.abs() < 0.1 && (variance - 1.0).abs() < 0.1, "{mean} {variance}");
    }
}
