//! Which machines that are no pool's are emptied: those with a tag, where the user says so.
//!
//! Source: aws-node-termination-handler, `pkg/monitor/sqsevent/sqs-monitor.go` (`getNodeInfo`), `pkg/observability`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Interruptions;
use crate::{
    cli::interruption::ManagedTag,
    cloud::{
        CloudError,
        aws::{autoscaling, client::Client, fleet::launch},
    },
};

/// So long it is remembered whether a machine has the tag: a message that comes again asks EC2 nothing.
const REMEMBERED: Duration = Duration::from_mins(1);
/// Between two counts of machines with the tag (`pkg/observability`, `InitNodeMetrics`).
const COUNTED_EVERY: Duration = Duration::from_secs(30);
/// The tag that Auto Scaling gives its machines: their group's name.
const GROUP_TAG: &str = "aws:autoscaling:groupName";

/// What is known of machines and the tag.
#[derive(Debug)]
pub(super) struct Managed {
    tag: ManagedTag,
    known: Mutex<HashMap<String, (Instant, bool)>>,
}

impl Managed {
    pub(super) fn new(tag: ManagedTag) -> Self {
        Self { tag, known: Mutex::default() }
    }

    /// Those of these machines that are not to be touched. One that EC2 does not know has no tag.
    pub(super) async fn foreign(
        &self,
        aws: &Client,
        machines: &[String],
    ) -> Result<BTreeSet<String>, CloudError> {
        if !self.tag.is_checked {
            return Ok(BTreeSet::new());
        }
        let mut told = self.known(machines, Instant::now());
        let mut unknown = machines.to_vec();
        unknown.retain(|machine| !told.contains_key(machine));
        if !unknown.is_empty() {
            let tagged = self.tagged(aws, &unknown).await?;
            let now = Instant::now();
            let mut known = self.known.lock();
            for machine in unknown {
                let is_tagged = tagged.contains(&machine);
                known.insert(machine.clone(), (now, is_tagged));
                told.insert(machine, is_tagged);
            }
        }
        Ok(told.into_iter().filter(|(_, is_tagged)| !is_tagged).map(|(machine, _)| machine).collect())
    }

    /// What is known of these machines; what is old is forgotten.
    fn known(&self, machines: &[String], now: Instant) -> BTreeMap<String, bool> {
        let mut known = self.known.lock();
        known.retain(|_, (since, _)| now.duration_since(*since) < REMEMBERED);
        let of = |machine: &String| known.get(machine).map(|(_, is_tagged)| (machine.clone(), *is_tagged));
        machines.iter().filter_map(of).collect()
    }

    async fn tagged(&self, aws: &Client, machines: &[String]) -> Result<BTreeSet<String>, CloudError> {
        let described = launch::machines_by_id(aws, machines).await?;
        let has = |machine: &launch::Machine| machine.tag_set.iter().any(|tag| tag.key == self.tag.key);
        let (tagged, others): (Vec<_>, Vec<_>) = described.into_iter().partition(has);
        let mut tagged: BTreeSet<_> = tagged.into_iter().map(|machine| machine.instance_id).collect();
        if self.tag.of_groups && !others.is_empty() {
            let of_groups: BTreeMap<_, _> = others
                .iter()
                .filter_map(|machine| {
                    let tag = machine.tag_set.iter().find(|tag| tag.key == GROUP_TAG)?;
                    Some((machine.instance_id.as_str(), tag.value.as_str()))
                })
                .collect();
            let names: BTreeSet<_> = of_groups.values().copied().collect();
            let names: Vec<_> = names.into_iter().collect();
            let mut groups = autoscaling::groups_by_name(aws, &names).await?;
            groups.retain(|group| group.tags.iter().any(|tag| tag.key == self.tag.key));
            let is_managed = |name: &str| groups.iter().any(|group| group.name == name);
            let machines = of_groups.iter().filter(|(_, group)| is_managed(group));
            tagged.extend(machines.map(|(machine, _)| (*machine).to_owned()));
        }
        Ok(tagged)
    }
}

impl Interruptions {
    /// Counts machines with the tag, and those of them that are nodes here, while this replica acts; never returns.
    pub(super) async fn count_tagged(self: Arc<Self>) {
        let Some(managed) = &self.managed else { return };
        let mut leading = self.config.leading.clone();
        let tags = BTreeMap::from([(managed.tag.key.clone(), "*".to_owned())]);
        loop {
            // Its sender lives as long as the process.
            let _ = leading.wait_for(|leads| *leads).await;
            match launch::machines(&self.config.aws, &tags).await {
                Ok(machines) => {
                    let nodes = self.config.world.nodes.all();
                    let here: BTreeSet<_> =
                        nodes.iter().filter_map(|node| node.provider_id.rsplit('/').next()).collect();
                    let nodes =
                        machines.iter().filter(|machine| here.contains(machine.instance_id.as_str())).count();
                    self.metrics.tagged(machines.len(), nodes);
                }
                Err(error) => tracing::warn!(%error, tag = managed.tag.key, "machines could not be counted"),
            }
            tokio::time::sleep(COUNTED_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_told_is_known_for_a_minute() {
        let tag = ManagedTag { key: "ours".to_owned(), is_checked: true, of_groups: false };
        let managed = Managed::new(tag);
        let machines = ["i-1".to_owned(), "i-2".to_owned()];
        managed.known.lock().insert("i-1".to_owned(), (Instant::now(), true));
        assert_eq!(managed.known(&machines, Instant::now()), [("i-1".to_owned(), true)].into());
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(managed.known(&machines, Instant::now()), BTreeMap::new());
        assert!(managed.known.lock().is_empty(), "what is old is not kept");
    }
}
