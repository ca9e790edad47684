//! `tandem explain pod`.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use kube::Client;
use serde_json::{Value, json};
use tandem_core::{
    nodes::pass::explain::{self, Fit, GroupVerdict, PodExplanation},
    scheduling::{Pod, Presumed, Unmet},
};

use super::{
    Answer, OfNodes, groups,
    page::{Page, counted},
    pools,
};
use crate::{
    cli::scheduler,
    cluster::world::World,
    controllers::nodes::pools::explain::{PodOfPools, PoolVerdict},
};

/// Reads the cluster and explains the pod.
pub(super) async fn explain(of: &OfNodes, client: Client) -> anyhow::Result<Answer> {
    let (namespace, name) = (of.common.namespace(&client), of.common.name.as_str());
    let world = World::start(&client, scheduler::profile(&of.nodes, &of.pools)?);
    world.synced().await;
    let pod = world.pods.get(namespace, name);
    let pod = pod.with_context(|| format!("there is no pod {namespace}/{name}"))?;
    let groups = groups::read(of, &client, &world).await?;
    let pools = pools::for_pod(of, &client, &world, &pod).await?;
    let explanation =
        groups.as_ref().map(|groups| explain::pod(&pod, &groups.memory, &groups.input, &groups.settings));
    let mut answer = answer(&pod, explanation.as_ref(), pools.as_ref());
    if pod.node.is_none() {
        unwritten(&mut answer, &world.surroundings().unwritten(&pod));
    }
    Ok(answer)
}

/// What counts although the pod does not say so.
fn unwritten(answer: &mut Answer, told: &[String]) {
    if !told.is_empty() {
        answer.page.heading("What its scheduler is configured to do");
        for told in told {
            answer.page.item(&format!("{told}."));
        }
    }
    answer.json["schedulerConfiguration"] = json!(told);
}

fn answer(pod: &Arc<Pod>, groups: Option<&PodExplanation>, pools: Option<&PodOfPools>) -> Answer {
    Answer { page: page(pod, groups, pools), json: to_json(pod, groups, pools) }
}

fn page(pod: &Arc<Pod>, groups: Option<&PodExplanation>, pools: Option<&PodOfPools>) -> Page {
    let mut page = Page::default();
    let key = pod.key();
    if let Some(node) = &pod.node {
        page.say(&format!("Pod {key} has the node {node} and asks for none."));
        return page;
    }
    let requests = &pod.shape.requests;
    let (cpu, memory) = (requests.cpu, requests.memory >> 20);
    page.say(&format!("Pod {key} has no node. It requests {cpu}m CPU and {memory} MiB of memory."));
    match groups {
        None => page.heading(
            "Node groups were not considered: give --cloud-provider and its flags as tandem run has them.",
        ),
        Some(groups) => of_groups(&mut page, groups),
    }
    match pools {
        None => {
            page.heading("Node pools were not considered: give --node-pools-provider as tandem run has it.");
        }
        Some(PodOfPools { pools, .. }) if pools.is_empty() => page.heading("There is no node pool."),
        Some(PodOfPools { fits, pools, gang }) => {
            page.heading("Node pools");
            lacks(&mut page, gang.as_ref());
            if let Some(fits) = fits {
                page.item(&format!("{fits} takes it."));
            }
            let row = |verdict: &PoolVerdict| {
                let text = verdict.refusal.clone().unwrap_or_else(|| can_help(&verdict.presumed));
                [verdict.pool.clone(), text + &devices(&verdict.devices)]
            };
            page.table(&pools.iter().map(row).collect::<Vec<_>>());
        }
    }
    page
}

fn lacks(page: &mut Page, gang: Option<&Unmet>) {
    if let Some(gang) = gang {
        let lacks = gang.lacks();
        page.say(&format!("Its gang lacks {lacks}: {gang}."));
    }
}

/// That a group can help, and what nobody can know of its new nodes.
fn can_help(presumed: &[Presumed]) -> String {
    match presumed {
        [] => "can help".to_owned(),
        presumed => format!("can help, presuming {}", texts(presumed).join(" and ")),
    }
}

/// What is known of the devices of nodes, by instance type and driver.
fn devices(known: &BTreeMap<String, BTreeMap<String, usize>>) -> String {
    let of_type = |(of_type, counts): (&String, &BTreeMap<String, usize>)| {
        let counts = counts.iter().map(|(driver, count)| format!("{count} of {driver}"));
        let counts = counts.collect::<Vec<_>>().join(" and ");
        format!("{of_type} has {}", if counts.is_empty() { "none" } else { &counts })
    };
    let known: Vec<_> = known.iter().map(of_type).collect();
    if known.is_empty() { String::new() } else { format!("; known of devices: {}", known.join(", ")) }
}

fn texts(presumed: &[Presumed]) -> Vec<String> {
    presumed.iter().map(ToString::to_string).collect()
}

fn of_groups(page: &mut Page, explanation: &PodExplanation) {
    if explanation.unhealthy {
        page.say("Nothing is scaled: too many nodes do not work (--max-total-unready-percentage).");
    }
    lacks(page, explanation.gang.as_ref());
    if let Some(ignored) = &explanation.ignored {
        page.say(&format!("It causes no scale-up of node groups: {ignored}."));
    }
    match &explanation.fits {
        Some(Fit::There(node)) => page.say(&format!("It fits on the node {node}, which is there.")),
        Some(Fit::OnItsWay) => page.say("It fits on a node that is on its way."),
        None => {}
    }
    if !explanation.kept_for.is_empty() {
        let requests = explanation.kept_for.join(", ");
        page.say(&format!("All the room in which it fits is kept for ProvisioningRequest {requests}."));
    }
    if !explanation.nodes.is_empty() {
        let nodes: u32 = explanation.nodes.iter().map(|(_, count)| count).sum();
        page.heading(&format!("What keeps it from {}", counted(nodes as usize, "node")));
        let row = |(reason, count): &(String, u32)| [count.to_string(), reason.clone()];
        page.table(&explanation.nodes.iter().map(row).collect::<Vec<_>>());
    }
    if explanation.groups.is_empty() {
        return page.heading("The provider has no node group.");
    }
    page.heading("Node groups");
    let row = |verdict: &GroupVerdict| {
        let (target, min, max) = verdict.size;
        let text = verdict.refusal.clone().unwrap_or_else(|| can_help(&verdict.presumed));
        [verdict.group.to_string(), format!("{target} of {min}..{max}"), text]
    };
    page.table(&explanation.groups.iter().map(row).collect::<Vec<_>>());
}

fn to_json(pod: &Arc<Pod>, groups: Option<&PodExplanation>, pools: Option<&PodOfPools>) -> Value {
    let of_group = |verdict: &GroupVerdict| {
        let (target, min, max) = verdict.size;
        let (group, refusal) = (&verdict.group, &verdict.refusal);
        let presumed = texts(&verdict.presumed);
        json!({
            "name": &**group, "target": target, "min": min, "max": max,
            "helps": refusal.is_none(), "reason": refusal, "presumed": presumed,
        })
    };
    let of_gang = |gang: &Unmet| json!({"name": &*gang.name, "fit": gang.fit, "needed": gang.needed, "lacks": gang.lacks()});
    let groups = groups.map(|explanation| {
        let fits = explanation.fits.as_ref().map(|fit| match fit {
            Fit::There(node) => json!({"node": &**node}),
            Fit::OnItsWay => json!({"node": null}),
        });
        let nodes = explanation.nodes.iter().map(|(reason, count)| json!({"reason": reason, "nodes": count}));
        json!({
            "healthy": !explanation.unhealthy,
            "ignored": explanation.ignored.as_ref().map(ToString::to_string),
            "fits": fits,
            "keptFor": explanation.kept_for.iter().map(|name| &**name).collect::<Vec<_>>(),
            "gang": explanation.gang.as_ref().map(of_gang),
            "nodes": nodes.collect::<Vec<_>>(),
            "groups": explanation.groups.iter().map(of_group).collect::<Vec<_>>(),
        })
    });
    let of_pool = |verdict: &PoolVerdict| {
        let (helps, presumed) = (verdict.refusal.is_none(), texts(&verdict.presumed));
        let (reason, devices) = (&verdict.refusal, &verdict.devices);
        json!({"name": verdict.pool, "helps": helps, "reason": reason, "presumed": presumed, "devices": devices})
    };
    json!({
        "pod": pod.key(),
        "node": pod.node.as_deref(),
        "nodeGroups": groups,
        "nodePools": pools.map(|pools| json!({
            "fits": pools.fits,
            "gang": pools.gang.as_ref().map(of_gang),
            "pools": pools.pools.iter().map(of_pool).collect::<Vec<_>>(),
        })),
    })
}

#[cfg(test)]
mod tests {
    use tandem_core::scheduling::{
        Resources,
        pod::{Shape, Traits},
    };

    use super::*;

    fn pod(node: Option<&str>) -> Arc<Pod> {
        let requests = Resources { cpu: 64_000, memory: 512 << 20, ..Resources::default() };
        let shape = Shape::new(requests, Traits { namespace: "default".into(), ..Traits::default() });
        Arc::new(Pod {
            name: "giant".into(),
            shape: Arc::new(shape),
            node: node.map(Arc::from),
            ..Pod::default()
        })
    }

    fn explanation() -> PodExplanation {
        let verdict = |group: &str, refusal: Option<&str>| GroupVerdict {
            group: group.into(),
            size: (1, 1, 8),
            refusal: refusal.map(str::to_owned),
            presumed: Vec::new(),
        };
        PodExplanation {
            ignored: None,
            fits: None,
            kept_for: Vec::new(),
            nodes: vec![
                ("Insufficient cpu".to_owned(), 2),
                ("node(s) had untolerated taint(s)".to_owned(), 1),
            ],
            groups: vec![verdict("gpu", Some("Insufficient cpu")), verdict("workers", None)],
            gang: None,
            unhealthy: false,
        }
    }

    #[test]
    fn what_the_scheduler_adds_is_said_last() {
        let mut answer = answer(&pod(None), None, None);
        unwritten(&mut answer, &["the filter NodePorts is disabled".to_owned()]);
        let text = answer.page.text();
        assert!(
            text.ends_with("\nWhat its scheduler is configured to do\n  the filter NodePorts is disabled.\n"),
            "{text}"
        );
        assert_eq!(answer.json["schedulerConfiguration"], json!(["the filter NodePorts is disabled"]));
    }

    #[test]
    fn every_group_has_its_line() {
        let text = page(&pod(None), Some(&explanation()), None).text();
        assert_eq!(
            text,
            "Pod default/giant has no node. It requests 64000m CPU and 512 MiB of memory.\n\
             \n\
             What keeps it from 3 nodes\n  \
               2  Insufficient cpu\n  \
               1  node(s) had untolerated taint(s)\n\
             \n\
             Node groups\n  \
               gpu      1 of 1..8  Insufficient cpu\n  \
               workers  1 of 1..8  can help\n\
             \n\
             Node pools were not considered: give --node-pools-provider as tandem run has it.\n"
        );
    }

    #[test]
    fn a_pool_says_what_is_known_of_its_devices() {
        let counts = |counts: &[(&str, usize)]| {
            counts.iter().map(|(driver, count)| ((*driver).to_owned(), *count)).collect()
        };
        let verdict = PoolVerdict {
            pool: "web".to_owned(),
            refusal: None,
            presumed: vec![Presumed::Devices],
            devices: [("large".to_owned(), counts(&[("gpu.test", 2)])), ("small".to_owned(), counts(&[]))]
                .into(),
        };
        let pools = PodOfPools { fits: None, pools: vec![verdict], gang: None };
        let text = page(&pod(None), None, Some(&pools)).text();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let wanted = "web can help, presuming that it has the devices that are asked for; \
                      known of devices: large has 2 of gpu.test, small has none";
        assert!(text.contains(wanted), "{text}");
        let json = to_json(&pod(None), None, Some(&pools));
        assert_eq!(json["nodePools"]["pools"][0]["devices"], json!({"large": {"gpu.test": 2}, "small": {}}));
    }

    #[test]
    fn a_pod_says_what_its_gang_lacks_and_what_nobody_knows() {
        let mut explanation = explanation();
        explanation.gang = Some(Unmet { name: "train".into(), fit: 3, needed: 4 });
        explanation.groups[1].presumed = vec![Presumed::Room("fast".into())];
        let text = page(&pod(None), Some(&explanation), None).text();
        for wanted in [
            "Its gang lacks 1: gang group train: 3 of 4 pods fit.\n",
            "workers  1 of 1..8  can help, presuming that there is storage of class fast",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        let json = to_json(&pod(None), Some(&explanation), None);
        assert_eq!(json["nodeGroups"]["gang"], json!({"name": "train", "fit": 3, "needed": 4, "lacks": 1}));
        assert_eq!(
            json["nodeGroups"]["groups"][1]["presumed"],
            json!(["that there is storage of class fast"])
        );
    }

    #[test]
    fn a_pod_says_that_its_room_is_kept_for_others() {
        let mut explanation = explanation();
        (explanation.fits, explanation.kept_for) = (Some(Fit::OnItsWay), vec!["ns/train".into()]);
        let text = page(&pod(None), Some(&explanation), None).text();
        assert!(text.contains("is kept for ProvisioningRequest ns/train."), "{text}");
        let json = to_json(&pod(None), Some(&explanation), None);
        assert_eq!(json["nodeGroups"]["keptFor"], json!(["ns/train"]));
    }

    #[test]
    fn a_pod_with_a_node_needs_none() {
        assert!(page(&pod(Some("n")), None, None).text().contains("has the node n"));
    }

    #[test]
    fn programs_get_the_same() {
        let json = to_json(&pod(None), Some(&explanation()), None);
        assert_eq!(json["nodeGroups"]["groups"][0]["reason"], "Insufficient cpu");
        assert_eq!(json["nodeGroups"]["groups"][1]["helps"], true);
        assert_eq!(json["nodePools"], Value::Null);
    }
}
