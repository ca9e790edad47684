//! After a group grew or shrank nodes stay for a while, everywhere or in that group alone.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Memory, ScaleDownSettings, within};

/// What happened to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It grew.
    Grown,
    /// A node of it was removed.
    Shrunk,
    /// A removal of one failed.
    Failed,
}

/// When groups last changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grown: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shrunk: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<Timestamp>,
}

/// When each group last changed.
pub(super) type ByGroup = BTreeMap<String, Changes>;

impl Changes {
    /// Why no node goes now.
    fn hold(self, now: Timestamp, settings: &ScaleDownSettings) -> Option<String> {
        let delays = [
            (self.grown, settings.delay_after_add, "a group grew"),
            (self.shrunk, settings.delay_after_delete, "a node was removed"),
            (self.failed, settings.delay_after_failure, "a removal failed"),
        ];
        let (since, delay, what) =
            delays.into_iter().find(|(since, delay, _)| within(*since, *delay, now))?;
        Some(format!("{what} at {}, less than {delay:#} ago", since?))
    }
}

impl Memory {
    /// Notes what happened to a group.
    pub fn note(&mut self, change: Change, group: &str, now: Timestamp) {
        let of_group = self.by_group.entry(group.to_owned()).or_default();
        let (all, own) = match change {
            Change::Grown => (&mut self.grown, &mut of_group.grown),
            Change::Shrunk => (&mut self.shrunk, &mut of_group.shrunk),
            Change::Failed => (&mut self.failed, &mut of_group.failed),
        };
        (*all, *own) = (Some(now), Some(now));
    }

    /// This, but when groups changed is what the other says.
    #[must_use]
    pub fn with_changes_of(self, other: &Self) -> Self {
        let Self { grown, shrunk, failed, .. } = *other;
        Self { grown, shrunk, failed, by_group: other.by_group.clone(), ..self }
    }

    /// Why no node goes now, whatever its group.
    pub(super) fn held(&self, now: Timestamp, settings: &ScaleDownSettings) -> Option<String> {
        let all = Changes { grown: self.grown, shrunk: self.shrunk, failed: self.failed };
        if settings.delay_is_local { None } else { all.hold(now, settings) }
    }

    /// Why no node of a group goes now.
    pub(super) fn held_in(
        &self,
        group: &str,
        now: Timestamp,
        settings: &ScaleDownSettings,
    ) -> Option<String> {
        let changes = self.by_group.get(group).filter(|_| settings.delay_is_local)?;
        changes.hold(now, settings)
    }
}
