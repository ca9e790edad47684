//! What tags of a group say: labels, taints and resources of its nodes, and options of its own.
//!
//! Names and forms: Cluster Autoscaler, `cloudprovider/aws/aws_manager.go`.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Taint;
use tandem_core::{nodes::group::GroupOptions, quantity::parse_milli};

use super::autoscaling::Tag;

const LABEL: &str = "k8s.io/cluster-autoscaler/node-template/label/";
const TAINT: &str = "k8s.io/cluster-autoscaler/node-template/taint/";
const RESOURCE: &str = "k8s.io/cluster-autoscaler/node-template/resources/";
const OPTION: &str = "k8s.io/cluster-autoscaler/node-template/autoscaling-options/";

/// Effects that a taint may have.
const EFFECTS: [&str; 3] = ["NoSchedule", "NoExecute", "PreferNoSchedule"];

/// What the tags of a group say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tagged {
    /// Labels of its nodes.
    pub labels: BTreeMap<String, String>,
    /// Taints of its nodes.
    pub taints: Vec<Taint>,
    /// Options that differ from the flags; with resources of its nodes.
    pub options: GroupOptions,
    /// Tags that do not read: what was seen and what it should be. They have no effect.
    pub problems: Vec<String>,
}

impl Tagged {
    /// Reads the tags of a group.
    pub fn read(tags: &[Tag]) -> Self {
        let mut tagged = Self::default();
        for tag in tags {
            if let Err(wanted) = tagged.add(&tag.key, &tag.value) {
                tagged.problems.push(format!("tag {}={:?} should be {wanted}", tag.key, tag.value));
            }
        }
        tagged.taints.sort_by(|a, b| (&a.key, &a.effect, &a.value).cmp(&(&b.key, &b.effect, &b.value)));
        tagged
    }

    fn add(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        // A tag whose key ends with the prefix names nothing.
        let named = |prefix| key.strip_prefix(prefix).filter(|name| !name.is_empty());
        if let Some(name) = named(LABEL) {
            self.labels.insert(name.to_owned(), value.to_owned());
        } else if let Some(name) = named(TAINT) {
            self.taints.push(
                taint(name, value).ok_or("VALUE:EFFECT with NoSchedule, NoExecute or PreferNoSchedule")?,
            );
        } else if let Some(name) = named(RESOURCE) {
            parse_milli(value).map_err(|_| "a quantity such as 4, 500m or 10Gi")?;
            self.options.extra_resources.insert(name.to_owned(), value.to_owned());
        } else if let Some(name) = named(OPTION) {
            self.option(name, value)?;
        }
        Ok(())
    }

    fn option(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        const SHARE: &str = "a number from 0 to 1";
        const DURATION: &str = "a duration such as 10m or 1h30m";
        const BOOLEAN: &str = "true or false";
        let share = || {
            let share: f64 = value.parse().ok()?;
            (0.0..=1.0).contains(&share).then_some(share)
        };
        let duration = || value.parse::<SignedDuration>().ok().filter(|duration| !duration.is_negative());
        let boolean = || value.parse::<bool>().ok();
        let options = &mut self.options;
        match name {
            "scaledownutilizationthreshold" => options.utilization_threshold = Some(share().ok_or(SHARE)?),
            "scaledowngpuutilizationthreshold" => {
                options.gpu_utilization_threshold = Some(share().ok_or(SHARE)?);
            }
            "scaledownunneededtime" => options.unneeded_time = Some(duration().ok_or(DURATION)?),
            "scaledownunreadytime" => options.unready_time = Some(duration().ok_or(DURATION)?),
            "maxnodeprovisiontime" => options.max_provision_time = Some(duration().ok_or(DURATION)?),
            "maxnodestartuptime" => options.max_startup_time = Some(duration().ok_or(DURATION)?),
            "ignoredaemonsetsutilization" => options.ignore_daemon_sets = Some(boolean().ok_or(BOOLEAN)?),
            "zeroormaxnodescaling" => options.zero_or_max = boolean().ok_or(BOOLEAN)?,
            _ => {
                return Err(
                    "named scaledownutilizationthreshold, scaledowngpuutilizationthreshold, scaledownunneededtime, \
                            scaledownunreadytime, maxnodeprovisiontime, maxnodestartuptime, ignoredaemonsetsutilization \
                            or zeroormaxnodescaling",
                );
            }
        }
        Ok(())
    }
}

/// `VALUE:EFFECT`; the value may be empty.
fn taint(key: &str, value: &str) -> Option<Taint> {
    let (value, effect) = value.rsplit_once(':')?;
    EFFECTS.contains(&effect).then(|| Taint {
        key: key.to_owned(),
        value: Some(value.to_owned()).filter(|value| !value.is_empty()),
        effect: effect.to_owned(),
        ..Taint::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tags: &[(&str, &str)]) -> Tagged {
        let prefix = "k8s.io/cluster-autoscaler/node-template/";
        let tag =
            |(key, value): &(&str, &str)| Tag { key: format!("{prefix}{key}"), value: (*value).to_owned() };
        Tagged::read(&tags.iter().map(tag).collect::<Vec<_>>())
    }

    #[test]
    fn labels_taints_and_resources_of_nodes() {
        let tagged = read(&[
            ("label/node.kubernetes.io/role", "web"),
            ("label/", "nothing"),
            ("taint/dedicated", "web:NoSchedule"),
            ("taint/spot", ":NoExecute"),
            ("resources/nvidia.com/gpu", "2"),
            ("resources/ephemeral-storage", "10Gi"),
        ]);
        assert_eq!(tagged.problems, Vec::<String>::new());
        assert_eq!(tagged.labels, BTreeMap::from([("node.kubernetes.io/role".into(), "web".into())]));
        let seen: Vec<_> =
            tagged.taints.iter().map(|taint| (&*taint.key, taint.value.as_deref(), &*taint.effect)).collect();
        assert_eq!(seen, [("dedicated", Some("web"), "NoSchedule"), ("spot", None, "NoExecute")]);
        assert_eq!(tagged.options.extra_resources["nvidia.com/gpu"], "2");
    }

    #[test]
    fn options_of_a_group() {
        let tagged = read(&[
            ("autoscaling-options/scaledownutilizationthreshold", "0.4"),
            ("autoscaling-options/scaledowngpuutilizationthreshold", "1"),
            ("autoscaling-options/scaledownunneededtime", "1h30m"),
            ("autoscaling-options/scaledownunreadytime", "90s"),
            ("autoscaling-options/ignoredaemonsetsutilization", "true"),
        ]);
        let wanted = GroupOptions {
            utilization_threshold: Some(0.4),
            gpu_utilization_threshold: Some(1.0),
            unneeded_time: Some(SignedDuration::from_mins(90)),
            unready_time: Some(SignedDuration::from_secs(90)),
            ignore_daemon_sets: Some(true),
            ..GroupOptions::default()
        };
        assert_eq!((tagged.options, tagged.problems), (wanted, vec![]));
    }

    #[test]
    fn a_tag_that_does_not_read_says_what_it_should_be() {
        for (key, value, wanted) in [
            ("taint/a", "web", "VALUE:EFFECT"),
            ("taint/a", "web:Never", "NoSchedule, NoExecute"),
            ("resources/cpu", "many", "a quantity such as"),
            ("autoscaling-options/scaledownutilizationthreshold", "half", "a number from 0 to 1"),
            ("autoscaling-options/scaledownutilizationthreshold", "50", "a number from 0 to 1"),
            ("autoscaling-options/scaledownunneededtime", "soon", "a duration such as"),
            ("autoscaling-options/scaledownunneededtime", "-1m", "a duration such as"),
            ("autoscaling-options/ignoredaemonsetsutilization", "yes", "true or false"),
            ("autoscaling-options/scaledownwhatever", "1", "named scaledownutilizationthreshold"),
        ] {
            let tagged = read(&[(key, value)]);
            assert_eq!(tagged.options, GroupOptions::default(), "{key}={value}");
            let [problem] = &tagged.problems[..] else { panic!("{key}={value}: {:?}", tagged.problems) };
            assert!(
                problem.contains(key) && problem.contains(value) && problem.contains(wanted),
                "{problem}"
            );
        }
    }
}
