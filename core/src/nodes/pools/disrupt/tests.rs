//! Decisions, each rule by a case, and whole clusters by their properties.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use proptest::prelude::*;

use super::*;
use crate::{
    api::karpenter,
    nodes::{
        buffer, drain,
        pools::{
            instance_type::InstanceType,
            names::DO_NOT_DISRUPT,
            node_claim::is_deleting,
            provision::{self, provision},
            requirements::{
                Requirement,
                labels::{CAPACITY_TYPE, ON_DEMAND, SPOT},
            },
            testing::{ZONES, add_node, add_node_of, claim, cluster, instance_type, limit, pod, set, with},
        },
    },
    scheduling::Pod,
};

/// A decision, with budgets for apps and nodes that pods are expected on.
#[derive(Default)]
struct Case {
    cluster: Cluster,
    pdbs: Vec<drain::Budget>,
    nominated: BTreeSet<String>,
    spot_to_spot: bool,
}

impl Case {
    fn of(cluster: Cluster) -> Self {
        Self { cluster, ..Self::default() }
    }

    fn with<T>(&self, decide: impl FnOnce(&Input<'_>) -> T) -> T {
        decide(&Input {
            cluster: &self.cluster,
            budgets: &Budgets::new(self.pdbs.clone()),
            nominated: &self.nominated,
            options: Options::default(),
            spot_to_spot: self.spot_to_spot,
            now: Timestamp::UNIX_EPOCH,
        })
    }

    fn decide(&self) -> Decision {
        self.with(|input| decide(input, |_| true))
    }

    fn says(&self) -> String {
        self.decide().command.map_or_else(|| "nothing".to_owned(), |command| command.to_string())
    }

    fn claim(&mut self, name: &str) -> &mut karpenter::NodeClaim {
        let claims = &mut self.cluster.claims;
        Arc::make_mut(claims.iter_mut().find(|claim| claim.metadata.name.as_deref() == Some(name)).unwrap())
    }

    fn restless(&mut self, name: &str) {
        let conditions = &mut self.claim(name).status.as_mut().unwrap().conditions;
        conditions.retain(|it| it.type_ != condition::CONSOLIDATABLE);
    }

    fn pool(&mut self) -> &mut karpenter::Disruption {
        &mut self.cluster.pools[0].spec.disruption
    }
}

fn pdb(app: &str, allowed: i32) -> drain::Budget {
    let match_labels = Some([("app".to_owned(), app.to_owned())].into());
    let selector = Some(LabelSelector { match_labels, ..LabelSelector::default() });
    drain::Budget { namespace: "default".into(), name: app.into(), selector, allowed, ..Default::default() }
}

/// Nodes `a`, `b` and so on of so many cores, each with one pod of an app of the same name.
fn nodes(nodes: &[(i64, i64)]) -> Case {
    let mut cluster = cluster();
    for (number, (cores, cpu)) in ('a'..).zip(nodes) {
        let name = number.to_string();
        let pods = if *cpu == 0 { vec![] } else { vec![pod(&format!("pod-{name}"), &name, *cpu)] };
        add_node(&mut cluster, &name, *cores, "zone-1", pods);
    }
    Case::of(cluster)
}

#[test]
fn the_first_method_that_finds_something_acts() {
    assert_eq!(nodes(&[(4, 0), (4, 1_000), (2, 0)]).says(), "Empty delete: a, c");
    assert_eq!(nodes(&[(4, 1_000), (4, 3_000)]).says(), "Underutilized delete: a");
    assert_eq!(
        nodes(&[(4, 2_000), (4, 2_500)]).says(),
        "Underutilized replace: a, b for one of cores-05, cores-06, cores-07"
    );
    assert_eq!(nodes(&[(4, 1_500)]).says(), "Underutilized replace: a for one of cores-02, cores-03");
    assert_eq!(nodes(&[(4, 3_500), (2, 1_800)]).says(), "nothing");
    assert_eq!(cluster().claims.len(), 0);
    assert_eq!(Case::of(cluster()).says(), "nothing");
}

#[test]
fn one_greater_node_will_do_where_two_small_ones_would_cost_a_little_less() {
    let mut case = nodes(&[(4, 800), (4, 800)]);
    let mut types = vec![instance_type(1)];
    let dearer = |mut it: InstanceType| {
        it.offerings.iter_mut().for_each(|offering| offering.price += 0.1);
        Arc::new(it)
    };
    types.push(dearer((*instance_type(2)).clone()));
    types.push(instance_type(4));
    case.cluster.pools[0].types = types;
    assert_eq!(case.says(), "Underutilized replace: a, b for one of cores-02");
}

/// Room for so many pods of a size is kept.
fn keeping(mut case: Case, count: u32, cpu: i64) -> Case {
    case.cluster.buffers = buffer::pods("ns", "spare", &pod("template", "spare", cpu).shape, count);
    case
}

#[test]
fn nodes_with_the_room_of_buffers_are_not_empty() {
    let when_empty = |mut case: Case| {
        case.pool().consolidation_policy = Some("WhenEmpty".to_owned());
        case
    };
    let empty = || nodes(&[(4, 0), (4, 3_500)]);
    assert_eq!(when_empty(empty()).says(), "Empty delete: a");
    let kept = when_empty(keeping(empty(), 2, 2_000));
    assert_eq!(kept.says(), "nothing");
    let why: Vec<_> = kept.decide().unconsolidatable.into_iter().filter(|(name, _)| **name == *"a").collect();
    assert_eq!(why, [("a".into(), "Node \"a\" has buffer pods".to_owned())]);
    assert_eq!(when_empty(keeping(empty(), 1, 400)).says(), "Empty delete: a", "there is room beside a pod");
    let two = || nodes(&[(4, 0), (4, 0), (4, 3_900)]);
    assert_eq!(when_empty(keeping(two(), 2, 2_000)).says(), "Empty delete: b", "one of them is enough");
    assert_eq!(when_empty(keeping(two(), 3, 2_000)).says(), "nothing", "both are needed");
}

#[test]
fn room_moves_with_the_pods_of_a_node() {
    let two = || nodes(&[(4, 1_000), (4, 3_000)]);
    assert_eq!(two().says(), "Underutilized delete: a");
    assert_eq!(keeping(two(), 4, 1_000).says(), "nothing", "both nodes are full");
    assert_eq!(
        keeping(nodes(&[(8, 0), (4, 3_900)]), 1, 1_000).says(),
        "Underutilized replace: a, b for one of cores-05, cores-06, cores-07",
        "a smaller node has the room, too"
    );
    let mut drifted = keeping(nodes(&[(4, 3_500)]), 1, 500);
    set(drifted.claim("a"), condition::DRIFTED);
    let command = drifted.decide().command.unwrap();
    assert_eq!((command.replacements[0].pods.len(), command.method), (2, Method::Drift));
    assert_eq!(drifted.with(|input| validate(input, &command)), Ok(command));
    let idle = nodes(&[(4, 0), (4, 3_500)]);
    let command = idle.decide().command.unwrap();
    assert!(keeping(idle, 2, 2_000).with(|input| validate(input, &command)).is_err(), "it is needed by now");
}

#[test]
fn drift_replaces_what_has_drifted_first() {
    let mut case = nodes(&[(4, 3_500), (4, 3_500), (4, 3_600)]);
    for (name, since) in [("b", 20), ("c", 10)] {
        set(case.claim(name), condition::DRIFTED);
        let conditions = &mut case.claim(name).status.as_mut().unwrap().conditions;
        conditions.last_mut().unwrap().last_transition_time.0 = Timestamp::from_second(since).unwrap();
    }
    let command = case.decide().command.unwrap();
    assert_eq!((command.method, command.claims.join(" ")), (Method::Drift, "c".to_owned()));
    assert_eq!(&*command.replacements[0].types[0].name, "cores-04", "no cheaper than it was");

    // It waits for no pod if its end has a time.
    case.pdbs = vec![pdb("c", 0)];
    assert_eq!(case.decide().command.unwrap().claims.join(" "), "b");
    case.claim("c").spec.termination_grace_period = Some("1h".to_owned());
    assert_eq!(case.decide().command.unwrap().claims.join(" "), "c");
}

#[test]
fn a_node_of_a_static_pool_is_replaced_if_one_more_is_within_the_limit() {
    let mut case = nodes(&[(1, 0), (4, 3_500)]);
    case.cluster.pools[0].spec.replicas = Some(2);
    assert_eq!(case.says(), "nothing", "they are wanted, empty or not");
    set(case.claim("b"), condition::DRIFTED);
    assert!(case.says().starts_with("Drifted replace: b for one of cores-01"), "{}", case.says());
    limit(&mut case.cluster.pools[0], "nodes", "2");
    let decision = case.decide();
    let why = decision.blocked[0].1.to_string();
    assert_eq!(decision.command, None);
    assert_eq!(why, "node limits have been exhausted for nodepool");
}

/// What is done to a case.
type Change = fn(&mut Case);

#[test]
fn what_keeps_a_node_is_said() {
    let protect = |pod: &mut Arc<Pod>| {
        *pod = Arc::new(with((**pod).clone(), |shape| {
            shape.annotations.insert(DO_NOT_DISRUPT.to_owned(), "true".to_owned());
        }));
    };
    let cases: [(Change, &str); 6] = [
        (|case| case.nominated = ["a".to_owned()].into(), "node is nominated for a pending pod"),
        (
            |case| {
                let annotations = case.claim("a").metadata.annotations.get_or_insert_default();
                annotations.insert(DO_NOT_DISRUPT.to_owned(), "true".to_owned());
            },
            "disruption is blocked through the \"karpenter.sh/do-not-disrupt\" annotation",
        ),
        (
            |case| case.pdbs = vec![pdb("a", 0)],
            "pdb prevents pod evictions (PodDisruptionBudget=[default/a])",
        ),
        (
            |case| case.pdbs = vec![pdb("a", 1), drain::Budget { name: "b".into(), ..pdb("a", 1) }],
            "eviction does not support multiple PDBs (PodDisruptionBudget=[default/a, default/b])",
        ),
        (|case| case.pdbs = vec![pdb("a", 1)], ""),
        (|case| case.pdbs = vec![drain::Budget { always_allows_unhealthy: true, ..pdb("a", 0) }], ""),
    ];
    for (change, wanted) in cases {
        let mut case = nodes(&[(4, 1_000)]);
        change(&mut case);
        let decision = case.decide();
        let blocked: Vec<String> = decision.blocked.iter().map(|(_, why)| why.to_string()).collect();
        assert_eq!(blocked.join(""), wanted);
        let is_kept = !wanted.is_empty();
        assert_eq!((decision.command.is_none(), decision.is_held), (is_kept, is_kept), "{wanted}");
    }
    let mut case = nodes(&[(4, 1_000)]);
    case.cluster.pods.iter_mut().for_each(protect);
    let blocked = case.decide().blocked;
    assert_eq!(
        blocked[0].1.to_string(),
        "pod has \"karpenter.sh/do-not-disrupt\" annotation (Pod=default/pod-a)"
    );
    assert!(case.decide().unread.is_empty());
    let pod = &mut case.cluster.pods[0];
    *pod = Arc::new(with((**pod).clone(), |shape| {
        shape.annotations.insert(DO_NOT_DISRUPT.to_owned(), "soon".to_owned());
    }));
    let decision = case.decide();
    assert_eq!(decision.blocked, [], "what cannot be read keeps nothing");
    assert_eq!(decision.unread, case.cluster.pods[..1]);
}

#[test]
fn a_gang_that_is_disrupted_as_a_whole_keeps_its_nodes() {
    let mut case = nodes(&[(4, 1_000), (4, 1_000), (4, 500)]);
    for pod in case.cluster.pods.iter_mut().take(2) {
        *pod = Arc::new(Pod { gang: Some("train".into()), ..(**pod).clone() });
    }
    assert!(case.decide().blocked.is_empty(), "each for itself");
    Arc::make_mut(&mut case.cluster.surroundings).undivided.insert(("default".into(), "train".into()));
    let blocked = case.decide().blocked;
    let names: Vec<_> = blocked.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["a", "b"]);
    let text = "pod default/pod-a is of gang train, which is disrupted as a whole or not at all";
    assert_eq!(blocked[0].1.to_string(), text);
}

#[test]
fn pools_say_what_may_go_and_how_much() {
    let mut case = nodes(&[(4, 0), (4, 0), (4, 0)]);
    case.pool().budgets = Some(vec![karpenter::Budget::of("2")]);
    let decision = case.decide();
    assert_eq!((decision.command.unwrap().claims.len(), decision.is_held), (2, true));
    let of_empty = ("general".into(), Reason::Empty);
    assert_eq!(decision.allowed[&of_empty], 2);
    case.cluster.leaving.insert("a".into());
    let decision = case.decide();
    assert_eq!(decision.allowed[&of_empty], 1);
    assert_eq!(decision.budgets[&of_empty], BudgetUse { allowed: 2, disrupting: 1 });
    case.cluster.leaving.clear();
    let of_drift =
        karpenter::Budget { reasons: Some(vec!["Drifted".to_owned()]), ..karpenter::Budget::of("0") };
    case.pool().budgets = Some(vec![of_drift]);
    assert_eq!(case.says(), "Empty delete: a, b, c");
    case.restless("b");
    assert_eq!(case.says(), "Empty delete: a, c", "b is not calm");
    case.cluster.leaving.insert("a".into());
    assert_eq!(case.says(), "Empty delete: c", "a goes already");

    let mut case = nodes(&[(4, 1_000)]);
    case.pool().consolidation_policy = Some("WhenEmpty".to_owned());
    let why = |case: &Case| case.decide().unconsolidatable[0].1.clone();
    assert_eq!(
        (case.says(), why(&case)),
        ("nothing".to_owned(), "NodePool \"general\" has non-empty consolidation disabled".to_owned())
    );
    case.pool().consolidate_after = Some("Never".to_owned());
    assert_eq!(why(&case), "NodePool \"general\" has consolidation disabled");
}

#[test]
fn nodes_that_cannot_be_cheaper_say_why() {
    let case = nodes(&[(4, 3_500)]);
    let decision = case.decide();
    assert_eq!(decision.unconsolidatable, [("a".into(), "Can't replace with a cheaper node".to_owned())]);
    assert!(!decision.is_held);
    let mut case = Case::of(cluster());
    case.cluster.pools[0].spec.template.spec.requirements[0].values =
        vec![SPOT.to_owned(), ON_DEMAND.to_owned()];
    add_node_of(&mut case.cluster, claim("s", 18, "zone-1", SPOT), 18, vec![pod("p", "p", 1_500)]);
    assert_eq!(
        case.decide().unconsolidatable[0].1,
        "SpotToSpotConsolidation is disabled, can't replace a spot node with a spot node"
    );
    case.spot_to_spot = true;
    let replacement = case.decide().command.unwrap().replacements.remove(0);
    assert_eq!(replacement.types.len(), 15);
    assert_eq!(replacement.requirements.get(CAPACITY_TYPE).unwrap().any().as_deref(), Some(SPOT));
}

#[test]
fn a_balanced_pool_gives_up_little_for_little() {
    // A node with many pods that could be a bit cheaper.
    let mut case = nodes(&[(20, 19_500)]);
    let many = (0..20).map(|number| pod(&format!("many-{number}"), "many", 900)).collect();
    add_node(&mut case.cluster, "b", 20, "zone-1", many);
    assert_eq!(case.decide().command.unwrap().claims.join(" "), "b");
    case.pool().consolidation_policy = Some("Balanced".to_owned());
    let decision = case.decide();
    assert_eq!(decision.command, None);
    let why = &decision.unconsolidatable.iter().find(|(name, _)| &**name == "b").unwrap().1;
    assert!(why.starts_with("nodepool \"general\": score 0.0"), "{why}");
    assert!(!decision.moves.is_empty());
    for weighed in &decision.moves {
        assert_eq!((&*weighed.pool, weighed.policy), ("general", ConsolidationPolicy::Balanced));
        assert!(
            !weighed.is_approved && weighed.score.is_some_and(|score| !score.is_approved()),
            "{weighed:?}"
        );
    }

    // A node that is hardly used, beside one with all of the room that it takes.
    let mut case = nodes(&[(20, 1_000), (20, 100)]);
    case.pool().consolidation_policy = Some("Balanced".to_owned());
    let decision = case.decide();
    let command = decision.command.unwrap();
    assert!(command.scores["general"].is_approved(), "{:?}", command.scores);
    let [weighed] = &decision.moves[..] else { panic!("{:?}", decision.moves) };
    assert!(weighed.is_approved);
    assert_eq!(weighed.score, Some(command.scores["general"]));

    case.pool().consolidation_policy = None;
    let moves = case.decide().moves;
    let weighed: Vec<_> = moves.iter().map(|it| (it.policy.name(), it.is_approved, it.score)).collect();
    assert_eq!(
        weighed,
        [("WhenEmptyOrUnderutilized", true, None)],
        "a move of any other policy has no score"
    );
}

#[test]
fn pods_that_move_go_on_no_node_that_is_not_calm() {
    let mut case = nodes(&[(4, 3_500), (20, 5_000)]);
    case.restless("b");
    assert_eq!(case.says(), "nothing");
    case.pool().consolidate_after = Some("Never".to_owned());
    assert_eq!(case.says(), "nothing", "nor is any other then");
}

#[test]
fn pods_that_wait_come_first() {
    let mut case = nodes(&[(4, 0), (4, 3_500)]);
    assert_eq!(case.says(), "Empty delete: a");
    case.cluster.pods.push(Arc::new(pod("waits", "w", 2_000)));
    assert_eq!(case.says(), "nothing");
    assert_eq!(case.decide().blocked, [("a".into(), Blocked::Nominated)]);
}

#[test]
fn a_command_is_held_against_what_has_become_of_the_cluster() {
    let decided = nodes(&[(4, 2_000), (4, 2_500)]).decide().command.unwrap();
    let validated = |case: &Case, command: &Command| case.with(|input| validate(input, command));
    let mut case = nodes(&[(4, 2_000), (4, 2_500)]);
    assert_eq!(validated(&case, &decided), Ok(decided.clone()));
    case.pool().budgets = Some(vec![karpenter::Budget::of("1")]);
    assert_eq!(validated(&case, &decided), Err(Invalid::Budget("general".into())));
    case.restless("a");
    assert_eq!(validated(&case, &decided), Err(Invalid::Churn("a".into())));
    let more = nodes(&[(4, 3_000), (4, 2_500)]);
    assert_eq!(
        validated(&more, &decided),
        Err(Invalid::Scheduling("instance type cores-05 would not do any more".to_owned()))
    );
    let room = nodes(&[(4, 2_000), (4, 2_500), (20, 9_000)]);
    let why = validated(&room, &decided);
    assert_eq!(why, Err(Invalid::Scheduling("0 new nodes are needed, not 1".to_owned())));

    let empty = nodes(&[(4, 0), (4, 0)]).decide().command.unwrap();
    let left = validated(&nodes(&[(4, 0), (4, 500)]), &empty).unwrap();
    assert_eq!(left.claims.join(" "), "a", "what is empty still goes");
    let none = validated(&nodes(&[(4, 500), (4, 500)]), &empty);
    assert_eq!(none, Err(Invalid::Churn("a".into())));
}

/// Cores, spot, calm, drifted; pods by app and thousandths of a core.
type Machine = (i64, bool, bool, bool, Vec<(u8, i64)>);

fn machine() -> impl Strategy<Value = Machine> {
    let pods = prop::collection::vec((0u8..3, 100i64..2_000), 0..4);
    (6i64..12, any::<bool>(), prop::bool::weighted(0.8), prop::bool::weighted(0.2), pods)
}

proptest! {
    #[test]
    fn nothing_goes_that_may_not_and_every_pod_has_a_place(
        machines in prop::collection::vec(machine(), 0..7),
        allowed in prop::collection::vec(0i32..3, 3),
        budget in 0usize..5,
        spot_to_spot in any::<bool>(),
        (spare, size) in (0..4_u32, 1..4_000_i64),
    ) {
        let mut case = keeping(Case { spot_to_spot, ..Case::of(cluster()) }, spare, size);
        case.pool().budgets = Some(vec![karpenter::Budget::of(&budget.to_string())]);
        case.cluster.pools[0].spec.template.spec.requirements[0].values = vec![SPOT.to_owned(), ON_DEMAND.to_owned()];
        case.pdbs = allowed.iter().enumerate().map(|(app, allowed)| pdb(&app.to_string(), *allowed)).collect();
        for (number, (cores, spot, calm, drifted, pods)) in machines.iter().enumerate() {
            let name = format!("node-{number}");
            let of = claim(&name, *cores, ZONES[number % 3], if *spot { SPOT } else { ON_DEMAND });
            let named = pods.iter().enumerate();
            let pods = named.map(|(at, (app, cpu))| pod(&format!("{number}-{at}"), &app.to_string(), *cpu));
            add_node_of(&mut case.cluster, of, *cores, pods.collect());
            if !calm { case.restless(&name) }
            if *drifted { set(case.claim(&name), condition::DRIFTED) }
        }
        let Some(command) = case.decide().command else { return Ok(()) };
        prop_assert!(command.claims.len() <= budget);
        prop_assert_eq!(case.with(|input| validate(input, &command)), Ok(command.clone()));
        let going: HashSet<&str> = command.claims.iter().map(|name| &**name).collect();
        let mut price = 0.0;
        for name in &command.claims {
            let number: usize = name["node-".len()..].parse().unwrap();
            let (cores, spot, calm, drifted, pods) = &machines[number];
            prop_assert!(pods.iter().all(|(app, _)| allowed[usize::from(*app)] > 0), "{name} has a pod that stays");
            let suits = if command.method == Method::Drift { *drifted } else { *calm };
            prop_assert!(suits);
            prop_assert!(command.method != Method::Emptiness || pods.is_empty());
            #[allow(clippy::cast_precision_loss, reason = "a few cores")]
            let cores = *cores as f64;
            price += if *spot { cores * 0.5 } else { cores };
        }
        let options = Options::default();
        if command.method != Method::Drift {
            prop_assert!(command.replacements.len() <= 1);
            for claim in &command.replacements {
                let worst = claim.types.iter().filter_map(|it| it.worst_launch_price(&claim.requirements, &options.well_known));
                prop_assert!(worst.fold(0.0, f64::max) < price, "{} for {price}", claim.price);
            }
        }
        // Without them, and with what replaces them, every pod has a place.
        let mut after = case.cluster.clone();
        after.pools.clear();
        for (number, replacement) in command.replacements.iter().enumerate() {
            let cores = replacement.types[0].capacity.cpu / 1_000;
            let zone = replacement.requirements.get(crate::nodes::pools::requirements::labels::ZONE);
            let zone = zone.and_then(Requirement::any).unwrap_or_else(|| ZONES[0].to_owned());
            add_node_of(&mut after, claim(&format!("new-{number}"), cores, &zone, SPOT), cores, vec![]);
        }
        after.leaving = command.claims.iter().cloned().collect();
        let needy = after.needy();
        let plan = provision(&provision::Input { cluster: &after, pods: &needy, options });
        prop_assert_eq!(plan.unschedulable, vec![]);
        prop_assert!(after.claims.iter().all(|claim| !is_deleting(claim)) && !going.is_empty());
    }
}
