//! Flags of the election, under KEDA's names and under Cluster Autoscaler's.

use std::{fmt, time::Duration};

use clap::Args;

use super::nodes::duration;

/// Flags of the election; those of either program may be given.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::struct_field_names, reason = "the flags are called so")]
pub struct ElectionArgs {
    /// Name of the Lease [default: operator.keda.sh].
    #[arg(long)]
    leader_election_id: Option<String>,
    /// How long a Lease holds without renewal [default: 15s].
    #[arg(long, env = "KEDA_OPERATOR_LEADER_ELECTION_LEASE_DURATION", value_parser = humantime::parse_duration)]
    leader_election_lease_duration: Option<Duration>,
    /// How long the leader tries to renew before it stops writing [default: 10s].
    #[arg(long, env = "KEDA_OPERATOR_LEADER_ELECTION_RENEW_DEADLINE", value_parser = humantime::parse_duration)]
    leader_election_renew_deadline: Option<Duration>,
    /// How long a replica that failed to take part in the election waits before it tries again [default: 2s].
    #[arg(long, env = "KEDA_OPERATOR_LEADER_ELECTION_RETRY_PERIOD", value_parser = humantime::parse_duration)]
    leader_election_retry_period: Option<Duration>,
    /// As --leader-election-id.
    #[arg(long)]
    leader_elect_resource_name: Option<String>,
    /// Namespace of the Lease [default: that of this process].
    #[arg(long)]
    leader_elect_resource_namespace: Option<String>,
    /// As --leader-election-lease-duration.
    #[arg(long, value_parser = duration)]
    leader_elect_lease_duration: Option<Duration>,
    /// As --leader-election-renew-deadline.
    #[arg(long, value_parser = duration)]
    leader_elect_renew_deadline: Option<Duration>,
    /// As --leader-election-retry-period.
    #[arg(long, value_parser = duration)]
    leader_elect_retry_period: Option<Duration>,
}

/// What the flags come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Name of the Lease.
    pub lease: String,
    /// Its namespace, if it is not that of this process.
    pub namespace: Option<String>,
    /// How long it holds without renewal.
    pub duration: Duration,
    /// How long the leader tries to renew it.
    pub renew_deadline: Duration,
    /// Between two tries to take part.
    pub retry: Duration,
}

/// One thing under two names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--{one} is {first} and --{other} is {second}, and they mean the same; give one of them")]
pub struct GivenTwice {
    one: &'static str,
    first: String,
    other: &'static str,
    second: String,
}

impl ElectionArgs {
    /// What they come to.
    ///
    /// # Errors
    /// One thing is given under two names with different values.
    pub fn terms(&self) -> Result<Terms, GivenTwice> {
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Ok(Terms {
            lease: either(
                ("leader-election-id", text(&self.leader_election_id)),
                ("leader-elect-resource-name", text(&self.leader_elect_resource_name)),
                String::clone,
            )?
            .unwrap_or_else(|| "operator.keda.sh".to_owned()),
            namespace: text(&self.leader_elect_resource_namespace),
            duration: span(
                ("leader-election-lease-duration", self.leader_election_lease_duration),
                ("leader-elect-lease-duration", self.leader_elect_lease_duration),
            )?
            .unwrap_or(Duration::from_secs(15)),
            renew_deadline: span(
                ("leader-election-renew-deadline", self.leader_election_renew_deadline),
                ("leader-elect-renew-deadline", self.leader_elect_renew_deadline),
            )?
            .unwrap_or(Duration::from_secs(10)),
            retry: span(
                ("leader-election-retry-period", self.leader_election_retry_period),
                ("leader-elect-retry-period", self.leader_elect_retry_period),
            )?
            .unwrap_or(Duration::from_secs(2)),
        })
    }
}

/// A flag and its value, if it was given.
type Given<T> = (&'static str, Option<T>);

fn span(one: Given<Duration>, other: Given<Duration>) -> Result<Option<Duration>, GivenTwice> {
    either(one, other, |span| humantime::format_duration(*span))
}

fn either<T: PartialEq, D: fmt::Display>(
    (one, first): Given<T>,
    (other, second): Given<T>,
    show: impl Fn(&T) -> D,
) -> Result<Option<T>, GivenTwice> {
    match (first, second) {
        (Some(first), Some(second)) if first != second => {
            Err(GivenTwice { one, first: show(&first).to_string(), other, second: show(&second).to_string() })
        }
        (first, second) => Ok(first.or(second)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        election: ElectionArgs,
    }

    fn terms(flags: &[&str]) -> Result<Terms, GivenTwice> {
        Flags::parse_from(["tandem"].iter().chain(flags)).election.terms()
    }

    #[test]
    fn either_programs_flags_say_the_same() {
        let [default, keda, autoscaler] = [
            &[][..],
            &[
                "--leader-election-id=l",
                "--leader-election-lease-duration=1m",
                "--leader-election-renew-deadline=40s",
                "--leader-election-retry-period=5s",
            ],
            &[
                "--leader-elect-resource-name=l",
                "--leader-elect-lease-duration=1m0s",
                "--leader-elect-renew-deadline=40s",
                "--leader-elect-retry-period=5s",
            ],
        ]
        .map(|flags| terms(flags).unwrap());
        assert_eq!((default.lease.as_str(), default.duration.as_secs()), ("operator.keda.sh", 15));
        assert_eq!((default.renew_deadline.as_secs(), default.retry.as_secs()), (10, 2));
        assert_eq!((keda.lease.as_str(), keda.duration.as_secs()), ("l", 60));
        assert_eq!((keda.renew_deadline.as_secs(), keda.retry.as_secs()), (40, 5));
        assert_eq!(keda, autoscaler);
        let elsewhere = terms(&["--leader-elect-resource-namespace=ns"]).unwrap();
        assert_eq!(elsewhere.namespace.as_deref(), Some("ns"));
        assert_eq!(terms(&["--leader-elect-resource-namespace="]).unwrap(), default);
    }

    #[test]
    fn both_may_be_given_if_they_agree() {
        let both = |one: &str| {
            terms(&[&format!("--leader-election-lease-duration={one}"), "--leader-elect-lease-duration=1m"])
        };
        assert_eq!(both("60s").unwrap().duration.as_secs(), 60);
        let wanted = "--leader-election-lease-duration is 15s and --leader-elect-lease-duration is 1m, and they mean \
                      the same; give one of them";
        assert_eq!(both("15s").unwrap_err().to_string(), wanted, "even if it is the default");
        let names = terms(&["--leader-election-id=a", "--leader-elect-resource-name=b"]).unwrap_err();
        assert!(names.to_string().starts_with("--leader-election-id is a"), "{names}");
    }
}
