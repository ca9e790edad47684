//! Warnings in the shape that the API server passes on.

/// The API server may cut a warning that is longer, in bytes (k8s.io/api/admission/v1, `AdmissionResponse.Warnings`).
const LIMIT: usize = 256;

/// Splits a text into warnings: on one line each, since a warning travels in an HTTP header and one with a control
/// character is dropped (k8s.io/apimachinery, `net.NewWarningHeader`), and no longer than [`LIMIT`], cut between words
/// where that is possible.
pub(super) fn lines(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        for piece in pieces(word) {
            let fits = lines.last().is_some_and(|line| line.len() + 1 + piece.len() <= LIMIT);
            match lines.last_mut() {
                Some(line) if line.is_empty() => line.push_str(piece),
                Some(line) if fits => {
                    line.push(' ');
                    line.push_str(piece);
                }
                _ => lines.push(piece.to_owned()),
            }
        }
    }
    lines
}

/// A word, cut into pieces where it alone is too long.
fn pieces(mut word: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if word.is_empty() {
            return None;
        }
        let (piece, rest) = word.split_at(word.floor_char_boundary(LIMIT));
        word = rest;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ones_stay_whole_and_on_one_line() {
        assert_eq!(lines("a raw counter:\n  sum(\n\tx)\u{7}"), ["a raw counter: sum( x)"]);
    }

    #[test]
    fn long_ones_are_cut_between_words() {
        let text = vec!["fünf"; 100].join(" ");
        let lines = lines(&text);
        assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= LIMIT));
        assert_eq!(lines.join(" "), text);
    }

    #[test]
    fn a_word_without_end_is_cut_at_a_character() {
        let lines = lines(&"ä".repeat(300));
        assert!(lines.iter().all(|line| line.len() <= LIMIT));
        assert_eq!(lines.concat(), "ä".repeat(300));
    }
}
