//! Aligned columns. Widths are counted in characters, colour not included; the last column is not padded.

use super::clean;
use super::style::{Style, Tone};

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell with a meaning.
    #[must_use]
    pub fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: clean(text.as_ref()), tone }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// Rows under a heading.
#[derive(Debug)]
pub struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(heads: &[&'static str]) -> Self {
        Self { heads: heads.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The whole table, a line per row.
    #[must_use]
    pub fn render(&self, style: Style) -> String {
        let heads: Vec<Cell> = self.heads.iter().map(|head| Cell::toned(head, Tone::Faint)).collect();
        let lines: Vec<&Vec<Cell>> = std::iter::once(&heads).chain(&self.rows).collect();
        let width =
            |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| length(&cell.text)).max();
        let widths: Vec<usize> = (0..self.heads.len()).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = String::new();
        for line in lines {
            let mut rendered = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                rendered.push_str(&style.paint(cell.tone, &cell.text));
                rendered.push_str(&" ".repeat(width - length(&cell.text) + 3));
            }
            text.push_str(rendered.trim_end());
            text.push('\n');
        }
        text
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["NAME", "PHASE", "IMAGE"]);
        table.row(vec!["a".into(), Cell::toned("Running", Tone::Good), "x:1".into()]);
        table.row(vec!["länger-name".into(), "".into(), "y\n:1".into()]);
        let expected = "NAME          PHASE     IMAGE\na             Running   x:1\nlänger-name             y\\n:1\n";
        assert_eq!(table.render(Style::NONE), expected);
    }
}
