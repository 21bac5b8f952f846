//! The kernels' PTX, which is part of the binary, and which of it has a kernel for a device.

/// The PTX of one `.cu` file for one architecture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Module {
    /// The file's name without its suffix.
    pub(super) name: &'static str,
    /// 80: for everything from Ampere on. 90: for Hopper (compute capability 9.0) and no other.
    pub(super) architecture: u32,
    /// The code.
    pub(super) text: &'static str,
}

/// The place among `modules` of the one that has `kernel` for a device of `capability`: Hopper's own where there is one.
pub(super) fn find(modules: &[Module], kernel: &str, capability: (u32, u32)) -> Option<usize> {
    let fits = |module: &Module| module.architecture != HOPPER || capability == (9, 0);
    let has = |module: &Module| entries(module.text).any(|entry| entry == kernel);
    let found = modules.iter().enumerate().filter(|(_, module)| fits(module) && has(module));
    found.max_by_key(|(_, module)| module.architecture).map(|(index, _)| index)
}

const HOPPER: u32 = 90;

/// The kernels that a PTX text has.
pub(super) fn entries(ptx: &str) -> impl Iterator<Item = &str> {
    ptx.split(".entry ").skip(1).filter_map(|rest| rest.split(['(', ' ', '\n', '\r']).next())
}

#[cfg(test)]
mod tests {
    use super::{super::ptx::MODULES, *};

    const BOTH: &[Module] = &[
        Module {
            name: "a",
            architecture: 80,
            text: ".visible .entry one(\n.param .u64 x)\n{ }\n.visible .entry two()",
        },
        Module { name: "a", architecture: 90, text: ".visible .entry two()\n.visible .entry three(\n)" },
    ];

    #[test]
    fn hopper_has_code_of_its_own() {
        let table = [
            ("one", (8, 0), Some(0)),
            ("one", (9, 0), Some(0)),
            ("two", (8, 9), Some(0)),
            ("two", (9, 0), Some(1)),
            ("two", (10, 0), Some(0)),
            ("three", (9, 0), Some(1)),
            ("three", (12, 0), None),
            ("tw", (9, 0), None),
        ];
        for (kernel, capability, expected) in table {
            assert_eq!(find(BOTH, kernel, capability), expected, "{kernel} on {capability:?}");
        }
    }

    #[test]
    fn no_kernel_is_in_two_files() {
        assert!(!MODULES.is_empty());
        for architecture in [80, HOPPER] {
            let modules = MODULES.iter().filter(|module| module.architecture == architecture);
            let mut names: Vec<&str> = modules.flat_map(|module| entries(module.text)).collect();
            names.sort_unstable();
            assert_eq!(names.windows(2).find(|pair| pair[0] == pair[1]), None);
        }
    }
}
