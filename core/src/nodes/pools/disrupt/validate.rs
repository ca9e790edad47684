//! Whether what was decided is still right (core, `pkg/controllers/disruption/validation.go`).

use std::{collections::BTreeSet, sync::Arc};

use thiserror::Error;

use super::{
    Command, Input, Method,
    candidate::{self, Candidate},
    command,
    scene::Scene,
};
use crate::nodes::pools::consolidate::consolidate;

/// Why a command is not right any more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Invalid {
    /// A node may not go any more, or pods came to it.
    #[error("{0} is no longer a candidate")]
    Churn(Arc<str>),
    /// Budgets do not allow so many nodes any more.
    #[error("no budget left for nodepool {0:?}")]
    Budget(Arc<str>),
    /// The pods would not go where they were to go, or need another node than was decided.
    #[error("{0}")]
    Scheduling(String),
}

impl Invalid {
    /// Its kind in metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Churn(_) => "churn",
            Self::Budget(_) => "budget",
            Self::Scheduling(_) => "scheduling",
        }
    }
}

/// Holds a command against the cluster as it is now. Of empty nodes, those that still are and that budgets allow are left.
///
/// # Errors
/// What was decided is not right any more.
pub fn validate(input: &Input<'_>, wanted: &Command) -> Result<Command, Invalid> {
    let reason = wanted.method.reason();
    let mut scene = Scene::new(input);
    let (found, _) = scene.keep_room(candidate::find(input).candidates);
    let still = |name: &Arc<str>| {
        let found = found.iter().find(|it| it.name == *name && it.suits(reason) && !scene.expects(&it.name));
        found.cloned().ok_or_else(|| Invalid::Churn(name.clone()))
    };
    let mut left = candidate::budgeted(input).left;
    let mut within = |candidate: &Candidate| match left.get_mut(&(candidate.pool.clone(), reason)) {
        Some(left) if *left > 0 => {
            *left -= 1;
            Ok(())
        }
        _ => Err(Invalid::Budget(candidate.pool.clone())),
    };
    if wanted.method == Method::Emptiness {
        let first = wanted.claims.first().cloned().unwrap_or_default();
        let kept: Vec<_> = wanted.claims.iter().filter_map(|name| still(name).ok()).collect();
        let kept: Vec<_> = kept.into_iter().filter(|candidate| within(candidate).is_ok()).collect();
        return if kept.is_empty() {
            Err(Invalid::Churn(first))
        } else {
            Ok(command(Method::Emptiness, &kept, Vec::new()))
        };
    }
    let candidates: Vec<Candidate> = wanted.claims.iter().map(still).collect::<Result<_, _>>()?;
    candidates.iter().try_for_each(&mut within)?;
    as_decided(input, scene, wanted, &candidates)?;
    Ok(wanted.clone())
}

/// Whether the pods still need what was decided and no more: no new node, or one of types that would be chosen again.
fn as_decided(
    input: &Input<'_>,
    mut scene: Scene<'_>,
    wanted: &Command,
    candidates: &[Candidate],
) -> Result<(), Invalid> {
    let all: Vec<usize> = (0..candidates.len()).collect();
    let now = if wanted.method == Method::Drift {
        let each = candidates.iter().map(|candidate| scene.replace(candidate));
        let claims: Vec<_> = each.collect::<Result<_, _>>().map_err(Invalid::Scheduling)?;
        claims.into_iter().flatten().collect()
    } else {
        let again = scene.consolidate(input, candidates, |cluster, nodes| consolidate(cluster, nodes, all));
        let again = again.map_err(|why| Invalid::Scheduling(why.to_string()))?;
        Vec::from_iter(again.replacement)
    };
    if now.len() != wanted.replacements.len() {
        let why = format!("{} new nodes are needed, not {}", now.len(), wanted.replacements.len());
        return Err(Invalid::Scheduling(why));
    }
    for (now, wanted) in now.iter().zip(&wanted.replacements) {
        let possible: BTreeSet<&str> = now.types.iter().map(|it| &*it.name).collect();
        if let Some(other) = wanted.types.iter().find(|it| !possible.contains(&*it.name)) {
            return Err(Invalid::Scheduling(format!("instance type {} would not do any more", other.name)));
        }
    }
    Ok(())
}
