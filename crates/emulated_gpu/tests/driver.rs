//! What the emulated driver makes of streams and of memory. One test, for a driver goes for all of a process.
use cust::context::Context;
use cust::error::CudaError;
use cust::event::{Event, EventFlags};
use cust::memory::{AsyncCopyDestination, CopyDestination, DeviceBuffer, LockedBuffer};
use cust::stream::{Stream, StreamFlags, StreamWaitEventFlags};
use cust::sys;
use emulated_gpu::{DEVICES, Gpu, Timing, install};

#[test]
fn work_is_done_late_and_in_order() {
    assert!(install(Gpu::Ampere, Timing::Late));
    assert!(!install(Gpu::Hopper, Timing::Early), "there is a driver now");
    cust::init(cust::CudaFlags::empty()).unwrap();
    assert_eq!(cust::device::Device::num_devices().unwrap(), DEVICES as u32);
    // SAFETY: the buffer is not read.
    let without_context = unsafe { DeviceBuffer::<u32>::uninitialized(4) };
    assert_eq!(without_context.err(), Some(CudaError::InvalidContext));

    let _context = Context::new(cust::device::Device::get_device(1).unwrap()).unwrap();
    let [one, other] = [(); 2].map(|()| Stream::new(StreamFlags::NON_BLOCKING, None).unwrap());
    let mut source = LockedBuffer::new(&1u32, 4).unwrap();
    // SAFETY: read as the bytes that it was filled with.
    let mut target = unsafe { DeviceBuffer::<u32>::uninitialized(4) }.unwrap();
    let mut found = [0u32; 4];
    target.copy_to(&mut found).unwrap();
    assert_eq!(found, [u32::MAX; 4], "nothing was written yet");

    // What is copied is what the source holds when the stream is waited for.
    // SAFETY: the buffers outlive the copies.
    unsafe { target.async_copy_from(&source[..], &one) }.unwrap();
    source.fill(2);
    let event = Event::new(EventFlags::DEFAULT).unwrap();
    event.record(&one).unwrap();
    other.wait_event(event, StreamWaitEventFlags::DEFAULT).unwrap();
    other.synchronize().unwrap();
    source.fill(3);
    target.copy_to(&mut found).unwrap();
    assert_eq!(found, [2; 4]);

    // A capture does nothing, a graph what was captured.
    let (mut graph, mut exec) = (std::ptr::null_mut(), std::ptr::null_mut());
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: the handles are the driver's, the memory outlives the launches.
    unsafe {
        assert_eq!(sys::cuStreamBeginCapture_v2(one.as_inner(), mode) as u32, 0);
        target.async_copy_from(&source[..], &one).unwrap();
        assert_eq!(one.synchronize(), Err(CudaError::UnknownError), "a capture cannot be waited for");
        assert_eq!(sys::cuStreamEndCapture(one.as_inner(), &mut graph) as u32, 0);
        assert_eq!(sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0) as u32, 0);
    }
    target.copy_to(&mut found).unwrap();
    assert_eq!(found, [2; 4]);
    // SAFETY: as above.
    assert_eq!(unsafe { sys::cuGraphLaunch(exec, one.as_inner()) } as u32, 0);
    one.synchronize().unwrap();
    target.copy_to(&mut found).unwrap();
    assert_eq!(found, [3; 4]);

    // Outside of memory the context is lost.
    let end = target.as_device_ptr().as_raw() + 8;
    // SAFETY: the driver finds that the last two words are outside.
    assert_eq!(unsafe { sys::cuMemsetD32Async(end, 0, 4, one.as_inner()) } as u32, 0);
    assert_eq!(one.synchronize(), Err(CudaError::IllegalAddress));
    assert_eq!(other.synchronize(), Err(CudaError::IllegalAddress));
}
