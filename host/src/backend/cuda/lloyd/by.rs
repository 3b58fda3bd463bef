//! What is launched for other metrics than the Euclidean, and for points with weights.
use super::*;
use crate::metric::Metric;
use crate::params::Precision;
use crate::relocate::Search;

/// By what points are near, and whether they have weights.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend::cuda) struct By {
    pub(in crate::backend::cuda) metric: Metric,
    pub(in crate::backend::cuda) weighted: bool,
    /// Whether empty clusters are given far points.
    pub(in crate::backend::cuda) relocates: bool,
    pub(in crate::backend::cuda) precision: Precision,
}

impl By {
    /// Whether scores of the tensor cores that are close are looked at again.
    pub(super) fn is_exact(self) -> bool {
        self.precision == Precision::Exact
    }

    /// Whether points that are rounded are so in a [`Frame`] of their own, because labels depend on it. Otherwise any will do.
    pub(in crate::backend::cuda) fn frames_by_points(self) -> bool {
        // For products each row has a scale of its own, and nothing is a centre.
        !self.is_exact() && !self.metric.is_product()
    }

    /// Whether means of the points are the centroids, and the assignment's statistics are all there is to know.
    pub(super) fn is_plain(self) -> bool {
        !self.has_means() && !self.has_losses() && !self.relocates
    }

    /// Whether points count otherwise than once in sums.
    pub(super) fn has_masses(self) -> bool {
        self.weighted || self.metric == Metric::Cosine
    }

    /// Whether what `finalise` finds are not yet the centroids.
    pub(super) fn has_means(self) -> bool {
        self.has_masses() || self.metric.is_spherical()
    }

    /// Whether the inertia is not the assignment's sum of squared distances.
    pub(super) fn has_losses(self) -> bool {
        self.weighted || self.metric.is_product()
    }

    /// The same problems with the rows that partial sums and means have.
    pub(super) fn shape_of_sums(self, shape: Shape) -> Shape {
        if self.has_masses() {
            // No point lies at such a pitch: they are summed about zeros, which all problems share.
            Shape { n: 0, d: self.width(shape), ..shape }
        } else {
            shape
        }
    }

    /// Values of a row of partial sums: with masses, their sum is one.
    pub(super) fn width(self, shape: Shape) -> u32 {
        MoveParams { shape, has_masses: self.has_masses().into(), is_spherical: 0 }.width()
    }
}

/// The arrays that only other metrics and weights need.
pub(super) struct ByPlaces<T> {
    weights: Option<Place<f64>>,
    /// A power of two for each problem, which brings its largest weight near 1.
    units: Option<Place<f64>>,
    /// What each point counts in sums.
    masses: Option<Place<f32>>,
    /// What brings each point to length 1, for the variance.
    scales: Option<Place<f32>>,
    means: Option<MeanPlaces<T>>,
    /// One for each point, where far ones are looked for.
    losses: Option<Place<f64>>,
}

struct MeanPlaces<T> {
    means: Place<f32>,
    /// Not used: `finalise` writes them.
    rounded: Place<T>,
    zeros: Place<T>,
}

impl<T> ByPlaces<T> {
    pub(super) fn new(plan: &mut Plan, by: By, shape: Shape, role: Role<'_>) -> Self {
        let points = shape.batch as usize * shape.n as usize;
        let (has_points, updates) = (!matches!(role, Role::Total(_)), role.updates());
        let width = by.width(shape) as usize;
        let of_means = shape.batch as usize * shape.k as usize * width;
        let has_scales = match role {
            Role::Fit(options) => by.metric.is_spherical() && options.tol > 0.0,
            Role::Part(_) => by.metric.is_spherical(),
            Role::Assign | Role::Candidates(_) | Role::Pairs(_) | Role::Total(_) => false,
        };
        ByPlaces {
            weights: (by.weighted && updates).then(|| plan.array(points)),
            units: (by.weighted && updates).then(|| plan.array(shape.batch as usize)),
            masses: (by.has_masses() && updates && has_points).then(|| plan.array(points)),
            scales: has_scales.then(|| plan.array(points)),
            means: (by.has_means() && updates).then(|| MeanPlaces {
                means: plan.array(of_means),
                rounded: plan.array(of_means),
                zeros: plan.array(width),
            }),
            losses: (by.relocates && matches!(role, Role::Part(_))).then(|| plan.array(points)),
        }
    }
}

/// The kernels that calls like this one launch beside the others.
pub(super) fn kernels<T: GpuElement>(by: By, updates: bool) -> Vec<KernelSpec> {
    let mut kernels = Vec::new();
    if by.has_losses() || by.relocates {
        kernels.push(<Losses<T::Device> as Kernel>::SPEC);
    }
    if updates && by.has_means() {
        kernels.push(<MoveCentroids<T::Device> as Kernel>::SPEC);
    }
    if updates && (by.has_masses() || by.metric.is_spherical()) {
        kernels.extend([<Masses<T::Device> as Kernel>::SPEC, <UnitMoments<T::Device> as Kernel>::SPEC]);
    }
    kernels
}

/// Powers of two that bring the largest weight of each problem of `n` points to 1 or under 2: f32 masses have room then.
fn units(weights: &[f64], n: usize) -> Vec<f64> {
    let unit = |weights: &[f64]| {
        let most = weights.iter().fold(0.0, |most: f64, &w| most.max(w));
        let exponent = (most.to_bits() >> 52) as i64 - 1023;
        f64::from_bits(((1023 - exponent) as u64) << 52)
    };
    weights.chunks(n).map(unit).collect()
}

/// Means over the points of each cluster.
pub(super) struct MeansOfSums {
    /// Those of `m·(x − about)`, in units of the weights, and where there are masses `m` theirs last.
    means: Vec<f32>,
    width: usize,
    has_masses: bool,
    about: Vec<f64>,
    unit: f64,
}

impl MeansOfSums {
    /// The mean of the masses of a cluster's points, in units of the weights: 1 where there are none.
    pub(super) fn mass(&self, cluster: usize) -> f64 {
        if self.has_masses { f64::from(self.means[cluster * self.width + self.about.len()]) } else { 1.0 }
    }

    /// What the `count` points of a cluster weigh.
    pub(super) fn weight(&self, cluster: usize, count: f64) -> f64 {
        count * self.mass(cluster) / self.unit
    }

    /// The sum of the `count` points of a cluster, as often as they weigh.
    pub(super) fn sum(&self, cluster: usize, count: f64) -> impl Iterator<Item = f64> {
        let mean = &self.means[cluster * self.width..][..self.about.len()];
        let mass = self.mass(cluster);
        let value = move |(&mean, about): (&f32, &f64)| count * (f64::from(mean) + about * mass) / self.unit;
        mean.iter().zip(&self.about).map(value)
    }
}

impl<T: GpuElement> Call<T> {
    /// Takes the weights of all points.
    pub(super) fn set_weights(&self, weights: &[f64]) -> Result<()> {
        let (Some(place), Some(of_units)) = (self.places.by.weights, self.places.by.units) else {
            return Ok(());
        };
        self.upload(of_units, &units(weights, self.shape.n as usize))?;
        self.upload(place, weights)
    }

    /// Takes the weights of a part's rows from the total.
    pub(super) fn take_weights(&self, total: &Call<T>, row: usize) -> Result<()> {
        let (to, from) = (&self.places.by, &total.places.by);
        if let (Some(to), Some(from)) = (to.weights, from.weights) {
            self.copy(to, total, from.part(row, self.shape.n as usize))?;
        }
        if let (Some(to), Some(from)) = (to.units, from.units) {
            self.copy(to, total, from)?;
        }
        Ok(())
    }

    pub(in crate::backend::cuda) fn metric(&self) -> Metric {
        self.by.metric
    }

    fn maybe<U>(&self, place: Option<Place<U>>) -> Result<*const U> {
        place.map_or(Ok(std::ptr::null()), |place| self.at(place).map(<*mut U>::cast_const))
    }

    /// What of each point the sums and the variance need, once.
    pub(super) fn weigh(&self) -> Result<()> {
        let by = &self.places.by;
        let (points, shape) = (self.points()?.cast(), self.shape);
        if let Some(masses) = by.masses {
            let kernel = Masses::<T::Device> {
                points,
                weights: self.maybe(by.weights)?,
                units: self.maybe(by.units)?,
                masses: self.at(masses)?,
                params: MassesParams { shape, by_length: (self.by.metric == Metric::Cosine).into() },
            };
            // SAFETY: as in `means`; there are units where there are weights.
            unsafe { self.device.launch(&self.stream, &kernel)? };
        }
        if let Some(scales) = by.scales {
            let (weights, units) = (std::ptr::null(), std::ptr::null());
            let params = MassesParams { shape, by_length: 1 };
            let kernel = Masses::<T::Device> { points, weights, units, masses: self.at(scales)?, params };
            // SAFETY: as in `means`.
            unsafe { self.device.launch(&self.stream, &kernel)? };
        }
        Ok(())
    }

    /// What masses are, and where points are summed about: rows of very different lengths at length 1 about nothing.
    pub(super) fn masses(&self) -> Result<Option<(*const f32, *const T)>> {
        let Some(masses) = self.places.by.masses else { return Ok(None) };
        Ok(Some((self.at(masses)?, self.origin_of_masses()?)))
    }

    fn origin_of_masses(&self) -> Result<*const T> {
        if self.by.metric == Metric::Cosine { Ok(std::ptr::null()) } else { self.origin() }
    }

    /// [`Call::means`] where what `finalise` finds are not yet the centroids; whether that is so.
    pub(super) fn means_by(&self, update: &UpdatePlaces) -> Result<bool> {
        let Some(places) = &self.places.by.means else { return Ok(false) };
        let arena = self.arena()?;
        // An empty cluster keeps its mean, of no mass and of zeros.
        arena.zero(&self.stream, places.means)?;
        arena.zero(&self.stream, places.zeros)?;
        let states = self.at(self.places.states)?.cast::<LoopState>();
        let (means, moves) = (self.at(places.means)?, self.at(update.moves)?);
        let has_masses = self.by.has_masses();
        let finalise = Finalise::<T::Device> {
            origin: if has_masses { self.at(places.zeros)?.cast_const() } else { self.origin()? }.cast(),
            sums: self.at(update.sums)?,
            heads: self.at(update.heads)?,
            starts: self.at(update.starts)?,
            states,
            centroids: means,
            rounded: self.at(places.rounded)?.cast(),
            moves,
            params: self.finalise_params(),
        };
        let is_spherical = self.by.metric.is_spherical().into();
        let moved = MoveCentroids::<T::Device> {
            means,
            origin: if has_masses { self.origin_of_masses()? } else { std::ptr::null() }.cast(),
            states,
            centroids: self.at(self.places.centroids)?,
            rounded: self.at(self.places.rounded)?.cast(),
            moves,
            params: MoveParams { shape: self.shape, has_masses: has_masses.into(), is_spherical },
        };
        // SAFETY: as in `means`; arrays of means have rows of the width of sums.
        unsafe {
            self.device.launch(&self.stream, &finalise)?;
            self.device.launch(&self.stream, &moved)?;
        }
        Ok(true)
    }

    /// What the metric says that points add to the inertia, as often as their `weights` say: into `entries` entries of a
    /// problem, of so many rows each, for all problems or those that `states` has not done.
    fn losses(
        &self,
        states: Option<Place<State>>,
        weights: Option<Place<f64>>,
        partial: Place<f64>,
        rows: u32,
        entries: u32,
    ) -> Result<()> {
        let loss = match self.by.metric {
            Metric::Euclidean => LOSS_EUCLIDEAN,
            Metric::Cosine => LOSS_COSINE,
            Metric::Dot | Metric::SphericalDot => LOSS_PRODUCT,
        };
        let kernel = Losses::<T::Device> {
            points: self.points()?.cast(),
            centroids: self.at(self.places.rounded)?.cast(),
            labels: self.at(self.places.labels)?,
            weights: self.maybe(weights)?,
            states: self.maybe(states)?.cast(),
            partial: self.at(partial)?,
            params: LossesParams { shape: self.shape, rows, entries, loss },
        };
        // SAFETY: as in `means`; every label is under `k`, since an assignment wrote them all.
        unsafe { self.device.launch(&self.stream, &kernel) }
    }

    /// The inertia of an iteration in place of the assignment's sum, where that is another.
    pub(super) fn costs(&self) -> Result<()> {
        if !self.by.has_losses() {
            return Ok(());
        }
        let rows = match self.hopper {
            Some(_) => STATISTICS_POINTS,
            None => ASSIGN_POINTS,
        };
        self.losses(
            Some(self.places.states),
            self.places.by.weights,
            self.places.tile_cost,
            rows,
            self.tiles(),
        )
    }

    /// [`Call::inertia`], where it is not the Euclidean one without weights; whether that is so.
    pub(super) fn inertia_by(&self) -> Result<bool> {
        if self.by.has_losses() {
            let InertiaParams { rows, tiles, .. } = self.inertia;
            self.losses(None, self.places.by.weights, self.places.partial, rows, tiles)?;
        }
        Ok(self.by.has_losses())
    }

    /// Shows `search` the points of a part, of which the first is row `first` of all: under the centroids and with the
    /// labels that the part has.
    pub(super) fn show_to(&self, search: &mut Search, first: usize) -> Result<()> {
        let places = &self.places.by;
        let Some(place) = places.losses else { return Err(no_points()) };
        let n = self.shape.n as usize;
        self.losses(None, None, place, 1, self.shape.n)?;
        let losses = self.download(place, n)?;
        let labels = self.download(self.places.labels, n)?;
        let weights = places.weights.map(|place| self.download(place, n)).transpose()?;
        let scales = places.scales.map(|place| self.download(place, n)).transpose()?;
        for (row, (&label, loss)) in labels.iter().zip(losses).enumerate() {
            let weight = weights.as_ref().map_or(1.0, |weights| weights[row]);
            let has_direction = scales.as_ref().is_none_or(|scales| scales[row] > 0.0);
            let loss = if has_direction { loss } else { f64::NEG_INFINITY };
            search.offer(first + row, label, self.by.metric.mass(weight, loss), loss);
        }
        Ok(())
    }

    /// What the last sums gave the clusters, where `finalise` found means that are not yet the centroids.
    pub(super) fn means_of_sums(&self) -> Result<Option<MeansOfSums>> {
        let Some(places) = &self.places.by.means else { return Ok(None) };
        let (d, has_masses) = (self.shape.d as usize, self.by.has_masses());
        let mut about = vec![0.0; d];
        // As `move_centroids` does: f32 points with masses are summed about the first, but for cosines.
        let has_origin = has_masses && self.by.metric != Metric::Cosine && size_of::<T>() == 4;
        if let Some(origin) = self.places.origin.filter(|_| has_origin) {
            about = self.download(origin, d)?.into_iter().map(crate::Element::to_f64).collect();
        }
        let unit = match self.places.by.units {
            Some(place) => self.download(place, 1)?.first().copied().unwrap_or(1.0),
            None => 1.0,
        };
        let means = self.download(places.means, places.means.len())?;
        Ok(Some(MeansOfSums { means, width: self.by.width(self.shape) as usize, has_masses, about, unit }))
    }

    /// [`Call::moments`] of points at length 1, where the metric takes them so; whether that is so.
    pub(super) fn moments_by(&self, update: &UpdatePlaces) -> Result<bool> {
        let Some(scales) = self.places.by.scales else { return Ok(false) };
        let kernel = UnitMoments::<T::Device> {
            points: self.points()?.cast(),
            scales: self.at(scales)?,
            first: self.at(update.first)?,
            second: self.at(update.second)?,
            params: self.moments,
        };
        // SAFETY: as in `means`.
        unsafe { self.device.launch(&self.stream, &kernel)? };
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_bring_the_largest_weight_near_1() {
        let weights = [1e150, 0.0, 3.0, 1e-300, 5e-324, 0.0];
        let units = units(&weights, 2);
        for (weights, unit) in weights.chunks(2).zip(units) {
            let most = weights[0].max(weights[1]) * unit;
            assert!((5e-17..2.0).contains(&most), "{most}");
            assert_eq!(unit.to_bits() & ((1 << 52) - 1), 0);
        }
    }
}
