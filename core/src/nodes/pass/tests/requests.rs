use proptest::prelude::*;

use super::*;
use crate::nodes::provisioning_request::{Answer, Class, Partial, Pods, Shortage, Stage};

pub(super) const CHECK: Class = Class::CheckCapacity(None);
pub(super) const ATOMIC: Class = Class::BestEffortAtomic;

/// A request of sets of so many pods of a size, named after it.
pub(super) fn request(name: &str, class: Class, sets: &[(usize, i64)]) -> Request {
    let set = |(at, (count, cpu)): (usize, &(usize, i64))| {
        let pods = (0..*count).map(|number| Arc::new(pod(&format!("{name}-{at}-{number}"), *cpu)));
        Pods { template: format!("{cpu}m").into(), pods: pods.collect() }
    };
    let sets = sets.iter().enumerate().map(set).collect();
    Request { name: format!("ns/{name}").into(), uid: name.into(), class, stage: Stage::Open, sets }
}

fn booked(request: Request) -> Request {
    Request { stage: Stage::Booked, ..request }
}

fn asking(mut cluster: Cluster, requests: &[Request]) -> Cluster {
    cluster.input.requests = requests.to_vec();
    cluster
}

fn once(mut cluster: Cluster) -> Outcome {
    cluster.pass(&mut Memory::default(), 0, &settings())
}

/// What was answered, in one word each.
fn answers(outcome: &Outcome) -> Vec<String> {
    let word = |answer: &Answer| match answer {
        Answer::Found(_) => "found".to_owned(),
        Answer::Provisioned(groups) => format!("provisioned by {}", groups.join(",")),
        Answer::PartlyFound(templates, _) => format!("partly: {}", templates.join(",")),
        Answer::NotFound(Shortage { fit, pods, .. }) => format!("{fit} of {pods}"),
    };
    let of = |answered: &Answered| format!("{} {}", answered.uid, word(&answered.answer));
    outcome.requests.iter().map(of).collect()
}

fn one() -> Cluster {
    Cluster::default().group("a", (0, 3), 1)
}

#[test]
fn room_is_found_or_made_as_a_whole() {
    let r = |class, count, cpu| request("r", class, &[(count, cpu)]);
    let cases: [(_, _, _, _, Vec<(&str, u32)>); 12] = [
        ("it is there", one(), vec![r(CHECK, 4, 1000)], vec!["r found"], vec![]),
        ("it is not", one(), vec![r(CHECK, 5, 1000)], vec!["r 4 of 5"], vec![]),
        (
            "it is on its way",
            one().instance("a", "a-new", false),
            vec![r(CHECK, 8, 1000)],
            vec!["r found"],
            vec![],
        ),
        (
            "a pod that waits comes first",
            one().waiting(1, 1000),
            vec![r(CHECK, 4, 1000)],
            vec!["r 3 of 4"],
            vec![],
        ),
        (
            "who asks first has it",
            one(),
            vec![r(CHECK, 3, 1000), request("s", CHECK, &[(2, 1000)]), request("t", CHECK, &[(1, 1000)])],
            vec!["r found", "s 1 of 2", "t found"],
            vec![],
        ),
        ("no group has to grow", one(), vec![r(ATOMIC, 4, 1000)], vec!["r found"], vec![]),
        ("by what is needed", one(), vec![r(ATOMIC, 9, 1000)], vec!["r provisioned by a"], vec![("a", 3)]),
        ("not at all beyond the maximum", one(), vec![r(ATOMIC, 13, 1000)], vec!["r 12 of 13"], vec![]),
        (
            "no more than all of them",
            one(),
            vec![r(ATOMIC, 6, 1000), request("s", ATOMIC, &[(8, 1000)]), request("t", ATOMIC, &[(6, 1000)])],
            vec!["r provisioned by a", "s 6 of 8", "t provisioned by a"],
            vec![("a", 3)],
        ),
        (
            "by groups together",
            one().group("b", (0, 2), 0),
            vec![r(ATOMIC, 20, 1000)],
            vec!["r provisioned by a,b"],
            vec![("a", 3), ("b", 2)],
        ),
        (
            "after the pods that wait",
            one().running("a-0", 4000, |_| {}).waiting(5, 1000),
            vec![r(ATOMIC, 4, 1000)],
            vec!["r 3 of 4"],
            vec![("a", 3)],
        ),
        ("on no node at all", one(), vec![r(ATOMIC, 1, 5000)], vec!["r 0 of 1"], vec![]),
    ];
    for (name, cluster, requests, answered, groups) in cases {
        let outcome = once(asking(cluster, &requests));
        assert_eq!(answers(&outcome), answered, "{name}");
        assert_eq!(grown(&outcome), groups, "{name}");
        let told = outcome.plan.helped.iter().map(|(pod, _)| pod).chain(&outcome.unschedulable);
        assert!(told.into_iter().all(|pod| pod.name.starts_with("waiting")), "{name}: nobody knows them");
    }
}

#[test]
fn it_is_said_why_no_group_can_help() {
    let cluster = one().group("small", (0, 9), 0);
    let mut cluster = asking(cluster, &[request("r", ATOMIC, &[(13, 2000)])]);
    cluster.input.templates.get_mut("small").unwrap().node.allocatable.cpu = 1000;
    let Answer::NotFound(shortage) = &once(cluster).requests[0].answer else { panic!("it was found") };
    let refusal = |group: &str, reason: &str| Refusal { group: group.into(), reason: reason.to_owned() };
    let refusals = vec![refusal("a", MAX_SIZE_REACHED), refusal("small", "Insufficient cpu")];
    assert_eq!(*shortage, Shortage { fit: 6, pods: 13, refusals });
}

#[test]
fn sets_that_fit_are_named_and_booked_if_that_is_wanted() {
    let sets = [(2, 1000), (3, 1000), (1, 2000)];
    for (partial, next) in [(Partial::Book, "s 0 of 4"), (Partial::CheckOnly, "s found")] {
        let class = Class::CheckCapacity(Some(partial));
        let requests = [request("r", class, &sets), request("s", CHECK, &[(4, 1000)])];
        assert_eq!(answers(&once(asking(one(), &requests))), ["r partly: 1000m,2000m", next]);
        let all = [request("r", class, &sets[..1])];
        assert_eq!(answers(&once(asking(one(), &all))), ["r found"]);
        let none = [request("r", class, &[(5, 1000)])];
        assert_eq!(answers(&once(asking(one(), &none))), ["r 4 of 5"]);
    }
}

#[test]
fn room_that_is_booked_is_nobody_elses_and_keeps_its_node() {
    let two = || Cluster::default().group("a", (0, 2), 2).running("a-0", 2000, |_| {});
    let kept = || booked(request("r", CHECK, &[(4, 1000)]));
    let outcome = once(asking(two(), &[kept(), request("s", CHECK, &[(3, 1000)])]));
    assert_eq!(answers(&outcome), ["s 2 of 3"]);
    let gone = |requests: &[Request]| {
        let (mut cluster, mut memory) = (asking(two(), requests), Memory::default());
        cluster.pass(&mut memory, 0, &settings());
        removed(&cluster.pass(&mut memory, 30, &settings())).len()
    };
    assert_eq!((gone(&[]), gone(&[kept()])), (1, 0));
    let lost = booked(request("r", ATOMIC, &[(20, 1000)]));
    assert_eq!(grown(&once(asking(two(), &[lost]))), [], "what was booked and went is not made again");
}

#[test]
fn who_found_no_room_waits_longer_each_time() {
    let mut cluster = asking(one(), &[request("r", CHECK, &[(5, 1000)])]);
    let mut memory = Memory::default();
    let tried = (0..40).filter(|minute| !cluster.pass(&mut memory, *minute, &settings()).requests.is_empty());
    assert_eq!(tried.collect::<Vec<_>>(), [0, 1, 3, 7, 15, 25, 35]);
    let written = serde_json::to_string(&memory).unwrap();
    assert_eq!(
        serde_json::from_str::<Memory>(&written).unwrap().requests,
        memory.requests,
        "a restart knows"
    );
    cluster.input.requests.clear();
    cluster.input.requests.push(request("s", CHECK, &[(1, 1000)]));
    cluster.pass(&mut memory, 41, &settings());
    assert!(memory.requests.is_empty(), "it is gone");
}

#[test]
fn pods_that_consume_a_request_cause_no_scale_up() {
    let consumes = |on: bool| {
        let mut cluster = one().running("a-0", 4000, |_| {}).waiting(1, 1000);
        let annotation = ("autoscaling.x-k8s.io/consume-provisioning-request".to_owned(), "r".to_owned());
        let shape = &mut Arc::make_mut(&mut cluster.input.pods[1]).shape;
        Arc::make_mut(shape).annotations.extend([annotation]);
        let mut settings = settings();
        settings.pending.requests = on;
        cluster.pass(&mut Memory::default(), 0, &settings)
    };
    let (on, off) = (consumes(true), consumes(false));
    assert_eq!((on.consuming.len(), on.unschedulable.len(), grown(&on).len()), (1, 0, 0));
    assert_eq!((off.consuming.len(), off.unschedulable.len(), grown(&off).len()), (0, 1, 1));
}

proptest! {
    /// Who gets nothing leaves no trace: groups grow as they would have without them.
    #[test]
    fn groups_grow_for_all_of_a_request_or_as_if_it_were_not_there(
        waiting in prop::collection::vec(100i64..3000, 0..6),
        counts in prop::collection::vec((1usize..12, 200i64..3000), 1..5),
        max in 1u32..6,
    ) {
        let cluster = |requests: &[Request]| {
            let pods = waiting.iter().fold(one().group("b", (0, max), 0), |it, cpu| it.waiting(1, *cpu));
            asking(pods, requests)
        };
        let of = |(at, set): (usize, &(usize, i64))| request(&format!("r{at}"), ATOMIC, &[*set]);
        let requests: Vec<_> = counts.iter().enumerate().map(of).collect();
        let outcome = once(cluster(&requests));
        let booked = outcome.requests.iter().filter(|answered| answered.answer.books());
        let booked: Vec<_> = booked.map(|answered| answered.uid.clone()).collect();
        prop_assert_eq!(outcome.requests.len(), requests.len());
        let lucky: Vec<_> = requests.into_iter().filter(|it| booked.contains(&it.uid)).collect();
        let alone = once(cluster(&lucky));
        prop_assert!(alone.requests.iter().all(|answered| answered.answer.books()));
        prop_assert_eq!(grown(&alone), grown(&outcome));
    }
}
