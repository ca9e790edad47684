//! A node that is no pool's is marked and emptied; what a hook holds is then let go.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Taint};
use tandem_core::{
    nodes::interruption::{Home, Kind, Notice, reasons},
    pods::reasons::Event,
    scheduling::{Node, Pod},
};
use tokio::time::{Instant, interval};

use super::{
    Interruptions, Outcome,
    webhook::{Announcement, event_id},
};
use crate::{
    cloud::{CloudError, CloudProvider, NodeRef, aws::lifecycle::Held},
    controllers::nodes::{
        drain::{DrainOptions, Left, drain},
        taint::{Marking, mark},
    },
};

/// The label that takes a node out of load balancers, and its value.
const NO_LOAD_BALANCER: (&str, &str) =
    ("node.kubernetes.io/exclude-from-external-load-balancers", "aws-node-termination-handler");

/// The value of a taint has no more characters (aws-node-termination-handler, `pkg/node`, `maxTaintValueLength`).
const TAINT_VALUE: usize = 63;

/// The taint of a node that is shut down: its volumes are detached without waiting for its kubelet.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

impl Interruptions {
    pub(super) async fn empty(
        &self,
        notice: &Notice,
        machine: &str,
        node: &Node,
        taint: Option<&'static str>,
        evict: bool,
    ) -> Outcome {
        tracing::info!(node = &*node.name, machine, notice = notice.kind.name(), "the node is emptied");
        let now = Timestamp::now();
        let message = Announcement { notice, machine, node: Some(node), pods: &[], now }.description();
        self.tell(node, &Event { message, ..reasons::noticed(&notice.kind, Home::Other) }).await;
        let action = if evict { "cordon-and-drain" } else { "cordon" };
        if let Err(error) = mark(&self.config.client, &node.name, &self.marking(taint, notice)).await {
            self.metrics.acted(action, notice, Some(node), false);
            self.tell(node, &reasons::not_emptied(evict, &error.to_string())).await;
            return Outcome::Again;
        }
        if taint.is_some() {
            self.metrics.acted("pre-drain", notice, Some(node), true);
            self.tell(node, &reasons::tainted()).await;
        }
        self.replace(notice, node).await;
        let held = held(notice, machine);
        let announcement = self.announcement(notice, machine, Some(node));
        let left = if evict { self.evicted(notice, node, held.as_ref()).await } else { Vec::new() };
        self.metrics.acted(action, notice, Some(node), left.is_empty());
        self.post(announcement);
        if left.is_empty() {
            self.out_of_service(node, evict).await;
            self.tell(node, &reasons::emptied(evict)).await;
        } else {
            self.tell(node, &reasons::not_emptied(evict, &left.join("; "))).await;
            // Budgets may let more go by the time the message comes again, as long as the machine is there.
            if notice.deadline().is_none_or(|deadline| Timestamp::now() < deadline) {
                return Outcome::Again;
            }
        }
        let Some(held) = held else {
            if left.is_empty() {
                self.let_go(notice, node, None).await;
            }
            return Outcome::Done;
        };
        tokio::time::sleep(self.config.args.completion_delay()).await;
        match held.complete(&self.config.aws).await {
            Ok(()) => {
                self.let_go(notice, node, None).await;
                Outcome::Done
            }
            Err(error) => {
                self.metrics.failed("complete lifecycle action");
                self.let_go(notice, node, Some(&error.to_string())).await;
                tracing::warn!(%error, machine, group = held.group, "a machine that is empty could not be let go");
                Outcome::Again
            }
        }
    }

    /// Says that a notice is dealt with, or that its hook could not be told.
    async fn let_go(&self, notice: &Notice, node: &Node, problem: Option<&str>) {
        self.metrics.acted("post-drain", notice, Some(node), problem.is_none());
        self.tell(node, &reasons::let_go(problem)).await;
    }

    /// The machine's group gets another one while this one is emptied. A group that ends it itself says by its size whether
    /// it is to have one, and is read again for that; one whose machine is taken back would miss it minutes later.
    async fn replace(&self, notice: &Notice, node: &Node) {
        let Some(groups) = &self.config.groups else { return };
        groups.changed().await;
        if notice.kind != Kind::SpotInterruption {
            return;
        }
        match replaced(&**groups, &NodeRef::from(node)).await {
            Ok(None) => {}
            Ok(Some(group)) => {
                self.metrics.acted("replace", notice, Some(node), true);
                tracing::info!(node = &*node.name, %group, "the group gets another machine, its size stays");
            }
            Err(error) => {
                self.metrics.acted("replace", notice, Some(node), false);
                tracing::warn!(node = &*node.name, %error, "its group gets another machine only when it misses this one");
            }
        }
    }

    /// Says that nothing runs there any more, so that volumes may be attached elsewhere before the machine ends.
    async fn out_of_service(&self, node: &Node, is_empty: bool) {
        if !self.config.args.enable_out_of_service_taint || !is_empty {
            return;
        }
        let taint = Taint {
            key: OUT_OF_SERVICE.to_owned(),
            value: Some("nodeshutdown".to_owned()),
            effect: "NoExecute".to_owned(),
            ..Taint::default()
        };
        let marking = Marking { add: vec![taint], ..Marking::default() };
        if let Err(error) = mark(&self.config.client, &node.name, &marking).await {
            self.metrics.failed("out-of-service taint");
            tracing::warn!(node = &*node.name, %error, "the taint {OUT_OF_SERVICE} could not be written");
        }
    }

    fn marking(&self, taint: Option<&'static str>, notice: &Notice) -> Marking {
        let args = &self.config.args;
        let taint = taint.map(|key| Taint {
            key: key.to_owned(),
            value: Some(event_id(notice).chars().take(TAINT_VALUE).collect()),
            effect: args.taint_effect.clone(),
            ..Taint::default()
        });
        let label = args
            .exclude_from_load_balancers
            .then(|| (NO_LOAD_BALANCER.0.to_owned(), Some(NO_LOAD_BALANCER.1.to_owned())));
        Marking {
            add: taint.into_iter().collect(),
            cordon: Some(true),
            labels: label.into_iter().collect(),
            ..Marking::default()
        }
    }

    /// What stays there, each with the reason. Where there is what may not go, nothing is evicted.
    async fn evicted(&self, notice: &Notice, node: &Node, held: Option<&Held<'_>>) -> Vec<String> {
        let kept = self.kept(node).await;
        if !kept.is_empty() {
            return kept;
        }
        let left = self.drain(notice, node, held).await;
        left.iter().map(|left| format!("{}: {}", left.pod.key(), left.why)).collect()
    }

    /// Evicts what runs there, and keeps the hook waiting meanwhile; answers with the pods that stay.
    async fn drain(&self, notice: &Notice, node: &Node, held: Option<&Held<'_>>) -> Vec<Left> {
        let options = self.drain_options(notice);
        let pods = self.pods_of(node);
        let emptied = drain(&self.config.client, &self.config.world.pods, &pods, &options, |_, _| {});
        tokio::pin!(emptied);
        let args = &self.config.args;
        let until = Instant::now() + Duration::from_secs(args.heartbeat_until);
        let mut beats = interval(Duration::from_secs(args.heartbeat_interval.max(1)));
        // The first is due at once, and a hook has just begun to wait.
        beats.tick().await;
        loop {
            tokio::select! {
                left = &mut emptied => return left,
                now = beats.tick() => {
                    if let Some(held) = held.filter(|_| now < until)
                        && let Err(error) = held.heartbeat(&self.config.aws).await
                    {
                        self.metrics.failed("heartbeat");
                        tracing::warn!(%error, machine = held.machine, "the hook of a machine could not be kept waiting");
                    }
                }
            }
        }
    }

    /// As long as the flags say, and no longer than the machine is there.
    fn drain_options(&self, notice: &Notice) -> DrainOptions {
        let args = &self.config.args;
        let left = notice.deadline().map(|deadline| {
            let left = deadline.duration_since(Timestamp::now());
            Duration::try_from(left).unwrap_or(Duration::ZERO)
        });
        let grace = left.map_or(args.grace(), |left| args.grace().min(left));
        let max_grace = match (args.pod_grace(), left) {
            (Some(own), Some(left)) => Some(own.min(left)),
            (own, left) => own.or(left),
        };
        DrainOptions { eviction_time: grace, max_grace, wait: true }
    }

    /// Pods that have to go; those of DaemonSets end with the node.
    pub(super) fn pods_of(&self, node: &Node) -> Vec<Arc<Pod>> {
        let mut pods = self.config.world.pods.all();
        pods.retain(|pod| {
            pod.node.as_deref() == Some(&*node.name)
                && !pod.is_terminal()
                && !pod.is_mirror()
                && !pod.is_of_daemon_set()
        });
        pods.sort_by_key(|pod| pod.key());
        pods
    }

    async fn tell(&self, node: &Node, event: &Event) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.name.to_string()),
            uid: Some(node.name.to_string()),
            ..ObjectReference::default()
        };
        self.config.events.tell(&about, event).await;
    }
}

/// The group that gets another machine for this one, if it is of one.
async fn replaced(provider: &dyn CloudProvider, node: &NodeRef) -> Result<Option<Arc<str>>, CloudError> {
    let (groups, _) = provider.groups().await?;
    let Some(group) = provider.group_of(node, &groups).await? else { return Ok(None) };
    Ok(provider.replace(&group, node).await?.then_some(group))
}

fn held<'a>(notice: &'a Notice, machine: &'a str) -> Option<Held<'a>> {
    match &notice.kind {
        Kind::TerminateHook(hook) => {
            Some(Held { group: &hook.group, hook: &hook.name, token: &hook.token, machine })
        }
        _ => None,
    }
}
