use super::{
    super::explain::{self, Fate, Fit},
    *,
};
use crate::scheduling::{Declared, Presumed};

fn one() -> Cluster {
    Cluster::default().group("a", (0, 9), 1)
}

/// What is said of the last pod.
fn explained(cluster: &Cluster, memory: &Memory) -> explain::PodExplanation {
    let pod = cluster.input.pods.last().unwrap();
    explain::pod(pod, memory, &cluster.input, &settings())
}

#[test]
fn each_group_says_why_it_cannot_help() {
    let mut backoff = Memory::default();
    backoff.cluster.backoffs.fail("a", "code", "text", at(0), settings().cluster.backoff);
    let mut unknown = one().waiting(1, 1000);
    unknown.input.templates.clear();
    let full = Cluster::default().group("a", (0, 1), 1).running("a-0", 3500, |_| {}).waiting(1, 1000);
    let cases = [
        ("it can", one().waiting(1, 1000), Memory::default(), None),
        ("too small", one().waiting(1, 5000), Memory::default(), Some("Insufficient cpu")),
        ("as large as it may be", full, Memory::default(), Some(MAX_SIZE_REACHED)),
        ("failed of late", one().waiting(1, 1000), backoff, Some("in backoff after failed scale-up")),
        ("unknown", unknown, Memory::default(), Some("it is not known what its nodes look like")),
    ];
    for (name, cluster, memory, expected) in cases {
        let groups = explained(&cluster, &memory).groups;
        assert_eq!(groups.len(), 1, "{name}");
        assert_eq!(groups[0].refusal.as_deref(), expected, "{name}");
    }
}

#[test]
fn a_pod_says_what_nobody_knows_of_new_nodes() {
    let mut cluster = one().running("a-0", 3500, |_| {}).waiting(1, 1000);
    let pod = Arc::make_mut(cluster.input.pods.last_mut().unwrap());
    Arc::make_mut(&mut pod.shape).features = ["New"].into();
    let presumed = explained(&cluster, &Memory::default()).groups.remove(0).presumed;
    assert_eq!(presumed, [Presumed::Features(["New"].into())]);
    let declared = Declared { features: Some(["New".into()].into()), ..Declared::default() };
    let template = cluster.input.templates.get_mut("a").unwrap();
    template.node.declared = Arc::new(declared);
    let group = explained(&cluster, &Memory::default()).groups.remove(0);
    assert_eq!((group.refusal, group.presumed), (None, vec![]));
    cluster.input.templates.get_mut("a").unwrap().node.declared =
        Arc::new(Declared { features: Some([].into()), ..Declared::default() });
    let refusal = explained(&cluster, &Memory::default()).groups.remove(0).refusal;
    assert_eq!(refusal.as_deref(), Some("node(s) didn't match Pod's required features"));
}

#[test]
fn a_pod_says_where_it_fits_and_what_nodes_lack() {
    let full = || one().running("a-0", 3500, |_| {});
    let explanation = explained(&full().waiting(1, 1000), &Memory::default());
    assert_eq!((explanation.fits, explanation.nodes), (None, vec![("Insufficient cpu".to_owned(), 1)]));
    let coming = explained(&full().instance("a", "a-new", false).waiting(1, 1000), &Memory::default());
    assert_eq!(coming.fits, Some(Fit::OnItsWay));
    let explanation = explained(&one().waiting(1, 1000), &Memory::default());
    assert_eq!(explanation.fits, Some(Fit::There("a-0".into())));
    assert_eq!(explanation.ignored, None);
    // What runs is not in its own way.
    let running = explained(&one().running("a-0", 3500, |_| {}), &Memory::default());
    assert_eq!((running.fits, running.ignored), (Some(Fit::There("a-0".into())), Some(Ignored::Bound)));
}

#[test]
fn a_node_says_why_it_stays_and_when_it_goes() {
    let of = |mut cluster: Cluster, memory: &Memory, minute: i64| {
        cluster.input.now = at(minute);
        let node = cluster.input.nodes[0].clone();
        explain::node(&node, memory, &cluster.input, &settings())
    };
    let none = Memory::default();
    let busy = of(one().running("a-0", 3000, |_| {}), &none, 0);
    assert_eq!(busy.group.as_deref(), Some("a"));
    assert!(matches!(busy.fate, Fate::Stays(UnremovableReason::NotUnderutilized, _)), "{busy:?}");
    assert_eq!(busy.pods, [("/running-0".to_owned(), drain::Outcome::Drain)]);

    let idle = of(one(), &none, 3);
    let due = Fate::Unneeded { since: at(3), due: at(13), utilization: 0.0, but: None };
    assert_eq!(idle.fate, due);
    let since = Memory { unneeded: [("a-0".to_owned(), at(0))].into(), ..Memory::default() };
    assert_eq!(of(one(), &since, 10).fate, Fate::Goes);
    let least = of(Cluster::default().group("a", (1, 9), 1), &since, 10);
    assert!(matches!(&least.fate, Fate::Unneeded { but: Some(_), .. }), "{least:?}");
    let grown = Memory { grown: Some(at(9)), ..since };
    assert!(of(one(), &grown, 10).held.is_some());

    let mut stray = one();
    stray.input.groups.clear();
    assert!(matches!(of(stray, &none, 0).fate, Fate::Stays(UnremovableReason::NotAutoscaled, _)));
}

#[test]
fn a_node_that_could_not_be_removed_says_why_and_not_only_until_when() {
    let mut cluster = one().running("a-0", 1000, |_| {});
    cluster.input.now = at(1);
    let memory = Memory { unremovable: [("a-0".to_owned(), at(5))].into(), ..Memory::default() };
    let node = cluster.input.nodes[0].clone();
    let explanation = explain::node(&node, &memory, &cluster.input, &settings());
    assert!(
        matches!(explanation.fate, Fate::Stays(UnremovableReason::NoPlaceToMovePods, _)),
        "{explanation:?}"
    );
    assert_eq!(explanation.recheck, Some(at(5)));
}

#[test]
fn a_pod_says_whose_room_it_would_take() {
    use super::requests::{CHECK, request};
    use crate::nodes::provisioning_request::Stage;
    let room = |count| Request { stage: Stage::Booked, ..request("r", CHECK, &[(count, 1000)]) };
    let kept_for = |requests: Vec<Request>, change: fn(&mut Shape)| {
        let mut cluster = one().waiting(1, 1000);
        cluster.input.requests = requests;
        let pod = Arc::make_mut(cluster.input.pods.last_mut().unwrap());
        change(Arc::make_mut(&mut pod.shape));
        let explanation = explained(&cluster, &Memory::default());
        assert_eq!(explanation.fits, Some(Fit::There("a-0".into())));
        explanation.kept_for
    };
    let consumes = |shape: &mut Shape| {
        shape.namespace = "ns".into();
        let annotation = "autoscaling.x-k8s.io/consume-provisioning-request";
        shape.annotations.insert(annotation.to_owned(), "r".to_owned());
    };
    assert_eq!(kept_for(vec![room(3)], |_| {}), [""; 0].map(Arc::from), "there is room beside it");
    assert_eq!(kept_for(vec![room(4)], |_| {}), [Arc::from("ns/r")]);
    assert_eq!(kept_for(vec![room(4)], consumes), [""; 0].map(Arc::from), "it is its own");
    let open = Request { stage: Stage::Open, ..room(4) };
    assert_eq!(kept_for(vec![open], |_| {}), [""; 0].map(Arc::from), "nothing is booked");
}
