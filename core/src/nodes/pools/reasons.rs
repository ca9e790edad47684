//! Conditions and events of node pools, for the page of them; reasons and texts are Karpenter's (core, `pkg/apis/v1`,
//! `pkg/controllers`).

/// Conditions: kind of the object, type, and when it is true.
pub const CONDITIONS: [(&str, &str, &str); 14] = [
    (
        "NodePool",
        "ValidationSucceeded",
        "what it says can be read, and its requirements do not contradict each other",
    ),
    ("NodePool", "NodeClassReady", "its node class is there, and machines can be launched with it"),
    (
        "NodePool",
        "NodeRegistrationHealthy",
        "at most one of its last four launches did not become a node; `Unknown` before the first, and when the pool or its node \
         class changes; no part of `Ready`",
    ),
    (
        "NodeOverlay",
        "ValidationSucceeded",
        "what it says can be read, and no overlay of its weight says the same otherwise (else `RuntimeValidation` or \
         `Conflict`, and it holds nowhere)",
    ),
    ("NodeClaim", "Launched", "there is a machine"),
    ("NodeClaim", "Registered", "the machine is a node, with the claim's labels and taints"),
    ("NodeClaim", "Initialized", "the node is ready, with all that the claim asks for"),
    ("NodeClaim", "Consolidatable", "no pod came or went for as long as the pool's `consolidateAfter` says"),
    ("NodeClaim", "Drifted", "it is not what its pool or node class asks for any more"),
    ("NodeClaim", "DisruptionReason", "it is being taken away, and why"),
    ("NodeClaim", "Drained", "it is being deleted, and its pods are gone"),
    ("NodeClaim", "VolumesDetached", "it is being deleted, and its volumes are detached"),
    ("NodeClaim", "InstanceTerminating", "its machine is being terminated"),
    (
        "NodeClaim",
        "ConsistentStateFound",
        "its node has at least 90 % of each resource that the claim asks for and its machine promised",
    ),
];

/// Events that tell of conditions and of what is decided about pods and nodes: reason, type, and what it is told of and when.
pub const EVENTS: [(&str, &str, &str); 5] = [
    (
        "FailedConsistencyCheck",
        "Warning",
        "on a NodeClaim: its node has less than 90 % of a resource that it asks for and its machine promised",
    ),
    (
        "NoCompatibleInstanceTypes",
        "Warning",
        "on a NodePool: pods wait, and no instance type that can be had satisfies what the pool requires",
    ),
    (
        "InvalidDoNotDisruptAnnotation",
        "Warning",
        "on a pod: its `karpenter.sh/do-not-disrupt` is neither `true` nor a duration, and protects it from nothing",
    ),
    (
        "ConsolidationCandidate",
        "Normal",
        "on a NodeClaim and its node: it goes if that is still right 15 seconds later, and what that saves an hour",
    ),
    (
        "ConsolidationApproved",
        "Normal",
        "on a NodeClaim and its node: it goes, and what that is worth to its pool, whose policy is `Balanced`",
    ),
];
