//! Calls of the driver's library, each with its return code checked and named.

use std::ffi::{CStr, c_char};

use cudarc::driver::sys::CUresult;

use super::functions::{self, Code};
use crate::cuda::Failure;

/// Makes a call and gives a [`Failure`] that names it unless it succeeded.
macro_rules! call {
    ($name:ident($($argument:expr),* $(,)?)) => {
        $crate::cuda::nvidia::calls::check(
            stringify!($name),
            $crate::cuda::nvidia::functions::$name($($argument),*),
        )
    };
}
pub(super) use call;

/// What a return code means.
pub(super) fn check(call: &'static str, code: Code) -> Result<(), Failure> {
    if code.is(CUresult::CUDA_SUCCESS) {
        return Ok(());
    }
    if code.is(CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE) {
        return Err(Failure::Busy);
    }
    if code.is(CUresult::CUDA_ERROR_NO_DEVICE) {
        return Err(no_device());
    }
    Err(Failure::Call { call, code: describe(code) })
}

/// The driver sees no device.
pub(super) fn no_device() -> Failure {
    Failure::NoDevice(hidden())
}

/// The name of a code, its meaning, and what to do about those that users meet.
#[allow(unsafe_code)]
pub(super) fn describe(code: Code) -> String {
    /// What to do about a code.
    const ADVICE: [(CUresult, &str); 4] = [
        (
            CUresult::CUDA_ERROR_STUB_LIBRARY,
            ": the libcuda that was found is the toolkit's stub; take its folder out of LD_LIBRARY_PATH",
        ),
        (
            CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH,
            ": the driver was updated since the machine started; start it again",
        ),
        (CUresult::CUDA_ERROR_SYSTEM_NOT_READY, ": is nvidia-fabricmanager running?"),
        (CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION, ": update NVIDIA's driver to 550 or newer"),
    ];
    if code == Code::NO_FUNCTION {
        return "the driver's library has no such function".to_owned();
    }
    let text = |read: unsafe fn(Code, *mut *const c_char) -> Code| {
        let mut text = std::ptr::null();
        // SAFETY: the driver sets `text` to a constant string, or leaves it null, as for codes that it does not know.
        unsafe {
            read(code, &mut text);
            if text.is_null() { None } else { Some(CStr::from_ptr(text).to_string_lossy().into_owned()) }
        }
    };
    let advice = ADVICE.iter().find(|(known, _)| code.is(*known)).map_or("", |(_, advice)| advice);
    match (text(functions::cuGetErrorName), text(functions::cuGetErrorString)) {
        (Some(name), Some(meaning)) => format!("{name} ({meaning}){advice}"),
        _ => format!("error {}{advice}", code.0),
    }
}

/// Why a driver may see no device although there is one.
fn hidden() -> String {
    match std::env::var("CUDA_VISIBLE_DEVICES") {
        Ok(devices) => format!(" (CUDA_VISIBLE_DEVICES is {devices:?})"),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_nobody_knows_are_numbers() {
        // One of a driver yet to come. Where there is a driver, it does not know the code either.
        let failure = check("cuSomething", Code(54_321)).unwrap_err().to_string();
        assert!(failure.starts_with("cuSomething failed: ") && failure.len() > 25, "{failure}");
        assert!(
            check("cuSomething", Code::NO_FUNCTION).unwrap_err().to_string().contains("no such function")
        );
        assert_eq!(
            check("cuSomething", Code(CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE as u32)),
            Err(Failure::Busy)
        );
        assert_eq!(check("cuSomething", Code(0)), Ok(()));
    }
}
