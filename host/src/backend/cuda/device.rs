//! A GPU: its context, its loaded kernels, and how they are launched.
use crate::backend::DeviceInfo;
use crate::error::{Error, Result};
use crate::params::Backend;
use cust::context::{Context, CurrentContext};
use cust::device::DeviceAttribute;
use cust::error::CudaError;
use cust::module::Module;
use cust::stream::{Stream, StreamFlags};
use cust::sys::{self, CUfunction, cudaError_enum as CUresult};
use kernels_gpu::kernels::Kernel;
use kernels_gpu::spec::KernelSpec;
use libcuda::Manner;
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::memory::{Arena, Pinned};
use super::plan::{Hardware, LaunchPlan};

/// An opened GPU and its launch plan. Cheap to clone; all clones share one context and one set of loaded kernels.
#[derive(Clone)]
pub(crate) struct Device(Arc<Inner>, LaunchPlan);

struct Inner {
    ordinal: u32,
    name: String,
    /// Tensor cores assign.
    tensor_cores: bool,
    /// `sm_90a` kernels run here.
    hopper: bool,
    /// Launches begin while those before them end, in graphs too.
    overlaps: bool,
    hardware: Hardware,
    kernels: Mutex<Kernels>,
    arenas: Mutex<Vec<Arena>>,
    pinned: Mutex<Vec<Pinned>>,
    // Dropped last: modules and buffers need their context.
    context: Context,
}

/// What is loaded of the shipped kernels.
#[derive(Default)]
struct Kernels {
    functions: HashMap<&'static str, LoadedKernel>,
    assembled: Assembled,
}

/// The kernels as `ptxas` assembled them for this GPU, which spares the driver a second of compiling PTX.
#[derive(Default)]
enum Assembled {
    #[default]
    Untried,
    Loaded(Arc<Module>),
    /// There are none for this GPU, or its driver does not take them: it compiles the PTX.
    None,
}

/// A kernel's function; the module keeps it alive.
struct LoadedKernel {
    function: CUfunction,
    /// What the driver said to [`Device::clusters`], once it was asked.
    clusters: Option<u32>,
    _module: Arc<Module>,
}

// SAFETY: a CUfunction and a CUmodule are handles that the driver lets any thread use, and the driver
// serialises what needs it.
unsafe impl Send for LoadedKernel {}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("ordinal", &self.0.ordinal).field("name", &self.0.name).finish()
    }
}

/// A poisoned lock only says that another thread panicked; the maps behind it are valid at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The smallest of `kept` that has `bytes` and not far more.
fn best_fit<B>(kept: &mut Vec<B>, bytes: usize, size: impl Fn(&B) -> usize) -> Option<B> {
    /// So small a block is never too large.
    const SMALL: usize = 1 << 20;
    let fits = kept.iter().enumerate().filter(|(_, block)| {
        let size = size(block);
        size >= bytes && size <= (bytes + bytes / 4).max(SMALL)
    });
    let at = fits.min_by_key(|(_, block)| size(block))?.0;
    Some(kept.swap_remove(at))
}

/// Adds `block` to `kept`, and lets go of what was kept longest until all have at most `most` bytes.
fn keep_some<B>(kept: &mut Vec<B>, block: B, most: usize, size: impl Fn(&B) -> usize) {
    kept.push(block);
    while kept.iter().map(&size).sum::<usize>() > most {
        kept.remove(0);
    }
}

thread_local! {
    static CALLER: Cell<Caller> = const { Cell::new(Caller::Nobody) };
}

/// Whose thread this is.
#[derive(Clone, Copy)]
enum Caller {
    /// One of this library's own, or one that is not in it.
    Nobody,
    /// A caller's, whose context nothing has been put in place of.
    Undisturbed,
    /// A caller's, which had this context; it may be none.
    Had(sys::CUcontext),
}

/// A call of the library on its caller's thread. Ends with the context current that was when it began: a caller of other
/// GPUs, or of other contexts, finds what it left.
#[must_use = "the call ends when this is dropped"]
pub(crate) struct Visit {
    is_outermost: bool,
}

impl Visit {
    pub(crate) fn begin() -> Self {
        let is_outermost = matches!(CALLER.get(), Caller::Nobody);
        if is_outermost {
            CALLER.set(Caller::Undisturbed);
        }
        Visit { is_outermost }
    }

    /// Before a context is made current.
    fn remember() -> Result<()> {
        if let Caller::Undisturbed = CALLER.get() {
            let mut context = std::ptr::null_mut();
            // SAFETY: `context` is a valid place for a context.
            check("cuCtxGetCurrent", unsafe { sys::cuCtxGetCurrent(&mut context) })?;
            CALLER.set(Caller::Had(context));
        }
        Ok(())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.is_outermost
            && let Caller::Had(context) = CALLER.replace(Caller::Nobody)
        {
            // SAFETY: the context was current when the call began. One that its caller has destroyed since is refused, and
            // there is nobody to tell.
            let _ = unsafe { sys::cuCtxSetCurrent(context) };
        }
    }
}

/// Names what was being done when the driver refused.
pub(super) fn failed(call: impl Into<String>, code: CudaError) -> Error {
    Error::Cuda { call: call.into(), code: format!("{code} ({code:?})") }
}

/// Checks a call of the driver that `cust` does not wrap.
pub(super) fn check(call: &'static str, code: CUresult) -> Result<()> {
    if code == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    // The names of the driver's codes are what a user can look up.
    let mut name = std::ptr::null();
    // SAFETY: `name` is a valid place for a pointer to a static string.
    let known = unsafe { sys::cuGetErrorName(code, &mut name) };
    let code = if known == CUresult::CUDA_SUCCESS && !name.is_null() {
        // SAFETY: the driver gives a NUL-terminated string that lives as long as the process.
        unsafe { std::ffi::CStr::from_ptr(name) }.to_string_lossy().into_owned()
    } else {
        format!("code {}", code as u32)
    };
    Err(Error::Cuda { call: call.into(), code })
}

/// A kernel that was loaded and is not there is a bug of this crate; it is reported.
fn not_loaded() -> Error {
    failed("finding a kernel just loaded", CudaError::NotFound)
}

/// Whether the environment asks for the kernels that run on any GPU: to tell a fault of the tuned ones from another,
/// and for tools that the tuned ones do not run under.
fn portable_kernels() -> bool {
    std::env::var_os("FLASH_KMEANS_KERNELS").is_some_and(|value| value == "portable")
}

/// Shared memory that a block can ask for; `cust` does not name the attribute.
fn shared_bytes(device: &cust::device::Device) -> std::result::Result<u32, CudaError> {
    let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    let mut bytes = 0;
    // SAFETY: `bytes` is a valid place for an int, and `device` one of the driver's.
    let code = unsafe { sys::cuDeviceGetAttribute(&mut bytes, attribute, device.as_raw()) };
    if code == CUresult::CUDA_SUCCESS { Ok(bytes as u32) } else { Err(CudaError::InvalidValue) }
}

/// The GPUs opened so far, by ordinal.
fn opened() -> &'static Mutex<HashMap<u32, Device>> {
    static OPENED: OnceLock<Mutex<HashMap<u32, Device>>> = OnceLock::new();
    OPENED.get_or_init(Mutex::default)
}

impl Device {
    /// The GPU `ordinal`, opened once for the process, as the driver's own primary context is: opening
    /// costs a large part of a second, and a second fit should not pay it again.
    pub(crate) fn open(ordinal: u32) -> Result<Self> {
        let _visit = Visit::begin();
        let mut opened = lock(opened());
        if let Some(device) = opened.get(&ordinal) {
            return Ok(device.clone());
        }
        let device = Self::create(ordinal)?;
        opened.insert(ordinal, device.clone());
        Ok(device)
    }

    fn create(ordinal: u32) -> Result<Self> {
        let unavailable =
            |reason: String| Error::BackendUnavailable { backend: Backend::Cuda { ordinal }, reason };
        if !libcuda::available() {
            return Err(unavailable("no NVIDIA driver was found on this machine".into()));
        }
        let refused = |code: CudaError| unavailable(format!("the NVIDIA driver says: {code} ({code:?})"));
        cust::init(cust::CudaFlags::empty()).map_err(refused)?;
        let count = cust::device::Device::num_devices().map_err(refused)?;
        if ordinal >= count {
            return Err(unavailable(format!("the driver shows {count} device(s), counted from 0")));
        }
        let device = cust::device::Device::get_device(ordinal).map_err(refused)?;
        let attribute = |which| device.get_attribute(which).map_err(refused);
        let major = attribute(DeviceAttribute::ComputeCapabilityMajor)?;
        let minor = attribute(DeviceAttribute::ComputeCapabilityMinor)?;
        if major < 8 {
            let name = device.name().map_err(refused)?;
            return Err(unavailable(format!(
                "{name} has compute capability {major}.{minor}; the kernels need 8.0 or later"
            )));
        }
        let hardware = Hardware {
            compute_capability: (major as u32, minor as u32),
            multiprocessors: attribute(DeviceAttribute::MultiprocessorCount)? as u32,
            shared_bytes: shared_bytes(&device).map_err(refused)?,
            l2_bytes: attribute(DeviceAttribute::L2CacheSize)? as u32,
        };
        let plan = LaunchPlan::of(&hardware)?;
        Visit::remember().map_err(|error| unavailable(error.to_string()))?;
        let context = Context::new(device).map_err(refused)?;
        let hopper = (major, minor) == (9, 0) && !portable_kernels();
        let inner = Inner {
            ordinal,
            name: device.name().map_err(refused)?,
            tensor_cores: !portable_kernels(),
            hopper,
            overlaps: hopper && libcuda::version() >= Some((12, 4)),
            hardware,
            kernels: Mutex::default(),
            arenas: Mutex::default(),
            pinned: Mutex::default(),
            context,
        };
        Ok(Device(Arc::new(inner), plan))
    }

    /// Every GPU that the driver shows.
    pub(crate) fn list() -> Vec<DeviceInfo> {
        if !libcuda::available() || cust::init(cust::CudaFlags::empty()).is_err() {
            return Vec::new();
        }
        let count = cust::device::Device::num_devices().unwrap_or(0);
        (0..count)
            .filter_map(|ordinal| {
                let device = cust::device::Device::get_device(ordinal).ok()?;
                Some(DeviceInfo {
                    backend: Backend::Cuda { ordinal },
                    name: device.name().ok()?,
                    memory_bytes: device.total_memory().ok()? as u64,
                })
            })
            .collect()
    }

    pub(crate) fn ordinal(&self) -> u32 {
        self.0.ordinal
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Streaming multiprocessors: what a persistent grid is sized by.
    pub(super) fn multiprocessors(&self) -> u32 {
        self.0.hardware.multiprocessors
    }

    pub(super) fn l2_bytes(&self) -> usize {
        self.0.hardware.l2_bytes as usize
    }

    pub(crate) fn hardware(&self) -> &Hardware {
        &self.0.hardware
    }

    /// Which kernels run for which shape.
    pub(crate) fn plan(&self) -> &LaunchPlan {
        &self.1
    }

    /// Has those who open the device from now on get it with `plan`.
    pub(crate) fn use_plan(&self, plan: LaunchPlan) -> Result<()> {
        plan.check(&self.0.hardware)?;
        lock(opened()).insert(self.0.ordinal, Device(self.0.clone(), plan));
        Ok(())
    }

    /// Whether tensor cores assign: all devices have some that do.
    pub(crate) fn has_tensor_cores(&self) -> bool {
        self.0.tensor_cores
    }

    /// Whether kernels with Hopper's own instructions run here.
    pub(crate) fn is_hopper(&self) -> bool {
        self.0.hopper
    }

    /// [`LaunchPlan::room_again`], where there is a kernel for it.
    pub(super) fn room_again(&self, sizes: [u64; 3]) -> u64 {
        if self.is_hopper() { self.plan().room_again(sizes) } else { 0 }
    }

    /// Makes the context current for this thread, which every call of the driver needs.
    pub(super) fn enter(&self) -> Result<()> {
        Visit::remember()?;
        CurrentContext::set_current(&self.0.context)
            .map_err(|code| failed("making the context current", code))
    }

    /// Lets this GPU's copies reach the other's memory directly, where the two are linked; else they go through the
    /// host.
    pub(super) fn reach(&self, other: &Device) -> Result<()> {
        if self.ordinal() == other.ordinal() {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: the context lives as long as the device, which the process keeps.
        let code = unsafe { sys::cuCtxEnablePeerAccess(other.0.context.as_raw(), 0) };
        match code {
            CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED
            | CUresult::CUDA_ERROR_PEER_ACCESS_UNSUPPORTED => Ok(()),
            code => check("cuCtxEnablePeerAccess", code),
        }
    }

    /// Bytes of this GPU's memory that are free, or were kept and make room.
    pub(super) fn free_bytes(&self) -> Result<u64> {
        self.enter()?;
        let kept: usize = lock(&self.0.arenas).iter().map(Arena::room).sum();
        let info = cust::memory::mem_get_info();
        info.map(|(free, _)| (free + kept) as u64).map_err(|code| failed("asking for free memory", code))
    }

    /// A stream of its own, so that fits on several threads do not wait for each other.
    pub(super) fn stream(&self) -> Result<Stream> {
        Stream::new(StreamFlags::NON_BLOCKING, None).map_err(|code| failed("creating a stream", code))
    }

    /// A stream whose work goes before that of others.
    pub(super) fn urgent_stream(&self) -> Result<Stream> {
        // The least of all is the greatest priority there is.
        let priority = Some(i32::MIN);
        Stream::new(StreamFlags::NON_BLOCKING, priority).map_err(|code| failed("creating a stream", code))
    }

    /// Has `stream` wait for what a caller's stream has been given so far.
    ///
    /// # Safety
    /// `before` is a stream of this GPU.
    pub(super) unsafe fn order(&self, before: *mut c_void, stream: &Stream) -> Result<()> {
        let mark = Mark::new()?;
        // SAFETY: this function's contract.
        unsafe { mark.set_on(before.cast())? };
        mark.hold(stream)
    }

    /// Device memory of at least `bytes`, from an earlier call when one left some of about that size.
    pub(super) fn arena(&self, bytes: usize) -> Result<Arena> {
        if let Some(arena) = best_fit(&mut lock(&self.0.arenas), bytes, Arena::room) {
            return Ok(arena.with_bytes(bytes));
        }
        match Arena::new(bytes) {
            // What was kept only takes the room of what is needed.
            Err(Error::OutOfDeviceMemory { .. }) if !lock(&self.0.arenas).is_empty() => {
                lock(&self.0.arenas).clear();
                Arena::new(bytes)
            }
            outcome => outcome,
        }
    }

    /// Gives memory back for a later call.
    pub(super) fn keep(&self, arena: Arena) {
        /// Keeping more would surprise whoever shares the GPU.
        const KEPT_BYTES: usize = 1 << 30;
        keep_some(&mut lock(&self.0.arenas), arena, KEPT_BYTES, Arena::room);
    }

    /// Page-locked memory of at least `bytes`: to lock some takes longer than to copy it.
    pub(super) fn pinned(&self, bytes: usize) -> Result<Pinned> {
        match best_fit(&mut lock(&self.0.pinned), bytes, Pinned::len) {
            Some(pinned) => Ok(pinned),
            None => Pinned::new(bytes),
        }
    }

    /// Gives it back for a later copy.
    pub(super) fn keep_pinned(&self, pinned: Pinned) {
        /// Of four threads that copy at once, two buffers each.
        const KEPT_BYTES: usize = 128 << 20;
        keep_some(&mut lock(&self.0.pinned), pinned, KEPT_BYTES, Pinned::len);
    }

    /// Loads the kernels that are not loaded yet: of those assembled for this GPU, or else as one module of PTX, of which
    /// the driver compiles only these.
    pub(super) fn load(&self, kernels: &[KernelSpec]) -> Result<()> {
        let Kernels { functions, assembled } = &mut *lock(&self.0.kernels);
        let missing: Vec<&KernelSpec> =
            kernels.iter().filter(|spec| !functions.contains_key(spec.name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if let Assembled::Untried = assembled {
            // Why a driver refuses does not matter: what is wrong with more than this, the PTX meets too.
            let module = self.cubin().and_then(|cubin| Module::from_cubin(cubin, &[]).ok());
            *assembled = module.map_or(Assembled::None, |module| Assembled::Loaded(Arc::new(module)));
        }
        let module = match assembled {
            Assembled::Loaded(module) => module.clone(),
            _ => Arc::new(self.compile(&missing)?),
        };
        for spec in missing {
            let loaded = module
                .get_function(spec.name)
                .map_err(|code| failed(format!("finding the kernel {}", spec.name), code))?;
            let function = loaded.to_raw();
            if spec.shared_bytes > 48 << 10 {
                let attribute =
                    sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                // SAFETY: `function` is a function of the module just loaded.
                let code = unsafe { sys::cuFuncSetAttribute(function, attribute, spec.shared_bytes as i32) };
                check("cuFuncSetAttribute", code)?;
            }
            /// Blocks of a cluster that every GPU with clusters takes.
            const PORTABLE_CLUSTER: u32 = 8;
            if spec.cluster > PORTABLE_CLUSTER {
                // SAFETY: as above.
                check("cuFuncSetAttribute", unsafe { libcuda::allow_large_clusters(function) })?;
            }
            functions.insert(spec.name, LoadedKernel { function, clusters: None, _module: module.clone() });
        }
        Ok(())
    }

    /// The shipped kernels as assembled for this GPU.
    fn cubin(&self) -> Option<&'static [u8]> {
        match self.0.hardware.compute_capability {
            (8, _) => Some(kernels_gpu::CUBIN_SM_80),
            (9, 0) if self.0.hopper => Some(kernels_gpu::CUBIN_SM_90A),
            _ => None,
        }
    }

    /// Has the driver compile `kernels`.
    fn compile(&self, kernels: &[&KernelSpec]) -> Result<Module> {
        let source = if self.0.hopper { kernels_gpu::PTX_SM_90A } else { kernels_gpu::PTX_SM_80 };
        let names: Vec<&str> = kernels.iter().map(|spec| spec.name).collect();
        let ptx = kernels_gpu::ptx_of(source, &names).ok_or_else(|| Error::Cuda {
            call: format!("finding the kernels {names:?}"),
            code: "not in the shipped PTX".into(),
        })?;
        Module::from_ptx(ptx, &[]).map_err(|code| failed("loading the kernels", code))
    }

    /// What `work` launches on `stream`, to be replayed at once: a launch by itself costs the host more than a small
    /// kernel costs the device. Nothing runs yet.
    pub(super) fn capture(&self, stream: &Stream, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        // Calls of other threads go on meanwhile.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is valid and idle or not, as it may be; the capture ends below.
        check("cuStreamBeginCapture", unsafe { sys::cuStreamBeginCapture_v2(stream.as_inner(), mode) })?;
        let outcome = work();
        let mut graph = std::ptr::null_mut();
        // SAFETY: ends the capture begun above, whatever came of the work.
        let ended =
            check("cuStreamEndCapture", unsafe { sys::cuStreamEndCapture(stream.as_inner(), &mut graph) });
        if let Err(error) = outcome.and(ended) {
            if !graph.is_null() {
                // SAFETY: the graph of what was captured before the failure, destroyed once.
                let _ = unsafe { sys::cuGraphDestroy(graph) };
            }
            return Err(error);
        }
        let mut exec = std::ptr::null_mut();
        // SAFETY: `graph` is the one just captured; it is destroyed once, and the executable one is of its own.
        let made =
            check("cuGraphInstantiate", unsafe { sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0) });
        // SAFETY: as above.
        let destroyed = check("cuGraphDestroy", unsafe { sys::cuGraphDestroy(graph) });
        made?;
        let graph = Graph { exec };
        destroyed?;
        Ok(graph)
    }

    /// Launches `kernel` with one block an item, on `stream`.
    ///
    /// # Safety
    /// The pointers in `kernel` must be device memory of the sizes that its parameters say, and stay so
    /// until the stream has passed the launch.
    pub(super) unsafe fn launch<K: Kernel>(&self, stream: &Stream, kernel: &K) -> Result<()> {
        /// The largest grid that CUDA takes; a kernel loops over the items beyond it.
        const MAX_BLOCKS: u64 = i32::MAX as u64;
        // SAFETY: as this function's.
        unsafe { self.launch_grid(stream, kernel, kernel.blocks().min(MAX_BLOCKS) as u32) }
    }

    /// Launches `kernel` with one cluster of blocks an item, as far as there are multiprocessors, each of which has room for one
    /// block: clusters then have many items in turn.
    ///
    /// # Safety
    /// As [`Device::launch`].
    pub(super) unsafe fn launch_clusters<K: Kernel>(&self, stream: &Stream, kernel: &K) -> Result<()> {
        let clusters = kernel.blocks().min(self.teams(&K::SPEC).into()) as u32;
        // SAFETY: as this function's.
        unsafe { self.launch_grid(stream, kernel, clusters * K::SPEC.cluster) }
    }

    /// Clusters of a kernel's blocks, or blocks, that [`Self::launch_clusters`] launches for as many items or more.
    pub(super) fn teams(&self, spec: &KernelSpec) -> u32 {
        // A part of a GPU may have fewer multiprocessors than a cluster has blocks, and room for it all the same.
        (self.multiprocessors() / spec.cluster).max(1)
    }

    /// Clusters of a kernel's blocks, or blocks, that run at a time: none where the GPU, or the part of it that this is, has no
    /// multiprocessors for one beside each other. The driver is asked once: it is the same for as long as the kernel is loaded.
    pub(super) fn clusters(&self, spec: &KernelSpec) -> Result<u32> {
        self.load(&[*spec])?;
        let mut kernels = lock(&self.0.kernels);
        let loaded = kernels.functions.get_mut(spec.name).ok_or_else(not_loaded)?;
        if let Some(clusters) = loaded.clusters {
            return Ok(clusters);
        }
        let (function, mut clusters) = (loaded.function, 0);
        let (threads, shared_bytes) = (spec.threads, spec.shared_bytes);
        // SAFETY: a function just loaded, and a place for a number.
        let code = unsafe {
            if spec.cluster > 1 {
                libcuda::active_clusters(&mut clusters, function, spec.cluster, threads, shared_bytes)
            } else {
                // Of blocks by themselves the driver tells those of a multiprocessor.
                sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(
                    &mut clusters,
                    function,
                    threads as i32,
                    shared_bytes as usize,
                )
            }
        };
        if code != CUresult::CUDA_SUCCESS {
            // Where a driver has another word for it, too; what is wrong with more than this, the next call meets.
            return Ok(0);
        }
        let each = if spec.cluster > 1 { 1 } else { self.multiprocessors() };
        let clusters = clusters.max(0) as u32 * each;
        loaded.clusters = Some(clusters);
        Ok(clusters)
    }

    /// A kernel that is loaded.
    fn function(&self, spec: &KernelSpec) -> Result<CUfunction> {
        let kernels = lock(&self.0.kernels);
        let loaded = kernels.functions.get(spec.name).map(|loaded| loaded.function);
        loaded.ok_or_else(not_loaded)
    }

    /// Launches `kernel` with `blocks` blocks.
    ///
    /// # Safety
    /// As [`Device::launch`].
    pub(super) unsafe fn launch_grid<K: Kernel>(
        &self,
        stream: &Stream,
        kernel: &K,
        blocks: u32,
    ) -> Result<()> {
        let manner = self.0.overlaps.then_some(Manner::Overlapped);
        // SAFETY: as this function's; `sm_90a` kernels wait for what is before them.
        unsafe { self.launch_by(manner, stream, kernel, blocks) }
    }

    /// Launches `kernel` with `blocks` blocks that run at the same time; on Hopper only.
    ///
    /// # Safety
    /// As [`Device::launch`].
    pub(super) unsafe fn launch_together<K: Kernel>(
        &self,
        stream: &Stream,
        kernel: &K,
        blocks: u32,
    ) -> Result<()> {
        // SAFETY: as this function's.
        unsafe { self.launch_by(Some(Manner::Together), stream, kernel, blocks) }
    }

    /// # Safety
    /// As [`Device::launch`]; what is launched to overlap waits for what is before it.
    unsafe fn launch_by<K: Kernel>(
        &self,
        manner: Option<Manner>,
        stream: &Stream,
        kernel: &K,
        blocks: u32,
    ) -> Result<()> {
        self.load(&[K::SPEC])?;
        let function = self.function(&K::SPEC)?;
        kernel.with_addresses(|addresses| {
            let (threads, shared_bytes) = (K::SPEC.threads, K::SPEC.shared_bytes);
            let (stream, addresses, none) = (stream.as_inner(), addresses.as_mut_ptr(), std::ptr::null_mut());
            // SAFETY: the addresses are those of the kernel's own arguments, in its order, by construction
            // of `Kernel`; the rest is this function's contract.
            let code = unsafe {
                match manner {
                    Some(manner) => {
                        libcuda::launch(manner, function, blocks, threads, shared_bytes, stream, addresses)
                    }
                    None => sys::cuLaunchKernel(
                        function,
                        blocks,
                        1,
                        1,
                        threads,
                        1,
                        1,
                        shared_bytes,
                        stream,
                        addresses,
                        none,
                    ),
                }
            };
            check(K::SPEC.name, code)
        })
    }
}

/// A place in the work of a stream, which others wait for: a CUDA event. `cust` has streams wait for such as they own alone.
pub(crate) struct Mark(sys::CUevent);

// SAFETY: handles that the driver lets all threads use at once.
unsafe impl Send for Mark {}
// SAFETY: as above.
unsafe impl Sync for Mark {}

impl Mark {
    /// One that nothing has to wait for yet.
    pub(super) fn new() -> Result<Mark> {
        let mut event = std::ptr::null_mut();
        let flags = sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: `event` is a valid place for one.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&mut event, flags) })?;
        Ok(Mark(event))
    }

    /// The end of all that `stream` has been given so far.
    pub(super) fn of(stream: &Stream) -> Result<Mark> {
        let mark = Mark::new()?;
        mark.set(stream).map(|()| mark)
    }

    /// Puts it at the end of all that `stream` has been given so far.
    pub(super) fn set(&self, stream: &Stream) -> Result<()> {
        // SAFETY: the stream lives.
        unsafe { self.set_on(stream.as_inner()) }
    }

    /// # Safety
    /// `stream` is one of the current context.
    unsafe fn set_on(&self, stream: sys::CUstream) -> Result<()> {
        // SAFETY: this function's contract; the event lives.
        check("cuEventRecord", unsafe { sys::cuEventRecord(self.0, stream) })
    }

    /// Has `stream` wait for it, as it is now, before what it is given next.
    pub(super) fn hold(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both live.
        check("cuStreamWaitEvent", unsafe { sys::cuStreamWaitEvent(stream.as_inner(), self.0, 0) })
    }

    /// Waits for it.
    pub(super) fn wait(&self) -> Result<()> {
        // SAFETY: it lives.
        check("cuEventSynchronize", unsafe { sys::cuEventSynchronize(self.0) })
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // SAFETY: destroyed once; what waits for it waits on.
        let _ = unsafe { sys::cuEventDestroy_v2(self.0) };
    }
}

/// Launches that are replayed together.
pub(super) struct Graph {
    exec: sys::CUgraphExec,
}

// SAFETY: a handle that the driver lets any thread use, one at a time.
unsafe impl Send for Graph {}

impl Graph {
    /// Runs them all, after the stream's earlier work.
    ///
    /// # Safety
    /// As [`Device::launch`], of every launch in the graph.
    pub(super) unsafe fn launch(&self, stream: &Stream) -> Result<()> {
        // SAFETY: as this function's.
        check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(self.exec, stream.as_inner()) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: nothing uses it any more; the driver keeps what still runs until it has ended.
        let _ = unsafe { sys::cuGraphExecDestroy(self.exec) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_about_the_size_are_used_again() {
        const MIB: usize = 1 << 20;
        let size = |block: &usize| *block;
        let mut kept = vec![64 * MIB, 8 * MIB, 17 * MIB / 2, 100];
        assert_eq!(best_fit(&mut kept, 7 * MIB, size), Some(8 * MIB));
        assert_eq!(best_fit(&mut kept, 7 * MIB, size), Some(17 * MIB / 2));
        assert_eq!(best_fit(&mut kept, 7 * MIB, size), None);
        assert_eq!(best_fit(&mut kept, 1, size), Some(100));
        keep_some(&mut kept, 32 * MIB, 100 * MIB, size);
        assert_eq!(kept, [64 * MIB, 32 * MIB]);
        keep_some(&mut kept, 16 * MIB, 100 * MIB, size);
        assert_eq!(kept, [32 * MIB, 16 * MIB]);
        keep_some(&mut kept, 200 * MIB, 100 * MIB, size);
        assert_eq!(kept, [0; 0]);
    }
}
