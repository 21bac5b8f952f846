//! What this machine has to compute on, as labelled data: for people who ask why it is slow or why a device is not used.

use std::fs;

use crate::{
    Device,
    cuda::inventory,
    peak::{self, Limit, Meter, Threads},
    pool,
    processor::Isa,
};

/// Everything that was found out.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// Places to compute, those that can't be had included.
    pub places: Vec<Place>,
    /// The name of the place that `auto` takes.
    pub best: &'static str,
    /// Driver libraries that this process has loaded, with where they lie.
    pub libraries: Vec<String>,
}

/// A place to compute.
#[derive(Clone, Debug)]
pub struct Place {
    /// The name that [`Device::open`] takes.
    pub name: String,
    /// Why it can't be had; `None`: it can.
    pub reason: Option<String>,
    /// What is known of it.
    pub facts: Vec<Fact>,
    /// What it gives at best.
    pub limits: Vec<Measured>,
}

/// One thing that is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// What programs call it.
    pub key: &'static str,
    /// What people read before it.
    pub label: &'static str,
    /// What it is.
    pub value: Value,
}

/// What a [`Fact`] says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Words.
    Text(String),
    /// How many.
    Count(u64),
    /// A size.
    Bytes(u64),
    /// Several entries.
    List(Vec<String>),
}

/// A measured limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// What programs call it, its unit included.
    pub key: &'static str,
    /// What people read before it.
    pub label: &'static str,
    /// Bytes or operations a second.
    pub per_second: f64,
    /// The unit for people: `B` or `FLOP`.
    pub unit: &'static str,
}

/// Looks at all places, and with `measure` times what they give. A place that fails is one that can't be had.
pub fn examine(measure: bool) -> Diagnosis {
    let mut places = vec![processor(measure)];
    places.extend(gpus(measure));
    places.push(open("metal", measure, |_| Vec::new()));
    let best = Device::open("auto").map_or("cpu", |device| device.name());
    Diagnosis { places, best, libraries: libraries() }
}

fn processor(measure: bool) -> Place {
    open("cpu", measure, |_| {
        let text = |key, label, text: Option<String>| text.map(|text| fact(key, label, Value::Text(text)));
        let bytes = |key, label, bytes: Option<u64>| bytes.map(|bytes| fact(key, label, Value::Bytes(bytes)));
        [
            text("processor", "processor", peak::processor_name()),
            text("instructions", "instructions", Some(instructions())),
            Some(fact("threads", "threads", Value::Count(pool::threads() as u64))),
            bytes("memory_total_bytes", "memory", memory("MemTotal:")),
            bytes("memory_free_bytes", "of it free", memory("MemAvailable:")),
            text("huge_pages", "huge pages", huge_pages()),
        ]
        .into_iter()
        .flatten()
        .collect()
    })
}

/// Each of NVIDIA's devices, or why there is none.
fn gpus(measure: bool) -> Vec<Place> {
    let count = inventory::count().unwrap_or(0).max(1);
    (0..count).map(|index| open(&format!("cuda:{index}"), measure, gpu_facts)).collect()
}

fn gpu_facts(device: &Device) -> Vec<Fact> {
    let Some(gpu) = device.gpu() else { return Vec::new() };
    let facts = gpu.driver().facts();
    let (major, minor) = facts.capability;
    let mut found = vec![
        fact("device", "device", Value::Text(facts.name.clone())),
        fact("compute_capability", "compute capability", Value::Text(format!("{major}.{minor}"))),
        fact("driver", "driver", Value::Text(driver_version(facts.driver))),
        fact("multiprocessors", "multiprocessors", Value::Count(facts.multiprocessors.into())),
        fact("cache_bytes", "second-level cache", Value::Bytes(facts.cache_bytes.into())),
    ];
    if let Ok(memory) = gpu.driver().memory() {
        found.push(fact("memory_total_bytes", "memory", Value::Bytes(memory.total as u64)));
        found.push(fact("memory_free_bytes", "of it free", Value::Bytes(memory.free as u64)));
    }
    let [own, general] = inventory::kernels(facts.capability);
    found.push(fact("native_kernels", "kernels written for it", Value::List(own)));
    found.push(fact("general_kernels", "kernels for every such device", Value::List(general)));
    found.push(fact(
        "compiled_by",
        "all of them",
        Value::Text(
            "PTX in this program, compiled by the driver when first used, then kept by it".to_owned(),
        ),
    ));
    found
}

fn open(name: &str, measure: bool, facts: impl Fn(&Device) -> Vec<Fact>) -> Place {
    let mut place = Place { name: name.to_owned(), reason: None, facts: Vec::new(), limits: Vec::new() };
    match Device::open(name) {
        Ok(device) => {
            place.facts = facts(&device);
            if measure {
                place.limits = limits(&device);
            }
        }
        Err(crate::Error::Device { reason, .. }) => place.reason = Some(reason),
        Err(error) => place.reason = Some(error.to_string()),
    }
    place
}

fn limits(device: &Device) -> Vec<Measured> {
    let Ok(meter) = Meter::on(device) else { return Vec::new() };
    let read = if device.is_host() {
        ("read_bytes_per_s", "reading memory")
    } else {
        ("copy_bytes_per_s", "copying memory, bytes read and written")
    };
    let all = [
        (Limit::Read, read.0, read.1, "B"),
        (Limit::F32, "f32_flop_per_s", "f32", "FLOP"),
        (Limit::Bf16, "bf16_flop_per_s", "bf16 matrices", "FLOP"),
        (Limit::Int8, "int8_op_per_s", "8-bit integers", "OP"),
    ];
    let measured = all.into_iter().filter_map(|(limit, key, label, unit)| {
        let per_second = meter.measure(limit, Threads::All)?;
        Some(Measured { key, label, per_second, unit })
    });
    measured.collect()
}

fn fact(key: &'static str, label: &'static str, value: Value) -> Fact {
    Fact { key, label, value }
}

/// The set that is used, and the best one where that is another.
fn instructions() -> String {
    let (used, best) = (Isa::current(), Isa::detect());
    if used == best { used.to_string() } else { format!("{used} (as OCELLUS_ISA says; it has {best})") }
}

/// A line of Linux's memory information, in bytes.
fn memory(name: &str) -> Option<u64> {
    memory_in(&fs::read_to_string("/proc/meminfo").ok()?, name)
}

fn memory_in(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Whether the system gives huge pages to who asks.
fn huge_pages() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    Some(match chosen(&text)? {
        "never" => "never given: reading weights is slower".to_owned(),
        "madvise" => "given when asked for, as this program does".to_owned(),
        other => other.to_owned(),
    })
}

/// The word in brackets.
fn chosen(text: &str) -> Option<&str> {
    Some(text.split_once('[')?.1.split_once(']')?.0)
}

/// The CUDA version that the driver gives, and its own version where the system tells.
fn driver_version((major, minor): (u32, u32)) -> String {
    let own = fs::read_to_string("/proc/driver/nvidia/version").ok();
    match own.as_deref().and_then(own_version) {
        Some(own) => format!("{own}, CUDA {major}.{minor}"),
        None => format!("CUDA {major}.{minor}"),
    }
}

/// `580.95.05` in the line of the kernel's module.
fn own_version(text: &str) -> Option<&str> {
    let is_version =
        |word: &&str| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok());
    text.lines().next()?.split_whitespace().find(is_version)
}

/// Libraries of GPU drivers in this process.
fn libraries() -> Vec<String> {
    fs::read_to_string("/proc/self/maps").map(|maps| libraries_in(&maps)).unwrap_or_default()
}

fn libraries_in(maps: &str) -> Vec<String> {
    let paths = maps.lines().filter_map(|line| line.find('/').map(|start| &line[start..]));
    let mut found: Vec<String> = paths
        .filter(|path| {
            let name = path.rsplit('/').next().unwrap_or_default();
            name.starts_with("lib")
                && (name.contains("cuda") || name.contains("nvidia") || name.contains("nvrtc"))
        })
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_looked_at() {
        let found = examine(false);
        let names: Vec<&str> = found.places.iter().map(|place| &*place.name).collect();
        assert!(names.starts_with(&["cpu", "cuda:0"]) && names.ends_with(&["metal"]), "{names:?}");
        assert_eq!(found.places[0].reason, None);
        assert!(found.places[0].facts.iter().any(|fact| fact.key == "threads"));
        for place in &found.places {
            assert!(place.reason.is_none() || place.facts.is_empty());
            assert!(place.limits.is_empty());
        }
        assert!(names.iter().any(|name| name.starts_with(found.best)));
    }

    #[test]
    fn what_the_system_says_is_read() {
        assert_eq!(memory_in("MemTotal:       16 kB\nMemFree: 3 kB\n", "MemTotal:"), Some(16 << 10));
        assert_eq!(memory_in("MemTotal: many kB\n", "MemTotal:"), None);
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
        assert_eq!(chosen("always\n"), None);
        let line = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build";
        assert_eq!(own_version(line), Some("580.95.05"));
        assert_eq!(own_version("NVRM\n"), None);
        let maps = "7f00-7f01 r-xp 00000000 08:01 12  /usr/lib/libcuda.so.580.95.05\n\
                    7f01-7f02 r--p 00001000 08:01 12  /usr/lib/libcuda.so.580.95.05\n\
                    7f02-7f03 r--p 00000000 08:01 13  /home/cuda/libc.so.6\n7f03-7f04 rw-p 00000000 00:00 0\n";
        assert_eq!(libraries_in(maps), ["/usr/lib/libcuda.so.580.95.05"]);
    }
}
