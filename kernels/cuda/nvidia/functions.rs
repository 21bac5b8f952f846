//! The functions of the driver's library that are called, found by their names when they are first called.
//!
//! Names, types and constants are cudarc's. Its own functions give their result as an enumeration of the codes that CUDA
//! 12.4 knows, and a newer driver may have others, which no such value may hold; here a result is a number. A function that
//! the library does not have is an error like any other.

#![allow(non_snake_case)]

use std::{
    ffi::{c_char, c_void},
    sync::OnceLock,
};

use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUdevice_attribute, CUevent, CUfunction, CUfunction_attribute, CUgraph,
    CUgraphExec, CUjit_option, CUmodule, CUstream, CUstreamCaptureMode, CUtensorMap, CUtensorMapDataType,
    CUtensorMapFloatOOBfill, CUtensorMapInterleave, CUtensorMapL2promotion, CUtensorMapSwizzle,
};

/// What a call gives: one of [`sys::CUresult`], or a code of a newer driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Code(pub(super) u32);

impl Code {
    /// The library has no such function. No driver gives this code.
    pub(super) const NO_FUNCTION: Self = Self(u32::MAX);

    /// Whether it is `code`.
    pub(super) fn is(self, code: sys::CUresult) -> bool {
        self.0 == code as u32
    }
}

/// Defines each function: the address is looked up once.
macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        $(
            #[allow(clippy::too_many_arguments, clippy::many_single_char_names)]
            pub(super) unsafe fn $name($($argument: $type),*) -> Code {
                type Function = unsafe extern "C" fn($($type),*) -> Code;
                static FOUND: OnceLock<Option<Function>> = OnceLock::new();
                // SAFETY: the type is the function's in NVIDIA's header, where the result is an enumeration of 32 bits.
                match FOUND.get_or_init(|| unsafe { find::<Function>(stringify!($name)) }) {
                    // SAFETY: the caller's promise.
                    Some(function) => unsafe { function($($argument),*) },
                    None => Code::NO_FUNCTION,
                }
            }
        )*
    };
}

functions! {
    cuCtxSetCurrent(a: CUcontext);
    cuDeviceGet(a: *mut CUdevice, b: i32);
    cuDeviceGetAttribute(a: *mut i32, b: CUdevice_attribute, c: CUdevice);
    cuDeviceGetCount(a: *mut i32);
    cuDeviceGetName(a: *mut c_char, b: i32, c: CUdevice);
    cuDevicePrimaryCtxRelease_v2(a: CUdevice);
    cuDevicePrimaryCtxRetain(a: *mut CUcontext, b: CUdevice);
    cuDriverGetVersion(a: *mut i32);
    cuEventCreate(a: *mut CUevent, b: u32);
    cuEventDestroy_v2(a: CUevent);
    cuEventRecord(a: CUevent, b: CUstream);
    cuEventSynchronize(a: CUevent);
    cuFuncGetAttribute(a: *mut i32, b: CUfunction_attribute, c: CUfunction);
    cuFuncSetAttribute(a: CUfunction, b: CUfunction_attribute, c: i32);
    cuGetErrorName(a: Code, b: *mut *const c_char);
    cuGetErrorString(a: Code, b: *mut *const c_char);
    cuGraphDestroy(a: CUgraph);
    cuGraphExecDestroy(a: CUgraphExec);
    cuGraphInstantiateWithFlags(a: *mut CUgraphExec, b: CUgraph, c: u64);
    cuGraphLaunch(a: CUgraphExec, b: CUstream);
    cuInit(a: u32);
    cuLaunchKernel(a: CUfunction, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32, i: CUstream, j: *mut *mut c_void, k: *mut *mut c_void);
    cuMemAlloc_v2(a: *mut u64, b: usize);
    cuMemFreeHost(a: *mut c_void);
    cuMemFree_v2(a: u64);
    cuMemGetInfo_v2(a: *mut usize, b: *mut usize);
    cuMemHostAlloc(a: *mut *mut c_void, b: usize, c: u32);
    cuMemcpyDtoDAsync_v2(a: u64, b: u64, c: usize, d: CUstream);
    cuMemcpyDtoHAsync_v2(a: *mut c_void, b: u64, c: usize, d: CUstream);
    cuMemcpyHtoDAsync_v2(a: u64, b: *const c_void, c: usize, d: CUstream);
    cuMemsetD8Async(a: u64, b: u8, c: usize, d: CUstream);
    cuModuleGetFunction(a: *mut CUfunction, b: CUmodule, c: *const c_char);
    cuModuleLoadDataEx(a: *mut CUmodule, b: *const c_void, c: u32, d: *mut CUjit_option, e: *mut *mut c_void);
    cuModuleUnload(a: CUmodule);
    cuStreamBeginCapture_v2(a: CUstream, b: CUstreamCaptureMode);
    cuStreamCreate(a: *mut CUstream, b: u32);
    cuStreamDestroy_v2(a: CUstream);
    cuStreamEndCapture(a: CUstream, b: *mut CUgraph);
    cuStreamSynchronize(a: CUstream);
    cuStreamWaitEvent(a: CUstream, b: CUevent, c: u32);
    cuTensorMapEncodeTiled(a: *mut CUtensorMap, b: CUtensorMapDataType, c: u32, d: *mut c_void, e: *const u64, f: *const u64, g: *const u32, h: *const u32, i: CUtensorMapInterleave, j: CUtensorMapSwizzle, k: CUtensorMapL2promotion, l: CUtensorMapFloatOOBfill);
}

/// The address of a function of the library, which stays loaded.
unsafe fn find<F: Copy>(name: &str) -> Option<F> {
    // SAFETY: it opens the library, whose initialisers are NVIDIA's; without one, `culib` would panic. The caller knows the
    // type.
    unsafe {
        if !sys::is_culib_present() {
            return None;
        }
        sys::culib().get::<F>(name.as_bytes()).ok().map(|symbol| *symbol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_function_is_a_code_and_no_panic() {
        // SAFETY: nobody has such a function, so nothing is called.
        let found = unsafe { find::<unsafe extern "C" fn() -> Code>("cuNobodyHasThis") };
        assert!(found.is_none());
        assert!(
            Code(0).is(sys::CUresult::CUDA_SUCCESS) && !Code::NO_FUNCTION.is(sys::CUresult::CUDA_SUCCESS)
        );
    }
}
