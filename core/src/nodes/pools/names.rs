//! Labels, annotations, taints and conditions, as Karpenter names them (core, `pkg/apis/v1`).

use k8s_openapi::api::core::v1::Taint;

/// The finalizer of NodeClaims and their nodes.
pub const FINALIZER: &str = "karpenter.sh/termination";
/// The label of a node whose claim has given it labels and taints.
pub const REGISTERED: &str = "karpenter.sh/registered";
/// The label of a node that was ready once, with all that its claim asks for.
pub const INITIALIZED: &str = "karpenter.sh/initialized";
/// The label of a node that keeps the taints it has.
pub const DO_NOT_SYNC_TAINTS: &str = "karpenter.sh/do-not-sync-taints";
/// The label that takes a node out of load balancers, and its value.
pub const NO_LOAD_BALANCER: (&str, &str) =
    ("node.kubernetes.io/exclude-from-external-load-balancers", "karpenter");
/// The annotation of pods, nodes and claims that are to stay.
pub const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";
/// The annotation with a digest of what a pool's claims are made from.
pub const HASH: &str = "karpenter.sh/nodepool-hash";
/// The annotation with the way that the digest is made.
pub const HASH_VERSION: &str = "karpenter.sh/nodepool-hash-version";
/// The annotation of claims, `true` if there is less choice of instance types than their pool asks for.
pub const MIN_VALUES_RELAXED: &str = "karpenter.sh/nodeclaim-min-values-relaxed";
/// The annotation of claims, `true` if an overlay has changed a price of one of their instance types.
pub const PRICE_OVERLAY_APPLIED: &str = "karpenter.sh/price-overlay-applied";
/// The annotation of claims, `true` if an overlay has changed what machines of one of their instance types have.
pub const CAPACITY_OVERLAY_APPLIED: &str = "karpenter.sh/capacity-overlay-applied";
/// The annotation with the time at which a claim's machine is deleted, whatever still runs there.
pub const TERMINATION_TIME: &str = "karpenter.sh/nodeclaim-termination-timestamp";
/// The key of the taint of a node that its claim has not registered.
pub const UNREGISTERED: &str = "karpenter.sh/unregistered";
/// The key of the taint of a node that is to go.
pub const DISRUPTED: &str = "karpenter.sh/disrupted";

/// The taint of a node that is to go.
pub fn disrupted() -> Taint {
    Taint { key: DISRUPTED.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }
}

/// The condition of a NodePool whose last launches became nodes.
pub const NODE_REGISTRATION_HEALTHY: &str = "NodeRegistrationHealthy";

/// Types of conditions of a NodeClaim.
pub mod condition {
    /// There is a machine.
    pub const LAUNCHED: &str = "Launched";
    /// The machine has become a node, which has the claim's labels and taints.
    pub const REGISTERED: &str = "Registered";
    /// The node is ready, with all that the claim asks for.
    pub const INITIALIZED: &str = "Initialized";
    /// No pod came or went for as long as the pool says.
    pub const CONSOLIDATABLE: &str = "Consolidatable";
    /// It is not what its pool or node class asks for any more.
    pub const DRIFTED: &str = "Drifted";
    /// Its pods are gone.
    pub const DRAINED: &str = "Drained";
    /// Its volumes are detached.
    pub const VOLUMES_DETACHED: &str = "VolumesDetached";
    /// Its machine is being terminated.
    pub const INSTANCE_TERMINATING: &str = "InstanceTerminating";
    /// Its node is what it was launched for.
    pub const CONSISTENT_STATE_FOUND: &str = "ConsistentStateFound";
    /// It is being disrupted, and why.
    pub const DISRUPTION_REASON: &str = "DisruptionReason";
}
