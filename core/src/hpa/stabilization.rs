//! Holding back on what metrics asked for of late, so that a count does not flap.
//!
//! Windows, their edges and the reuse of places are those of Kubernetes
//! (`pkg/controller/podautoscaler/horizontal.go`): without a `behavior` a recommendation as old as the window
//! still counts, with one it does not.

use jiff::{SignedDuration, Timestamp};

use super::{behavior::Behavior, conditions::Reason, cutoff, state::Recommendation};

/// A count after stabilization, and the reason of `AbleToScale`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stabilized {
    /// The count.
    pub replicas: i32,
    /// What stabilization did.
    pub reason: Reason,
}

/// The highest recommendation of the window; `desired` itself is kept for later steps.
pub fn highest_of_window(
    recommendations: &mut Vec<Recommendation>,
    window: SignedDuration,
    desired: i32,
    now: Timestamp,
) -> Stabilized {
    let since = cutoff(now, window);
    let (mut replicas, mut free) = (desired, None);
    for (place, recommendation) in recommendations.iter().enumerate() {
        if recommendation.at < since {
            free = Some(place);
        } else {
            replicas = replicas.max(recommendation.replicas);
        }
    }
    keep(recommendations, free, desired, now);
    let reason = if replicas == desired { Reason::ReadyForNewScale } else { Reason::ScaleDownStabilized };
    Stabilized { replicas, reason }
}

/// The count closest to `current` between the lowest recommendation of the upward window and the highest of the
/// downward one; `desired` itself is kept for later steps.
pub fn between_windows(
    recommendations: &mut Vec<Recommendation>,
    behavior: &Behavior,
    downscale_stabilization: SignedDuration,
    (current, desired): (i32, i32),
    now: Timestamp,
) -> Stabilized {
    let since_up = cutoff(now, behavior.up.window.unwrap_or_default());
    let since_down = cutoff(now, behavior.down.window.unwrap_or(downscale_stabilization));
    let (mut lowest, mut highest, mut free) = (desired, desired, None);
    for (place, recommendation) in recommendations.iter().enumerate() {
        if recommendation.at > since_up {
            lowest = lowest.min(recommendation.replicas);
        }
        if recommendation.at > since_down {
            highest = highest.max(recommendation.replicas);
        }
        if recommendation.at < since_up && recommendation.at < since_down {
            free = Some(place);
        }
    }
    keep(recommendations, free, desired, now);
    let replicas = current.max(lowest).min(highest);
    let reason = if replicas == desired {
        Reason::ReadyForNewScale
    } else if desired >= current {
        Reason::ScaleUpStabilized
    } else {
        Reason::ScaleDownStabilized
    };
    Stabilized { replicas, reason }
}

/// Puts a recommendation into the free place, or at the end.
fn keep(recommendations: &mut Vec<Recommendation>, free: Option<usize>, replicas: i32, now: Timestamp) {
    let recommendation = Recommendation { replicas, at: now };
    match free.and_then(|place| recommendations.get_mut(place)) {
        Some(place) => *place = recommendation,
        None => recommendations.push(recommendation),
    }
}
