//! What takes long to compile, compiled here once for each type of points. A function with a type parameter is compiled
//! in every crate that calls it, with all that it calls; the entries below end that at the library's border.
#![expect(private_interfaces, reason = "the trait has no public path: nobody else can call its functions")]
use crate::backend::{Engine, LloydOptions, LloydOutcome};
use crate::element::Element;
use crate::error::Result;
use crate::lloyd::Together;
use crate::metric::Metric;
use crate::mini_batch::MiniBatch;
use crate::model::KMeans;
use crate::observer::{Observer, Watch};
use crate::params::FlashKMeans;
use crate::points::{self, Problem};
use crate::stream::{Source, Streaming};
use crate::{neighbours, restarts};
use ndarray::Ix2;
use std::ops::Range;

/// That of points of `T`.
type Centroid<T> = <T as Element>::Centroid;

/// The list of entries, of which each is named once: `$then! { $with entries }`.
macro_rules! entries {
    ($then:ident $($with:tt)*) => {
        $then! {
            $($with)*
            fit(options: &FlashKMeans, problem: &Problem<'_, Self>, watch: &Watch<'_, Centroid<Self>>)
                -> Result<(LloydOutcome<Centroid<Self>>, Engine)> = FlashKMeans::fit_here;
            fit_part(
                options: &FlashKMeans,
                source: &dyn Source<Self>,
                rows: Range<usize>,
                streaming: &Streaming,
                observer: &mut dyn Observer<Centroid<Self>>,
                together: &dyn Together,
            ) -> Result<KMeans<Self, Ix2>> = FlashKMeans::fit_part;
            step(batches: &mut MiniBatch<Self>, problem: &Problem<'_, Self>) -> Result<()> = MiniBatch::step;
            extend(
                engine: &Engine,
                problem: &Problem<'_, Self>,
                outcome: &mut LloydOutcome<Centroid<Self>>,
                options: &LloydOptions,
            ) -> Result<()> = restarts::extend;
            assign(
                engine: &Engine,
                problem: &Problem<'_, Self>,
                centroids: &[Centroid<Self>],
                k: usize,
                metric: Metric,
            ) -> Result<Vec<u32>> = Engine::assign;
            losses(
                problem: &Problem<'_, Self>,
                labels: &[u32],
                centroids: (&[Centroid<Self>], usize),
                metric: Metric,
            ) -> Vec<f64> = neighbours::losses;
            nearest(
                problem: &Problem<'_, Self>,
                centroids: (&[Centroid<Self>], usize),
                m: usize,
                metric: Metric,
            ) -> (Vec<u32>, Vec<Centroid<Self>>) = neighbours::nearest;
            distances(problem: &Problem<'_, Self>, centroids: (&[Centroid<Self>], usize), metric: Metric)
                -> Vec<Centroid<Self>> = neighbours::distances;
            check_finite(points: &[Self], row: usize, d: usize) -> Result<()> = points::check_finite;
        }
    };
}

macro_rules! declare {
    ($($name:ident($($argument:ident: $type:ty),* $(,)?) -> $output:ty = $function:path;)*) => {
        /// The entries. Each is the function that the list names, and described there.
        pub trait Compiled: Sized {
            $(fn $name($($argument: $type),*) -> $output where Self: Element;)*
        }
    };
}

macro_rules! define {
    ($element:ty: $($name:ident($($argument:ident: $type:ty),* $(,)?) -> $output:ty = $function:path;)*) => {
        impl Compiled for $element {
            $(fn $name($($argument: $type),*) -> $output {
                #[cfg(feature = "cuda")]
                let _visit = crate::backend::cuda::Visit::begin();
                $function($($argument),*)
            })*
        }
    };
}

entries!(declare);
entries!(define f32:);
entries!(define f64:);
entries!(define half::f16:);
entries!(define half::bf16:);
