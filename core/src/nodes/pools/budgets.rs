//! Budgets: how many nodes of a pool may be disrupted at once (core, `pkg/apis/v1/nodepool.go`,
//! `pkg/controllers/disruption/helpers.go`).

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use schedule::{Schedule, ScheduleError};
use thiserror::Error;

use crate::api::karpenter::Budget;

/// What a budget that does not apply allows.
pub const UNLIMITED: i32 = i32::MAX;

/// Why a node is disrupted, among the reasons that budgets tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Its pods fit elsewhere, or on a cheaper node.
    Underutilized,
    /// No pod of it would have to move.
    Empty,
    /// It is not what its pool or node class asks for any more.
    Drifted,
}

impl Reason {
    /// Its name in budgets, events and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Underutilized => "Underutilized",
            Self::Empty => "Empty",
            Self::Drifted => "Drifted",
        }
    }

    /// Its name in other metrics than those of budgets.
    pub fn label(self) -> &'static str {
        match self {
            Self::Underutilized => "underutilized",
            Self::Empty => "empty",
            Self::Drifted => "drifted",
        }
    }
}

/// Why a budget cannot be read; it then allows nothing.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum BudgetError {
    /// The schedule is no cron line.
    #[error("budget schedule {line:?}: {problem}")]
    Schedule {
        /// The schedule.
        line: String,
        /// What is wrong.
        problem: ScheduleError,
    },
    /// The duration is none.
    #[error("budget duration {0:?} is none, write hours and minutes such as 8h30m")]
    Duration(String),
    /// Neither a number of nodes nor a percentage.
    #[error("budget nodes {0:?} is neither a number nor a percentage, write such as 5 or 10%")]
    Nodes(String),
}

/// Whether a budget applies now: it has no schedule, or its duration has not passed since the schedule last came.
pub fn is_active(budget: &Budget, now: Timestamp) -> Result<bool, BudgetError> {
    if budget.schedule.is_none() && budget.duration.is_none() {
        return Ok(true);
    }
    let line = budget.schedule.as_deref().unwrap_or_default();
    let schedule = Schedule::standard(&format!("TZ=UTC {line}"))
        .map_err(|problem| BudgetError::Schedule { line: line.to_owned(), problem })?;
    let text = budget.duration.as_deref().unwrap_or("0s");
    let duration: SignedDuration = text.parse().map_err(|_| BudgetError::Duration(text.to_owned()))?;
    let began = now.checked_sub(duration).map_err(|_| BudgetError::Duration(text.to_owned()))?;
    Ok(schedule.next(began, &TimeZone::UTC).is_some_and(|next| next <= now))
}

/// How many of `nodes` a budget lets be disrupted at once now, percentages rounded up; [`UNLIMITED`] if it does not apply.
pub fn allowed(budget: &Budget, nodes: u32, now: Timestamp) -> Result<i32, BudgetError> {
    if !is_active(budget, now)? {
        return Ok(UNLIMITED);
    }
    let malformed = || BudgetError::Nodes(budget.nodes.clone());
    match budget.nodes.strip_suffix('%') {
        Some(percent) => {
            let percent: u32 = percent.parse().map_err(|_| malformed())?;
            let share = (u64::from(percent) * u64::from(nodes)).div_ceil(100);
            Ok(i32::try_from(share).unwrap_or(UNLIMITED))
        }
        None => budget.nodes.parse().ok().filter(|nodes| *nodes >= 0).ok_or_else(malformed),
    }
}

/// How many nodes may be disrupted at once, and which budgets could not be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Allowance {
    /// So many; none if a budget could not be read.
    pub nodes: i32,
    /// What is wrong with budgets.
    pub problems: Vec<BudgetError>,
}

/// The least that the budgets for this reason, and those for any, allow of `nodes`.
pub fn allowed_by_reason(budgets: &[Budget], nodes: u32, reason: Reason, now: Timestamp) -> Allowance {
    let mut allowance = Allowance { nodes: UNLIMITED, problems: Vec::new() };
    let is_for = |reasons: &Vec<String>| reasons.iter().any(|name| name == reason.name());
    for budget in budgets.iter().filter(|budget| budget.reasons.as_ref().is_none_or(is_for)) {
        let nodes = allowed(budget, nodes, now).unwrap_or_else(|problem| {
            allowance.problems.push(problem);
            0
        });
        allowance.nodes = allowance.nodes.min(nodes);
    }
    allowance
}

/// What of a node counts for the budgets of its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "facts about a node, each on its own")]
pub struct NodeFacts {
    /// It came from a NodeClaim.
    pub managed: bool,
    /// It was ready once, with all that its pool asks for.
    pub initialized: bool,
    /// Its machine is being terminated.
    pub instance_terminating: bool,
    /// It is ready.
    pub ready: bool,
    /// It is being deleted, or is about to be.
    pub marked_for_deletion: bool,
}

/// Nodes of a pool, as its budgets count them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolCount {
    /// Of which budgets take their percentages.
    pub nodes: u32,
    /// Those of them that are disrupted already, by whatever.
    pub disrupting: u32,
}

impl PoolCount {
    /// Counts nodes of a pool.
    pub fn of(nodes: impl IntoIterator<Item = NodeFacts>) -> Self {
        let counted = |node: &NodeFacts| node.managed && node.initialized && !node.instance_terminating;
        nodes.into_iter().filter(counted).fold(Self::default(), |count, node| Self {
            nodes: count.nodes + 1,
            disrupting: count.disrupting + u32::from(!node.ready || node.marked_for_deletion),
        })
    }

    /// How many more of the nodes may be disrupted now.
    pub fn allowed(self, budgets: &[Budget], reason: Reason, now: Timestamp) -> Allowance {
        let mut allowance = allowed_by_reason(budgets, self.nodes, reason, now);
        let disrupting = i32::try_from(self.disrupting).unwrap_or(i32::MAX);
        allowance.nodes = allowance.nodes.saturating_sub(disrupting).max(0);
        allowance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn window(schedule: &str, duration: &str) -> Budget {
        let (schedule, duration) = (Some(schedule.to_owned()), Some(duration.to_owned()));
        Budget { schedule, duration, ..Budget::of("1") }
    }

    #[test]
    fn a_window_is_closed_where_it_ends() {
        let budget = window("0 9 * * mon-fri", "8h");
        for (now, wanted) in [
            ("2024-01-08T08:59:59Z", false),
            ("2024-01-08T09:00:00Z", true),
            ("2024-01-08T16:59:59Z", true),
            ("2024-01-08T17:00:00Z", false),
            ("2024-01-07T12:00:00Z", false),
        ] {
            assert_eq!(is_active(&budget, at(now)), Ok(wanted), "{now}");
        }
        assert_eq!(is_active(&window("@daily", "48h"), at("2024-01-07T00:00:00Z")), Ok(true));
    }

    #[test]
    fn what_cannot_be_read_allows_nothing() {
        let now = at("2024-01-07T00:00:00Z");
        let without_schedule = Budget { duration: Some("1h".to_owned()), ..Budget::of("1") };
        for (budget, wanted) in [
            (
                Budget::of("many"),
                "budget nodes \"many\" is neither a number nor a percentage, write such as 5 or 10%",
            ),
            (
                Budget::of("-1"),
                "budget nodes \"-1\" is neither a number nor a percentage, write such as 5 or 10%",
            ),
            (
                window("0 0 * * *", "soon"),
                "budget duration \"soon\" is none, write hours and minutes such as 8h30m",
            ),
            (
                window("TZ=Asia/Tokyo 0 0 * * *", "1h"),
                "budget schedule \"TZ=Asia/Tokyo 0 0 * * *\": expected exactly 5 fields, found 6: [TZ=Asia/Tokyo 0 0 * * *]",
            ),
            (without_schedule, "budget schedule \"\": expected exactly 5 fields, found 0: []"),
        ] {
            let allowance = allowed_by_reason(&[Budget::of("5"), budget], 10, Reason::Empty, now);
            assert_eq!(allowance.nodes, 0);
            assert_eq!(allowance.problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [wanted]);
        }
    }

    #[test]
    fn what_is_disrupted_already_is_not_allowed_again() {
        let calm = NodeFacts {
            managed: true,
            initialized: true,
            instance_terminating: false,
            ready: true,
            marked_for_deletion: false,
        };
        let nodes = [
            calm,
            calm,
            calm,
            NodeFacts { ready: false, ..calm },
            NodeFacts { marked_for_deletion: true, ready: false, ..calm },
            NodeFacts { managed: false, ..calm },
            NodeFacts { initialized: false, ..calm },
            NodeFacts { instance_terminating: true, ..calm },
        ];
        let count = PoolCount::of(nodes);
        assert_eq!(count, PoolCount { nodes: 5, disrupting: 2 });
        let now = at("2024-01-07T00:00:00Z");
        for (nodes, wanted) in [("100%", 3), ("41%", 1), ("2", 0), ("1", 0)] {
            assert_eq!(count.allowed(&[Budget::of(nodes)], Reason::Drifted, now).nodes, wanted, "{nodes}");
        }
    }
}
