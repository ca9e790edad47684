//! Commands.

use super::*;
use crate::{
    nodes::pools::{
        instance_type::{InstanceType, Offering},
        requirements::{
            Operator, Requirements,
            labels::{INSTANCE_TYPE, ZONE},
        },
        solver::{Options, Pool},
    },
    scheduling::{Node, Resources, pod::Shape},
};

/// So many cores at a dollar each on demand and half of it on spot.
fn instance_type(cores: i64) -> Arc<InstanceType> {
    let name = format!("cores-{cores:02}");
    let requirements = Requirements::from_iter([
        Requirement::is(INSTANCE_TYPE, &name),
        Requirement::is(ZONE, "z"),
        Requirement::new(CAPACITY_TYPE, Operator::In, [SPOT, ON_DEMAND]),
    ]);
    let offering = |capacity_type: &str, share: f64| Offering {
        requirements: Requirements::from_iter([
            Requirement::is(ZONE, "z"),
            Requirement::is(CAPACITY_TYPE, capacity_type),
        ]),
        #[allow(clippy::cast_precision_loss, reason = "a few cores")]
        price: cores as f64 * share,
        available: true,
        reservation: None,
    };
    let capacity = Resources { cpu: cores * 1_000, memory: 1 << 40, pods: 100, ..Resources::default() };
    let offerings = vec![offering(SPOT, 0.5), offering(ON_DEMAND, 1.0)];
    Arc::new(InstanceType::new(&name, requirements, capacity, Resources::default(), offerings))
}

/// A node of so many cores, and what its pods ask for, thousandths of a core.
type Spec = (i64, &'static str, &'static [i64]);

/// What is decided about nodes, all of them candidates, in this order.
fn decide<T>(
    nodes: &[Spec],
    capacity_types: &[&str],
    spot_to_spot: bool,
    decide: impl FnOnce(&mut Cluster<'_, '_>, &[Candidate]) -> T,
) -> T {
    let types: Vec<_> = (1..=20).map(instance_type).collect();
    let capacity_types = Requirement::new(CAPACITY_TYPE, Operator::In, capacity_types);
    let pools = [Pool {
        name: "default".into(),
        weight: 0,
        requirements: Requirements::from_iter([capacity_types]),
        taints: Vec::new(),
        types: &types,
        daemons: &[],
        remaining: BTreeMap::new(),
        told: crate::nodes::told::Told::default(),
        outfits: None,
    }];
    let mut snapshot = Snapshot::default();
    let mut candidates = Vec::new();
    for (number, (cores, capacity_type, pods)) in nodes.iter().enumerate() {
        let allocatable =
            Resources { cpu: cores * 1_000, memory: 1 << 40, pods: 100, ..Resources::default() };
        let name = format!("node-{number}");
        let node = snapshot.add_node(&Node { name: name.into(), allocatable, ..Node::default() });
        let pod = |cpu: &i64| Pod {
            shape: Arc::new(Shape {
                requests: Resources { cpu: *cpu, pods: 1, ..Resources::default() },
                ..Shape::default()
            }),
            ..Pod::default()
        };
        let pods: Vec<Pod> = pods.iter().map(pod).collect();
        for pod in &pods {
            let class = snapshot.class(pod);
            snapshot.bind(class, node);
        }
        #[allow(clippy::cast_precision_loss, reason = "a few cores")]
        let price = *cores as f64 * if *capacity_type == SPOT { 0.5 } else { 1.0 };
        candidates.push(Candidate {
            node,
            pool: "default".into(),
            instance_type: format!("cores-{cores:02}").into(),
            capacity_type: (*capacity_type).into(),
            price,
            pods,
        });
    }
    let well_known = WellKnownLabels::default();
    let mut solver = Solver::new(&mut snapshot, &pools, Options::default());
    let mut cluster = Cluster {
        snapshot: &mut snapshot,
        solver: &mut solver,
        pending: &[],
        uninitialized: &BTreeSet::new(),
        spot_to_spot,
        well_known: &well_known,
        scores: &|_| BTreeMap::new(),
    };
    decide(&mut cluster, &candidates)
}

fn described(command: &Command) -> String {
    let types = |claim: &Claim| {
        let names: Vec<&str> = claim.types.iter().map(|it| &*it.name).collect();
        format!(
            " for {} {}",
            names.join(" "),
            claim.requirements.get(CAPACITY_TYPE).map(ToString::to_string).unwrap_or_default()
        )
    };
    format!("{:?}{}", command.remove, command.replacement.as_ref().map(types).unwrap_or_default())
}

/// Name, nodes, the pool's capacity types, whether spot replaces spot, and what comes of it.
type Case = (&'static str, &'static [Spec], &'static [&'static str], bool, &'static str);

#[test]
fn single_nodes_go_if_that_saves_something() {
    let both: &[&str] = &[SPOT, ON_DEMAND];
    let cases: [Case; 8] = [
        ("room elsewhere", &[(4, ON_DEMAND, &[1_000]), (4, ON_DEMAND, &[1_000])], both, false, "[0]"),
        (
            "cheaper on demand",
            &[(4, ON_DEMAND, &[2_000])],
            &[ON_DEMAND],
            false,
            "[0] for cores-02 cores-03 karpenter.sh/capacity-type In [on-demand]",
        ),
        (
            "nothing cheaper",
            &[(2, ON_DEMAND, &[2_000])],
            &[ON_DEMAND],
            false,
            "Can't replace with a cheaper node",
        ),
        (
            "spot instead, and nothing else",
            &[(2, ON_DEMAND, &[2_000])],
            both,
            false,
            "[0] for cores-02 cores-03 karpenter.sh/capacity-type In [spot]",
        ),
        (
            "spot stays",
            &[(8, SPOT, &[2_000])],
            both,
            false,
            "SpotToSpotConsolidation is disabled, can't replace a spot node with a spot node",
        ),
        (
            "few cheaper spot types",
            &[(8, SPOT, &[2_000])],
            both,
            true,
            "SpotToSpotConsolidation requires 15 cheaper instance type options than the current candidate to consolidate, got 6",
        ),
        (
            "spot by spot, of fifteen types",
            &[(20, SPOT, &[2_000])],
            both,
            true,
            "[0] for cores-02 cores-03 cores-04 cores-05 cores-06 cores-07 cores-08 cores-09 cores-10 cores-11 cores-12 cores-13 cores-14 cores-15 cores-16 karpenter.sh/capacity-type In [spot]",
        ),
        (
            "more than one new node",
            &[(40, ON_DEMAND, &[15_000, 15_000])],
            &[ON_DEMAND],
            false,
            "Can't remove without creating more than one candidate",
        ),
    ];
    for (name, nodes, capacity_types, spot_to_spot, wanted) in cases {
        let got = decide(nodes, capacity_types, spot_to_spot, |cluster, candidates| {
            match single_node(cluster, candidates, || true) {
                (Some(command), _) => described(&command),
                (None, refused) => refused[0].1.to_string(),
            }
        });
        assert_eq!(got, wanted, "{name}");
    }
}

#[test]
fn many_nodes_go_at_once() {
    let cases: [(&str, &[Spec], Option<&str>); 4] = [
        (
            "three into the last",
            &[
                (4, ON_DEMAND, &[1_000]),
                (4, ON_DEMAND, &[1_000]),
                (4, ON_DEMAND, &[1_000]),
                (4, ON_DEMAND, &[1_000]),
            ],
            Some("[0, 1, 2]"),
        ),
        (
            "three into one",
            &[(4, ON_DEMAND, &[1_500]), (4, ON_DEMAND, &[1_500]), (4, ON_DEMAND, &[4_000])],
            Some(
                "[0, 1, 2] for cores-07 cores-08 cores-09 cores-10 cores-11 karpenter.sh/capacity-type In [on-demand]",
            ),
        ),
        ("not for the same type again", &[(4, ON_DEMAND, &[2_000]), (6, ON_DEMAND, &[2_000])], None),
        ("one alone is not many", &[(4, ON_DEMAND, &[1_000])], None),
    ];
    for (name, nodes, wanted) in cases {
        let got = decide(nodes, &[ON_DEMAND], false, |cluster, candidates| {
            multi_node(cluster, candidates, || true).command.as_ref().map(described)
        });
        assert_eq!(got.as_deref(), wanted, "{name}");
    }
}

#[test]
fn nodes_that_are_not_ready_take_no_pods() {
    let nodes: &[Spec] = &[(4, ON_DEMAND, &[4_000]), (8, ON_DEMAND, &[])];
    let refused = decide(nodes, &[ON_DEMAND], false, |cluster, candidates| {
        let uninitialized = BTreeSet::from([candidates[1].node]);
        let mut cluster = Cluster {
            snapshot: cluster.snapshot,
            solver: cluster.solver,
            uninitialized: &uninitialized,
            ..*cluster
        };
        consolidate(&mut cluster, candidates, vec![0])
    });
    assert_eq!(refused, Err(Refused::Uninitialized("node-1".into())));
}
