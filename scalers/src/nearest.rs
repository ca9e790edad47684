//! "Did you mean": the names nearest to a misspelt one.

/// The names within a third of the length of `name` in edits (at least one), nearest first, ties in the order given.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    let mut near: Vec<_> =
        names.map(|known| (distance(name, known), known)).filter(|(edits, _)| *edits <= limit).collect();
    near.sort_by_key(|(edits, _)| *edits);
    near.into_iter().map(|(_, known)| known).collect()
}

/// Optimal string alignment distance, blind to case: insertions, deletions, substitutions and swaps of neighbours.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.to_lowercase().chars().collect();
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut before: Vec<usize> = vec![0; right.len() + 1];
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, r) in right.iter().enumerate() {
            let mut best = (last[j + 1] + 1).min(row[j] + 1).min(last[j] + usize::from(l != r));
            if i > 0 && j > 0 && *l == right[j - 1] && left[i - 1] == *r {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_nothing_far() {
        let known = ["prometheus", "cron", "cpu", "memory", "external", "external-push"];
        for (typed, wanted) in [
            ("promethues", vec!["prometheus"]),
            ("Prometheus", vec!["prometheus"]),
            ("corn", vec!["cron"]),
            ("memroy", vec!["memory"]),
            ("extrnal", vec!["external"]),
            ("kafka", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(nearest(typed, known.into_iter()), wanted, "{typed}");
        }
    }

    #[test]
    fn distance_is_symmetric() {
        for (a, b) in [("abc", "acb"), ("", "xyz"), ("kitten", "sitting")] {
            assert_eq!(distance(a, b), distance(b, a));
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("abc", "acb"), 1);
    }
}
