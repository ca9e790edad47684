//! Gangs: pods that run together or not at all.

use std::{collections::BTreeMap, sync::Arc};

use thiserror::Error;

use super::{pod::Pod, surroundings::Surroundings};

/// A gang, by namespace and name of its PodGroup.
pub type GangKey = (Arc<str>, Arc<str>);

/// Fewer pods of a gang fit than it takes to run any.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("gang group {name}: {fit} of {needed} pods fit")]
pub struct Unmet {
    /// The PodGroup.
    pub name: Arc<str>,
    /// How many have a node or would find one.
    pub fit: u32,
    /// How many have to.
    pub needed: u32,
}

/// A gang that would be disrupted in part.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("pod {pod} is of gang {gang}, which is disrupted as a whole or not at all")]
pub struct Held {
    /// `NAMESPACE/NAME` of a pod that would leave its node.
    pub pod: String,
    /// The PodGroup.
    pub gang: Arc<str>,
}

impl Unmet {
    /// How many pods have no place.
    pub fn lacks(&self) -> u32 {
        self.needed.saturating_sub(self.fit)
    }
}

/// The gangs of pods that wait.
#[derive(Debug, Clone, Default)]
pub struct Gangs {
    needed: BTreeMap<GangKey, u32>,
    /// Pods that have a node already.
    bound: BTreeMap<GangKey, u32>,
}

impl Gangs {
    /// The gangs of those pods that have no node. Of a gang whose PodGroup is not known any part may run.
    pub fn of(pods: &[Arc<Pod>], surroundings: &Surroundings) -> Self {
        let mut gangs = Self::default();
        if surroundings.gangs.is_empty() {
            return gangs;
        }
        for pod in pods.iter().filter(|pod| !pod.is_terminal() && pod.deleting.is_none()) {
            let Some(key) = key(pod) else { continue };
            if pod.node.is_some() {
                *gangs.bound.entry(key).or_default() += 1;
            } else if let Some(needed) = surroundings.gangs.get(&key) {
                gangs.needed.insert(key, *needed);
            }
        }
        gangs
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.needed.is_empty()
    }

    /// Gangs of `tried`, in its order, of which fewer pods fit than have to; `fits` is asked by place. Pods of `tried` that have
    /// a node (and are to have another) count as bound.
    pub fn unmet(&self, tried: &[Arc<Pod>], fits: impl Fn(usize) -> bool) -> Vec<(GangKey, Unmet)> {
        let (mut order, mut fitting) = (Vec::new(), BTreeMap::<GangKey, u32>::new());
        for (place, pod) in tried.iter().enumerate().filter(|(_, pod)| pod.node.is_none()) {
            let Some(key) = key(pod).filter(|key| self.needed.contains_key(key)) else { continue };
            let fitting = fitting.entry(key.clone()).or_insert_with(|| {
                order.push(key);
                0
            });
            *fitting += u32::from(fits(place));
        }
        let unmet = |key: GangKey| {
            let needed = *self.needed.get(&key)?;
            let fit = fitting.get(&key)? + self.bound.get(&key).copied().unwrap_or(0);
            (fit < needed).then(|| (key.clone(), Unmet { name: key.1, fit, needed }))
        };
        order.into_iter().filter_map(unmet).collect()
    }
}

/// The gang of a pod that has fewer pods than have to run, so that nobody tries any of them.
pub fn too_small(pod: &Pod, pods: &[Arc<Pod>], surroundings: &Surroundings) -> Option<Unmet> {
    let gang = key(pod)?;
    let needed = *surroundings.gangs.get(&gang)?;
    let fellows = fellows(&gang, pods).filter(|fellow| fellow.uid != pod.uid).count();
    let fit = u32::try_from(fellows + 1).unwrap_or(u32::MAX);
    (fit < needed).then_some(Unmet { name: gang.1, fit, needed })
}

/// Pods of a gang that neither ended nor are about to.
pub fn fellows<'a>(gang: &GangKey, pods: &'a [Arc<Pod>]) -> impl Iterator<Item = &'a Arc<Pod>> {
    let lives = |pod: &&Arc<Pod>| !pod.is_terminal() && pod.deleting.is_none();
    pods.iter().filter(lives).filter(move |pod| key(pod).as_ref() == Some(gang))
}

/// A pod that may not leave its node, since its gang is only disrupted as a whole and has pods on other nodes.
pub fn held<'a>(
    leaving: impl IntoIterator<Item = &'a Arc<Pod>>,
    pods: &[Arc<Pod>],
    surroundings: &Surroundings,
) -> Option<Held> {
    if surroundings.undivided.is_empty() {
        return None;
    }
    let divides = |pod: &&Arc<Pod>| {
        let gang = key(pod).filter(|gang| surroundings.undivided.contains(gang));
        let runs_elsewhere = |fellow: &Arc<Pod>| fellow.node.is_some() && fellow.node != pod.node;
        gang.is_some_and(|gang| fellows(&gang, pods).any(runs_elsewhere))
    };
    let pod = leaving.into_iter().find(divides)?;
    Some(Held { pod: pod.key(), gang: pod.gang.clone()? })
}

/// The gang of a pod.
pub fn key(pod: &Pod) -> Option<GangKey> {
    Some((pod.shape.namespace.clone(), pod.gang.clone()?))
}

/// Gangs that are left out since they would not run, to be tried with the others no more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut(BTreeMap<GangKey, Unmet>);

impl LeftOut {
    /// Whether a pod waits for the rest of its gang. One that has a node does not.
    pub fn has(&self, pod: &Pod) -> bool {
        self.of(pod).is_some()
    }

    /// Why a pod waits.
    pub fn of(&self, pod: &Pod) -> Option<&Unmet> {
        if self.0.is_empty() || pod.node.is_some() {
            return None;
        }
        self.0.get(&key(pod)?)
    }

    /// Leaves out the latter half of gangs that are not met, so that those before them may have the room that these took.
    pub fn add(&mut self, unmet: Vec<(GangKey, Unmet)>) {
        let kept = unmet.len() / 2;
        self.0.extend(unmet.into_iter().skip(kept));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::pod::{Phase, Shape, Traits};

    fn pod(namespace: &str, gang: Option<&str>, node: Option<&str>) -> Arc<Pod> {
        let shape = Arc::new(Shape::from(Traits { namespace: namespace.into(), ..Traits::default() }));
        Arc::new(Pod { shape, gang: gang.map(Arc::from), node: node.map(Arc::from), ..Pod::default() })
    }

    fn known(gangs: &[(&str, u32)]) -> Surroundings {
        let gangs = gangs.iter().map(|(name, needed)| (("ns".into(), (*name).into()), *needed)).collect();
        Surroundings { gangs, ..Surroundings::default() }
    }

    #[test]
    fn a_gang_is_met_by_those_that_run_and_those_that_fit() {
        let waiting = || pod("ns", Some("a"), None);
        let ended = Arc::new(Pod { phase: Phase::Failed, ..(*pod("ns", Some("a"), Some("n"))).clone() });
        let all =
            [pod("ns", Some("a"), Some("n")), ended, waiting(), waiting(), pod("other", Some("a"), None)];
        let gangs = Gangs::of(&all, &known(&[("a", 3)]));
        let unmet = |fitting: usize| {
            let unmet = gangs.unmet(&all[2..], |at| at < fitting);
            unmet.into_iter().map(|(_, unmet)| unmet.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(unmet(2), [""; 0]);
        assert_eq!(unmet(1), ["gang group a: 2 of 3 pods fit"]);
        assert!(Gangs::of(&all, &known(&[("b", 3)])).is_empty(), "nobody knows how many it takes");
        assert!(Gangs::of(&all[..2], &known(&[("a", 3)])).is_empty(), "nobody waits");
    }

    #[test]
    fn a_gang_that_is_disrupted_as_a_whole_is_not_divided() {
        let all =
            [pod("ns", Some("a"), Some("n")), pod("ns", Some("a"), Some("m")), pod("ns", None, Some("n"))];
        let surroundings = |undivided: &[&str]| Surroundings {
            undivided: undivided.iter().map(|name| ("ns".into(), (*name).into())).collect(),
            ..known(&[("a", 2)])
        };
        let held = |pods: &[Arc<Pod>], undivided: &[&str]| {
            held([&all[2], &all[0]], pods, &surroundings(undivided)).map(|held| held.to_string())
        };
        let text = "pod ns/ is of gang a, which is disrupted as a whole or not at all";
        assert_eq!(held(&all, &["a"]).as_deref(), Some(text));
        assert_eq!(held(&all, &["b"]), None, "each for itself");
        assert_eq!(held(&all[..1], &["a"]), None, "nobody of it is elsewhere");
    }

    #[test]
    fn who_comes_first_is_tried_again_with_the_room_of_the_others() {
        let all: Vec<_> = ["b", "a", "c"].iter().map(|name| pod("ns", Some(name), None)).collect();
        let gangs = Gangs::of(&all, &known(&[("a", 2), ("b", 2), ("c", 2)]));
        let mut left_out = LeftOut::default();
        let mut tried = all.clone();
        let mut steps = Vec::new();
        loop {
            let unmet = gangs.unmet(&tried, |_| true);
            if unmet.is_empty() {
                break;
            }
            left_out.add(unmet);
            tried.retain(|pod| !left_out.has(pod));
            steps.push(tried.len());
        }
        assert_eq!(steps, [1, 0], "the latter two, then the first");
    }
}
