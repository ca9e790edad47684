//! `--node-group-auto-discovery=clusterapi:namespace=…,clusterName=…,LABEL=VALUE`.

use std::collections::BTreeMap;

use crate::cloud::spec::{SpecError, discovered_by, pairs};

/// Which objects are groups: all that is named must fit.
///
/// Source: Cluster Autoscaler, `clusterapi_autodiscovery.go`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovery {
    namespace: Option<String>,
    cluster: Option<String>,
    labels: BTreeMap<String, String>,
}

impl Discovery {
    /// Reads a value of the flag.
    ///
    /// # Errors
    /// It is meant for another provider, or a part is no `KEY=VALUE`.
    pub fn read(spec: &str) -> Result<Self, SpecError> {
        let mut discovery = Self::default();
        for (key, value) in pairs(discovered_by(spec, "clusterapi")?)? {
            let value = value.to_owned();
            match key {
                "namespace" => discovery.namespace = Some(value).filter(|value| !value.is_empty()),
                "clusterName" => discovery.cluster = Some(value).filter(|value| !value.is_empty()),
                label => {
                    discovery.labels.insert(label.to_owned(), value);
                }
            }
        }
        Ok(discovery)
    }

    /// Whether an object of this namespace, cluster and labels is a group.
    pub fn admits(&self, namespace: &str, cluster: &str, labels: &BTreeMap<String, String>) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
            && self.cluster.as_deref().is_none_or(|wanted| wanted == cluster)
            && self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// The one namespace that can hold groups; `None` if there are several, or any.
    pub fn only_namespace(all: &[Self]) -> Option<&str> {
        let first = all.first()?.namespace.as_deref()?;
        all.iter().all(|one| one.namespace.as_deref() == Some(first)).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_named_must_fit() {
        let labels = BTreeMap::from([("tier".to_owned(), "web".to_owned())]);
        for (spec, admits) in [
            ("clusterapi:", true),
            ("clusterapi:namespace=a", true),
            ("clusterapi:namespace=b", false),
            ("clusterapi:clusterName=c", true),
            ("clusterapi:clusterName=d", false),
            ("clusterapi:tier=web", true),
            ("clusterapi:tier=db", false),
            ("clusterapi:namespace=a,clusterName=c,tier=web,", true),
            ("clusterapi:namespace=a,clusterName=c,zone=x", false),
        ] {
            assert_eq!(Discovery::read(spec).unwrap().admits("a", "c", &labels), admits, "{spec}");
        }
        for spec in ["namespace=a", "asg:tag=a", "clusterapi:namespace", "clusterapi:a=b=c"] {
            assert!(Discovery::read(spec).is_err(), "{spec}");
        }
    }

    #[test]
    fn one_namespace_is_enough_only_if_all_name_it() {
        let only = |specs: &[&str]| {
            let all: Vec<_> = specs.iter().map(|spec| Discovery::read(spec).unwrap()).collect();
            Discovery::only_namespace(&all).map(str::to_owned)
        };
        assert_eq!(only(&[]), None);
        assert_eq!(only(&["clusterapi:namespace=a", "clusterapi:namespace=a,x=y"]), Some("a".to_owned()));
        assert_eq!(only(&["clusterapi:namespace=a", "clusterapi:namespace=b"]), None);
        assert_eq!(only(&["clusterapi:namespace=a", "clusterapi:clusterName=c"]), None);
    }
}
