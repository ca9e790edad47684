//! How long no node is removed after groups grew or shrank.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Memory, ScaleDownSettings, within};
use crate::nodes::action::Action;

/// When a group last changed, for `--scale-down-delay-type-local`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// It grew.
    pub grown: Option<Timestamp>,
    /// One of its nodes was removed.
    pub shrunk: Option<Timestamp>,
    /// A removal failed.
    pub failed: Option<Timestamp>,
}

impl Memory {
    /// When any group last changed.
    fn changes(&self) -> Changes {
        Changes { grown: self.grown, shrunk: self.shrunk, failed: self.failed }
    }

    /// When a group last changed, to be written.
    pub fn changes_of(&mut self, group: &str) -> &mut Changes {
        self.changes.entry(group.to_owned()).or_default()
    }
}

/// Notes which groups grow.
pub(super) fn note_growth(memory: &mut Memory, actions: &[Action], now: Timestamp) {
    for action in actions {
        if let Action::Increase(increase) = action {
            memory.changes_of(&increase.group).grown = Some(now);
        }
    }
}

/// Notes which groups shrink, and forgets what is too long ago to matter.
pub(super) fn note_removals(
    memory: &mut Memory,
    actions: &[Action],
    now: Timestamp,
    settings: &ScaleDownSettings,
) {
    for action in actions {
        if let Action::Remove(removal) = action {
            memory.changes_of(&removal.group).shrunk = Some(now);
        }
    }
    memory.changes.retain(|_, changes| delay(*changes, now, settings).is_some());
}

/// Why no node is removed now, of whatever group.
pub(super) fn held(memory: &Memory, now: Timestamp, settings: &ScaleDownSettings) -> Option<String> {
    if settings.delay_by_group {
        return None;
    }
    delay(memory.changes(), now, settings)
}

/// Why no node of this group is removed now.
pub(super) fn held_of(
    changes: &BTreeMap<String, Changes>,
    group: &str,
    now: Timestamp,
    settings: &ScaleDownSettings,
) -> Option<String> {
    let changes = changes.get(group).filter(|_| settings.delay_by_group)?;
    delay(*changes, now, settings)
}

fn delay(changes: Changes, now: Timestamp, settings: &ScaleDownSettings) -> Option<String> {
    let delays = [
        (changes.grown, settings.delay_after_add, "a group grew"),
        (changes.shrunk, settings.delay_after_delete, "a node was removed"),
        (changes.failed, settings.delay_after_failure, "a removal failed"),
    ];
    let (since, delay, what) = delays.into_iter().find(|(since, delay, _)| within(*since, *delay, now))?;
    Some(format!("{what} at {}, less than {delay:#} ago", since?))
}
