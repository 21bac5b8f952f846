//! Finding a device: every way in which there may be none is an error of its own, and none is a panic.

use std::ffi::CStr;

use cudarc::driver::sys::{self, CUcomputemode, CUdevice, CUdevice_attribute as Attribute, CUresult};

use super::{
    calls::{call, check, describe, no_device},
    functions::Code,
};
use crate::cuda::{Facts, Failure};

/// CUDA 12.4, which driver 550 gives: the version whose PTX the kernels are compiled to.
const OLDEST_DRIVER: (u32, u32) = (12, 4);
/// Ampere has bf16, its matrix instructions and asynchronous copies.
const OLDEST_DEVICE: (u32, u32) = (8, 0);

/// A device that was found, not yet in use.
pub(super) struct Found {
    pub(super) device: CUdevice,
    pub(super) facts: Facts,
}

/// How many devices the driver sees.
///
/// # Errors
/// [`Failure::NoDriver`], [`Failure::DriverTooOld`], [`Failure::NoDevice`] or [`Failure::Call`].
#[allow(unsafe_code)]
pub(super) fn count() -> Result<usize, Failure> {
    // SAFETY: it tries to open the library, whose initialisers are NVIDIA's.
    if !unsafe { sys::is_culib_present() } {
        return Err(Failure::NoDriver);
    }
    let (mut version, mut count) = (0, 0);
    // SAFETY: both numbers live until the calls return. The version is asked for first: it needs no initialisation, and
    // tells whether the library has everything that is called later.
    unsafe {
        call!(cuDriverGetVersion(&mut version))?;
        let found = parse_version(version);
        if found < OLDEST_DRIVER {
            return Err(Failure::DriverTooOld { found: shown(found), needed: shown(OLDEST_DRIVER) });
        }
        call!(cuInit(0))?;
        call!(cuDeviceGetCount(&mut count))?;
    }
    match usize::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(no_device()),
    }
}

/// Device `index`, if it can do what the kernels need.
///
/// # Errors
/// As [`count`], and [`Failure::NoSuchDevice`], [`Failure::DeviceTooOld`] or [`Failure::Busy`].
#[allow(unsafe_code)]
pub(super) fn find(index: usize) -> Result<Found, Failure> {
    let count = count()?;
    let Some(ordinal) = i32::try_from(index).ok().filter(|_| index < count) else {
        return Err(Failure::NoSuchDevice { index, count });
    };
    let (mut device, mut version, mut name) = (0, 0, [0; 256]);
    // SAFETY: the driver is initialised; it writes no more than the room that is given.
    unsafe {
        call!(cuDeviceGet(&mut device, ordinal))?;
        call!(cuDriverGetVersion(&mut version))?;
        call!(cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as i32, device))?;
    }
    let attribute = |attribute| -> Result<u32, Failure> {
        let mut value = 0;
        // SAFETY: the device exists, and `value` lives until the call returns.
        unsafe { call!(cuDeviceGetAttribute(&mut value, attribute, device))? };
        Ok(u32::try_from(value).unwrap_or(0))
    };
    let name = CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned();
    let capability = (
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    if capability < OLDEST_DEVICE {
        return Err(Failure::DeviceTooOld { name, major: capability.0, minor: capability.1 });
    }
    let mode = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_MODE)?;
    if mode == CUcomputemode::CU_COMPUTEMODE_PROHIBITED as u32 {
        return Err(Failure::Busy);
    }
    let facts = Facts {
        name,
        index,
        capability,
        driver: parse_version(version),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_bytes_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        shared_bytes_per_multiprocessor: attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
        )?,
        cache_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        exact_allocations: false,
    };
    Ok(Found { device, facts })
}

/// What a call that may find no memory says: `bytes` were asked for.
pub(super) fn no_room(call: &'static str, code: Code, bytes: usize) -> Result<(), Failure> {
    if !code.is(CUresult::CUDA_ERROR_OUT_OF_MEMORY) {
        return check(call, code);
    }
    match memory() {
        Ok((free, total)) => Err(Failure::OutOfMemory { bytes, free, total }),
        Err(_) => Err(Failure::Call { call, code: describe(code) }),
    }
}

/// Free and total bytes of the device that this thread uses.
#[allow(unsafe_code)]
pub(super) fn memory() -> Result<(usize, usize), Failure> {
    let (mut free, mut total) = (0, 0);
    // SAFETY: both numbers live until the call returns.
    unsafe { call!(cuMemGetInfo_v2(&mut free, &mut total))? };
    Ok((free, total))
}

/// `(12, 4)` from the driver's 12040.
fn parse_version(version: i32) -> (u32, u32) {
    let version = u32::try_from(version).unwrap_or(0);
    (version / 1000, version % 1000 / 10)
}

fn shown((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version(12_040), (12, 4));
        assert_eq!(parse_version(13_000), (13, 0));
        assert!(parse_version(11_080) < OLDEST_DRIVER);
        assert_eq!(parse_version(-1), (0, 0));
    }

    #[test]
    fn a_machine_without_a_device_says_so() {
        // Wherever this runs, nothing panics; where there is a device, it is found.
        match find(0) {
            Ok(found) => assert!(found.facts.multiprocessors > 0),
            Err(failure) => assert!(!failure.to_string().is_empty()),
        }
    }
}
