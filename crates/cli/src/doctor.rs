//! `ocellus doctor`: what this machine has to compute on, what of it can be used, and if not, why.

use std::{fmt::Write as _, io::Write};

use ocellus_bench::doctor::{self, Diagnosis, Measured, Place, Value};
use serde_json::{Map, json};

use crate::Failure;

/// What was typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Measure nothing: what takes some seconds is left out.
    #[arg(long)]
    quick: bool,
    /// Write one JSON object in place of the text.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// Looks, and writes what was found.
    pub(crate) fn apply(self) -> Result<(), Failure> {
        let found = doctor::examine(!self.quick);
        let text = if self.json { format!("{}\n", as_json(&found)) } else { as_text(&found) };
        Ok(std::io::stdout().write_all(text.as_bytes())?)
    }
}

fn as_text(found: &Diagnosis) -> String {
    let mut out = format!("ocellus {}\n", env!("CARGO_PKG_VERSION"));
    for place in &found.places {
        let state =
            place.reason.as_ref().map_or("ready".to_owned(), |reason| format!("can't be had: {reason}"));
        let _ = writeln!(out, "\n{}: {state}", place.name);
        let facts = place.facts.iter().map(|fact| (fact.label, value(&fact.value)));
        let limits = place.limits.iter().map(|limit| (limit.label, rate(limit)));
        for (label, value) in facts.chain(limits) {
            let _ = writeln!(out, "  {label}: {value}");
        }
    }
    let libraries = if found.libraries.is_empty() { "none".to_owned() } else { found.libraries.join(", ") };
    let _ = writeln!(out, "\ndriver libraries in use: {libraries}");
    let _ = writeln!(out, "--device auto takes {}", found.best);
    out
}

fn as_json(found: &Diagnosis) -> serde_json::Value {
    let place = |place: &Place| {
        let facts: Map<String, serde_json::Value> = place
            .facts
            .iter()
            .map(|fact| {
                let value = match &fact.value {
                    Value::Text(text) => json!(text),
                    Value::Count(n) | Value::Bytes(n) => json!(n),
                    Value::List(entries) => json!(entries),
                };
                (fact.key.to_owned(), value)
            })
            .collect();
        let measured: Map<String, serde_json::Value> =
            place.limits.iter().map(|limit| (limit.key.to_owned(), json!(limit.per_second))).collect();
        json!({
            "name": place.name,
            "ready": place.reason.is_none(),
            "reason": place.reason,
            "facts": facts,
            "measured": measured,
        })
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "devices": found.places.iter().map(place).collect::<Vec<_>>(),
        "auto": found.best,
        "driver_libraries": found.libraries,
    })
}

fn value(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Count(n) => n.to_string(),
        Value::Bytes(bytes) if *bytes >= 1 << 30 => format!("{:.1} GiB", *bytes as f64 / f64::from(1 << 30)),
        Value::Bytes(bytes) => format!("{:.1} MiB", *bytes as f64 / f64::from(1 << 20)),
        Value::List(entries) if entries.is_empty() => "none".to_owned(),
        Value::List(entries) => entries.iter().fold(String::new(), |all, entry| all + "\n    " + entry),
    }
}

/// `4.01 TB/s`.
fn rate(limit: &Measured) -> String {
    let (factor, prefix) = if limit.per_second >= 1e12 { (1e12, "T") } else { (1e9, "G") };
    format!("{:.2} {prefix}{}/s", limit.per_second / factor, limit.unit)
}

#[cfg(test)]
mod tests {
    use ocellus_bench::doctor::Fact;

    use super::*;

    fn diagnosis() -> Diagnosis {
        let ready = Place {
            name: "a".into(),
            reason: None,
            facts: vec![
                Fact { key: "memory", label: "memory", value: Value::Bytes(3 << 29) },
                Fact {
                    key: "list",
                    label: "kernels",
                    value: Value::List(vec!["x: y, z".into(), "w: v".into()]),
                },
                Fact { key: "none", label: "others", value: Value::List(Vec::new()) },
            ],
            limits: vec![
                Measured { key: "copy_bytes_per_s", label: "copying", per_second: 4.014e12, unit: "B" },
                Measured { key: "flop_per_s", label: "f32", per_second: 66e9, unit: "FLOP" },
            ],
        };
        let missing =
            Place { reason: Some("no driver".into()), facts: vec![], limits: vec![], ..ready.clone() };
        let missing = Place { name: "b".into(), ..missing };
        Diagnosis { places: vec![ready, missing], best: "a", libraries: vec!["/lib/libx.so".into()] }
    }

    #[test]
    fn people_read_units() {
        let text = as_text(&diagnosis());
        let (_, rest) = text.split_once('\n').unwrap();
        assert_eq!(
            rest,
            "\na: ready\n  memory: 1.5 GiB\n  kernels: \n    x: y, z\n    w: v\n  others: none\n  copying: 4.01 TB/s\n  \
             f32: 66.00 GFLOP/s\n\nb: can't be had: no driver\n\ndriver libraries in use: /lib/libx.so\n\
             --device auto takes a\n"
        );
    }

    #[test]
    fn programs_read_numbers() {
        let json = as_json(&diagnosis());
        assert_eq!(json["devices"][0]["measured"]["copy_bytes_per_s"], json!(4.014e12));
        assert_eq!(json["devices"][0]["facts"]["memory"], json!(3 << 29));
        assert_eq!(json["devices"][1]["ready"], json!(false));
        assert_eq!(json["devices"][1]["reason"], json!("no driver"));
    }
}
