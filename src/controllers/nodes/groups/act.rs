//! Each action of a pass, done at the provider and on the cluster.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Taint;
use tandem_core::nodes::{
    action::{Action, DELETION_CANDIDATE, Increase, InstanceFault, Removal, TO_BE_DELETED},
    drain,
    group::{NodeGroup, OTHER_CLASS},
    pass::{Change, Memory, PassSettings},
    printed::timestamp,
    reasons,
};
use tokio::{sync::mpsc, time::Instant};

use super::{NodeGroups, remove};
use crate::{
    cloud::NodeRef,
    controllers::nodes::{
        drain::Evicted,
        taint::{Marking, mark},
    },
};

/// Soft taints of a pass: no more are written when their time is up (`--max-bulk-soft-taint-time`); the next pass goes on.
#[derive(Debug)]
pub(super) struct SoftTaints {
    most: Duration,
    since: Option<Instant>,
}

impl SoftTaints {
    /// None is written yet; all together may take as long as this.
    pub(super) fn new(most: Duration) -> Self {
        Self { most, since: None }
    }

    /// Whether an action may be done at this time: all may that are no soft taints, and the first of those.
    pub(super) fn may(&mut self, action: &Action, now: Instant) -> bool {
        let marks = matches!(action, Action::MarkCandidate { .. } | Action::UnmarkCandidate { .. });
        !marks || now.duration_since(*self.since.get_or_insert(now)) <= self.most
    }
}

/// The end of a removal.
#[derive(Debug, Clone)]
pub(super) struct Removed {
    /// The node.
    pub node: Arc<str>,
    /// Its group.
    pub group: Arc<str>,
    /// Whether it is gone.
    pub gone: bool,
}

/// What the end of a removal means for the next passes.
pub(super) fn remember(memory: &mut Memory, removed: &Removed, settings: &PassSettings) {
    let now = Timestamp::now();
    if removed.gone {
        memory.note(Change::Shrunk, &removed.group, now);
        memory.unneeded.remove(&*removed.node);
    } else {
        memory.note(Change::Failed, &removed.group, now);
        memory.unremovable.insert(removed.node.to_string(), now + settings.scale_down.recheck);
    }
}

impl NodeGroups {
    /// Does one thing. What fails is said, and tried again by a later pass if it is still wanted.
    pub(super) async fn act(
        &self,
        action: &Action,
        groups: &[NodeGroup],
        memory: &mut Memory,
        removed: &mpsc::UnboundedSender<Removed>,
    ) {
        match action {
            Action::Increase(increase) => {
                let group = groups.iter().find(|group| group.id == increase.group);
                let own = group.and_then(|group| group.options.max_provision_time);
                let within = own.unwrap_or(self.settings.cluster.provision_time);
                self.increase(increase, within, memory).await;
            }
            Action::Decrease { group, target, delta } => {
                let there = target - delta;
                tracing::info!(
                    "Decreasing size of {group}, expected={target} current={there} delta=-{delta}"
                );
                if let Err(error) = self.provider.decrease_target(group, *target, *delta).await {
                    tracing::warn!("Failed to fix node group sizes: failed to decrease {group}: {error}");
                    let event = reasons::failed_to_revert_scale_up(group, &error.to_string());
                    self.reporter.on_status(&event).await;
                }
            }
            Action::DeleteInstances { group, instances, cause } => {
                let nodes: Vec<_> = instances
                    .iter()
                    .map(|id| NodeRef { name: id.clone(), provider_id: id.clone(), ..NodeRef::default() })
                    .collect();
                let outcome = self.provider.delete_nodes(group, &nodes).await;
                if outcome.is_ok() && *cause == InstanceFault::NeverRegistered {
                    self.metrics.removed_unregistered(instances.len());
                }
                for instance in instances {
                    let event = match &outcome {
                        Ok(()) => reasons::deleted_instance(instance, *cause),
                        Err(error) => reasons::failed_to_delete_instance(instance, &error.to_string()),
                    };
                    self.reporter.on_status(&event).await;
                }
            }
            Action::Remove(removal) => self.remove(removal, removed).await,
            Action::MarkCandidate { node, since } => self.soft_taint(node, Some(*since)).await,
            Action::UnmarkCandidate { node } => self.soft_taint(node, None).await,
            Action::CleanUp { node } => {
                let event = match remove::give_back(&self.client, node).await {
                    Ok(()) => reasons::cleaned_up(TO_BE_DELETED, node),
                    Err(error) => reasons::failed_to_clean_up(TO_BE_DELETED, node, &error),
                };
                self.reporter.on_node(node, &event).await;
            }
        }
    }

    /// Asks for nodes, to be there `within` a time.
    async fn increase(&self, increase: &Increase, within: SignedDuration, memory: &mut Memory) {
        let Increase { group, from, to, .. } = increase;
        tracing::info!("Scale-up: setting group {group} size to {to}");
        self.reporter.on_status(&reasons::setting_group_size(increase)).await;
        self.metrics.activity("scaleUp");
        match self.provider.increase(group, *from, to - from).await {
            Ok(()) => {
                memory.cluster.requested(group, to - from, Timestamp::now(), within);
                self.metrics.grown(group, to - from);
                self.reporter.on_status(&reasons::group_size_set(increase)).await;
            }
            Err(error) => {
                let text = error.to_string();
                let backoff = self.settings.cluster.backoff;
                let code = error.code();
                let until = memory.cluster.backoffs.fail(group, code, &text, Timestamp::now(), backoff).until;
                let until = timestamp(until);
                tracing::warn!(
                    %error,
                    "Disabling scale-up for node group {group} until {until}; errorClass={OTHER_CLASS}; errorCode={code}"
                );
                self.metrics.failed_to_grow(group, to - from);
                self.reporter.on_status(&reasons::failed_to_scale_up_group(group, &text)).await;
            }
        }
    }

    async fn soft_taint(&self, node: &str, since: Option<Timestamp>) {
        let taint = since.map(|since| Taint {
            key: DELETION_CANDIDATE.to_owned(),
            value: Some(since.as_second().to_string()),
            effect: "PreferNoSchedule".to_owned(),
            time_added: None,
        });
        let remove = if taint.is_none() { vec![DELETION_CANDIDATE.to_owned()] } else { Vec::new() };
        let marking = Marking { add: taint.into_iter().collect(), remove, ..Marking::default() };
        if let Err(error) = mark(&self.client, node, &marking).await {
            tracing::warn!(node, %error, "soft taint could not be written");
        }
    }

    /// The taint is on before anything else happens, and before the next node is looked at.
    async fn remove(&self, removal: &Removal, removed: &mpsc::UnboundedSender<Removed>) {
        let node = removal.node.clone();
        let empty = removal.pods.is_empty();
        self.metrics.activity("scaleDown");
        let pods: Vec<_> = removal.pods.iter().map(|pod| pod.key()).collect();
        self.reporter.on_status(&reasons::removing_node(&node, removal.utilization, &pods)).await;
        if let Err(error) = remove::taint(&self.client, &node, self.removal.cordon, Timestamp::now()).await {
            self.reporter.on_node(&node, &reasons::failed_to_mark(&error)).await;
            // The loop ends with the process; then nobody needs to know.
            let _ = removed.send(Removed { node, group: removal.group.clone(), gone: false });
            return;
        }
        self.reporter.on_node(&node, &reasons::marked_to_be_deleted()).await;
        self.removing.lock().insert(node.clone(), !empty);
        tokio::spawn(self.finish(removal.clone(), removed.clone()));
    }

    /// The rest of a removal takes minutes, and nobody waits for it.
    fn finish(
        &self,
        removal: Removal,
        removed: mpsc::UnboundedSender<Removed>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (client, world, provider) = (self.client.clone(), self.world.clone(), self.provider.clone());
        let (reporter, metrics, removing) =
            (self.reporter.clone(), self.metrics.clone(), self.removing.clone());
        let (options, rules) = (self.removal.clone(), self.settings.drain.clone());
        async move {
            let node = removal.node.clone();
            let now = || judge(&world, &node, &rules);
            let evicted = |pod: &tandem_core::scheduling::Pod, evicted: &Evicted| {
                metrics.evicted(*evicted == Evicted::Done);
                reporter.evicted(pod, evicted);
            };
            let outcome = remove::remove(&client, &world, &*provider, &removal, &options, now, evicted).await;
            removing.lock().remove(&node);
            let empty = removal.pods.is_empty();
            match &outcome {
                Ok(()) => {
                    metrics.shrunk(removal.cause, &removal.group);
                    reporter.on_status(&reasons::removed_node(&node, empty)).await;
                    reporter.on_node(&node, &reasons::node_removed()).await;
                }
                Err(error) => {
                    reporter.on_node(&node, &reasons::failed_to_remove(empty, &error.to_string())).await;
                }
            }
            let _ = removed.send(Removed { node, group: removal.group, gone: outcome.is_ok() });
        }
    }
}

/// What would have to move if the node went now; why it may not go after all.
fn judge(
    world: &crate::cluster::world::World,
    node: &str,
    rules: &drain::Options,
) -> Result<Vec<Arc<tandem_core::scheduling::Pod>>, String> {
    let of_node =
        |pod: &Arc<tandem_core::scheduling::Pod>| pod.node.as_deref() == Some(node) && !pod.is_terminal();
    let pods: Vec<_> = world.pods.all().into_iter().filter(of_node).collect();
    let verdict = drain::node(&pods, rules, Some(&world.owners()), &world.budgets(), Timestamp::now());
    match (verdict.blocked, verdict.waiting.first()) {
        (Some((_, _, why)), _) => Err(why),
        (None, Some(pod)) => Err(format!("pod {} has to end first", pod.key())),
        (None, None) => Ok(verdict.drain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_taints_have_a_time_and_nothing_else_has() {
        let mark = Action::UnmarkCandidate { node: "n".into() };
        let other = Action::CleanUp { node: "n".into() };
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut taints = SoftTaints::new(Duration::from_secs(3));
        assert!(taints.may(&other, start));
        assert!(taints.may(&mark, after(10)), "the time begins with the first");
        assert!(taints.may(&mark, after(13)));
        assert!(!taints.may(&mark, after(14)));
        assert!(taints.may(&other, after(14)));
    }
}
