//! What was found, one line per figure, printed as it is found and once more together at the end.

use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    /// Which workload.
    pub(crate) what: String,
    /// The figure.
    pub(crate) value: f64,
    /// Of what.
    pub(crate) unit: &'static str,
    /// The floor beside it, before and after it was measured.
    pub(crate) floors: Option<(f64, f64)>,
    /// Milliseconds.
    pub(crate) p50_ms: Option<f64>,
    /// Milliseconds.
    pub(crate) p99_ms: Option<f64>,
    /// Peak resident memory of the process that was measured, in MB.
    pub(crate) rss_mb: Option<f64>,
    /// CPU seconds that the process measured spent on 1,000 of them.
    pub(crate) cpu_s_per_1000: Option<f64>,
    /// CPU seconds that others spent on 1,000 of them: brokers, database.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) beside: Vec<(&'static str, f64)>,
    /// Single times, in seconds, where each of them matters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) times_s: Vec<f64>,
    /// What DESIGN asks for.
    pub(crate) target: &'static str,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, ..Self::default() }
    }

    /// Share of the mean of both floors.
    fn ratio(&self) -> Option<f64> {
        self.floors.map(|(before, after)| self.value / ((before + after) / 2.0))
    }

    fn cells(&self) -> [String; 9] {
        let number = |value: f64| match value {
            value if value >= 100.0 => grouped(value.round() as u64),
            value if value >= 1.0 => format!("{value:.2}"),
            value => format!("{value:.3}"),
        };
        let optional = |value: Option<f64>| value.map(number).unwrap_or_default();
        [
            self.what.clone(),
            format!("{} {}", number(self.value), self.unit),
            self.floors.map(|(before, after)| format!("{}; {}", number(before), number(after))).unwrap_or_default(),
            self.ratio().map(|ratio| format!("{:.0} %", ratio * 100.0)).unwrap_or_default(),
            optional(self.p50_ms),
            optional(self.p99_ms),
            self.rss_mb.map(|mb| format!("{mb:.0}")).unwrap_or_default(),
            optional(self.cpu_s_per_1000)
                + &self.beside.iter().map(|(whose, cpu_s)| format!("; {whose} {}", number(*cpu_s))).collect::<String>(),
            self.target.to_owned(),
        ]
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

const HEAD: [&str; 9] = [
    "what",
    "figure",
    "floor before; after",
    "of floor",
    "p50 ms",
    "p99 ms",
    "peak RSS MB",
    "CPU-s/1,000",
    "asked for",
];

/// All figures.
pub(crate) struct Table {
    json: bool,
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, rows: Vec::new() }
    }

    /// Takes a figure, and tells it to whoever watches.
    pub(crate) fn push(&mut self, row: Row) {
        eprintln!("  {}", row.cells().join("  |  "));
        self.rows.push(row);
    }

    /// Prints all of them: Markdown, or JSON.
    pub(crate) fn print(&self) {
        if self.json {
            println!("{}", serde_json::to_string_pretty(&self.rows).expect("numbers and text are JSON"));
            return;
        }
        let rows = self.rows.iter().map(Row::cells).collect::<Vec<_>>();
        let widths = std::array::from_fn::<usize, 9, _>(|at| {
            rows.iter().map(|cells| cells[at].chars().count()).chain([HEAD[at].len()]).max().unwrap_or_default()
        });
        let line = |cells: [&str; 9]| {
            let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
        };
        line(HEAD);
        println!("|{}|", widths.map(|width| "-".repeat(width + 2)).join("|"));
        for cells in &rows {
            line(std::array::from_fn(|at| cells[at].as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_read_beside_the_mean_of_its_floors() {
        let row = Row { floors: Some((100.0, 300.0)), ..Row::new("x", 50.0, "/s") };
        assert_eq!(row.ratio(), Some(0.25));
        assert_eq!(row.cells()[3], "25 %");
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([grouped(7), grouped(1_000), grouped(1_234_567)], ["7", "1,000", "1,234,567"]);
    }
}
