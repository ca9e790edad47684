//! Text for people, in 80 columns.

use std::fmt::Write as _;

/// Columns of a terminal as narrow as they still come.
const WIDTH: usize = 80;
/// The most that a column takes unless it is the last.
const CELL: usize = 34;

/// What is printed, block by block.
#[derive(Debug, Default)]
pub(in crate::cli) struct Page(String);

impl Page {
    /// A sentence, from the first column on.
    pub(in crate::cli) fn say(&mut self, text: &str) {
        self.wrapped("", text);
    }

    /// An empty line and a heading.
    pub(in crate::cli) fn heading(&mut self, text: &str) {
        self.0.push('\n');
        self.say(text);
    }

    /// A line below a heading.
    pub(in crate::cli) fn item(&mut self, text: &str) {
        self.wrapped("  ", text);
    }

    /// A word and what it stands for.
    pub(in crate::cli) fn entry(&mut self, word: &str, text: &str) {
        self.wrapped(&format!("  {word:<14} "), text);
    }

    /// Rows in columns; what is too long for the last one goes on below it.
    pub(in crate::cli) fn table<const N: usize>(&mut self, rows: &[[String; N]]) {
        let width = |column: usize| {
            let longest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
            longest.min(CELL)
        };
        for row in rows {
            let mut lead = String::from("  ");
            for (column, cell) in row.iter().enumerate().take(N.saturating_sub(1)) {
                // Writing to a String cannot fail.
                let _ = write!(lead, "{cell:<width$}  ", width = width(column));
            }
            self.wrapped(&lead, row.last().map(String::as_str).unwrap_or_default());
        }
    }

    /// All of it.
    pub(in crate::cli) fn text(self) -> String {
        self.0
    }

    /// `lead`, then words as far as they fit; further lines begin where the first word does.
    fn wrapped(&mut self, lead: &str, text: &str) {
        let indent = lead.chars().count();
        let mut line = lead.to_owned();
        let mut used = indent;
        for word in text.split_whitespace() {
            let length = word.chars().count();
            if used > indent && used + 1 + length > WIDTH {
                self.line(&line);
                line = " ".repeat(indent);
                used = indent;
            }
            if used > indent {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += length;
        }
        self.line(&line);
    }

    fn line(&mut self, line: &str) {
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }
}

/// `1 node`, `2 nodes`.
pub(in crate::cli) fn counted(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let mut page = Page::default();
        page.say("Pod default/web waits.");
        page.heading("Node groups");
        let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
        page.table(&[["workers".to_owned(), "no".to_owned(), reason.to_owned()]]);
        page.entry("Result", "4 replicas");
        let text = page.text();
        assert_eq!(
            text,
            "Pod default/web waits.\n\nNode groups\n  workers  no  node(s) didn't match pod topology spread \
             constraints (missing\n               required label)\n  Result         4 replicas\n"
        );
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!((counted(1, "node"), counted(2, "node")), ("1 node".to_owned(), "2 nodes".to_owned()));
    }
}
