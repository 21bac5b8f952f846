//! How far our numbers are from the golden ones, for one family.

use std::fmt::{self, Debug, Display};

/// How far a family's numbers may lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// Not at all: integers, bytes and texts.
    Equal,
    /// By at most this absolute difference.
    Within(f64),
}

/// Collects comparisons and keeps the worst. A comparison that is not made counts against nobody, so [`Gauge::holds`]
/// wants one at least.
#[derive(Clone, Debug)]
pub struct Gauge {
    family: &'static str,
    tolerance: Tolerance,
    compared: usize,
    differing: usize,
    worst: f64,
    /// Where the worst difference lies; for [`Tolerance::Equal`] the first one, with both values.
    worst_at: Option<String>,
    notes: Vec<String>,
}

impl Gauge {
    /// Nothing compared yet.
    pub fn new(family: &'static str, tolerance: Tolerance) -> Self {
        Self { family, tolerance, compared: 0, differing: 0, worst: 0.0, worst_at: None, notes: Vec::new() }
    }

    /// What is compared.
    pub fn family(&self) -> &'static str {
        self.family
    }

    /// How many values were compared.
    pub fn compared(&self) -> usize {
        self.compared
    }

    /// The largest difference seen, infinite after [`Gauge::refused`].
    pub fn worst(&self) -> f64 {
        self.worst
    }

    /// Whether something was compared and all of it is within the tolerance.
    pub fn holds(&self) -> bool {
        let within = match self.tolerance {
            Tolerance::Equal => true,
            Tolerance::Within(limit) => self.worst <= limit,
        };
        self.compared > 0 && self.differing == 0 && within
    }

    /// Compares one value that must be equal.
    pub fn equal<T: PartialEq + Debug>(&mut self, at: impl Display, ours: &T, golden: &T) {
        self.compared += 1;
        if ours != golden {
            self.differing += 1;
            self.worst_at
                .get_or_insert_with(|| format!("{at}: {}, golden {}", shortened(ours), shortened(golden)));
        }
    }

    /// Compares numbers one by one; lists of different lengths differ without measure, and so does what is no number.
    pub fn close(&mut self, at: impl Display, ours: &[f32], golden: &[f32]) {
        if ours.len() != golden.len() {
            return self.refused(at, format!("{} values, golden {}", ours.len(), golden.len()));
        }
        self.compared += ours.len();
        let mut worst = (0, 0.0f64);
        for (index, (ours, golden)) in ours.iter().zip(golden).enumerate() {
            let difference = (f64::from(*ours) - f64::from(*golden)).abs();
            let difference = if difference.is_nan() { f64::INFINITY } else { difference };
            if difference > worst.1 {
                worst = (index, difference);
            }
        }
        if worst.1 > self.worst {
            self.worst = worst.1;
            self.worst_at = Some(format!("{at} [{}]", worst.0));
        }
    }

    /// Records that there is nothing of ours to compare with, which no tolerance covers.
    pub fn refused(&mut self, at: impl Display, why: impl Display) {
        self.compared += 1;
        self.differing += 1;
        self.worst = f64::INFINITY;
        self.worst_at = Some(format!("{at}: {why}"));
    }

    /// Says what a reader of the result should know.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

impl Display for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tolerance {
            Tolerance::Equal => write!(f, "{} of {} differ (must be equal)", self.differing, self.compared)?,
            Tolerance::Within(limit) => {
                write!(f, "worst {:.2e} of {} values (limit {limit:.0e})", self.worst, self.compared)?;
            }
        }
        if let Some(at) = &self.worst_at {
            write!(f, ", at {at}")?;
        }
        for note in &self.notes {
            write!(f, "; {note}")?;
        }
        Ok(())
    }
}

/// A value as a message shows it: long lists are cut.
fn shortened(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
