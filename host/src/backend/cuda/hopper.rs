//! Hopper's assignment: its arrays, and which of its entries a shape takes.
use super::device::Device;
use super::memory::{Place, Plan};
use crate::error::Result;
use cust::stream::Stream;
use kernels_gpu::kernels::{AssignHopper, Kernel};
use kernels_gpu::spec::*;
use std::marker::PhantomData;

/// An entry, ready to be loaded and launched.
#[derive(Clone, Copy)]
pub(super) struct Launch {
    pub(super) spec: KernelSpec,
    /// # Safety
    /// As [`Device::launch`].
    pub(super) launch: unsafe fn(&Device, &Stream, Arguments) -> Result<()>,
}

/// The arguments of any of the entries.
pub(super) type Arguments = AssignHopper<()>;

/// What the assignment keeps beside the points.
pub(super) struct Places<T> {
    pub(super) packed: Place<T>,
    pub(super) biases: Place<f32>,
    pub(super) norms: Place<f32>,
    /// Two slots a problem: one is raised while the other is set to 0.
    pub(super) largest: Place<u32>,
    pub(super) list_counts: Place<u32>,
    pub(super) list_rows: Place<u32>,
    pub(super) list_first: Place<u32>,
    pub(super) list_second: Place<u32>,
}

impl<T> Places<T> {
    pub(super) fn new(plan: &mut Plan, shape: Shape) -> Self {
        let tiles = PackParams { shape, slot: 0 }.blocks() as usize;
        let tile_values = hopper_panels(shape.d) as usize * HOPPER_PANEL_BYTES as usize / size_of::<T>();
        let points = shape.batch as usize * shape.n as usize;
        Places {
            packed: plan.array(tiles * tile_values),
            biases: plan.array(tiles * HOPPER_BIASES as usize),
            norms: plan.array(points),
            largest: plan.array(2 * shape.batch as usize),
            list_counts: plan.array(2),
            list_rows: plan.array(points),
            list_first: plan.array(points),
            list_second: plan.array(points),
        }
    }
}

/// The entry for points of `T` and `steps` products, if there is one.
pub(super) fn of_type<T: Copy + 'static>(steps: u32) -> Option<Launch>
where
    AssignHopper<Tensor<T, 4>>: Kernel,
    AssignHopper<Tensor<T, 5>>: Kernel,
    AssignHopper<Tensor<T, 6>>: Kernel,
    AssignHopper<Tensor<T, 7>>: Kernel,
    AssignHopper<Tensor<T, 8>>: Kernel,
{
    match steps {
        4 => Some(entry::<Tensor<T, 4>>()),
        5 => Some(entry::<Tensor<T, 5>>()),
        6 => Some(entry::<Tensor<T, 6>>()),
        7 => Some(entry::<Tensor<T, 7>>()),
        8 => Some(entry::<Tensor<T, 8>>()),
        _ => None,
    }
}

fn entry<C: Copy>() -> Launch
where
    AssignHopper<C>: Kernel,
{
    /// # Safety
    /// As [`Device::launch`].
    unsafe fn launch<C: Copy>(device: &Device, stream: &Stream, arguments: Arguments) -> Result<()>
    where
        AssignHopper<C>: Kernel,
    {
        let AssignHopper {
            points,
            packed,
            biases,
            norms,
            largest,
            states,
            labels,
            cost,
            changed,
            list_counts,
            list_rows,
            list_first,
            list_second,
            params,
            operand: PhantomData,
        } = arguments;
        let kernel = AssignHopper::<C> {
            points,
            packed,
            biases,
            norms,
            largest,
            states,
            labels,
            cost,
            changed,
            list_counts,
            list_rows,
            list_first,
            list_second,
            params,
            operand: PhantomData,
        };
        // One block a multiprocessor, each with many items in turn: shared memory has room for one.
        let blocks = kernel.blocks().min(device.multiprocessors().into()) as u32;
        // SAFETY: as this function's.
        unsafe { device.launch_grid(stream, &kernel, blocks) }
    }
    Launch { spec: <AssignHopper<C> as Kernel>::SPEC, launch: launch::<C> }
}
