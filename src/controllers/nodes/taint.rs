//! Taints and cordons of nodes, written so that nobody else's change is lost.

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

/// Tries to write over somebody else's change of the same node.
const TRIES: usize = 5;

/// What a node's `spec` is to become.
#[derive(Debug, Clone, Default)]
pub struct Marking {
    /// Taints to have, each replacing one with the same key and effect.
    pub add: Vec<Taint>,
    /// Keys of taints to be without.
    pub remove: Vec<String>,
    /// Whether to be unschedulable; `None` leaves it.
    pub cordon: Option<bool>,
    /// Annotations to have (`None`: to be without).
    pub annotations: Vec<(String, Option<String>)>,
    /// Labels to have (`None`: to be without).
    pub labels: Vec<(String, Option<String>)>,
}

/// Brings a node to it. Nothing is written if it is so already; a node that is gone is no error.
///
/// # Errors
/// The API server's.
pub async fn mark(client: &Client, name: &str, marking: &Marking) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    for left in (0..TRIES).rev() {
        let Some(node) = nodes.get_opt(name).await? else { return Ok(()) };
        let Some(patch) = patch(&node, marking) else { return Ok(()) };
        match nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 409 && left > 0 => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
    Ok(())
}

/// The merge patch that does it, with the version that it was made for; `None` if there is nothing to do.
fn patch(node: &Node, marking: &Marking) -> Option<serde_json::Value> {
    let spec = node.spec.as_ref();
    let old: Vec<Taint> = spec.and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let replaced = |taint: &Taint| {
        marking.remove.contains(&taint.key)
            || marking.add.iter().any(|new| new.key == taint.key && new.effect == taint.effect)
    };
    let mut taints: Vec<Taint> = old.iter().filter(|taint| !replaced(taint)).cloned().collect();
    taints.extend(marking.add.iter().cloned());
    let cordoned = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
    let cordon = marking.cordon.filter(|cordon| *cordon != cordoned);
    let differs = |wanted: &[(String, Option<String>)],
                   has: Option<&std::collections::BTreeMap<String, String>>| {
        wanted.iter().any(|(name, value)| has.and_then(|has| has.get(name)) != value.as_ref())
    };
    let same_taints = taints.len() == old.len() && taints.iter().all(|taint| old.contains(taint));
    let metadata = &node.metadata;
    if same_taints
        && cordon.is_none()
        && !differs(&marking.annotations, metadata.annotations.as_ref())
        && !differs(&marking.labels, metadata.labels.as_ref())
    {
        return None;
    }
    let map = |pairs: &[(String, Option<String>)]| {
        pairs.iter().cloned().collect::<std::collections::BTreeMap<_, _>>()
    };
    let mut spec = json!({ "taints": taints });
    if let Some(cordon) = cordon {
        // Null takes the field away, as kubectl uncordon does.
        spec["unschedulable"] = if cordon { json!(true) } else { json!(null) };
    }
    Some(json!({
        "metadata": {
            "resourceVersion": metadata.resource_version,
            "annotations": map(&marking.annotations),
            "labels": map(&marking.labels),
        },
        "spec": spec,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, value: &str) -> Taint {
        Taint {
            key: key.to_owned(),
            value: Some(value.to_owned()),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        }
    }

    fn node(taints: Vec<Taint>, unschedulable: bool) -> Node {
        let mut node = Node::default();
        let spec = node.spec.get_or_insert_default();
        spec.taints = Some(taints);
        spec.unschedulable = unschedulable.then_some(true);
        node
    }

    #[test]
    fn others_taints_stay_and_ours_are_replaced() {
        let marking = Marking { add: vec![taint("ours", "2")], cordon: Some(true), ..Marking::default() };
        let patch = patch(&node(vec![taint("theirs", "x"), taint("ours", "1")], false), &marking).unwrap();
        assert_eq!(
            patch["spec"],
            json!({
                "taints": [
                    {"key": "theirs", "value": "x", "effect": "NoSchedule"},
                    {"key": "ours", "value": "2", "effect": "NoSchedule"},
                ],
                "unschedulable": true,
            })
        );
    }

    #[test]
    fn nothing_to_do_is_nothing_written() {
        let marking = Marking { remove: vec!["ours".to_owned()], cordon: Some(false), ..Marking::default() };
        assert!(patch(&node(vec![taint("theirs", "x")], false), &marking).is_none());
        let undone = patch(&node(vec![taint("ours", "1")], true), &marking).unwrap();
        assert_eq!(undone["spec"], json!({"taints": [], "unschedulable": null}));
    }
}
