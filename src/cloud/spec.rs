//! What `--nodes` and `--node-group-auto-discovery` say.

use std::str::FromStr;

use jiff::SignedDuration;

/// Why a flag's value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not three parts.
    #[error("{0:?} should be MIN:MAX:NAME, such as 1:10:workers")]
    Parts(String),
    /// A size that is no number of nodes.
    #[error("{size:?} in {spec:?} is no number of nodes; it should be MIN:MAX:NAME, such as 1:10:workers")]
    Size {
        /// The flag's value.
        spec: String,
        /// What stands where the size should.
        size: String,
    },
    /// The bounds are the wrong way round.
    #[error("the maximum in {0:?} is below the minimum")]
    Bounds(String),
    /// No name.
    #[error("{0:?} names no group after its sizes")]
    NoName(String),
    /// No `DISCOVERER:` in front.
    #[error("{spec:?} should begin with {wanted:?}")]
    NoDiscoverer {
        /// The flag's value.
        spec: String,
        /// What the provider understands.
        wanted: String,
    },
    /// Meant for another provider.
    #[error("{found:?} of {spec:?} is not what this provider discovers by; it should be {wanted:?}")]
    OtherDiscoverer {
        /// The flag's value.
        spec: String,
        /// What stands before the colon.
        found: String,
        /// What the provider understands.
        wanted: String,
    },
    /// A part that is no `KEY=VALUE`.
    #[error("{pair:?} in {spec:?} is no KEY=VALUE")]
    Pair {
        /// The flag's value.
        spec: String,
        /// The part.
        pair: String,
    },
}

/// One `--nodes=MIN:MAX:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSpec {
    /// It never gets smaller, in nodes.
    pub min: u32,
    /// It never gets larger, in nodes.
    pub max: u32,
    /// The group; everything after the second colon, so it may hold colons itself.
    pub name: String,
}

impl FromStr for GroupSpec {
    type Err = SpecError;

    /// Source: Cluster Autoscaler, `config/dynamic/node_group_spec.go`.
    fn from_str(spec: &str) -> Result<Self, SpecError> {
        let mut parts = spec.splitn(3, ':');
        let (Some(min), Some(max), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SpecError::Parts(spec.to_owned()));
        };
        let size = |text: &str| {
            text.parse::<u32>().map_err(|_| SpecError::Size { spec: spec.to_owned(), size: text.to_owned() })
        };
        let group = Self { min: size(min)?, max: size(max)?, name: name.to_owned() };
        if group.max < group.min {
            return Err(SpecError::Bounds(spec.to_owned()));
        }
        if group.name.is_empty() {
            return Err(SpecError::NoName(spec.to_owned()));
        }
        Ok(group)
    }
}

/// What stands after `DISCOVERER:` in a value of `--node-group-auto-discovery`.
///
/// # Errors
/// There is no discoverer, or another than `wanted`.
pub fn discovered_by<'a>(spec: &'a str, wanted: &str) -> Result<&'a str, SpecError> {
    match spec.split_once(':') {
        Some((found, rest)) if found == wanted => Ok(rest),
        Some((found, _)) => Err(SpecError::OtherDiscoverer {
            spec: spec.to_owned(),
            found: found.to_owned(),
            wanted: wanted.to_owned(),
        }),
        None => Err(SpecError::NoDiscoverer { spec: spec.to_owned(), wanted: format!("{wanted}:") }),
    }
}

/// The pairs of `KEY=VALUE,KEY=VALUE`, in their order; empty parts are passed over.
///
/// # Errors
/// A part has no `=`, more than one, or nothing before it.
pub fn pairs(text: &str) -> Result<Vec<(&str, &str)>, SpecError> {
    let pair = |part: &'_ str| SpecError::Pair { spec: text.to_owned(), pair: part.to_owned() };
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| match part.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.contains('=') => Ok((key, value)),
            _ => Err(pair(part)),
        })
        .collect()
}

/// Reads a duration as Go writes it: `10m0s`, `1.5h`, `0`.
pub fn duration(text: &str) -> Option<SignedDuration> {
    if text == "0" { Some(SignedDuration::ZERO) } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_go_writes_them() {
        for (text, millis) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("5s", Some(5_000)),
            ("10m0s", Some(600_000)),
            ("1h30m", Some(5_400_000)),
            ("1.5h", Some(5_400_000)),
            ("300ms", Some(300)),
            ("-1m", Some(-60_000)),
            ("5", None),
            ("", None),
            ("ten minutes", None),
        ] {
            assert_eq!(duration(text), millis.map(SignedDuration::from_millis), "{text}");
        }
    }

    #[test]
    fn a_group_is_two_sizes_and_a_name() {
        let read = |spec: &str| spec.parse::<GroupSpec>();
        let group = |min, max, name: &str| Ok(GroupSpec { min, max, name: name.to_owned() });
        let owned = str::to_owned;
        let size = |spec: &str, size: &str| Err(SpecError::Size { spec: owned(spec), size: owned(size) });
        for (spec, wanted) in [
            ("1:10:workers", group(1, 10, "workers")),
            ("0:0:idle", group(0, 0, "idle")),
            ("3:3:MachineDeployment/default/a:b", group(3, 3, "MachineDeployment/default/a:b")),
            ("1:10", Err(SpecError::Parts(owned("1:10")))),
            ("", Err(SpecError::Parts(String::new()))),
            ("a:10:w", size("a:10:w", "a")),
            ("1::w", size("1::w", "")),
            ("-1:10:w", size("-1:10:w", "-1")),
            ("5:4:w", Err(SpecError::Bounds(owned("5:4:w")))),
            ("1:2:", Err(SpecError::NoName(owned("1:2:")))),
        ] {
            assert_eq!(read(spec), wanted, "{spec}");
        }
    }

    #[test]
    fn a_discovery_names_its_discoverer() {
        assert_eq!(discovered_by("clusterapi:namespace=a", "clusterapi"), Ok("namespace=a"));
        assert_eq!(discovered_by("clusterapi:", "clusterapi"), Ok(""));
        let error = discovered_by("asg:tag=k", "clusterapi").unwrap_err().to_string();
        assert_eq!(
            error,
            r#""asg" of "asg:tag=k" is not what this provider discovers by; it should be "clusterapi""#
        );
        let error = discovered_by("namespace=a", "clusterapi").unwrap_err().to_string();
        assert_eq!(error, r#""namespace=a" should begin with "clusterapi:""#);
    }

    #[test]
    fn pairs_have_one_equals_sign() {
        assert_eq!(pairs("a=1,,b="), Ok(vec![("a", "1"), ("b", "")]));
        assert_eq!(pairs(""), Ok(vec![]));
        for text in ["a", "a=1=2", "=1", "b=2,a"] {
            assert!(pairs(text).is_err(), "{text}");
        }
    }
}
