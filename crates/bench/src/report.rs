//! Tables of measurements, for people and for programs.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::Limits;

/// Everything that one bench found out.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which bench it was.
    pub bench: &'static str,
    /// Under which conditions: pairs of a name and what holds.
    pub conditions: Vec<(&'static str, Value)>,
    /// The machine's limits, measured in the same run.
    pub limits: Option<Limits>,
    /// What was measured.
    pub tables: Vec<Table>,
}

/// Rows of measurements of one kind.
#[derive(Clone, Debug)]
pub struct Table {
    /// What all rows are about.
    pub title: String,
    columns: &'static [Column],
    rows: Vec<Vec<Value>>,
}

/// A column of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// What programs call it.
    pub key: &'static str,
    /// What people read above it, with its unit.
    pub heading: &'static str,
}

impl Column {
    /// A column with these two names.
    pub const fn new(key: &'static str, heading: &'static str) -> Self {
        Self { key, heading }
    }
}

impl Table {
    /// A table without rows.
    pub fn new(title: impl Into<String>, columns: &'static [Column]) -> Self {
        Self { title: title.into(), columns, rows: Vec::new() }
    }

    /// Adds a row; cells that lack at its end are empty.
    pub fn push(&mut self, row: impl IntoIterator<Item = Value>) {
        let mut row: Vec<Value> = row.into_iter().collect();
        row.resize(self.columns.len(), Value::Null);
        self.rows.push(row);
    }

    /// The number in column `key` of row `row`.
    pub fn number(&self, row: usize, key: &str) -> Option<f64> {
        let column = self.columns.iter().position(|column| column.key == key)?;
        self.rows.get(row)?.get(column)?.as_f64()
    }

    fn json(&self) -> Value {
        let row = |cells: &Vec<Value>| -> Map<String, Value> {
            self.columns
                .iter()
                .zip(cells)
                .map(|(column, cell)| (column.key.to_owned(), cell.clone()))
                .collect()
        };
        json!({"title": self.title, "rows": self.rows.iter().map(row).collect::<Vec<_>>()})
    }

    fn text(&self, out: &mut String) {
        let headings = self.columns.iter().map(|column| column.heading.to_owned()).collect();
        let cells: Vec<Vec<String>> = std::iter::once(headings)
            .chain(self.rows.iter().map(|row| row.iter().map(cell).collect()))
            .collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|i| cells.iter().map(|row| row[i].chars().count()).max().unwrap_or_default())
            .collect();
        let _ = writeln!(out, "{}", self.title);
        for row in &cells {
            let mut line = String::new();
            for (i, text) in row.iter().enumerate() {
                let is_text = self.rows.iter().any(|row| row[i].is_string());
                let width = widths[i];
                let _ =
                    if is_text { write!(line, "  {text:<width$}") } else { write!(line, "  {text:>width$}") };
            }
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
}

impl Report {
    /// One object with all of it.
    pub fn json(&self) -> Value {
        let conditions: Map<String, Value> =
            self.conditions.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        json!({
            "bench": self.bench,
            "conditions": conditions,
            "limits": self.limits.as_ref().map(Limits::json),
            "tables": self.tables.iter().map(Table::json).collect::<Vec<_>>(),
        })
    }

    /// Conditions, limits and tables as people read them.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.conditions {
            let _ = writeln!(out, "{name}: {}", cell(value));
        }
        if let Some(limits) = &self.limits {
            out.push_str(&limits.text());
        }
        for table in &self.tables {
            out.push('\n');
            table.text(&mut out);
        }
        out
    }
}

/// A value as it stands in a table: three digits are more than the machine's noise.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap_or_default();
            match number.abs() {
                x if x >= 99.95 => format!("{number:.0}"),
                x if x >= 9.995 => format!("{number:.1}"),
                x if x >= 0.9995 => format!("{number:.2}"),
                _ => format!("{number:.3}"),
            }
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] =
        &[Column::new("what", "what"), Column::new("time_ms", "ms"), Column::new("n", "n")];

    #[test]
    fn tables_are_aligned_and_named() {
        let mut table = Table::new("times", COLUMNS);
        table.push([json!("long name"), json!(0.12345), json!(3)]);
        table.push([json!("b"), json!(123.4)]);
        let report = Report {
            bench: "test",
            conditions: vec![("caches", json!("warm"))],
            limits: None,
            tables: vec![table],
        };
        assert_eq!(
            report.text(),
            "caches: warm\n\ntimes\n  what          ms  n\n  long name  0.123  3\n  b            123  -\n"
        );
        let json = report.json();
        assert_eq!(json["tables"][0]["rows"][0], json!({"what": "long name", "time_ms": 0.12345, "n": 3}));
        assert_eq!(json["conditions"]["caches"], json!("warm"));
        assert_eq!(report.tables[0].number(1, "time_ms"), Some(123.4));
        assert_eq!(report.tables[0].number(1, "n"), None);
    }
}
