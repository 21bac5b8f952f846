//! The machine's limits, measured before anything is held against them.

use anyhow::Result;
use ocellus_kernels::{
    Device,
    peak::{self, Limit, Meter, Threads},
    pool,
    processor::Isa,
};
use serde_json::{Value, json};

use crate::Progress;

/// What this machine can do at best where it computes, measured a moment ago.
#[derive(Clone, Debug)]
pub struct Limits {
    device: String,
    is_host: bool,
    measured: Vec<(Limit, Threads, Option<f64>)>,
}

impl Limits {
    /// Measures all limits of a device, which is named as for [`Device::open`]; those of the processor with one thread
    /// and with all. Takes some seconds and 1 GiB of memory, on a GPU 2 GiB, for that time.
    ///
    /// # Errors
    /// When there is no such device or memory.
    pub fn measure(device: &str, progress: &Progress<'_>) -> Result<Self> {
        let device = Device::open(device)?;
        progress("measuring the machine's limits");
        let meter = Meter::on(&device)?;
        let both = |limit| {
            [Threads::One, Threads::All].map(|threads| (limit, threads, meter.measure(limit, threads)))
        };
        Ok(Self {
            device: device.name().to_owned(),
            is_host: device.name() == Device::host().name(),
            measured: Limit::ALL.into_iter().flat_map(both).collect(),
        })
    }

    /// No limit is known, and no share of one.
    pub fn unknown() -> Self {
        Self { device: String::new(), is_host: true, measured: Vec::new() }
    }

    /// Bytes or operations a second with all threads. `None` when the processor has no such instruction.
    pub fn of(&self, limit: Limit) -> Option<f64> {
        self.with(limit, Threads::All)
    }

    /// Which share of a limit `per_second` is, in percent; null when there is no such limit.
    pub fn percent(&self, limit: Limit, per_second: f64) -> Value {
        self.of(limit).map_or(Value::Null, |limit| json!(100.0 * per_second / limit))
    }

    fn with(&self, limit: Limit, threads: Threads) -> Option<f64> {
        let found = self.measured.iter().find(|(l, t, _)| (*l, *t) == (limit, threads));
        found.and_then(|(_, _, per_second)| *per_second)
    }

    /// For reading memory between the steps of a bench. Without limits it reads nothing.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(crate) fn reads_between(&self) -> Result<ReadsBetween> {
        let reads = self.is_host && self.of(Limit::Read).is_some();
        Ok(ReadsBetween(reads.then(Meter::of_one_run).transpose()?))
    }

    pub(crate) fn json(&self) -> Value {
        let giga = |limit, threads| self.with(limit, threads).map(|x| x / 1e9);
        let entry = |limit: Limit| {
            let value =
                json!({"one_thread": giga(limit, Threads::One), "all_threads": giga(limit, Threads::All)});
            (limit.name().to_owned(), value)
        };
        let mut object: serde_json::Map<String, Value> = Limit::ALL.into_iter().map(entry).collect();
        object.insert("device".into(), json!(self.device));
        object.insert("unit".into(), json!("10^9 bytes or operations a second"));
        object.insert("threads".into(), json!(pool::threads()));
        object.insert("instructions".into(), json!(Isa::current().name()));
        object.insert("processor".into(), json!(peak::processor_name()));
        object.into()
    }

    pub(crate) fn text(&self) -> String {
        let mut out = format!(
            "machine: {}, {} threads, {}\n",
            peak::processor_name().unwrap_or_else(|| "unknown processor".to_owned()),
            pool::threads(),
            Isa::current()
        );
        if !self.is_host {
            // There a copy is measured, and nobody can use a part of it alone.
            for (limit, name, unit) in
                [(Limit::Read, "copy", "GB/s, bytes read and written"), (Limit::Bf16, "bf16", "GFLOP/s")]
            {
                let measured = self.of(limit).map_or("none".to_owned(), |x| format!("{:.0}", x / 1e9));
                out += &format!("limit {name:5} {measured:>7} of {} ({unit})\n", self.device);
            }
            return out;
        }
        for limit in Limit::ALL {
            let unit = if limit == Limit::Read { "GB/s, in order, huge pages" } else { "GFLOP/s or GOP/s" };
            let giga =
                |threads| self.with(limit, threads).map_or("none".to_owned(), |x| format!("{:.1}", x / 1e9));
            out += &format!(
                "limit {:5} {:>7} with one thread, {:>7} with all ({unit})\n",
                limit.name(),
                giga(Threads::One),
                giga(Threads::All)
            );
        }
        out
    }
}

/// What memory gives from one step to the next. Other users of a shared machine leave more or less of it within a second,
/// so that a limit from the beginning of a run says little about the middle.
pub(crate) struct ReadsBetween(Option<Meter>);

impl ReadsBetween {
    /// Bytes a second with all threads, read once; `None` on a device, where nobody else reads.
    pub(crate) fn read(&self) -> Option<f64> {
        self.0.as_ref().and_then(|meter| meter.measure(Limit::Read, Threads::All))
    }
}
