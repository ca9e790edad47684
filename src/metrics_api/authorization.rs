//! May they: `SubjectAccessReview`, asked as seldom as its answer allows.
//!
//! The HPA controller may list every external metric, so the first question is the widest one, `list *` of the group
//! in all namespaces: one review per user and 50 s, however many metrics it reads. Only who may not is asked about by
//! namespace, then by metric. (A webhook authorizer that allows the wildcard and yet denies a single metric is not
//! honoured; RBAC cannot deny.)

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};

use super::{
    authentication::User,
    reviews::{Clock, LONGEST_USE, Lifetime, ReviewError, Reviewer, Verdicts},
    route::{GROUP, VERSION},
};

/// The group that no authorizer denies anything (kube-apiserver adds it for its own requests).
const MASTERS: &str = "system:masters";

/// How long an allowed question is not asked again. With the review's own 3 s it stays below the minute.
const ALLOWED: Duration = Duration::from_secs(50);

/// How long a denial stands (k8s.io/apiserver, `DenyCacheTTL`).
const DENIED: Duration = Duration::from_secs(10);

/// Decisions remembered: some hundred bytes each, and a user needs one unless its rights are narrow.
const DECISIONS: usize = 4096;

/// Allowed or denied, with the authorizer's reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Allowed,
    Denied(Arc<str>),
}

/// What is asked about a user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Scope {
    /// Every metric everywhere.
    All,
    /// Every metric of a namespace.
    Namespace(String),
    Metric {
        namespace: String,
        metric: String,
    },
    /// A path outside the API group.
    Path(String),
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    user: Arc<User>,
    scope: Scope,
}

/// Decides what a user may read.
pub(super) struct Authorizer {
    reviewer: Reviewer,
    decisions: Verdicts<Question, Decision>,
}

impl Authorizer {
    pub(super) fn new(reviewer: Reviewer, clock: Clock) -> Self {
        Self { reviewer, decisions: Verdicts::new(DECISIONS, clock) }
    }

    /// May the user read this metric? The verb is `list`, the resource the metric's name: so kube-apiserver reads a
    /// GET without an object name.
    pub(super) async fn metric(
        &self,
        user: &Arc<User>,
        namespace: &str,
        metric: &str,
    ) -> Result<Decision, ReviewError> {
        if is_master(user) {
            return Ok(Decision::Allowed);
        }
        let scopes = [
            (Scope::All, wide as fn(&Decision) -> Lifetime),
            (Scope::Namespace(namespace.to_owned()), wide),
            (Scope::Metric { namespace: namespace.to_owned(), metric: metric.to_owned() }, exactly),
        ];
        let mut last = Decision::Denied(Arc::default());
        for (scope, lifetime) in &scopes {
            match self.ask(user, scope.clone(), *lifetime).await {
                Ok(Decision::Allowed) => return Ok(Decision::Allowed),
                Ok(denied) => last = denied,
                // kube-apiserver is down: a narrower allowance may still be young enough.
                Err(error) => {
                    let allowed = scopes.iter().any(|(scope, _)| self.is_still_allowed(user, scope));
                    return if allowed { Ok(Decision::Allowed) } else { Err(error) };
                }
            }
        }
        Ok(last)
    }

    fn is_still_allowed(&self, user: &Arc<User>, scope: &Scope) -> bool {
        let question = Question { user: user.clone(), scope: scope.clone() };
        self.decisions.usable(&question) == Some(Decision::Allowed)
    }

    /// May the user GET this path?
    pub(super) async fn path(&self, user: &Arc<User>, path: &str) -> Result<Decision, ReviewError> {
        if is_master(user) {
            return Ok(Decision::Allowed);
        }
        self.ask(user, Scope::Path(path.to_owned()), exactly).await
    }

    async fn ask(
        &self,
        user: &Arc<User>,
        scope: Scope,
        lifetime: fn(&Decision) -> Lifetime,
    ) -> Result<Decision, ReviewError> {
        let question = Question { user: user.clone(), scope: scope.clone() };
        let ask = || {
            let (reviewer, spec) = (self.reviewer.clone(), specification(user, &scope));
            async move { Ok(decision(reviewer.access(spec).await?)) }
        };
        self.decisions.get(question, lifetime, ask).await
    }
}

fn is_master(user: &User) -> bool {
    user.groups.iter().any(|group| group == MASTERS)
}

/// A wide denial refuses nothing by itself, it only means a narrower question: it may be remembered as long as an
/// allowance.
fn wide(_: &Decision) -> Lifetime {
    Lifetime { fresh: ALLOWED, usable: LONGEST_USE }
}

fn exactly(decision: &Decision) -> Lifetime {
    match decision {
        Decision::Allowed => Lifetime { fresh: ALLOWED, usable: LONGEST_USE },
        Decision::Denied(_) => Lifetime { fresh: DENIED, usable: DENIED },
    }
}

fn decision(status: SubjectAccessReviewStatus) -> Decision {
    if status.allowed && status.denied != Some(true) {
        return Decision::Allowed;
    }
    let why = [status.reason, status.evaluation_error].into_iter().flatten().find(|text| !text.is_empty());
    Decision::Denied(why.unwrap_or_default().into())
}

fn specification(user: &User, scope: &Scope) -> SubjectAccessReviewSpec {
    let resource = |namespace: Option<&str>, metric: &str| ResourceAttributes {
        verb: Some("list".to_owned()),
        group: Some(GROUP.to_owned()),
        version: Some(VERSION.to_owned()),
        namespace: namespace.map(str::to_owned),
        resource: Some(metric.to_owned()),
        ..ResourceAttributes::default()
    };
    let resource_attributes = match scope {
        Scope::All => Some(resource(None, "*")),
        Scope::Namespace(namespace) => Some(resource(Some(namespace), "*")),
        Scope::Metric { namespace, metric } => Some(resource(Some(namespace), metric)),
        Scope::Path(_) => None,
    };
    let non_resource_attributes = match scope {
        Scope::Path(path) => {
            Some(NonResourceAttributes { path: Some(path.clone()), verb: Some("get".to_owned()) })
        }
        _ => None,
    };
    SubjectAccessReviewSpec {
        user: Some(user.name.clone()),
        uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
        groups: Some(user.groups.clone()),
        extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
        resource_attributes,
        non_resource_attributes,
    }
}

#[cfg(test)]
mod tests;
