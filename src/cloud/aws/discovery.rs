//! Which groups are meant: `--nodes` names them, `--node-group-auto-discovery` says what tags they have.

use std::collections::BTreeMap;

use crate::cloud::spec::{GroupSpec, SpecError, discovered_by};

use super::SetupError;

/// What a value of `--node-group-auto-discovery` looks like.
const FORM: &str = "asg:tag=KEY[=VALUE],KEY[=VALUE], such as \
                    asg:tag=k8s.io/cluster-autoscaler/enabled,k8s.io/cluster-autoscaler/my-cluster";

/// The groups that are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovery {
    /// By name, with bounds that win over the group's own.
    pub named: BTreeMap<String, GroupSpec>,
    /// Tags that a group has to have, all of them; `None` as a value means any. Empty discovers nothing.
    pub tags: BTreeMap<String, Option<String>>,
}

impl Discovery {
    /// Reads the values of both flags. Several discoveries are one: a group has to have the tags of all, as in
    /// Cluster Autoscaler (`aws_manager.go`, `auto_scaling_groups.go`).
    ///
    /// # Errors
    /// A value does not read, or neither flag is given.
    pub fn new(nodes: &[String], discoveries: &[String]) -> Result<Self, SetupError> {
        let mut found = Self::default();
        for spec in nodes {
            let group: GroupSpec = spec.parse().map_err(|error: SpecError| SetupError::Flag {
                flag: "--nodes",
                problem: error.to_string(),
            })?;
            if let Some(other) = found.named.insert(group.name.clone(), group.clone()) {
                return Err(SetupError::Flag {
                    flag: "--nodes",
                    problem: format!(
                        "group {} is given twice, as {}:{} and as {}:{}",
                        group.name, other.min, other.max, group.min, group.max
                    ),
                });
            }
        }
        for spec in discoveries {
            found.tags.extend(
                tags(spec)
                    .map_err(|problem| SetupError::Flag { flag: "--node-group-auto-discovery", problem })?,
            );
        }
        if found.named.is_empty() && found.tags.is_empty() {
            return Err(SetupError::NoGroups);
        }
        Ok(found)
    }
}

/// The tags of one value.
fn tags(spec: &str) -> Result<BTreeMap<String, Option<String>>, String> {
    let wrong = |problem: &str| format!("{spec:?} {problem}; it should be {FORM}");
    let rest = discovered_by(spec, "asg").map_err(|error| format!("{error}; it should be {FORM}"))?;
    let (attribute, list) = rest.split_once('=').ok_or_else(|| wrong("has nothing after asg:tag="))?;
    if attribute != "tag" {
        return Err(wrong(&format!("discovers by {attribute:?}, but groups are discovered by tag")));
    }
    let mut tags = BTreeMap::new();
    for pair in list.split(',') {
        let (key, value) = pair.split_once('=').map_or((pair, None), |(key, value)| (key, Some(value)));
        if key.is_empty() {
            return Err(wrong("has a tag without a key"));
        }
        // An empty value, as `k=`, means any: Cluster Autoscaler reads it so.
        tags.insert(key.to_owned(), value.filter(|value| !value.is_empty()).map(str::to_owned));
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discover(specs: &[&str]) -> Result<BTreeMap<String, Option<String>>, String> {
        let specs: Vec<String> = specs.iter().map(|&spec| spec.to_owned()).collect();
        Discovery::new(&[], &specs).map(|found| found.tags).map_err(|error| error.to_string())
    }

    #[test]
    fn tags_of_all_discoveries_must_hold() {
        let tag = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
        for (specs, wanted) in [
            (&["asg:tag=k"][..], vec![tag("k", None)]),
            (&["asg:tag=k=v,k2,k3="], vec![tag("k", Some("v")), tag("k2", None), tag("k3", None)]),
            (&["asg:tag=a=b=c"], vec![tag("a", Some("b=c"))]),
            (&["asg:tag=k=v", "asg:tag=k=w,x"], vec![tag("k", Some("w")), tag("x", None)]),
            (&["asg:tag=k8s.io/cluster-autoscaler/a"], vec![tag("k8s.io/cluster-autoscaler/a", None)]),
        ] {
            assert_eq!(discover(specs), Ok(wanted.into_iter().collect()), "{specs:?}");
        }
    }

    #[test]
    fn a_wrong_discovery_says_what_was_seen_and_what_to_write() {
        for (spec, seen) in [
            ("asg", "should begin with \"asg:\""),
            ("mig:namePrefix=a", "\"mig\""),
            ("asg:tag", "has nothing after asg:tag="),
            ("asg:label=k", "discovers by \"label\", but groups are discovered by tag"),
            ("asg:tag=", "has a tag without a key"),
            ("asg:tag=k,,l", "has a tag without a key"),
            ("asg:tag=k,=v", "has a tag without a key"),
        ] {
            let error = discover(&[spec]).unwrap_err();
            assert!(error.starts_with("--node-group-auto-discovery: "), "{error}");
            assert!(
                error.contains(spec) && error.contains(seen) && error.contains("asg:tag=KEY[=VALUE]"),
                "{error}"
            );
        }
    }

    #[test]
    fn groups_by_name_have_bounds_and_appear_once() {
        let nodes = |specs: &[&str]| {
            let specs: Vec<String> = specs.iter().map(|&spec| spec.to_owned()).collect();
            Discovery::new(&specs, &[]).map(|found| found.named).map_err(|error| error.to_string())
        };
        assert_eq!(nodes(&["1:3:a", "0:9:b"]).unwrap()["b"].max, 9);
        let twice = nodes(&["1:3:a", "1:4:a"]).unwrap_err();
        assert_eq!(twice, "--nodes: group a is given twice, as 1:3 and as 1:4");
        assert!(nodes(&["a"]).unwrap_err().starts_with("--nodes: "));
        assert!(nodes(&[]).unwrap_err().contains("--node-group-auto-discovery"));
    }
}
