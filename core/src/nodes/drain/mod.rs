//! Which pods have to move before a node goes, and which of them keep it.

mod budgets;
mod order;
mod rules;

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use crate::scheduling::Pod;

pub use budgets::{Budget, Budgets, Evictable, selects};
pub use order::{Order, OrderError, Turn, is_daemon_pod_evicted};
pub use rules::{Context, Rule, SAFE_LOCAL_VOLUMES, SAFE_TO_EVICT, is_long_terminating};

/// What the flags say.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// `--skip-nodes-with-system-pods`.
    pub skip_system_pods: bool,
    /// `--skip-nodes-with-local-storage`.
    pub skip_local_storage: bool,
    /// `--skip-nodes-with-custom-controller-pods`.
    pub skip_custom_controllers: bool,
    /// `--min-replica-count`.
    pub min_replica_count: u32,
    /// `--blocking-system-pod-distruption-timeout`.
    pub system_pod_timeout: SignedDuration,
}

/// What becomes of a pod when its node goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is evicted and runs elsewhere.
    Drain,
    /// It ends with the node, as DaemonSets' do.
    DrainDaemonSet,
    /// It does not count.
    Skip,
    /// The node goes when it has ended.
    WaitForCompletion,
    /// The node stays.
    Blocked(BlockingReason, String),
}

/// Why a pod keeps its node, as Cluster Autoscaler calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockingReason {
    /// Its controller is gone, so nobody would make it again.
    ControllerNotFound,
    /// Its controller has too few replicas.
    MinReplicasReached,
    /// It has no controller.
    NotReplicated,
    /// It keeps data on the node.
    LocalStorageRequested,
    /// Its annotation says so.
    NotSafeToEvictAnnotation,
    /// It belongs to the system, and no budget says that it may move.
    UnmovableKubeSystemPod,
    /// Its budget allows no eviction.
    NotEnoughPdb,
    /// A rule could not be applied.
    UnexpectedError,
}

impl BlockingReason {
    /// Cluster Autoscaler's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ControllerNotFound => "ControllerNotFound",
            Self::MinReplicasReached => "MinReplicasReached",
            Self::NotReplicated => "NotReplicated",
            Self::LocalStorageRequested => "LocalStorageRequested",
            Self::NotSafeToEvictAnnotation => "NotSafeToEvictAnnotation",
            Self::UnmovableKubeSystemPod => "UnmovableKubeSystemPod",
            Self::NotEnoughPdb => "NotEnoughPdb",
            Self::UnexpectedError => "UnexpectedError",
        }
    }
}

/// An outcome without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeKind {
    /// [`Outcome::Drain`] or [`Outcome::DrainDaemonSet`].
    Drain,
    /// [`Outcome::Skip`].
    Skip,
    /// [`Outcome::WaitForCompletion`].
    WaitForCompletion,
    /// [`Outcome::Blocked`].
    Blocked,
}

impl Outcome {
    /// Which it is.
    pub fn kind(&self) -> OutcomeKind {
        match self {
            Self::Drain | Self::DrainDaemonSet => OutcomeKind::Drain,
            Self::Skip => OutcomeKind::Skip,
            Self::WaitForCompletion => OutcomeKind::WaitForCompletion,
            Self::Blocked(..) => OutcomeKind::Blocked,
        }
    }
}

/// What a rule says of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Opinion {
    /// The outcome; `None` says nothing.
    pub outcome: Option<Outcome>,
    /// If there are any, the outcome counts only where a later rule would have one of these.
    pub overrides: Vec<OutcomeKind>,
}

impl From<Option<Outcome>> for Opinion {
    fn from(outcome: Option<Outcome>) -> Self {
        Self { outcome, overrides: Vec::new() }
    }
}

/// The opinion that decides: the first, or an earlier one that overrides its outcome. Later rules are not asked.
pub fn decide(opinions: impl IntoIterator<Item = Opinion>) -> Opinion {
    let mut overriding: Vec<Opinion> = Vec::new();
    for opinion in opinions {
        if !opinion.overrides.is_empty() {
            overriding.push(opinion);
            continue;
        }
        let Some(outcome) = &opinion.outcome else { continue };
        let kind = outcome.kind();
        return overriding.into_iter().find(|other| other.overrides.contains(&kind)).unwrap_or(opinion);
    }
    Opinion::default()
}

/// Replicas by namespace and name.
type Replicas = BTreeMap<(Arc<str>, Arc<str>), Option<i32>>;

/// The controllers that there are, by kind.
#[derive(Debug, Clone, Default)]
pub struct Owners(BTreeMap<&'static str, Replicas>);

/// What is known of a controller.
enum Known {
    /// Its kind is not looked up.
    NotLookedUp,
    /// It is not there.
    Missing,
    /// It is there; with its replicas, if its kind has them.
    Present(Option<i32>),
}

impl Owners {
    /// Adds controllers of a kind: namespace, name and replicas, where the kind has them.
    pub fn add(
        &mut self,
        kind: &'static str,
        objects: impl IntoIterator<Item = (Arc<str>, Arc<str>, Option<i32>)>,
    ) {
        let known = self.0.entry(kind).or_default();
        known.extend(objects.into_iter().map(|(namespace, name, replicas)| ((namespace, name), replicas)));
    }

    fn find(&self, kind: &str, namespace: &Arc<str>, name: &Arc<str>) -> Known {
        match self.0.get(kind) {
            None => Known::NotLookedUp,
            Some(known) => match known.get(&(namespace.clone(), name.clone())) {
                None => Known::Missing,
                Some(replicas) => Known::Present(*replicas),
            },
        }
    }
}

/// What becomes of the pods of a node when it goes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdict {
    /// Pods that move.
    pub drain: Vec<Arc<Pod>>,
    /// Pods of DaemonSets.
    pub daemon: Vec<Arc<Pod>>,
    /// Pods whose end is waited for.
    pub waiting: Vec<Arc<Pod>>,
    /// The first pod that keeps the node, and why.
    pub blocked: Option<(Arc<Pod>, BlockingReason, String)>,
}

/// Judges one pod.
pub fn pod(
    pod: &Pod,
    options: &Options,
    owners: Option<&Owners>,
    budgets: &Budgets,
    now: Timestamp,
) -> Outcome {
    judge(pod, &[], &Context { options, owners, budgets, now })
}

fn judge(pod: &Pod, first: &[Rule], context: &Context<'_>) -> Outcome {
    let rules = first.iter().chain(rules::RULES.iter().map(|(_, rule)| rule));
    match decide(rules.map(|rule| rule(pod, context).into())).outcome {
        // Whichever rule lets it go.
        None | Some(Outcome::Drain) if pod.is_of_daemon_set() => Outcome::DrainDaemonSet,
        outcome => outcome.unwrap_or(Outcome::Drain),
    }
}

/// Judges one pod by one rule alone, by its name; `None` if the rule says nothing or there is none of that name.
pub fn by_rule(rule: &str, pod: &Pod, context: &Context<'_>) -> Option<Outcome> {
    let (_, rule) = rules::RULES.iter().find(|(name, _)| *name == rule)?;
    rule(pod, context)
}

/// Judges the pods of a node, up to the first that keeps it.
pub fn node(
    pods: &[Arc<Pod>],
    options: &Options,
    owners: Option<&Owners>,
    budgets: &Budgets,
    now: Timestamp,
) -> Verdict {
    node_with(&[], pods, &Context { options, owners, budgets, now })
}

/// As [`node`], with rules that come before the others.
pub fn node_with(first: &[Rule], pods: &[Arc<Pod>], context: &Context<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    for one in pods {
        match judge(one, first, context) {
            Outcome::Drain => verdict.drain.push(one.clone()),
            Outcome::DrainDaemonSet => verdict.daemon.push(one.clone()),
            Outcome::Skip => {}
            Outcome::WaitForCompletion => verdict.waiting.push(one.clone()),
            Outcome::Blocked(reason, text) => {
                verdict.blocked = Some((one.clone(), reason, text));
                return verdict;
            }
        }
    }
    verdict
}
