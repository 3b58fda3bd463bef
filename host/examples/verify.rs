//! Compares labels of a fit on the first GPU with float64.
use flash_kmeans::{stages::normal_points, *};
use ndarray::{Array3, ArrayView3};
fn check<T: Element>(b: usize, n: usize, k: usize, d: usize, scale: f32, f: impl Fn(f32) -> T + Sync) {
    let points =
        Array3::from_shape_vec((b, n, d), normal_points::<T>(b * n * d, 3, |v| f(v * scale))).unwrap();
    let view: ArrayView3<T> = points.view();
    let km =
        FlashKMeans::new(k).max_iter(4).tol(0.0).init(Init::Random).backend(Backend::Cuda { ordinal: 0 });
    let model = match km.fit(view) {
        Ok(m) => m,
        Err(e) => {
            println!("{b} {n} {k} {d} {}: ERROR {e}", T::DTYPE);
            return;
        }
    };
    let again = km.fit(view).unwrap();
    let c = model.centroids();
    let l = model.labels();
    let step = (b * n / 3000).max(1);
    let (mut wrong, mut seen, mut inertia) = (0, 0, 0.0);
    for at in (0..b * n).step_by(step) {
        let (p, i) = (at / n, at % n);
        let (mut best, mut arg) = (f64::INFINITY, 0);
        for j in 0..k {
            let mut s = 0.0;
            for f in 0..d {
                let t = points[(p, i, f)].to_f64() - c[(p, j, f)].to_f64();
                s += t * t;
            }
            if s < best {
                best = s;
                arg = j as u32;
            }
        }
        wrong += (l[(p, i)] != arg) as usize;
        seen += 1;
        inertia += best;
    }
    let h = &model.problems()[0].history;
    let same = model.centroids() == again.centroids() && model.labels() == again.labels();
    println!(
        "{b:>3} {n:>7} {k:>5} {d:>4} {:>4}: wrong {wrong}/{seen}, same bits {same}, inertia {:.9e} ~{:.4e}, hist0 {:?} last {:?} n_iter {}",
        T::DTYPE,
        model.inertia(),
        inertia * (b * n) as f64 / seen as f64,
        h[0],
        h.last().unwrap(),
        model.n_iter()
    );
}
fn main() {
    for (b, n, k, d) in [
        (1, 5000, 37, 64),
        (1, 20000, 256, 128),
        (1, 20000, 1000, 128),
        (3, 3001, 293, 128),
        (2, 4099, 100, 100),
        (1, 3000, 200, 72),
        (2, 999, 7, 16),
        (1, 500, 500, 8),
        (70, 300, 5, 96),
        (1, 100000, 2000, 128),
        (1, 4000, 100, 300),
    ] {
        check::<half::f16>(b, n, k, d, 1.0, half::f16::from_f32);
        check::<half::bf16>(b, n, k, d, 1.0, half::bf16::from_f32);
        check::<f32>(b, n, k, d, 1.0, |v| v);
    }
    check::<half::f16>(1, 4000, 100, 128, 16000.0, half::f16::from_f32);
    check::<half::bf16>(1, 4000, 100, 128, 1e18, half::bf16::from_f32);
    check::<half::bf16>(1, 4000, 100, 128, 1e-18, half::bf16::from_f32);
    check::<f32>(1, 4000, 100, 128, 1e18, |v| v);
    check::<f32>(1, 4000, 100, 128, 1e-22, |v| v);
    check::<half::f16>(1, 4000, 100, 128, 0.0, half::f16::from_f32);
}
