//! A judge of solutions who knows nothing of how they come about: slow, and by the pods' own words.

use proptest::prelude::*;

use super::*;
use crate::{
    nodes::pools::requirements::Requirements,
    scheduling::taints::{repels, tolerates},
};

type Verdict = Result<(), String>;

fn demand(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

/// Whether a solution without existing nodes is right.
pub(super) fn judge(pools: &[Pool<'_>], pods: &[Pod], solution: &Solution) -> Verdict {
    let placed = solution.placements.iter().map(|(pod, _)| *pod);
    let mut seen: Vec<usize> = placed.chain(solution.failures.iter().map(|failure| failure.pod)).collect();
    seen.sort_unstable();
    demand(seen == (0..pods.len()).collect::<Vec<_>>(), || format!("pods {seen:?}"))?;
    for claim in &solution.claims {
        let pool = pools.iter().find(|pool| pool.name == claim.pool).ok_or("no pool")?;
        has_room(pool, pods, claim)?;
        claim.pods.iter().try_for_each(|pod| suits(pool, &pods[*pod].shape, claim))?;
        let ports: Vec<_> = claim.pods.iter().flat_map(|pod| &pods[*pod].shape.ports).collect();
        demand(ports.iter().enumerate().all(|(at, port)| !ports[..at].contains(port)), || "port".to_owned())?;
    }
    pools.iter().try_for_each(|pool| keeps_limits(pool, solution))?;
    (0..solution.placements.len()).try_for_each(|turn| keeps_topology(pods, solution, turn))
}

fn has_room(pool: &Pool<'_>, pods: &[Pod], claim: &Claim) -> Verdict {
    let mut asked = Resources::default();
    let running = pool.daemons.iter().filter(|daemon| repelling(pool, &daemon.shape).is_none());
    running.for_each(|daemon| asked.add(&daemon.shape.requests));
    claim.pods.iter().for_each(|pod| asked.add(&pods[*pod].shape.requests));
    let well_known = WellKnownLabels::default();
    demand(!claim.types.is_empty(), || "no types".to_owned())?;
    claim.types.iter().try_for_each(|it| {
        demand(asked.fits(it.allocatable()), || format!("{} has no room for {asked:?}", it.name))?;
        let offered = it.cheapest(&claim.requirements, &well_known);
        demand(offered.is_some(), || format!("{} cannot be had: {}", it.name, claim.requirements))
    })
}

fn repelling<'p>(pool: &'p Pool<'_>, shape: &Shape) -> Option<&'p Taint> {
    let tolerated = |taint: &Taint| shape.tolerations.iter().any(|toleration| tolerates(toleration, taint));
    pool.taints.iter().find(|taint| repels(taint) && !tolerated(taint))
}

/// Taints and labels.
fn suits(pool: &Pool<'_>, shape: &Shape, claim: &Claim) -> Verdict {
    let repelled = repelling(pool, shape);
    demand(repelled.is_none(), || format!("taint {repelled:?}"))?;
    let affinity = shape.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let holds = |wanted: &Requirements| {
        wanted.iter().all(|wanted| {
            claim.requirements.get(wanted.key()).is_some_and(|had| {
                !had.is_empty() && !had.is_complement() && had.values().iter().all(|value| wanted.has(value))
            })
        })
    };
    let any = Requirements::of_pod(&shape.node_selector, affinity, false).iter().any(holds);
    demand(any, || format!("{shape:?} on {}", claim.requirements))
}

fn keeps_limits(pool: &Pool<'_>, solution: &Solution) -> Verdict {
    let claims: Vec<_> = solution.claims.iter().filter(|claim| claim.pool == pool.name).collect();
    pool.remaining.iter().try_for_each(|(name, limit)| {
        let used: i64 = claims
            .iter()
            .map(|claim| match &**name {
                NODES => 1,
                _ => claim.types.iter().map(|it| it.capacity.get(name)).max().unwrap_or(0),
            })
            .sum();
        demand(used <= *limit, || format!("{used} of {limit} {name}"))
    })
}

fn terms(affinity: Option<&Affinity>, anti: bool) -> Vec<&PodAffinityTerm> {
    let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
    let apart = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let near = near.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    let apart = apart.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    if anti { apart } else { near }.into_iter().flatten().collect()
}

fn matches(selector: Option<&LabelSelector>, pod: &Pod) -> bool {
    let wanted = selector.and_then(|selector| selector.match_labels.as_ref());
    wanted.is_some_and(|wanted| wanted.iter().all(|(key, value)| pod.shape.labels.get(key) == Some(value)))
}

/// Whether a pod has a rule of its own over zones about pods that are like another.
fn zonal(shape: &Shape, about: Option<&Pod>) -> bool {
    let affinity = shape.affinity.as_deref();
    let terms = [terms(affinity, false), terms(affinity, true)].concat();
    terms.iter().any(|term| {
        term.topology_key == ZONE && about.is_none_or(|pod| matches(term.label_selector.as_ref(), pod))
    })
}

/// Whether the zone of a pod's claim is settled by that pod: by a rule of its own, or of a pod that it matters to.
fn settles(pods: &[Pod], pod: &Pod) -> bool {
    pod.shape.spread.iter().any(|rule| rule.topology_key == ZONE)
        || zonal(&pod.shape, None)
        || pod.shape.node_selector.contains_key(ZONE)
        || pods.iter().any(|other| zonal(&other.shape, Some(pod)))
}

/// Whether a pod's own words let it into a zone.
fn may_be_in(shape: &Shape, zone: &str) -> bool {
    let affinity = shape.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    Requirements::of_pod(&shape.node_selector, affinity, false).iter().any(|it| it.allows(ZONE, zone))
}

/// Where a claim is, as far as the pods that are placed up to a turn settle it.
fn domain(pods: &[Pod], solution: &Solution, claim: usize, key: &str, turn: usize) -> Option<String> {
    if key == HOSTNAME {
        return Some(claim.to_string());
    }
    let before = &solution.placements[..=turn];
    let here = before.iter().filter(|(_, place)| *place == Place::Claim(claim));
    let settled = here.into_iter().any(|(pod, _)| settles(pods, &pods[*pod]));
    let zone = solution.claims[claim].requirements.get(key).filter(|zone| zone.len() == 1);
    zone.filter(|_| settled)?.any()
}

fn keeps_topology(pods: &[Pod], solution: &Solution, turn: usize) -> Verdict {
    let (pod, Place::Claim(claim)) = solution.placements[turn] else { return Err("a node".to_owned()) };
    let shape = &pods[pod].shape;
    let there = |key: &str| domain(pods, solution, claim, key, turn);
    let earlier = |key: &str, selector: Option<&LabelSelector>| {
        let mut counts: BTreeMap<String, i32> = BTreeMap::new();
        for (other, place) in &solution.placements[..turn] {
            let Place::Claim(place) = place else { continue };
            if matches(selector, &pods[*other])
                && let Some(domain) = domain(pods, solution, *place, key, turn)
            {
                *counts.entry(domain).or_default() += 1;
            }
        }
        counts
    };
    let said = || format!("{pod} {shape:?}");
    for rule in &shape.spread {
        let selector = rule.label_selector.as_ref();
        let counts = earlier(&rule.topology_key, selector);
        let count = |domain: &str| counts.get(domain).copied().unwrap_or(0);
        let zones = ZONES.iter().filter(|zone| may_be_in(shape, zone));
        let least = if rule.topology_key == HOSTNAME { None } else { zones.map(|zone| count(zone)).min() };
        let least = least.unwrap_or(0);
        let here = there(&rule.topology_key).ok_or_else(said)?;
        let with_it = count(&here) + i32::from(matches(selector, &pods[pod]));
        demand(with_it - least <= rule.max_skew, || format!("skew {counts:?} {}", said()))?;
    }
    let affinity = shape.affinity.as_deref();
    for term in terms(affinity, true) {
        let counts = earlier(&term.topology_key, term.label_selector.as_ref());
        let here = there(&term.topology_key).ok_or_else(said)?;
        demand(!counts.contains_key(&here), || format!("apart {}", said()))?;
    }
    for term in terms(affinity, false) {
        let counts = earlier(&term.topology_key, term.label_selector.as_ref());
        let here = there(&term.topology_key).ok_or_else(said)?;
        let first = counts.is_empty() && matches(term.label_selector.as_ref(), &pods[pod]);
        demand(first || counts.contains_key(&here), || format!("near {}", said()))?;
    }
    // Those that are there want some kept away.
    for (other, place) in &solution.placements[..turn] {
        let Place::Claim(place) = place else { continue };
        for term in terms(pods[*other].shape.affinity.as_deref(), true) {
            let theirs = domain(pods, solution, *place, &term.topology_key, turn);
            let repelled = matches(term.label_selector.as_ref(), &pods[pod]);
            demand(!repelled || theirs != there(&term.topology_key), || format!("repelled {}", said()))?;
        }
    }
    Ok(())
}

fn app() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c"])
}

fn any_shape() -> impl Strategy<Value = Shape> {
    let cpu = prop::sample::select(vec![100, 700, 1_500, 3_000, 9_000]);
    (app(), app(), cpu, 0..14).prop_map(|(own, other, cpu, rule)| {
        let shape = shape(own, cpu);
        let selecting = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
        match rule {
            0 => with(shape, |shape| shape.spread = vec![spread(other, ZONE, 1, "DoNotSchedule")]),
            1 => with(shape, |shape| shape.spread = vec![spread(other, HOSTNAME, 1, "DoNotSchedule")]),
            2 => with(shape, |shape| shape.spread = vec![spread(own, ZONE, 2, "DoNotSchedule")]),
            3 => with(shape, |shape| shape.affinity = Some(near(own, ZONE))),
            4 => with(shape, |shape| shape.affinity = Some(near(other, ZONE))),
            5 => with(shape, |shape| shape.affinity = Some(apart(other, HOSTNAME))),
            6 => with(shape, |shape| shape.affinity = Some(apart(own, ZONE))),
            7 => with(shape, |shape| shape.affinity = Some(near(own, HOSTNAME))),
            8 => with(shape, |shape| shape.node_selector = selecting(ZONE, "zone-1")),
            9 => with(shape, |shape| shape.node_selector = selecting(ARCH, "arm64")),
            10 => with(shape, |shape| shape.node_selector = selecting(OS, "windows")),
            11 => with(shape, |shape| shape.tolerations = vec![toleration()]),
            12 => with(shape, |shape| {
                shape.ports = vec![HostPort { ip: "".into(), protocol: "TCP".into(), port: 80 }];
            }),
            _ => shape,
        }
    })
}

proptest! {
    #[test]
    fn every_solution_is_right(
        groups in prop::collection::vec((any_shape(), 1..5_usize), 1..10),
        tainted: bool,
        daemon in 0..300_i64,
        cores in prop::option::of(0..40_i64),
        attempts in prop::sample::select(vec![0, MOST_ATTEMPTS]),
    ) {
        let types = types();
        let daemons = pods(shape("daemon", daemon), 1);
        let mut first = Pool { daemons: &daemons, weight: 1, ..pool("first", &types) };
        if tainted {
            first.taints.push(taint("NoSchedule"));
        }
        first.remaining.extend(cores.map(|cores| ("cpu".into(), cores * 1_000)));
        let pools = [first, pool("second", &types)];
        let pods: Vec<Pod> = groups.into_iter().flat_map(|(shape, count)| pods(shape, count)).collect();
        let options = Options { attempts, ..Options::default() };
        let solution = solve(&mut Snapshot::default(), &pools, &pods, options);
        if let Err(wrong) = judge(&pools, &pods, &solution) {
            prop_assert!(false, "{wrong}\n{solution:?}");
        }
        for failure in &solution.failures {
            prop_assert_eq!(failure.reasons.len(), 2);
        }
    }
}
