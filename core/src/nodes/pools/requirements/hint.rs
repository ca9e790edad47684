//! Which label a misspelt one may mean.

use super::labels::WellKnownLabels;

/// One in so many letters may be wrong for a name to count as a misspelling.
const LETTERS_AN_ERROR: usize = 5;

/// The label that an unknown one is likely a misspelling of: a well-known one first, then one of those that are there, each in
/// the order of their names (core, `pkg/scheduling/requirements.go`, where the order is random).
pub(super) fn typo_of<'a>(
    key: &str,
    well_known: &'a WellKnownLabels,
    present: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    well_known.iter().chain(present).find(|candidate| is_like(key, candidate))
}

fn is_like(key: &str, candidate: &str) -> bool {
    let name = key.split_once('/').map_or(key, |(_, name)| name);
    candidate.contains(key)
        || candidate.ends_with(name)
        || edit_distance(key, candidate) < candidate.len() / LETTERS_AN_ERROR
}

/// How many bytes must be inserted, removed or replaced to make one text of the other.
fn edit_distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, left) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, right) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_counted_in_letters() {
        for (from, to, wanted) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("zone", "zones", 1)]
        {
            assert_eq!(edit_distance(from, to), wanted, "{from} {to}");
        }
    }
}
