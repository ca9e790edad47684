//! `tandem explain node`.

use anyhow::Context as _;
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tandem_core::nodes::{
    drain,
    pass::explain::{self, Fate, NodeExplanation},
};

use super::{Answer, OfNodes, groups, page::Page, pools};
use crate::{cli::scheduler, cluster::world::World};

/// Reads the cluster and explains the node.
pub(super) async fn explain(of: &OfNodes, client: Client) -> anyhow::Result<Answer> {
    let name = of.common.name.as_str();
    let world = World::start(&client, scheduler::profile(&of.nodes, &of.pools)?);
    world.synced().await;
    let nodes = world.nodes();
    let node = nodes.iter().find(|node| *node.name == *name);
    let node = node.with_context(|| format!("there is no node {name}"))?;
    let claim = pools::of_node(&client, &node.provider_id).await?;
    let groups = if claim.is_some() { None } else { groups::read(of, &client, &world).await? };
    let explanation =
        groups.map(|groups| explain::node(node, &groups.memory, &groups.input, &groups.settings));
    let now = Timestamp::now();
    Ok(match (explanation, claim) {
        (_, Some(claim)) => {
            let decided = pools::for_node(of, &client, &world, &claim).await?;
            pools::answer(name, &claim, decided.as_ref(), now)
        }
        (Some(explanation), None) => {
            Answer { page: page(name, &explanation, now), json: to_json(name, &explanation) }
        }
        (None, None) => {
            let mut page = Page::default();
            page.say(&format!(
                "Node {name} is of no NodeClaim. Node groups were not considered: give --cloud-provider and its \
                 flags as tandem run has them."
            ));
            Answer { page, json: json!({"node": name, "nodeGroup": null, "nodeClaim": null}) }
        }
    })
}

fn page(name: &str, explanation: &NodeExplanation, now: Timestamp) -> Page {
    let mut page = Page::default();
    let group = explanation.group.as_ref().map(|group| format!(" of group {group}")).unwrap_or_default();
    match &explanation.fate {
        Fate::Goes => page.say(&format!("Node {name}{group} is not needed and goes now.")),
        Fate::Stays(reason, text) => {
            page.say(&format!("Node {name}{group} stays: {text} ({}).", reason.name()));
        }
        Fate::Unneeded { since, due, utilization, but } => {
            let percent = utilization * 100.0;
            page.say(&format!(
                "Node {name}{group} is not needed since {since:.0}; {percent:.0}% of it is requested."
            ));
            let when = if *due <= now { "is due".to_owned() } else { format!("goes at {due:.0}") };
            match but {
                Some(but) => page.say(&format!("It {when}, but {but}.")),
                None => page.say(&format!("It {when}.")),
            }
        }
    }
    if let Some(held) = &explanation.held {
        page.say(&format!("No node is removed for now: {held}."));
    }
    if let Some(recheck) = explanation.recheck {
        page.say(&format!("It could not be removed before; the next try is not before {recheck:.0}."));
    }
    if !explanation.gangs.is_empty() {
        page.say(&format!(
            "Pods that wait for the rest of their gang are expected on it: {}.",
            explanation.gangs.join(", ")
        ));
    }
    if !explanation.pods.is_empty() {
        page.heading("If it went, its pods");
        let row = |(pod, outcome): &(String, drain::Outcome)| [pod.clone(), of_pod(outcome)];
        page.table(&explanation.pods.iter().map(row).collect::<Vec<_>>());
    }
    page
}

/// What becomes of a pod.
fn of_pod(outcome: &drain::Outcome) -> String {
    match outcome {
        drain::Outcome::Drain => "moves: it is evicted under its budgets".to_owned(),
        drain::Outcome::DrainDaemonSet => "ends with the node: a DaemonSet runs it".to_owned(),
        drain::Outcome::Skip => "does not count".to_owned(),
        drain::Outcome::WaitForCompletion => "has to end first".to_owned(),
        drain::Outcome::Blocked(reason, text) => format!("keeps the node: {text} ({})", reason.name()),
    }
}

fn to_json(name: &str, explanation: &NodeExplanation) -> Value {
    let fate = match &explanation.fate {
        Fate::Goes => json!({"state": "goes"}),
        Fate::Stays(reason, text) => json!({"state": "stays", "reason": reason.name(), "message": text}),
        Fate::Unneeded { since, due, utilization, but } => json!({
            "state": "unneeded", "since": since.to_string(), "due": due.to_string(),
            "utilization": utilization, "message": but,
        }),
    };
    let pods = explanation.pods.iter().map(|(pod, outcome)| json!({"pod": pod, "outcome": of_pod(outcome)}));
    json!({
        "node": name,
        "nodeGroup": explanation.group.as_deref(),
        "fate": fate,
        "held": explanation.held,
        "recheck": explanation.recheck.map(|at| at.to_string()),
        "pods": pods.collect::<Vec<_>>(),
        "gangs": explanation.gangs,
    })
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use tandem_core::nodes::{drain::BlockingReason, pass::UnremovableReason};

    use super::*;

    fn explanation(fate: Fate) -> NodeExplanation {
        let pods = vec![
            ("ns/web".to_owned(), drain::Outcome::Drain),
            (
                "ns/db".to_owned(),
                drain::Outcome::Blocked(BlockingReason::NotReplicated, "ns/db is not replicated".to_owned()),
            ),
        ];
        NodeExplanation {
            group: Some("workers".into()),
            fate,
            held: None,
            recheck: None,
            pods,
            gangs: Vec::new(),
        }
    }

    #[test]
    fn a_node_says_why_it_stays() {
        let stays = Fate::Stays(UnremovableReason::NotUnderutilized, "cpu requested is 80%".to_owned());
        let text = page("n", &explanation(stays), Timestamp::UNIX_EPOCH).text();
        assert_eq!(
            text,
            "Node n of group workers stays: cpu requested is 80% (NotUnderutilized).\n\
             \n\
             If it went, its pods\n  \
               ns/web  moves: it is evicted under its budgets\n  \
               ns/db   keeps the node: ns/db is not replicated (NotReplicated)\n"
        );
    }

    #[test]
    fn a_node_says_when_it_goes() {
        let due = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(10);
        let fate = Fate::Unneeded { since: Timestamp::UNIX_EPOCH, due, utilization: 0.25, but: None };
        let early = page("n", &explanation(fate.clone()), Timestamp::UNIX_EPOCH).text();
        assert!(early.contains("is not needed since 1970-01-01T00:00:00Z; 25% of it is"), "{early}");
        assert!(early.contains("It goes at 1970-01-01T00:10:00Z."), "{early}");
        assert!(page("n", &explanation(fate.clone()), due).text().contains("It is due."));
        assert_eq!(to_json("n", &explanation(fate))["fate"]["due"], "1970-01-01T00:10:00Z");
    }

    #[test]
    fn a_node_names_the_gangs_that_wait_for_it() {
        let mut explanation = explanation(Fate::Goes);
        explanation.gangs = vec!["ns/train".to_owned()];
        let text = page("n", &explanation, Timestamp::UNIX_EPOCH).text();
        assert!(text.contains("wait for the rest of their gang are expected on it: ns/train."), "{text}");
        assert_eq!(to_json("n", &explanation)["gangs"], json!(["ns/train"]));
    }
}
