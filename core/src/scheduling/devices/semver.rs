//! Semantic versions.
//!
//! Source: <https://semver.org/spec/v2.0.0.html>.

use std::cmp::Ordering;

/// A semantic version; what follows a `+` does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Semver {
    /// Major, minor, patch.
    pub(super) numbers: [u64; 3],
    /// What stands before a release, part by part; empty for a release.
    before: Vec<Part>,
}

/// Numbers come before texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Text(String),
}

impl Semver {
    /// Reads `MAJOR.MINOR.PATCH[-BEFORE][+BUILD]`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (version, build) =
            text.split_once('+').map_or((text, None), |(version, build)| (version, Some(build)));
        if build.is_some_and(|build| !build.split('.').all(is_identifier)) {
            return None;
        }
        let (numbers, before) =
            version.split_once('-').map_or((version, None), |(numbers, before)| (numbers, Some(before)));
        let mut parts = numbers.split('.').map(number);
        let numbers = [parts.next()??, parts.next()??, parts.next()??];
        let parts = before.map_or(Some(Vec::new()), |before| before.split('.').map(part).collect());
        parts.filter(|_| parts_end(version)).map(|before| Self { numbers, before })
    }

    /// As [`Semver::read`], but also `v1.2` and `01.2.3`.
    pub(super) fn read_leniently(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('v');
        let end = text.find(['-', '+']).unwrap_or(text.len());
        let (numbers, rest) = text.split_at(end);
        let mut numbers: Vec<String> = numbers
            .split('.')
            .map(|number| match number.trim_start_matches('0') {
                "" if !number.is_empty() => "0".to_owned(),
                number => number.to_owned(),
            })
            .collect();
        if numbers.len() < 3 && !rest.is_empty() {
            return None;
        }
        numbers.resize(numbers.len().max(3), "0".to_owned());
        Self::read(&format!("{}{rest}", numbers.join(".")))
    }
}

/// Whether there are three numbers and no more.
fn parts_end(version: &str) -> bool {
    version.split('-').next().is_some_and(|numbers| numbers.split('.').count() == 3)
}

fn number(text: &str) -> Option<u64> {
    let plain = text == "0" || !text.starts_with('0');
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if plain && digits { text.parse().ok() } else { None }
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn part(text: &str) -> Option<Part> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return number(text).map(Part::Number);
    }
    is_identifier(text).then(|| Part::Text(text.to_owned()))
}

impl Ord for Semver {
    fn cmp(&self, other: &Self) -> Ordering {
        // A release comes after all that stood before it.
        let release = |version: &Self| version.before.is_empty();
        self.numbers
            .cmp(&other.numbers)
            .then_with(|| release(self).cmp(&release(other)))
            .then_with(|| self.before.cmp(&other.before))
    }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_order() {
        let order = [
            "0.9.10",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.10.0",
            "2.0.0",
        ];
        let read: Vec<_> = order.iter().map(|text| Semver::read(text).unwrap()).collect();
        assert!(read.is_sorted_by(|one, other| one < other));
        assert_eq!(Semver::read("1.0.0+a"), Semver::read("1.0.0+b"), "builds are equal");
    }

    #[test]
    fn only_versions_are_read() {
        for text in ["", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", "v1.2.3", "1.2.x"] {
            assert_eq!(Semver::read(text), None, "{text}");
        }
        for (text, version) in [("v1.2.3", "1.2.3"), ("1.2", "1.2.0"), ("01.02.3", "1.2.3"), ("v1", "1.0.0")]
        {
            assert_eq!(Semver::read_leniently(text), Semver::read(version), "{text}");
        }
        assert_eq!(Semver::read_leniently("1.2-a"), None);
    }
}
