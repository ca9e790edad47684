//! Preferences, given up one by one (core, `preferences.go`).

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::{Affinity, NodeSelectorTerm, Toleration};

use crate::scheduling::pod::{Shape, Traits};

/// The effect of taints that pods only should not ignore.
pub(super) const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// What a spread constraint does that is only a wish.
const SCHEDULE_ANYWAY: &str = "ScheduleAnyway";
const DO_NOT_SCHEDULE: &str = "DoNotSchedule";

/// Takes the heaviest of weighted terms, the first of several.
fn take_heaviest<T>(terms: &mut Option<Vec<T>>, weight: impl Fn(&T) -> i32) -> Option<T> {
    let list = terms.as_mut().filter(|list| !list.is_empty())?;
    let heaviest = (0..list.len()).rev().max_by_key(|at| weight(&list[*at]))?;
    Some(list.remove(heaviest))
}

/// What a pod asks for, every wish as a demand, and then with one wish less after the other.
///
/// `respect` says whether wishes count at all, `prefer_no_schedule` whether any pool has a taint of that effect. Alternatives
/// of the required node affinity are given up first, from the front; the last form is what the pod insists on.
pub(super) fn levels(traits: &Arc<Traits>, respect: bool, prefer_no_schedule: bool) -> Vec<Arc<Traits>> {
    let mut state = Wishes::read(traits, respect);
    if !state.is_any() && !prefer_no_schedule {
        return vec![traits.clone()];
    }
    let mut levels = vec![state.as_demands()];
    while state.give_one_up() {
        levels.push(state.as_demands());
    }
    if prefer_no_schedule {
        let tolerant = || {
            let mut last = (**levels.last()?).clone();
            last.tolerations.push(Toleration {
                operator: Some("Exists".to_owned()),
                effect: Some(PREFER_NO_SCHEDULE.to_owned()),
                ..Toleration::default()
            });
            Some(Arc::new(last))
        };
        levels.extend(tolerant());
    }
    levels.into_iter().flat_map(alternatives).collect()
}

/// Traits with one each of the terms that the scheduler adds, if it adds several.
fn alternatives(level: Arc<Traits>) -> Vec<Arc<Traits>> {
    if level.added.len() < 2 {
        return vec![level];
    }
    let with = |term: &NodeSelectorTerm| Traits { added: [term.clone()].into(), ..(*level).clone() };
    level.added.iter().map(|term| Arc::new(with(term))).collect()
}

/// The levels of shapes, worked out once for all that share their traits.
#[derive(Default)]
pub(super) struct Levels {
    of_traits: HashMap<*const Traits, Vec<Arc<Traits>>>,
    of_shapes: HashMap<*const Shape, Vec<Arc<Shape>>>,
}

impl Levels {
    /// Those of a shape, which outlives this.
    pub(super) fn of(
        &mut self,
        shape: &Arc<Shape>,
        relax: impl FnOnce(&Arc<Traits>) -> Vec<Arc<Traits>>,
    ) -> &[Arc<Shape>] {
        self.of_shapes.entry(Arc::as_ptr(shape)).or_insert_with(|| {
            let levels =
                self.of_traits.entry(Arc::as_ptr(&shape.traits)).or_insert_with(|| relax(&shape.traits));
            let with = |traits: &Arc<Traits>| {
                if Arc::ptr_eq(traits, &shape.traits) {
                    shape.clone()
                } else {
                    Arc::new(Shape { traits: traits.clone(), ..(**shape).clone() })
                }
            };
            levels.iter().map(with).collect()
        })
    }
}

/// Traits whose wishes are not given up yet.
struct Wishes(Traits);

impl Wishes {
    fn read(traits: &Traits, respect: bool) -> Self {
        let mut traits = traits.clone();
        if !respect {
            traits.spread.retain(|rule| rule.when_unsatisfiable != SCHEDULE_ANYWAY);
            if let Some(affinity) = &mut traits.affinity {
                forget(affinity);
            }
        }
        Self(traits)
    }

    /// Whether anything could be given up.
    fn is_any(&self) -> bool {
        let anyway = self.0.spread.iter().any(|rule| rule.when_unsatisfiable == SCHEDULE_ANYWAY);
        let affinity = self.0.affinity.as_deref();
        let added = self.0.added.len() > 1;
        let wishes = affinity.is_some_and(|affinity| {
            let node = affinity.node_affinity.as_ref();
            let pods = affinity.pod_affinity.as_ref();
            let anti = affinity.pod_anti_affinity.as_ref();
            let terms = node
                .and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref())
                .map_or(0, |required| required.node_selector_terms.len());
            let node = node.and_then(|it| it.preferred_during_scheduling_ignored_during_execution.as_ref());
            let pods = pods.and_then(|it| it.preferred_during_scheduling_ignored_during_execution.as_ref());
            let anti = anti.and_then(|it| it.preferred_during_scheduling_ignored_during_execution.as_ref());
            terms > 1
                || node.is_some_and(|list| !list.is_empty())
                || pods.is_some_and(|list| !list.is_empty())
                || anti.is_some_and(|list| !list.is_empty())
        });
        added || anyway || wishes
    }

    /// Gives up what comes next; whether there was anything.
    fn give_one_up(&mut self) -> bool {
        let Traits { affinity, spread, .. } = &mut self.0;
        affinity.as_deref_mut().is_some_and(give_up_affinity) || {
            let anyway = spread.iter().position(|rule| rule.when_unsatisfiable == SCHEDULE_ANYWAY);
            anyway.map(|at| spread.swap_remove(at)).is_some()
        }
    }

    /// The traits, with what is wished for required: of alternatives and of preferred nodes the first.
    fn as_demands(&self) -> Arc<Traits> {
        let mut traits = self.0.clone();
        for rule in &mut traits.spread {
            DO_NOT_SCHEDULE.clone_into(&mut rule.when_unsatisfiable);
        }
        if let Some(affinity) = &mut traits.affinity {
            demand(affinity);
        }
        Arc::new(traits)
    }
}

fn forget(affinity: &mut Affinity) {
    if let Some(node) = &mut affinity.node_affinity {
        node.preferred_during_scheduling_ignored_during_execution = None;
    }
    if let Some(pods) = &mut affinity.pod_affinity {
        pods.preferred_during_scheduling_ignored_during_execution = None;
    }
    if let Some(anti) = &mut affinity.pod_anti_affinity {
        anti.preferred_during_scheduling_ignored_during_execution = None;
    }
}

fn give_up_affinity(affinity: &mut Affinity) -> bool {
    let Affinity { node_affinity: node, pod_affinity: pods, pod_anti_affinity: anti } = affinity;
    let terms = node
        .as_mut()
        .and_then(|node| node.required_during_scheduling_ignored_during_execution.as_mut())
        .map(|required| &mut required.node_selector_terms);
    if let Some(terms) = terms.filter(|terms| terms.len() > 1) {
        terms.remove(0);
        return true;
    }
    let pods = pods.as_mut().map(|pods| &mut pods.preferred_during_scheduling_ignored_during_execution);
    let anti = anti.as_mut().map(|anti| &mut anti.preferred_during_scheduling_ignored_during_execution);
    let node = node.as_mut().map(|node| &mut node.preferred_during_scheduling_ignored_during_execution);
    pods.and_then(|terms| take_heaviest(terms, |term| term.weight)).is_some()
        || anti.and_then(|terms| take_heaviest(terms, |term| term.weight)).is_some()
        || node.and_then(|terms| take_heaviest(terms, |term| term.weight)).is_some()
}

fn demand(affinity: &mut Affinity) {
    if let Some(node) = &mut affinity.node_affinity {
        let preferred =
            take_heaviest(&mut node.preferred_during_scheduling_ignored_during_execution, |term| term.weight);
        node.preferred_during_scheduling_ignored_during_execution = None;
        let required = &mut node.required_during_scheduling_ignored_during_execution;
        if required.is_some() || preferred.is_some() {
            let terms = &mut required.get_or_insert_default().node_selector_terms;
            terms.truncate(1);
            if let Some(preferred) = preferred {
                match terms.first_mut() {
                    None => terms.push(preferred.preference),
                    Some(term) => {
                        let more = preferred.preference.match_expressions.unwrap_or_default();
                        term.match_expressions.get_or_insert_default().extend(more);
                    }
                }
            }
        }
    }
    if let Some(pods) = &mut affinity.pod_affinity {
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.take();
        let terms = preferred.into_iter().flatten().map(|weighted| weighted.pod_affinity_term);
        pods.required_during_scheduling_ignored_during_execution.get_or_insert_default().extend(terms);
    }
    if let Some(anti) = &mut affinity.pod_anti_affinity {
        let preferred = anti.preferred_during_scheduling_ignored_during_execution.take();
        let terms = preferred.into_iter().flatten().map(|weighted| weighted.pod_affinity_term);
        anti.required_during_scheduling_ignored_during_execution.get_or_insert_default().extend(terms);
    }
}
