//! What there is: devices, and the kernels that one of them would run.

use super::{Failure, modules, nvidia, ptx::MODULES};

/// How many devices the driver sees.
///
/// # Errors
/// When there is no driver, or it sees none.
pub(crate) fn count() -> Result<usize, Failure> {
    nvidia::Nvidia::count()
}

/// The kernels for a device of `capability`: those of its own, and those that every device takes; each file with its
/// kernels, as `name: a, b`.
pub(crate) fn kernels(capability: (u32, u32)) -> [Vec<String>; 2] {
    let mut found = [Vec::new(), Vec::new()];
    for (index, module) in MODULES.iter().enumerate() {
        // A file's kernels that Hopper has another version of are not those that run there.
        let taken = |kernel: &&str| modules::find(MODULES, kernel, capability) == Some(index);
        let kernels: Vec<&str> = modules::entries(module.text).filter(taken).collect();
        if !kernels.is_empty() {
            let general = usize::from(module.architecture == 80);
            found[general].push(format!("{}: {}", module.name, kernels.join(", ")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kernel_is_in_one_list() {
        let names = |lists: [Vec<String>; 2]| -> Vec<String> {
            let kernels = lists.concat();
            let kernels = kernels.iter().filter_map(|line| line.split_once(": "));
            let mut names: Vec<String> =
                kernels.flat_map(|(_, list)| list.split(", ").map(str::to_owned)).collect();
            names.sort();
            names
        };
        let [own, general] = kernels((8, 6));
        assert!(own.is_empty() && !general.is_empty());
        let (ampere, hopper) = (names([own, general]), names(kernels((9, 0))));
        assert!(ampere.iter().all(|name| hopper.contains(name)), "{ampere:?}, {hopper:?}");
        let mut once = hopper.clone();
        once.dedup();
        assert_eq!(once, hopper);
    }
}
