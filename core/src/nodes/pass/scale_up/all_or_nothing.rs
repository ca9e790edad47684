//! Pods that groups grow for together, or not at all.

use std::{collections::BTreeMap, sync::Arc};

use super::{Refusal, ScaleUp, Waiting, place};

/// The plan as it was before it was known whether all of them get a node.
struct Before {
    left: Vec<u32>,
    room: Vec<u32>,
    added: BTreeMap<usize, u32>,
    splits: Vec<Vec<Arc<str>>>,
    helped_by: BTreeMap<usize, Vec<usize>>,
    barred: Vec<Option<String>>,
}

impl ScaleUp<'_> {
    /// Lets groups `grow` for these pods alone, as far as those that are there and were added cannot take them. Returns the
    /// groups that grow.
    ///
    /// # Errors
    /// Some pods are left: how many, and why groups cannot help them. The plan is as it was.
    pub(in crate::nodes::pass) fn all_or_nothing(
        &mut self,
        pods: &[Waiting],
        grow: impl FnOnce(&mut Self),
    ) -> Result<Vec<Arc<str>>, (u32, Vec<Refusal>)> {
        let before = self.before();
        let first = self.waiting.len();
        let checkpoint = self.snapshot.checkpoint();
        self.left.fill(0);
        for waiting in pods {
            let count = u32::try_from(waiting.pods.len()).unwrap_or(u32::MAX);
            self.left.push(place(self.snapshot, waiting.class, count, None, |_, _| {}));
            self.waiting.push(waiting.clone());
        }
        grow(self);
        let short: u32 = self.left[first..].iter().sum();
        if short == 0 {
            self.snapshot.keep(checkpoint);
            self.left[..first].copy_from_slice(&before.left);
            let grown = |(candidate, nodes): (&usize, &u32)| {
                let more = *nodes > before.added.get(candidate).copied().unwrap_or(0);
                more.then(|| self.candidates[*candidate].group.id.clone())
            };
            return Ok(self.added.iter().filter_map(grown).collect());
        }
        let refusals = self.refusals_since(first);
        self.snapshot.rollback(checkpoint);
        self.restore(before, first);
        Err((short, refusals))
    }

    fn before(&self) -> Before {
        Before {
            left: self.left.clone(),
            room: self.room.clone(),
            added: self.added.clone(),
            splits: self.splits.clone(),
            helped_by: self.helped_by.clone(),
            barred: self.candidates.iter().map(|candidate| candidate.barred.clone()).collect(),
        }
    }

    fn restore(&mut self, before: Before, first: usize) {
        let Before { left, room, added, splits, helped_by, barred } = before;
        (self.left, self.room, self.added, self.splits, self.helped_by) =
            (left, room, added, splits, helped_by);
        for (candidate, barred) in self.candidates.iter_mut().zip(barred) {
            candidate.barred = barred;
        }
        self.waiting.truncate(first);
        self.refused.retain(|(waiting, _), _| *waiting < first);
    }

    /// Why each group cannot help what is left of the pods from `first` on.
    fn refusals_since(&self, first: usize) -> Vec<Refusal> {
        let mut by_group: BTreeMap<usize, &String> = BTreeMap::new();
        for ((waiting, candidate), reason) in &self.refused {
            if *waiting >= first && self.left[*waiting] > 0 {
                by_group.entry(*candidate).or_insert(reason);
            }
        }
        let refusal = |(candidate, reason): (usize, &String)| Refusal {
            group: self.candidates[candidate].group.id.clone(),
            reason: reason.clone(),
        };
        by_group.into_iter().map(refusal).collect()
    }
}
