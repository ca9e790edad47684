//! Log lines of a pass, in the words of Cluster Autoscaler 1.35 (`core`, `clusterstate`, `simulator`), by which its users search.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Arguments,
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use tandem_core::{
    nodes::{
        action::Action,
        group::{NodeGroup, OTHER_CLASS},
        pass::{BACKED_OFF, MAX_SIZE_REACHED, Memory, Outcome, Unremovable, UnremovableReason},
        printed::{duration, timestamp, timestamp_or_never},
        reasons,
    },
    pods::reasons::Event,
};
use tracing::Level;

/// Log lines of pods in one pass (Cluster Autoscaler's `MaxPodsLogged`).
const POD_LINES: usize = 20;

/// Takes a line; what is not wanted at this level is not even put together.
pub(super) type Say<'a> = dyn FnMut(Level, Arguments<'_>) + 'a;

/// What a pass was about.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Told<'a> {
    /// What it decided.
    pub outcome: &'a Outcome,
    /// What is remembered after it.
    pub memory: &'a Memory,
    /// Groups.
    pub groups: &'a [NodeGroup],
    /// `--scale-down-enabled`.
    pub shrinks: bool,
    /// `--unremovable-node-recheck-timeout`.
    pub recheck: SignedDuration,
    /// When.
    pub now: Timestamp,
}

impl Told<'_> {
    /// Everything that is said of the pass.
    pub(super) fn lines(&self, say: &mut Say<'_>) {
        self.failures(say);
        self.pods(say);
        self.growth(say);
        if self.shrinks && self.outcome.found.healthy {
            self.unneeded(say);
            self.unremovable(say);
        }
    }

    fn failures(&self, say: &mut Say<'_>) {
        let found = &self.outcome.found;
        for expired in &found.expired {
            let (group, waited) = (&expired.group, duration(expired.waited));
            say(Level::WARN, format_args!("Scale-up timed out for node group {group} after {waited}"));
            self.disabled(group, OTHER_CLASS, say);
        }
        for (group, _, error) in &found.failures {
            self.disabled(group, error.class(), say);
        }
        for (group, took) in &found.fulfilled {
            let took = duration(*took);
            say(Level::INFO, format_args!("Scale up in group {group} finished successfully in {took}"));
        }
    }

    fn disabled(&self, group: &str, class: &str, say: &mut Say<'_>) {
        if let Some(backoff) = self.memory.cluster.backoffs.of(group, self.now) {
            let (until, code) = (timestamp(backoff.until), &backoff.code);
            say(
                Level::WARN,
                format_args!(
                    "Disabling scale-up for node group {group} until {until}; errorClass={class}; errorCode={code}"
                ),
            );
        }
    }

    fn pods(&self, say: &mut Say<'_>) {
        let Outcome { unschedulable, fitting, upcoming, .. } = self.outcome;
        for pod in unschedulable.iter().take(POD_LINES) {
            say(Level::INFO, format_args!("Pod {} is unschedulable", pod.key()));
        }
        if unschedulable.len() > POD_LINES {
            let others = unschedulable.len() - POD_LINES;
            say(Level::INFO, format_args!("{others} other pods are also unschedulable"));
        }
        if *fitting > 0 {
            say(Level::INFO, format_args!("{fitting} pods marked as unschedulable can be scheduled."));
        }
        if unschedulable.is_empty() {
            say(Level::DEBUG, format_args!("No unschedulable pods"));
        } else {
            say(Level::INFO, format_args!("Upcoming {upcoming} nodes"));
        }
    }

    fn growth(&self, say: &mut Say<'_>) {
        let plan = &self.outcome.plan;
        let barred: BTreeSet<(&Arc<str>, &str)> = plan
            .refused
            .iter()
            .flat_map(|(_, refusals)| refusals.iter())
            .map(|refusal| (&refusal.group, refusal.reason.as_str()))
            .filter(|(_, reason)| [MAX_SIZE_REACHED, BACKED_OFF].contains(reason))
            .collect();
        for (group, reason) in barred {
            if reason == MAX_SIZE_REACHED {
                say(Level::DEBUG, format_args!("Skipping node group {group} - max size reached"));
            } else if let Some(backoff) = self.memory.cluster.backoffs.of(group, self.now) {
                let (code, message) = (&backoff.code, &backoff.message);
                say(
                    Level::WARN,
                    format_args!(
                        "Node group {group} is not ready for scaleup - backoff with status: {code}: {message}"
                    ),
                );
            }
        }
        for (pod, refusals) in plan.refused.iter().take(POD_LINES) {
            for refusal in refusals.iter() {
                let (pod, group, why) = (pod.key(), &refusal.group, &refusal.reason);
                say(
                    Level::DEBUG,
                    format_args!("Pod {pod} can't be scheduled on {group}, predicate checking error: {why}"),
                );
            }
        }
        for groups in &plan.splits {
            let (count, names) = (groups.len(), groups.join(", "));
            say(
                Level::INFO,
                format_args!("Splitting scale-up between {count} similar node groups: {{{names}}}"),
            );
        }
        if let Some(limit) = self.outcome.max_nodes_reached.filter(|_| !plan.increases.is_empty()) {
            say(Level::INFO, format_args!("Capping size to max cluster total size ({limit})"));
        }
        if !plan.increases.is_empty() {
            let plan = reasons::plan_text(&plan.increases);
            say(Level::INFO, format_args!("Final scale-up plan: {plan}"));
        } else if !self.outcome.unschedulable.is_empty() {
            say(Level::INFO, format_args!("No expansion options"));
        }
    }

    fn unneeded(&self, say: &mut Say<'_>) {
        let held = self.outcome.scale_down_held.is_some();
        let Memory { grown, shrunk, failed, .. } = self.memory;
        say(
            Level::DEBUG,
            format_args!(
                "Scale down status: lastScaleUpTime={} lastScaleDownDeleteTime={} lastScaleDownFailTime={} scaleDownForbidden=false scaleDownInCooldown={held}",
                timestamp_or_never(*grown),
                timestamp_or_never(*shrunk),
                timestamp_or_never(*failed)
            ),
        );
        for unneeded in &self.outcome.unneeded {
            let (node, since) = (&unneeded.node, unneeded.since);
            let (for_long, since) = (duration(self.now.duration_since(since)), timestamp(since));
            say(Level::DEBUG, format_args!("Simulating node {node} removal"));
            say(Level::DEBUG, format_args!("Node {node} may be removed"));
            say(Level::INFO, format_args!("{node} is unneeded since {since} duration {for_long}"));
        }
        if held {
            return;
        }
        say(Level::DEBUG, format_args!("Starting scale down"));
        let removed: BTreeMap<_, _> =
            self.outcome.unneeded.iter().map(|unneeded| (&unneeded.node, unneeded.since)).collect();
        for action in &self.outcome.actions {
            if let Action::Remove(removal) = action
                && let Some(since) = removed.get(&removal.node)
            {
                let for_long = duration(self.now.duration_since(*since));
                say(Level::INFO, format_args!("{} was unneeded for {for_long}", removal.node));
            }
        }
    }

    fn unremovable(&self, say: &mut Say<'_>) {
        use UnremovableReason as Reason;
        let (mut ignored, mut simulated) = (0_usize, 0_usize);
        for unremovable in &self.outcome.unremovable {
            let Unremovable { node, reason, text } = unremovable;
            match reason {
                Reason::RecentlyUnremovable => ignored += 1,
                Reason::NodeGroupMinSizeReached => self.at_minimum(node, say),
                Reason::BlockedByPod(_) | Reason::BlockedByOnCompletionPod | Reason::DividesGang => {
                    simulated += 1;
                    say(Level::DEBUG, format_args!("Simulating node {node} removal"));
                    say(Level::DEBUG, format_args!("Node {node} cannot be removed: {text}"));
                }
                Reason::NoPlaceToMovePods => {
                    simulated += 1;
                    say(Level::DEBUG, format_args!("Simulating node {node} removal"));
                    say(Level::DEBUG, format_args!("Node {node} is not suitable for removal: {text}"));
                }
                _ => say(Level::DEBUG, format_args!("Node {node} unremovable: {text}")),
            }
        }
        let recheck = self.recheck;
        if ignored > 0 {
            let recheck = duration(recheck);
            say(
                Level::DEBUG,
                format_args!(
                    "Scale-down calculation: ignoring {ignored} nodes unremovable in the last {recheck}"
                ),
            );
        }
        if simulated > 0 {
            let again = timestamp(self.now.checked_add(recheck).unwrap_or(Timestamp::MAX));
            say(
                Level::INFO,
                format_args!(
                    "{simulated} nodes found to be unremovable in simulation, will re-check them at {again}"
                ),
            );
        }
    }

    fn at_minimum(&self, node: &Arc<str>, say: &mut Say<'_>) {
        let group = self.outcome.unneeded.iter().find(|unneeded| unneeded.node == *node);
        let group = group.and_then(|unneeded| self.groups.iter().find(|group| group.id == unneeded.group));
        if let Some(NodeGroup { target, min, .. }) = group {
            say(
                Level::DEBUG,
                format_args!("Skipping {node} - node group min size reached (current: {target}, min: {min})"),
            );
        }
    }
}

/// An event, as client-go logs it.
pub(super) fn event(object: &ObjectReference, event: &Event) -> String {
    let of = |part: &Option<String>| part.clone().unwrap_or_default();
    let (kind, namespace, name) = (of(&object.kind), of(&object.namespace), of(&object.name));
    let (uid, version, resource) = (of(&object.uid), of(&object.api_version), of(&object.resource_version));
    let field = of(&object.field_path);
    let Event { type_, reason, message } = event;
    format!(
        "Event(v1.ObjectReference{{Kind:{kind:?}, Namespace:{namespace:?}, Name:{name:?}, UID:{uid:?}, APIVersion:{version:?}, ResourceVersion:{resource:?}, FieldPath:{field:?}}}): type: '{type_}' reason: '{reason}' {message}"
    )
}

#[cfg(test)]
mod tests;
