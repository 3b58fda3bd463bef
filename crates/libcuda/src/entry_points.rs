//! The table of entry points: every function that `cust_raw` declares, but the two in `code`.
//!
//! That the argument lists are those of its declarations is checked by the compiler (see `entry_points!`).
use core::ffi::{c_char, c_int, c_uchar, c_uint, c_ulonglong, c_ushort, c_void};
use cust_raw::*;

use crate::forward::entry_points;

entry_points! {
    // Driver.
    cuDriverGetVersion(driver_version: *mut c_int);
    cuGetProcAddress(symbol: *const c_char, pfn: *mut *mut c_void, cuda_version: c_int, flags: cuuint64_t);
    cuInit(flags: c_uint);

    // Devices.
    cuDeviceCanAccessPeer(can_access_peer: *mut c_int, dev: CUdevice, peer_dev: CUdevice);
    cuDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, dev: CUdevice);
    cuDeviceGet(device: *mut CUdevice, ordinal: c_int);
    cuDeviceGetAttribute(pi: *mut c_int, attrib: CUdevice_attribute, dev: CUdevice);
    cuDeviceGetByPCIBusId(dev: *mut CUdevice, pci_bus_id: *const c_char);
    cuDeviceGetCount(count: *mut c_int);
    cuDeviceGetDefaultMemPool(pool_out: *mut CUmemoryPool, dev: CUdevice);
    cuDeviceGetExecAffinitySupport(pi: *mut c_int, type_: CUexecAffinityType, dev: CUdevice);
    cuDeviceGetGraphMemAttribute(device: CUdevice, attr: CUgraphMem_attribute, value: *mut c_void);
    cuDeviceGetLuid(luid: *mut c_char, device_node_mask: *mut c_uint, dev: CUdevice);
    cuDeviceGetMemPool(pool: *mut CUmemoryPool, dev: CUdevice);
    cuDeviceGetName(name: *mut c_char, len: c_int, dev: CUdevice);
    cuDeviceGetNvSciSyncAttributes(nv_sci_sync_attr_list: *mut c_void, dev: CUdevice, flags: c_int);
    cuDeviceGetP2PAttribute(
        value: *mut c_int, attrib: CUdevice_P2PAttribute, src_device: CUdevice, dst_device: CUdevice,
    );
    cuDeviceGetPCIBusId(pci_bus_id: *mut c_char, len: c_int, dev: CUdevice);
    cuDeviceGetProperties(prop: *mut CUdevprop, dev: CUdevice);
    cuDeviceGetTexture1DLinearMaxWidth(
        max_width_in_elements: *mut usize, format: CUarray_format, num_channels: c_uint, dev: CUdevice,
    );
    cuDeviceGetUuid(uuid: *mut CUuuid, dev: CUdevice);
    cuDeviceGetUuid_v2(uuid: *mut CUuuid, dev: CUdevice);
    cuDeviceGraphMemTrim(device: CUdevice);
    cuDevicePrimaryCtxGetState(dev: CUdevice, flags: *mut c_uint, active: *mut c_int);
    cuDevicePrimaryCtxRelease_v2(dev: CUdevice);
    cuDevicePrimaryCtxReset_v2(dev: CUdevice);
    cuDevicePrimaryCtxRetain(pctx: *mut CUcontext, dev: CUdevice);
    cuDevicePrimaryCtxSetFlags_v2(dev: CUdevice, flags: c_uint);
    cuDeviceSetGraphMemAttribute(device: CUdevice, attr: CUgraphMem_attribute, value: *mut c_void);
    cuDeviceSetMemPool(dev: CUdevice, pool: CUmemoryPool);
    cuDeviceTotalMem_v2(bytes: *mut usize, dev: CUdevice);

    // Contexts.
    cuCtxAttach(pctx: *mut CUcontext, flags: c_uint);
    cuCtxCreate_v2(pctx: *mut CUcontext, flags: c_uint, dev: CUdevice);
    cuCtxCreate_v3(
        pctx: *mut CUcontext, params_array: *mut CUexecAffinityParam, num_params: c_int, flags: c_uint,
        dev: CUdevice,
    );
    cuCtxDestroy_v2(ctx: CUcontext);
    cuCtxDetach(ctx: CUcontext);
    cuCtxDisablePeerAccess(peer_context: CUcontext);
    cuCtxEnablePeerAccess(peer_context: CUcontext, flags: c_uint);
    cuCtxGetApiVersion(ctx: CUcontext, version: *mut c_uint);
    cuCtxGetCacheConfig(pconfig: *mut CUfunc_cache);
    cuCtxGetCurrent(pctx: *mut CUcontext);
    cuCtxGetDevice(device: *mut CUdevice);
    cuCtxGetExecAffinity(p_exec_affinity: *mut CUexecAffinityParam, type_: CUexecAffinityType);
    cuCtxGetFlags(flags: *mut c_uint);
    cuCtxGetLimit(pvalue: *mut usize, limit: CUlimit);
    cuCtxGetSharedMemConfig(p_config: *mut CUsharedconfig);
    cuCtxGetStreamPriorityRange(least_priority: *mut c_int, greatest_priority: *mut c_int);
    cuCtxPopCurrent_v2(pctx: *mut CUcontext);
    cuCtxPushCurrent_v2(ctx: CUcontext);
    cuCtxResetPersistingL2Cache();
    cuCtxSetCacheConfig(config: CUfunc_cache);
    cuCtxSetCurrent(ctx: CUcontext);
    cuCtxSetLimit(limit: CUlimit, value: usize);
    cuCtxSetSharedMemConfig(config: CUsharedconfig);
    cuCtxSynchronize();

    // Modules and the JIT linker.
    cuLinkAddData_v2(
        state: CUlinkState, type_: CUjitInputType, data: *mut c_void, size: usize, name: *const c_char,
        num_options: c_uint, options: *mut CUjit_option, option_values: *mut *mut c_void,
    );
    cuLinkAddFile_v2(
        state: CUlinkState, type_: CUjitInputType, path: *const c_char, num_options: c_uint,
        options: *mut CUjit_option, option_values: *mut *mut c_void,
    );
    cuLinkComplete(state: CUlinkState, cubin_out: *mut *mut c_void, size_out: *mut usize);
    cuLinkCreate_v2(
        num_options: c_uint, options: *mut CUjit_option, option_values: *mut *mut c_void,
        state_out: *mut CUlinkState,
    );
    cuLinkDestroy(state: CUlinkState);
    cuModuleGetFunction(hfunc: *mut CUfunction, hmod: CUmodule, name: *const c_char);
    cuModuleGetGlobal_v2(dptr: *mut CUdeviceptr, bytes: *mut usize, hmod: CUmodule, name: *const c_char);
    cuModuleGetSurfRef(p_surf_ref: *mut CUsurfref, hmod: CUmodule, name: *const c_char);
    cuModuleGetTexRef(p_tex_ref: *mut CUtexref, hmod: CUmodule, name: *const c_char);
    cuModuleLoad(module: *mut CUmodule, fname: *const c_char);
    cuModuleLoadData(module: *mut CUmodule, image: *const c_void);
    cuModuleLoadDataEx(
        module: *mut CUmodule, image: *const c_void, num_options: c_uint, options: *mut CUjit_option,
        option_values: *mut *mut c_void,
    );
    cuModuleLoadFatBinary(module: *mut CUmodule, fat_cubin: *const c_void);
    cuModuleUnload(hmod: CUmodule);

    // Functions and launches.
    cuFuncGetAttribute(pi: *mut c_int, attrib: CUfunction_attribute, hfunc: CUfunction);
    cuFuncGetModule(hmod: *mut CUmodule, hfunc: CUfunction);
    cuFuncSetAttribute(hfunc: CUfunction, attrib: CUfunction_attribute, value: c_int);
    cuFuncSetBlockShape(hfunc: CUfunction, x: c_int, y: c_int, z: c_int);
    cuFuncSetCacheConfig(hfunc: CUfunction, config: CUfunc_cache);
    cuFuncSetSharedMemConfig(hfunc: CUfunction, config: CUsharedconfig);
    cuFuncSetSharedSize(hfunc: CUfunction, bytes: c_uint);
    cuLaunch(f: CUfunction);
    cuLaunchCooperativeKernel(
        f: CUfunction, grid_dim_x: c_uint, grid_dim_y: c_uint, grid_dim_z: c_uint, block_dim_x: c_uint,
        block_dim_y: c_uint, block_dim_z: c_uint, shared_mem_bytes: c_uint, h_stream: CUstream,
        kernel_params: *mut *mut c_void,
    );
    cuLaunchCooperativeKernelMultiDevice(
        launch_params_list: *mut CUDA_LAUNCH_PARAMS, num_devices: c_uint, flags: c_uint,
    );
    cuLaunchGrid(f: CUfunction, grid_width: c_int, grid_height: c_int);
    cuLaunchGridAsync(f: CUfunction, grid_width: c_int, grid_height: c_int, h_stream: CUstream);
    cuLaunchHostFunc(h_stream: CUstream, fn_: CUhostFn, user_data: *mut c_void);
    cuLaunchKernel(
        f: CUfunction, grid_dim_x: c_uint, grid_dim_y: c_uint, grid_dim_z: c_uint, block_dim_x: c_uint,
        block_dim_y: c_uint, block_dim_z: c_uint, shared_mem_bytes: c_uint, h_stream: CUstream,
        kernel_params: *mut *mut c_void, extra: *mut *mut c_void,
    );
    cuOccupancyAvailableDynamicSMemPerBlock(
        dynamic_smem_size: *mut usize, func: CUfunction, num_blocks: c_int, block_size: c_int,
    );
    cuOccupancyMaxActiveBlocksPerMultiprocessor(
        num_blocks: *mut c_int, func: CUfunction, block_size: c_int, dynamic_s_mem_size: usize,
    );
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        num_blocks: *mut c_int, func: CUfunction, block_size: c_int, dynamic_s_mem_size: usize,
        flags: c_uint,
    );
    cuOccupancyMaxPotentialBlockSize(
        min_grid_size: *mut c_int, block_size: *mut c_int, func: CUfunction,
        block_size_to_dynamic_s_mem_size: CUoccupancyB2DSize, dynamic_s_mem_size: usize,
        block_size_limit: c_int,
    );
    cuOccupancyMaxPotentialBlockSizeWithFlags(
        min_grid_size: *mut c_int, block_size: *mut c_int, func: CUfunction,
        block_size_to_dynamic_s_mem_size: CUoccupancyB2DSize, dynamic_s_mem_size: usize,
        block_size_limit: c_int, flags: c_uint,
    );

    // Memory.
    cuMemAdvise(dev_ptr: CUdeviceptr, count: usize, advice: CUmem_advise, device: CUdevice);
    cuMemAllocAsync(dptr: *mut CUdeviceptr, bytesize: usize, h_stream: CUstream);
    cuMemAllocFromPoolAsync(dptr: *mut CUdeviceptr, bytesize: usize, pool: CUmemoryPool, h_stream: CUstream);
    cuMemAllocHost_v2(pp: *mut *mut c_void, bytesize: usize);
    cuMemAllocManaged(dptr: *mut CUdeviceptr, bytesize: usize, flags: c_uint);
    cuMemAllocPitch_v2(
        dptr: *mut CUdeviceptr, p_pitch: *mut usize, width_in_bytes: usize, height: usize,
        element_size_bytes: c_uint,
    );
    cuMemAlloc_v2(dptr: *mut CUdeviceptr, bytesize: usize);
    cuMemFreeAsync(dptr: CUdeviceptr, h_stream: CUstream);
    cuMemFreeHost(p: *mut c_void);
    cuMemFree_v2(dptr: CUdeviceptr);
    cuMemGetAccess(flags: *mut c_ulonglong, location: *const CUmemLocation, ptr: CUdeviceptr);
    cuMemGetAddressRange_v2(pbase: *mut CUdeviceptr, psize: *mut usize, dptr: CUdeviceptr);
    cuMemGetAllocationGranularity(
        granularity: *mut usize, prop: *const CUmemAllocationProp,
        option: CUmemAllocationGranularity_flags,
    );
    cuMemGetAllocationPropertiesFromHandle(
        prop: *mut CUmemAllocationProp, handle: CUmemGenericAllocationHandle,
    );
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    cuMemHostAlloc(pp: *mut *mut c_void, bytesize: usize, flags: c_uint);
    cuMemHostGetDevicePointer_v2(pdptr: *mut CUdeviceptr, p: *mut c_void, flags: c_uint);
    cuMemHostGetFlags(p_flags: *mut c_uint, p: *mut c_void);
    cuMemHostRegister_v2(p: *mut c_void, bytesize: usize, flags: c_uint);
    cuMemHostUnregister(p: *mut c_void);
    cuMemPoolCreate(pool: *mut CUmemoryPool, pool_props: *const CUmemPoolProps);
    cuMemPoolDestroy(pool: CUmemoryPool);
    cuMemPoolExportPointer(share_data_out: *mut CUmemPoolPtrExportData, ptr: CUdeviceptr);
    cuMemPoolExportToShareableHandle(
        handle_out: *mut c_void, pool: CUmemoryPool, handle_type: CUmemAllocationHandleType,
        flags: c_ulonglong,
    );
    cuMemPoolGetAccess(flags: *mut CUmemAccess_flags, mem_pool: CUmemoryPool, location: *mut CUmemLocation);
    cuMemPoolGetAttribute(pool: CUmemoryPool, attr: CUmemPool_attribute, value: *mut c_void);
    cuMemPoolImportFromShareableHandle(
        pool_out: *mut CUmemoryPool, handle: *mut c_void, handle_type: CUmemAllocationHandleType,
        flags: c_ulonglong,
    );
    cuMemPoolImportPointer(
        ptr_out: *mut CUdeviceptr, pool: CUmemoryPool, share_data: *mut CUmemPoolPtrExportData,
    );
    cuMemPoolSetAccess(pool: CUmemoryPool, map: *const CUmemAccessDesc, count: usize);
    cuMemPoolSetAttribute(pool: CUmemoryPool, attr: CUmemPool_attribute, value: *mut c_void);
    cuMemPoolTrimTo(pool: CUmemoryPool, min_bytes_to_keep: usize);
    cuMemPrefetchAsync(dev_ptr: CUdeviceptr, count: usize, dst_device: CUdevice, h_stream: CUstream);
    cuPointerGetAttribute(data: *mut c_void, attribute: CUpointer_attribute, ptr: CUdeviceptr);
    cuPointerGetAttributes(
        num_attributes: c_uint, attributes: *mut CUpointer_attribute, data: *mut *mut c_void,
        ptr: CUdeviceptr,
    );
    cuPointerSetAttribute(value: *const c_void, attribute: CUpointer_attribute, ptr: CUdeviceptr);

    // Copies and fills.
    cuMemcpy(dst: CUdeviceptr, src: CUdeviceptr, byte_count: usize);
    cuMemcpy2DAsync_v2(p_copy: *const CUDA_MEMCPY2D, h_stream: CUstream);
    cuMemcpy2DUnaligned_v2(p_copy: *const CUDA_MEMCPY2D);
    cuMemcpy2D_v2(p_copy: *const CUDA_MEMCPY2D);
    cuMemcpy3DAsync_v2(p_copy: *const CUDA_MEMCPY3D, h_stream: CUstream);
    cuMemcpy3DPeer(p_copy: *const CUDA_MEMCPY3D_PEER);
    cuMemcpy3DPeerAsync(p_copy: *const CUDA_MEMCPY3D_PEER, h_stream: CUstream);
    cuMemcpy3D_v2(p_copy: *const CUDA_MEMCPY3D);
    cuMemcpyAsync(dst: CUdeviceptr, src: CUdeviceptr, byte_count: usize, h_stream: CUstream);
    cuMemcpyAtoA_v2(
        dst_array: CUarray, dst_offset: usize, src_array: CUarray, src_offset: usize, byte_count: usize,
    );
    cuMemcpyAtoD_v2(dst_device: CUdeviceptr, src_array: CUarray, src_offset: usize, byte_count: usize);
    cuMemcpyAtoHAsync_v2(
        dst_host: *mut c_void, src_array: CUarray, src_offset: usize, byte_count: usize,
        h_stream: CUstream,
    );
    cuMemcpyAtoH_v2(dst_host: *mut c_void, src_array: CUarray, src_offset: usize, byte_count: usize);
    cuMemcpyDtoA_v2(dst_array: CUarray, dst_offset: usize, src_device: CUdeviceptr, byte_count: usize);
    cuMemcpyDtoDAsync_v2(
        dst_device: CUdeviceptr, src_device: CUdeviceptr, byte_count: usize, h_stream: CUstream,
    );
    cuMemcpyDtoD_v2(dst_device: CUdeviceptr, src_device: CUdeviceptr, byte_count: usize);
    cuMemcpyDtoHAsync_v2(
        dst_host: *mut c_void, src_device: CUdeviceptr, byte_count: usize, h_stream: CUstream,
    );
    cuMemcpyDtoH_v2(dst_host: *mut c_void, src_device: CUdeviceptr, byte_count: usize);
    cuMemcpyHtoAAsync_v2(
        dst_array: CUarray, dst_offset: usize, src_host: *const c_void, byte_count: usize,
        h_stream: CUstream,
    );
    cuMemcpyHtoA_v2(dst_array: CUarray, dst_offset: usize, src_host: *const c_void, byte_count: usize);
    cuMemcpyHtoDAsync_v2(
        dst_device: CUdeviceptr, src_host: *const c_void, byte_count: usize, h_stream: CUstream,
    );
    cuMemcpyHtoD_v2(dst_device: CUdeviceptr, src_host: *const c_void, byte_count: usize);
    cuMemcpyPeer(
        dst_device: CUdeviceptr, dst_context: CUcontext, src_device: CUdeviceptr, src_context: CUcontext,
        byte_count: usize,
    );
    cuMemcpyPeerAsync(
        dst_device: CUdeviceptr, dst_context: CUcontext, src_device: CUdeviceptr, src_context: CUcontext,
        byte_count: usize, h_stream: CUstream,
    );
    cuMemsetD16Async(dst_device: CUdeviceptr, us: c_ushort, n: usize, h_stream: CUstream);
    cuMemsetD16_v2(dst_device: CUdeviceptr, us: c_ushort, n: usize);
    cuMemsetD2D16Async(
        dst_device: CUdeviceptr, dst_pitch: usize, us: c_ushort, width: usize, height: usize,
        h_stream: CUstream,
    );
    cuMemsetD2D16_v2(dst_device: CUdeviceptr, dst_pitch: usize, us: c_ushort, width: usize, height: usize);
    cuMemsetD2D32Async(
        dst_device: CUdeviceptr, dst_pitch: usize, ui: c_uint, width: usize, height: usize,
        h_stream: CUstream,
    );
    cuMemsetD2D32_v2(dst_device: CUdeviceptr, dst_pitch: usize, ui: c_uint, width: usize, height: usize);
    cuMemsetD2D8Async(
        dst_device: CUdeviceptr, dst_pitch: usize, uc: c_uchar, width: usize, height: usize,
        h_stream: CUstream,
    );
    cuMemsetD2D8_v2(dst_device: CUdeviceptr, dst_pitch: usize, uc: c_uchar, width: usize, height: usize);
    cuMemsetD32Async(dst_device: CUdeviceptr, ui: c_uint, n: usize, h_stream: CUstream);
    cuMemsetD32_v2(dst_device: CUdeviceptr, ui: c_uint, n: usize);
    cuMemsetD8Async(dst_device: CUdeviceptr, uc: c_uchar, n: usize, h_stream: CUstream);
    cuMemsetD8_v2(dst_device: CUdeviceptr, uc: c_uchar, n: usize);

    // Streams.
    cuStreamAddCallback(
        h_stream: CUstream, callback: CUstreamCallback, user_data: *mut c_void, flags: c_uint,
    );
    cuStreamAttachMemAsync(h_stream: CUstream, dptr: CUdeviceptr, length: usize, flags: c_uint);
    cuStreamBatchMemOp(
        stream: CUstream, count: c_uint, param_array: *mut CUstreamBatchMemOpParams, flags: c_uint,
    );
    cuStreamBeginCapture_v2(h_stream: CUstream, mode: CUstreamCaptureMode);
    cuStreamCopyAttributes(dst: CUstream, src: CUstream);
    cuStreamCreate(ph_stream: *mut CUstream, flags: c_uint);
    cuStreamCreateWithPriority(ph_stream: *mut CUstream, flags: c_uint, priority: c_int);
    cuStreamDestroy_v2(h_stream: CUstream);
    cuStreamEndCapture(h_stream: CUstream, ph_graph: *mut CUgraph);
    cuStreamGetAttribute(h_stream: CUstream, attr: CUstreamAttrID, value_out: *mut CUstreamAttrValue);
    cuStreamGetCaptureInfo(
        h_stream: CUstream, capture_status_out: *mut CUstreamCaptureStatus, id_out: *mut cuuint64_t,
    );
    cuStreamGetCaptureInfo_v2(
        h_stream: CUstream, capture_status_out: *mut CUstreamCaptureStatus, id_out: *mut cuuint64_t,
        graph_out: *mut CUgraph, dependencies_out: *mut *const CUgraphNode,
        num_dependencies_out: *mut usize,
    );
    cuStreamGetCtx(h_stream: CUstream, pctx: *mut CUcontext);
    cuStreamGetFlags(h_stream: CUstream, flags: *mut c_uint);
    cuStreamGetPriority(h_stream: CUstream, priority: *mut c_int);
    cuStreamIsCapturing(h_stream: CUstream, capture_status: *mut CUstreamCaptureStatus);
    cuStreamQuery(h_stream: CUstream);
    cuStreamSetAttribute(h_stream: CUstream, attr: CUstreamAttrID, value: *const CUstreamAttrValue);
    cuStreamSynchronize(h_stream: CUstream);
    cuStreamUpdateCaptureDependencies(
        h_stream: CUstream, dependencies: *mut CUgraphNode, num_dependencies: usize, flags: c_uint,
    );
    cuStreamWaitEvent(h_stream: CUstream, h_event: CUevent, flags: c_uint);
    cuStreamWaitValue32(stream: CUstream, addr: CUdeviceptr, value: cuuint32_t, flags: c_uint);
    cuStreamWaitValue64(stream: CUstream, addr: CUdeviceptr, value: cuuint64_t, flags: c_uint);
    cuStreamWriteValue32(stream: CUstream, addr: CUdeviceptr, value: cuuint32_t, flags: c_uint);
    cuStreamWriteValue64(stream: CUstream, addr: CUdeviceptr, value: cuuint64_t, flags: c_uint);
    cuThreadExchangeStreamCaptureMode(mode: *mut CUstreamCaptureMode);

    // Events.
    cuEventCreate(ph_event: *mut CUevent, flags: c_uint);
    cuEventDestroy_v2(h_event: CUevent);
    cuEventElapsedTime(p_milliseconds: *mut f32, h_start: CUevent, h_end: CUevent);
    cuEventQuery(h_event: CUevent);
    cuEventRecord(h_event: CUevent, h_stream: CUstream);
    cuEventRecordWithFlags(h_event: CUevent, h_stream: CUstream, flags: c_uint);
    cuEventSynchronize(h_event: CUevent);

    // Graphs.
    cuGraphAddChildGraphNode(
        ph_graph_node: *mut CUgraphNode, h_graph: CUgraph, dependencies: *const CUgraphNode,
        num_dependencies: usize, child_graph: CUgraph,
    );
    cuGraphAddDependencies(
        h_graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, num_dependencies: usize,
    );
    cuGraphAddEmptyNode(
        ph_graph_node: *mut CUgraphNode, h_graph: CUgraph, dependencies: *const CUgraphNode,
        num_dependencies: usize,
    );
    cuGraphAddEventRecordNode(
        ph_graph_node: *mut CUgraphNode, h_graph: CUgraph, dependencies: *const CUgraphNode,
        num_dependencies: usize, event: CUevent,
    );
    cuGraphAddEventWaitNode(
        ph_graph_node: *mut CUgraphNode, h_graph: CUgraph, dependencies: *const CUgraphNode,
        num_dependencies: usize, event: CUevent,
    );
    cuGraphAddExternalSemaphoresSignalNode(
        ph_graph_node: *mut CUgraphNode, h_graph: CUgraph, dependencies: *const CUgraphNode,
        num_dependencies: usize, node_params: *const CUDA_EXT_SEM_SIGNAL_NODE_PARAMS,
    );
    cuGraphAddExternalSemaphoresWaitNode(
        ph_graph_node: *mut CUgraphNode, h_graph: CUgraph, dependencies: *const CUgraphNode,
        num_dependencies: usize, node_params: *const CUDA_EXT_SEM_WAIT_NODE_PARAMS,
    );
    cuGraphAddHostNode(
        ph_graph_node: *mut CUgraphNode, h_graph: CUgraph, dependencies: *const CUgraphNode,
        num_dependencies: usize, node_params: *const CUDA_HOST_NODE_PARAMS,
    );
    cuGraphAddKernelNode(
        ph_graph_node: *mut CUgraphNode, h_graph: CUgraph, dependencies: *const CUgraphNode,
        num_dependencies: usize, node_params: *const CUDA_KERNEL_NODE_PARAMS,
    );
    cuGraphAddMemAllocNode(
        ph_graph_node: *mut CUgraphNode, h_graph: CUgraph, dependencies: *const CUgraphNode,
        num_dependencies: usize, node_params: *mut CUDA_MEM_ALLOC_NODE_PARAMS,
    );
    cuGraphAddMemFreeNode(
        ph_graph_node: *mut CUgraphNode, h_graph: CUgraph, dependencies: *const CUgraphNode,
        num_dependencies: usize, dptr: CUdeviceptr,
    );
    cuGraphAddMemcpyNode(
        ph_graph_node: *mut CUgraphNode, h_graph: CUgraph, dependencies: *const CUgraphNode,
        num_dependencies: usize, copy_params: *const CUDA_MEMCPY3D, ctx: CUcontext,
    );
    cuGraphAddMemsetNode(
        ph_graph_node: *mut CUgraphNode, h_graph: CUgraph, dependencies: *const CUgraphNode,
        num_dependencies: usize, memset_params: *const CUDA_MEMSET_NODE_PARAMS, ctx: CUcontext,
    );
    cuGraphChildGraphNodeGetGraph(h_node: CUgraphNode, ph_graph: *mut CUgraph);
    cuGraphClone(ph_graph_clone: *mut CUgraph, original_graph: CUgraph);
    cuGraphCreate(ph_graph: *mut CUgraph, flags: c_uint);
    cuGraphDebugDotPrint(h_graph: CUgraph, path: *const c_char, flags: c_uint);
    cuGraphDestroy(h_graph: CUgraph);
    cuGraphDestroyNode(h_node: CUgraphNode);
    cuGraphEventRecordNodeGetEvent(h_node: CUgraphNode, event_out: *mut CUevent);
    cuGraphEventRecordNodeSetEvent(h_node: CUgraphNode, event: CUevent);
    cuGraphEventWaitNodeGetEvent(h_node: CUgraphNode, event_out: *mut CUevent);
    cuGraphEventWaitNodeSetEvent(h_node: CUgraphNode, event: CUevent);
    cuGraphExecChildGraphNodeSetParams(h_graph_exec: CUgraphExec, h_node: CUgraphNode, child_graph: CUgraph);
    cuGraphExecDestroy(h_graph_exec: CUgraphExec);
    cuGraphExecEventRecordNodeSetEvent(h_graph_exec: CUgraphExec, h_node: CUgraphNode, event: CUevent);
    cuGraphExecEventWaitNodeSetEvent(h_graph_exec: CUgraphExec, h_node: CUgraphNode, event: CUevent);
    cuGraphExecExternalSemaphoresSignalNodeSetParams(
        h_graph_exec: CUgraphExec, h_node: CUgraphNode,
        node_params: *const CUDA_EXT_SEM_SIGNAL_NODE_PARAMS,
    );
    cuGraphExecExternalSemaphoresWaitNodeSetParams(
        h_graph_exec: CUgraphExec, h_node: CUgraphNode, node_params: *const CUDA_EXT_SEM_WAIT_NODE_PARAMS,
    );
    cuGraphExecHostNodeSetParams(
        h_graph_exec: CUgraphExec, h_node: CUgraphNode, node_params: *const CUDA_HOST_NODE_PARAMS,
    );
    cuGraphExecKernelNodeSetParams(
        h_graph_exec: CUgraphExec, h_node: CUgraphNode, node_params: *const CUDA_KERNEL_NODE_PARAMS,
    );
    cuGraphExecMemcpyNodeSetParams(
        h_graph_exec: CUgraphExec, h_node: CUgraphNode, copy_params: *const CUDA_MEMCPY3D, ctx: CUcontext,
    );
    cuGraphExecMemsetNodeSetParams(
        h_graph_exec: CUgraphExec, h_node: CUgraphNode, memset_params: *const CUDA_MEMSET_NODE_PARAMS,
        ctx: CUcontext,
    );
    cuGraphExecUpdate(
        h_graph_exec: CUgraphExec, h_graph: CUgraph, h_error_node_out: *mut CUgraphNode,
        update_result_out: *mut CUgraphExecUpdateResult,
    );
    cuGraphExternalSemaphoresSignalNodeGetParams(
        h_node: CUgraphNode, params_out: *mut CUDA_EXT_SEM_SIGNAL_NODE_PARAMS,
    );
    cuGraphExternalSemaphoresSignalNodeSetParams(
        h_node: CUgraphNode, node_params: *const CUDA_EXT_SEM_SIGNAL_NODE_PARAMS,
    );
    cuGraphExternalSemaphoresWaitNodeGetParams(
        h_node: CUgraphNode, params_out: *mut CUDA_EXT_SEM_WAIT_NODE_PARAMS,
    );
    cuGraphExternalSemaphoresWaitNodeSetParams(
        h_node: CUgraphNode, node_params: *const CUDA_EXT_SEM_WAIT_NODE_PARAMS,
    );
    cuGraphGetEdges(h_graph: CUgraph, from: *mut CUgraphNode, to: *mut CUgraphNode, num_edges: *mut usize);
    cuGraphGetNodes(h_graph: CUgraph, nodes: *mut CUgraphNode, num_nodes: *mut usize);
    cuGraphGetRootNodes(h_graph: CUgraph, root_nodes: *mut CUgraphNode, num_root_nodes: *mut usize);
    cuGraphHostNodeGetParams(h_node: CUgraphNode, node_params: *mut CUDA_HOST_NODE_PARAMS);
    cuGraphHostNodeSetParams(h_node: CUgraphNode, node_params: *const CUDA_HOST_NODE_PARAMS);
    cuGraphInstantiateWithFlags(ph_graph_exec: *mut CUgraphExec, h_graph: CUgraph, flags: c_ulonglong);
    cuGraphInstantiate_v2(
        ph_graph_exec: *mut CUgraphExec, h_graph: CUgraph, ph_error_node: *mut CUgraphNode,
        log_buffer: *mut c_char, buffer_size: usize,
    );
    cuGraphKernelNodeCopyAttributes(dst: CUgraphNode, src: CUgraphNode);
    cuGraphKernelNodeGetAttribute(
        h_node: CUgraphNode, attr: CUkernelNodeAttrID, value_out: *mut CUkernelNodeAttrValue,
    );
    cuGraphKernelNodeGetParams(h_node: CUgraphNode, node_params: *mut CUDA_KERNEL_NODE_PARAMS);
    cuGraphKernelNodeSetAttribute(
        h_node: CUgraphNode, attr: CUkernelNodeAttrID, value: *const CUkernelNodeAttrValue,
    );
    cuGraphKernelNodeSetParams(h_node: CUgraphNode, node_params: *const CUDA_KERNEL_NODE_PARAMS);
    cuGraphLaunch(h_graph_exec: CUgraphExec, h_stream: CUstream);
    cuGraphMemAllocNodeGetParams(h_node: CUgraphNode, params_out: *mut CUDA_MEM_ALLOC_NODE_PARAMS);
    cuGraphMemFreeNodeGetParams(h_node: CUgraphNode, dptr_out: *mut CUdeviceptr);
    cuGraphMemcpyNodeGetParams(h_node: CUgraphNode, node_params: *mut CUDA_MEMCPY3D);
    cuGraphMemcpyNodeSetParams(h_node: CUgraphNode, node_params: *const CUDA_MEMCPY3D);
    cuGraphMemsetNodeGetParams(h_node: CUgraphNode, node_params: *mut CUDA_MEMSET_NODE_PARAMS);
    cuGraphMemsetNodeSetParams(h_node: CUgraphNode, node_params: *const CUDA_MEMSET_NODE_PARAMS);
    cuGraphNodeFindInClone(ph_node: *mut CUgraphNode, h_original_node: CUgraphNode, h_cloned_graph: CUgraph);
    cuGraphNodeGetDependencies(
        h_node: CUgraphNode, dependencies: *mut CUgraphNode, num_dependencies: *mut usize,
    );
    cuGraphNodeGetDependentNodes(
        h_node: CUgraphNode, dependent_nodes: *mut CUgraphNode, num_dependent_nodes: *mut usize,
    );
    cuGraphNodeGetType(h_node: CUgraphNode, type_: *mut CUgraphNodeType);
    cuGraphReleaseUserObject(graph: CUgraph, object: CUuserObject, count: c_uint);
    cuGraphRemoveDependencies(
        h_graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, num_dependencies: usize,
    );
    cuGraphRetainUserObject(graph: CUgraph, object: CUuserObject, count: c_uint, flags: c_uint);
    cuGraphUpload(h_graph_exec: CUgraphExec, h_stream: CUstream);
    cuGraphicsMapResources(count: c_uint, resources: *mut CUgraphicsResource, h_stream: CUstream);
    cuGraphicsResourceGetMappedMipmappedArray(
        p_mipmapped_array: *mut CUmipmappedArray, resource: CUgraphicsResource,
    );
    cuGraphicsResourceGetMappedPointer_v2(
        p_dev_ptr: *mut CUdeviceptr, p_size: *mut usize, resource: CUgraphicsResource,
    );
    cuGraphicsResourceSetMapFlags_v2(resource: CUgraphicsResource, flags: c_uint);
    cuGraphicsSubResourceGetMappedArray(
        p_array: *mut CUarray, resource: CUgraphicsResource, array_index: c_uint, mip_level: c_uint,
    );
    cuGraphicsUnmapResources(count: c_uint, resources: *mut CUgraphicsResource, h_stream: CUstream);
    cuGraphicsUnregisterResource(resource: CUgraphicsResource);

    // Arrays, textures, surfaces, external and virtual memory.
    cuArray3DCreate_v2(p_handle: *mut CUarray, p_allocate_array: *const CUDA_ARRAY3D_DESCRIPTOR);
    cuArray3DGetDescriptor_v2(p_array_descriptor: *mut CUDA_ARRAY3D_DESCRIPTOR, h_array: CUarray);
    cuArrayCreate_v2(p_handle: *mut CUarray, p_allocate_array: *const CUDA_ARRAY_DESCRIPTOR);
    cuArrayDestroy(h_array: CUarray);
    cuArrayGetDescriptor_v2(p_array_descriptor: *mut CUDA_ARRAY_DESCRIPTOR, h_array: CUarray);
    cuArrayGetPlane(p_plane_array: *mut CUarray, h_array: CUarray, plane_idx: c_uint);
    cuArrayGetSparseProperties(sparse_properties: *mut CUDA_ARRAY_SPARSE_PROPERTIES, array: CUarray);
    cuDestroyExternalMemory(ext_mem: CUexternalMemory);
    cuDestroyExternalSemaphore(ext_sem: CUexternalSemaphore);
    cuExternalMemoryGetMappedBuffer(
        dev_ptr: *mut CUdeviceptr, ext_mem: CUexternalMemory,
        buffer_desc: *const CUDA_EXTERNAL_MEMORY_BUFFER_DESC,
    );
    cuExternalMemoryGetMappedMipmappedArray(
        mipmap: *mut CUmipmappedArray, ext_mem: CUexternalMemory,
        mipmap_desc: *const CUDA_EXTERNAL_MEMORY_MIPMAPPED_ARRAY_DESC,
    );
    cuFlushGPUDirectRDMAWrites(
        target: CUflushGPUDirectRDMAWritesTarget, scope: CUflushGPUDirectRDMAWritesScope,
    );
    cuGetExportTable(pp_export_table: *mut *const c_void, p_export_table_id: *const CUuuid);
    cuImportExternalMemory(
        ext_mem_out: *mut CUexternalMemory, mem_handle_desc: *const CUDA_EXTERNAL_MEMORY_HANDLE_DESC,
    );
    cuImportExternalSemaphore(
        ext_sem_out: *mut CUexternalSemaphore, sem_handle_desc: *const CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC,
    );
    cuIpcCloseMemHandle(dptr: CUdeviceptr);
    cuIpcGetEventHandle(p_handle: *mut CUipcEventHandle, event: CUevent);
    cuIpcGetMemHandle(p_handle: *mut CUipcMemHandle, dptr: CUdeviceptr);
    cuIpcOpenEventHandle(ph_event: *mut CUevent, handle: CUipcEventHandle);
    cuIpcOpenMemHandle_v2(pdptr: *mut CUdeviceptr, handle: CUipcMemHandle, flags: c_uint);
    cuMemAddressFree(ptr: CUdeviceptr, size: usize);
    cuMemAddressReserve(
        ptr: *mut CUdeviceptr, size: usize, alignment: usize, addr: CUdeviceptr, flags: c_ulonglong,
    );
    cuMemCreate(
        handle: *mut CUmemGenericAllocationHandle, size: usize, prop: *const CUmemAllocationProp,
        flags: c_ulonglong,
    );
    cuMemExportToShareableHandle(
        shareable_handle: *mut c_void, handle: CUmemGenericAllocationHandle,
        handle_type: CUmemAllocationHandleType, flags: c_ulonglong,
    );
    cuMemImportFromShareableHandle(
        handle: *mut CUmemGenericAllocationHandle, os_handle: *mut c_void,
        sh_handle_type: CUmemAllocationHandleType,
    );
    cuMemMap(
        ptr: CUdeviceptr, size: usize, offset: usize, handle: CUmemGenericAllocationHandle,
        flags: c_ulonglong,
    );
    cuMemMapArrayAsync(map_info_list: *mut CUarrayMapInfo, count: c_uint, h_stream: CUstream);
    cuMemRangeGetAttribute(
        data: *mut c_void, data_size: usize, attribute: CUmem_range_attribute, dev_ptr: CUdeviceptr,
        count: usize,
    );
    cuMemRangeGetAttributes(
        data: *mut *mut c_void, data_sizes: *mut usize, attributes: *mut CUmem_range_attribute,
        num_attributes: usize, dev_ptr: CUdeviceptr, count: usize,
    );
    cuMemRelease(handle: CUmemGenericAllocationHandle);
    cuMemRetainAllocationHandle(handle: *mut CUmemGenericAllocationHandle, addr: *mut c_void);
    cuMemSetAccess(ptr: CUdeviceptr, size: usize, desc: *const CUmemAccessDesc, count: usize);
    cuMemUnmap(ptr: CUdeviceptr, size: usize);
    cuMipmappedArrayCreate(
        p_handle: *mut CUmipmappedArray, p_mipmapped_array_desc: *const CUDA_ARRAY3D_DESCRIPTOR,
        num_mipmap_levels: c_uint,
    );
    cuMipmappedArrayDestroy(h_mipmapped_array: CUmipmappedArray);
    cuMipmappedArrayGetLevel(p_level_array: *mut CUarray, h_mipmapped_array: CUmipmappedArray, level: c_uint);
    cuMipmappedArrayGetSparseProperties(
        sparse_properties: *mut CUDA_ARRAY_SPARSE_PROPERTIES, mipmap: CUmipmappedArray,
    );
    cuParamSetSize(hfunc: CUfunction, numbytes: c_uint);
    cuParamSetTexRef(hfunc: CUfunction, texunit: c_int, h_tex_ref: CUtexref);
    cuParamSetf(hfunc: CUfunction, offset: c_int, value: f32);
    cuParamSeti(hfunc: CUfunction, offset: c_int, value: c_uint);
    cuParamSetv(hfunc: CUfunction, offset: c_int, ptr: *mut c_void, numbytes: c_uint);
    cuProfilerInitialize(config_file: *const c_char, output_file: *const c_char, output_mode: CUoutput_mode);
    cuProfilerStart();
    cuProfilerStop();
    cuSignalExternalSemaphoresAsync(
        ext_sem_array: *const CUexternalSemaphore,
        params_array: *const CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS, num_ext_sems: c_uint, stream: CUstream,
    );
    cuSurfObjectCreate(p_surf_object: *mut CUsurfObject, p_res_desc: *const CUDA_RESOURCE_DESC);
    cuSurfObjectDestroy(surf_object: CUsurfObject);
    cuSurfObjectGetResourceDesc(p_res_desc: *mut CUDA_RESOURCE_DESC, surf_object: CUsurfObject);
    cuSurfRefGetArray(ph_array: *mut CUarray, h_surf_ref: CUsurfref);
    cuSurfRefSetArray(h_surf_ref: CUsurfref, h_array: CUarray, flags: c_uint);
    cuTexObjectCreate(
        p_tex_object: *mut CUtexObject, p_res_desc: *const CUDA_RESOURCE_DESC,
        p_tex_desc: *const CUDA_TEXTURE_DESC, p_res_view_desc: *const CUDA_RESOURCE_VIEW_DESC,
    );
    cuTexObjectDestroy(tex_object: CUtexObject);
    cuTexObjectGetResourceDesc(p_res_desc: *mut CUDA_RESOURCE_DESC, tex_object: CUtexObject);
    cuTexObjectGetResourceViewDesc(p_res_view_desc: *mut CUDA_RESOURCE_VIEW_DESC, tex_object: CUtexObject);
    cuTexObjectGetTextureDesc(p_tex_desc: *mut CUDA_TEXTURE_DESC, tex_object: CUtexObject);
    cuTexRefCreate(p_tex_ref: *mut CUtexref);
    cuTexRefDestroy(h_tex_ref: CUtexref);
    cuTexRefGetAddressMode(pam: *mut CUaddress_mode, h_tex_ref: CUtexref, dim: c_int);
    cuTexRefGetAddress_v2(pdptr: *mut CUdeviceptr, h_tex_ref: CUtexref);
    cuTexRefGetArray(ph_array: *mut CUarray, h_tex_ref: CUtexref);
    cuTexRefGetBorderColor(p_border_color: *mut f32, h_tex_ref: CUtexref);
    cuTexRefGetFilterMode(pfm: *mut CUfilter_mode, h_tex_ref: CUtexref);
    cuTexRefGetFlags(p_flags: *mut c_uint, h_tex_ref: CUtexref);
    cuTexRefGetFormat(p_format: *mut CUarray_format, p_num_channels: *mut c_int, h_tex_ref: CUtexref);
    cuTexRefGetMaxAnisotropy(pmax_aniso: *mut c_int, h_tex_ref: CUtexref);
    cuTexRefGetMipmapFilterMode(pfm: *mut CUfilter_mode, h_tex_ref: CUtexref);
    cuTexRefGetMipmapLevelBias(pbias: *mut f32, h_tex_ref: CUtexref);
    cuTexRefGetMipmapLevelClamp(
        pmin_mipmap_level_clamp: *mut f32, pmax_mipmap_level_clamp: *mut f32, h_tex_ref: CUtexref,
    );
    cuTexRefGetMipmappedArray(ph_mipmapped_array: *mut CUmipmappedArray, h_tex_ref: CUtexref);
    cuTexRefSetAddress2D_v3(
        h_tex_ref: CUtexref, desc: *const CUDA_ARRAY_DESCRIPTOR, dptr: CUdeviceptr, pitch: usize,
    );
    cuTexRefSetAddressMode(h_tex_ref: CUtexref, dim: c_int, am: CUaddress_mode);
    cuTexRefSetAddress_v2(byte_offset: *mut usize, h_tex_ref: CUtexref, dptr: CUdeviceptr, bytes: usize);
    cuTexRefSetArray(h_tex_ref: CUtexref, h_array: CUarray, flags: c_uint);
    cuTexRefSetBorderColor(h_tex_ref: CUtexref, p_border_color: *mut f32);
    cuTexRefSetFilterMode(h_tex_ref: CUtexref, fm: CUfilter_mode);
    cuTexRefSetFlags(h_tex_ref: CUtexref, flags: c_uint);
    cuTexRefSetFormat(h_tex_ref: CUtexref, fmt: CUarray_format, num_packed_components: c_int);
    cuTexRefSetMaxAnisotropy(h_tex_ref: CUtexref, max_aniso: c_uint);
    cuTexRefSetMipmapFilterMode(h_tex_ref: CUtexref, fm: CUfilter_mode);
    cuTexRefSetMipmapLevelBias(h_tex_ref: CUtexref, bias: f32);
    cuTexRefSetMipmapLevelClamp(
        h_tex_ref: CUtexref, min_mipmap_level_clamp: f32, max_mipmap_level_clamp: f32,
    );
    cuTexRefSetMipmappedArray(h_tex_ref: CUtexref, h_mipmapped_array: CUmipmappedArray, flags: c_uint);
    cuUserObjectCreate(
        object_out: *mut CUuserObject, ptr: *mut c_void, destroy: CUhostFn, initial_refcount: c_uint,
        flags: c_uint,
    );
    cuUserObjectRelease(object: CUuserObject, count: c_uint);
    cuUserObjectRetain(object: CUuserObject, count: c_uint);
    cuWaitExternalSemaphoresAsync(
        ext_sem_array: *const CUexternalSemaphore,
        params_array: *const CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS, num_ext_sems: c_uint, stream: CUstream,
    );
}
