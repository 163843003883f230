//! The table that a run prints: one row per measurement, with its target beside it.

use std::fmt;

/// Rows of a markdown table.
#[derive(Debug)]
pub struct Report {
    title: String,
    rows: Vec<[String; 3]>,
}

impl Report {
    /// An empty table.
    #[must_use]
    pub fn new(title: &str) -> Self {
        Self { title: title.to_owned(), rows: Vec::new() }
    }

    /// Adds a measurement and shows it on standard error at once, since a run may take minutes.
    pub fn row(&mut self, what: &str, measured: impl fmt::Display, target: &str) {
        let row = [what.to_owned(), measured.to_string(), target.to_owned()];
        eprintln!("{}: {}", row[0], row[1]);
        self.rows.push(row);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        writeln!(f, "| what | measured | target, or for scale |\n|---|---|---|")?;
        for row in &self.rows {
            let [what, measured, target] = row.each_ref().map(|cell| cell.replace('|', "\\|"));
            writeln!(f, "| {what} | {measured} | {target} |")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_markdown_table() {
        let mut report = Report::new("list");
        report.row("of 1,000", "12.3 ms", "<= 20 ms");
        report.row("a|b", 7, "");
        let expected = "### list\n\n| what | measured | target, or for scale |\n|---|---|---|\n\
                        | of 1,000 | 12.3 ms | <= 20 ms |\n| a\\|b | 7 |  |\n";
        assert_eq!(report.to_string(), expected);
    }
}
