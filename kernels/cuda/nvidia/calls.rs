//! Calls of the driver's library, each with its return code checked and named.

use std::ffi::CStr;

use cudarc::driver::sys::{self, CUresult};

use crate::cuda::Failure;

/// Makes a call and gives a [`Failure`] that names it unless it succeeded.
macro_rules! call {
    ($name:ident($($argument:expr),* $(,)?)) => {
        $crate::cuda::nvidia::calls::check(stringify!($name), cudarc::driver::sys::$name($($argument),*))
    };
}
pub(super) use call;

/// What a return code means.
pub(super) fn check(call: &'static str, code: CUresult) -> Result<(), Failure> {
    match code {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE => Err(Failure::Busy),
        CUresult::CUDA_ERROR_NO_DEVICE => Err(Failure::NoDevice(hidden())),
        _ => Err(Failure::Call { call, code: describe(code) }),
    }
}

/// The name of a code, its meaning, and what to do about those that users meet.
#[allow(unsafe_code)]
pub(super) fn describe(code: CUresult) -> String {
    let text = |read: unsafe fn(CUresult, *mut *const std::ffi::c_char) -> CUresult| {
        let mut text = std::ptr::null();
        // SAFETY: the driver sets `text` to a constant string, or leaves it null.
        unsafe {
            read(code, &mut text);
            if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    };
    let advice = match code {
        CUresult::CUDA_ERROR_STUB_LIBRARY => {
            ": the libcuda that was found is the toolkit's stub; take its folder out of LD_LIBRARY_PATH"
        }
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            ": the driver was updated since the machine started; start it again"
        }
        CUresult::CUDA_ERROR_SYSTEM_NOT_READY => ": is nvidia-fabricmanager running?",
        CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => ": update NVIDIA's driver to 550 or newer",
        _ => "",
    };
    format!("{} ({}){advice}", text(sys::cuGetErrorName), text(sys::cuGetErrorString))
}

/// Why a driver may see no device although there is one.
fn hidden() -> String {
    match std::env::var("CUDA_VISIBLE_DEVICES") {
        Ok(devices) => format!(" (CUDA_VISIBLE_DEVICES is {devices:?})"),
        Err(_) => String::new(),
    }
}
