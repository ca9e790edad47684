//! Which questions are asked, how often, and what the answers allow.

use std::sync::atomic::Ordering;

use super::*;
use crate::metrics_api::{
    Observer,
    testing::{FakeKubernetes, ManualClock, Right},
};

struct Bed {
    kubernetes: FakeKubernetes,
    clock: ManualClock,
    authorizer: Authorizer,
}

fn bed(rights: &[Right]) -> Bed {
    let kubernetes = FakeKubernetes::default();
    kubernetes.rights.lock().extend(rights);
    let clock = ManualClock::new();
    let authorizer = Authorizer::new(Reviewer::new(kubernetes.client(), Observer::default()), clock.clock());
    Bed { kubernetes, clock, authorizer }
}

fn user(name: &str) -> Arc<User> {
    Arc::new(User { name: name.to_owned(), ..User::default() })
}

impl Bed {
    async fn may(&self, name: &str, namespace: &str, metric: &str) -> Result<bool, ReviewError> {
        let decision = self.authorizer.metric(&user(name), namespace, metric).await?;
        Ok(decision == Decision::Allowed)
    }

    fn asked(&self) -> usize {
        self.kubernetes.asked.lock().len()
    }
}

#[tokio::test]
async fn rights() {
    let bed = bed(&[("hpa", "", "*"), ("web", "web", "*"), ("one", "web", "s0-x"), ("name", "", "s0-x")]);
    for (name, namespace, metric, want) in [
        ("hpa", "web", "s0-x", true),
        ("hpa", "shop", "s1-y", true),
        ("web", "web", "s0-x", true),
        ("web", "shop", "s0-x", false),
        ("one", "web", "s0-x", true),
        ("one", "web", "s1-y", false),
        ("one", "shop", "s0-x", false),
        ("name", "shop", "s0-x", true),
        ("nobody", "web", "s0-x", false),
    ] {
        assert_eq!(bed.may(name, namespace, metric).await.unwrap(), want, "{name} {namespace}/{metric}");
    }
    let masters = User { name: "root".to_owned(), groups: vec![MASTERS.to_owned()], ..User::default() };
    let before = bed.asked();
    let decision = bed.authorizer.metric(&Arc::new(masters), "web", "s0-x").await.unwrap();
    assert_eq!((decision, bed.asked()), (Decision::Allowed, before));
}

/// 1,000 metrics read every 15 s for an hour: one review per 50 s, where KEDA asks 240 times for each.
#[tokio::test]
async fn the_hpa_costs_one_review_a_minute() {
    let bed = bed(&[("hpa", "", "*")]);
    for second in (0..3600).step_by(15) {
        bed.clock.set(second);
        for metric in 0..1000 {
            assert!(bed.may("hpa", &format!("ns-{}", metric % 7), &format!("s0-{metric}")).await.unwrap());
        }
    }
    assert!(bed.asked() <= 3600 / 50, "{}", bed.asked());
}

#[tokio::test]
async fn a_revoked_right_is_gone_within_a_minute() {
    for right in [("hpa", "", "*"), ("hpa", "web", "*"), ("hpa", "web", "s0-x")] {
        let bed = bed(&[right]);
        assert!(bed.may("hpa", "web", "s0-x").await.unwrap());
        bed.kubernetes.rights.lock().clear();
        for second in 0..60 {
            bed.clock.set(second);
            bed.may("hpa", "web", "s0-x").await.unwrap();
        }
        assert!(!bed.may("hpa", "web", "s0-x").await.unwrap(), "{right:?}");
    }
}

#[tokio::test]
async fn a_granted_right_works_within_ten_seconds() {
    let bed = bed(&[]);
    assert!(!bed.may("hpa", "web", "s0-x").await.unwrap());
    bed.kubernetes.rights.lock().push(("hpa", "", "*"));
    bed.clock.set(10);
    assert!(bed.may("hpa", "web", "s0-x").await.unwrap());
    assert_eq!(bed.kubernetes.asked_about("", "*"), 1, "the wide denial stands");
    bed.clock.set(50);
    assert!(bed.may("hpa", "web", "s1-y").await.unwrap());
    assert_eq!(bed.kubernetes.asked_about("", "*"), 2);
}

#[tokio::test]
async fn without_kube_apiserver_only_young_allowances_serve() {
    for right in [("hpa", "", "*"), ("hpa", "web", "*"), ("hpa", "web", "s0-x")] {
        let bed = bed(&[right]);
        bed.clock.set(30);
        assert!(bed.may("hpa", "web", "s0-x").await.unwrap());
        assert!(!bed.may("nobody", "web", "s0-x").await.unwrap());
        bed.kubernetes.down.store(true, Ordering::SeqCst);
        bed.clock.set(89);
        assert!(bed.may("hpa", "web", "s0-x").await.unwrap(), "{right:?}");
        assert!(bed.may("nobody", "web", "s0-x").await.is_err(), "{right:?}");
        bed.clock.set(90);
        assert!(bed.may("hpa", "web", "s0-x").await.is_err(), "{right:?}");
    }
}

/// The wide question may be older than the narrow allowance that stands.
#[tokio::test]
async fn a_narrow_allowance_outlives_the_wide_question() {
    let bed = bed(&[("hpa", "web", "s1-y")]);
    assert!(!bed.may("hpa", "web", "s0-x").await.unwrap());
    bed.clock.set(45);
    assert!(bed.may("hpa", "web", "s1-y").await.unwrap());
    bed.kubernetes.down.store(true, Ordering::SeqCst);
    bed.clock.set(70);
    assert!(bed.may("hpa", "web", "s1-y").await.unwrap());
}

#[tokio::test]
async fn who_asks_is_part_of_the_question() {
    let bed = bed(&[]);
    let plain = User { name: "jane".to_owned(), ..User::default() };
    let variants = [
        plain.clone(),
        User { groups: vec!["a".to_owned()], ..plain.clone() },
        User { uid: "1".to_owned(), ..plain.clone() },
        User { extra: [("scopes".to_owned(), vec!["x".to_owned()])].into(), ..plain },
    ];
    for user in variants {
        bed.authorizer.path(&Arc::new(user), "/metrics").await.unwrap();
    }
    let asked = bed.kubernetes.asked.lock();
    assert_eq!(asked.len(), 4);
    insta::assert_json_snapshot!("paths", *asked);
}

#[test]
fn specifications() {
    let user = User {
        name: "jane".to_owned(),
        uid: "42".to_owned(),
        groups: vec!["devs".to_owned(), "system:authenticated".to_owned()],
        extra: [("scopes".to_owned(), vec!["x".to_owned()])].into(),
    };
    let scopes = [
        Scope::All,
        Scope::Namespace("web".to_owned()),
        Scope::Metric { namespace: "web".to_owned(), metric: "s0-x".to_owned() },
    ];
    let specifications: Vec<_> = scopes.iter().map(|scope| specification(&user, scope)).collect();
    insta::assert_json_snapshot!("specifications", specifications);
}

#[test]
fn verdicts() {
    let status = |allowed, denied, reason: &str, error: &str| SubjectAccessReviewStatus {
        allowed,
        denied,
        reason: Some(reason.to_owned()),
        evaluation_error: Some(error.to_owned()),
    };
    for (name, status, want) in [
        ("allowed", status(true, None, "RBAC: allowed", ""), Decision::Allowed),
        ("allowed and denied", status(true, Some(true), "policy", ""), Decision::Denied("policy".into())),
        ("no opinion", status(false, None, "", ""), Decision::Denied("".into())),
        ("no opinion, with an error", status(false, None, "", "no role"), Decision::Denied("no role".into())),
        ("nothing said", SubjectAccessReviewStatus::default(), Decision::Denied("".into())),
    ] {
        assert_eq!(decision(status), want, "{name}");
    }
}
