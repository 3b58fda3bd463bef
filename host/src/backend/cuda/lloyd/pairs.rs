//! Pairs of points and rows of a pool, listed by the products that an assignment has: for first centroids.
use super::*;

/// Where pairs go, and what they are listed by.
#[derive(Clone, Copy)]
pub(in crate::backend::cuda) struct PairArrays {
    /// Rows of the pool, `window` of each problem.
    pub(in crate::backend::cuda) rows: *const u32,
    pub(in crate::backend::cuda) limits: *const u32,
    pub(in crate::backend::cuda) points: *mut u32,
    pub(in crate::backend::cuda) columns: *mut u32,
}

/// What a call knows of its points beside where they are.
#[derive(Clone, Copy)]
pub(in crate::backend::cuda) struct Known {
    pub(in crate::backend::cuda) norms: *const f32,
    /// How far points reach from their centre, where they are rounded about one.
    pub(in crate::backend::cuda) extents: *const u32,
    pub(in crate::backend::cuda) floors: *mut f32,
    pub(in crate::backend::cuda) open: *mut LoopState,
    /// Places of pairs that were taken.
    pub(in crate::backend::cuda) list_counts: *mut u32,
}

impl<T: GpuElement> Call<T> {
    /// Gets the points ready for [`Self::list_pairs`]; after [`Self::over`]. `None` where tensor cores are not used.
    pub(in crate::backend::cuda) fn prepare_pairs(&self) -> Result<Option<Known>> {
        self.device.enter()?;
        let Some(places) = &self.places.hopper else { return Ok(None) };
        if self.rounds() {
            self.centre_on_points()?;
        }
        self.arena()?.zero(&self.stream, self.places.open)?;
        self.prepare_points(places)?;
        let mut extents = std::ptr::null();
        if let Some(rounded) = &places.rounded {
            extents = self.at(rounded.extents)?.cast_const();
        }
        Ok(Some(Known {
            norms: self.at(places.norms)?,
            extents,
            floors: self.at(places.floors)?,
            open: self.at(self.places.open)?.cast(),
            list_counts: self.at(places.list_counts)?,
        }))
    }

    /// Lists the points of problems that are open with the rows whose scores may not be below their floors; as far as there is
    /// room for `capacity` pairs.
    pub(in crate::backend::cuda) fn list_pairs(
        &mut self,
        window: u32,
        arrays: PairArrays,
        capacity: u32,
    ) -> Result<()> {
        self.shape.k = window;
        let shape = self.shape;
        let Some(places) = &self.places.hopper else { return Ok(()) };
        self.give_centroids(Some(arrays.rows), shape)?;
        self.pack_centroids(places, self.places.open, None)?;
        let Multiplied { points, residuals, .. } = self.multiplied(places)?;
        let products = MmaParams { shape: hopper::packed_shape(shape), slot: self.slot.get(), is_exact: 1 };
        let list = hopper::ListArguments {
            points,
            packed: self.at(places.packed)?,
            biases: self.at(places.biases)?,
            norms: self.at(places.norms)?,
            residuals,
            floors: self.at(places.floors)?,
            largest: self.at(places.largest)?.cast(),
            states: self.at(self.places.open)?.cast(),
            limits: arrays.limits,
            list_counts: self.at(places.list_counts)?,
            pair_points: arrays.points,
            pair_columns: arrays.columns,
            params: ListMmaParams { products, capacity },
            operand: PhantomData,
        };
        // SAFETY: as in `means`; pairs have the room that the caller says.
        unsafe { (T::lists(&self.device, shape).launch)(&self.device, &self.stream, list) }
    }

    /// Places of pairs that the last listing took, which may be more than there was room for.
    pub(in crate::backend::cuda) fn pairs_taken(&self) -> Result<u32> {
        let Some(places) = &self.places.hopper else { return Ok(0) };
        Ok(self.download(places.list_counts, LIST_COUNTS as usize)?[LIST_PAIRS])
    }
}
