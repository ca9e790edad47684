//! What a request's spec says, and what is wrong with one.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use thiserror::Error;

use super::{Class, Partial};
use crate::api::autoscaling::ProvisioningRequestSpec;

const CHECK_CAPACITY: &str = "check-capacity.autoscaling.x-k8s.io";
const BEST_EFFORT_ATOMIC: &str = "best-effort-atomic-scale-up.autoscaling.x-k8s.io";

const VALID_UNTIL: &str = "ValidUntilSeconds";
const NO_RETRY: &str = "noRetry";
const PARTIAL: &str = "partialCapacityCheck";
const INSTANCE: &str = "processorInstance";

/// So long after it was made a request that found no room fails (Cluster Autoscaler's `defaultExpirationTime`).
pub const VALID: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The most pods of one request: a count in the wrong unit must not fill the memory.
pub const MOST_PODS: u32 = 100_000;

/// Why room can be asked for by nobody.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// It names no pods.
    #[error("podSets is empty; name a PodTemplate and a count")]
    NoPodSets,
    /// A set of no pods.
    #[error("podSets[{set}].count is {count}; write 1 or more")]
    Count {
        /// Which set.
        set: usize,
        /// What it says.
        count: i32,
    },
    /// Too many pods.
    #[error("podSets count {pods} pods together; {MOST_PODS} is the most")]
    TooMany {
        /// How many.
        pods: u64,
    },
    /// The PodTemplate is not there.
    #[error(
        "there is no PodTemplate {name} in namespace {namespace}; create it, or a request with another \
         podSets[{set}].podTemplateRef.name"
    )]
    NoTemplate {
        /// Which set.
        set: usize,
        /// Where it was looked for.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl Problem {
    /// Whether it may go away: a spec never changes, a PodTemplate may follow its request.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::NoTemplate { .. })
    }
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) class: Class,
    /// Whether it is tried again when there was no room.
    pub(super) retries: bool,
    /// So long after it was made it fails.
    pub(super) valid: SignedDuration,
    /// Parameters that are left out, and why.
    pub(super) ignored: Vec<String>,
}

impl Terms {
    /// Reads a spec; `None` if somebody else answers it. `instance` is `--check-capacity-processor-instance`.
    ///
    /// Parameters that cannot be read are left out, as Cluster Autoscaler does, and named.
    pub(super) fn read(spec: &ProvisioningRequestSpec, instance: &str) -> Option<Self> {
        let (parameters, class) = (&spec.parameters, spec.provisioning_class_name.as_str());
        let meant = parameters.get(INSTANCE).map_or("", String::as_str);
        let mut ignored = Vec::new();
        let class = match class {
            CHECK_CAPACITY if meant == instance => {
                Class::CheckCapacity(read(parameters, PARTIAL, partial, &mut ignored))
            }
            // A name with the instance before it, as it was written before there was the parameter.
            _ if !instance.is_empty()
                && meant.is_empty()
                && class == format!("{instance}{CHECK_CAPACITY}") =>
            {
                Class::CheckCapacity(read(parameters, PARTIAL, partial, &mut ignored))
            }
            BEST_EFFORT_ATOMIC if instance.is_empty() => Class::BestEffortAtomic,
            _ => return None,
        };
        let own: &[&str] = match class {
            Class::CheckCapacity(_) => &[VALID_UNTIL, NO_RETRY, PARTIAL, INSTANCE],
            Class::BestEffortAtomic => &[VALID_UNTIL],
        };
        let retries = match class {
            Class::CheckCapacity(_) => !read(parameters, NO_RETRY, switch, &mut ignored).unwrap_or(false),
            Class::BestEffortAtomic => true,
        };
        let valid = read(parameters, VALID_UNTIL, seconds, &mut ignored).unwrap_or(VALID);
        let unknown = parameters.keys().filter(|name| !own.contains(&name.as_str()));
        ignored.extend(unknown.map(|name| format!("{name} means nothing to this class")));
        Some(Self { class, retries, valid, ignored })
    }
}

/// Reads a parameter; of one that cannot be read it is said what may be written.
fn read<T>(
    parameters: &BTreeMap<String, String>,
    name: &str,
    read: fn(&str) -> Result<T, &'static str>,
    ignored: &mut Vec<String>,
) -> Option<T> {
    let text = parameters.get(name)?;
    match read(text) {
        Ok(value) => Some(value),
        Err(hint) => {
            ignored.push(format!("{name} is {text:?}; write {hint}"));
            None
        }
    }
}

fn partial(text: &str) -> Result<Partial, &'static str> {
    match text {
        "bookPartial" => Ok(Partial::Book),
        "checkOnly" => Ok(Partial::CheckOnly),
        _ => Err("bookPartial or checkOnly"),
    }
}

fn switch(text: &str) -> Result<bool, &'static str> {
    text.parse().map_err(|_| "true or false")
}

fn seconds(text: &str) -> Result<SignedDuration, &'static str> {
    let seconds: u32 = text.parse().map_err(|_| "a whole number of seconds")?;
    Ok(SignedDuration::from_secs(i64::from(seconds)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn terms(class: &str, parameters: &Value, instance: &str) -> Option<Terms> {
        let spec = json!({"provisioningClassName": class, "parameters": parameters, "podSets": []});
        Terms::read(&serde_json::from_value(spec).unwrap(), instance)
    }

    #[test]
    fn a_request_is_answered_by_whom_it_is_meant_for() {
        let check = Some(Class::CheckCapacity(None));
        for (class, parameters, instance, wanted) in [
            (CHECK_CAPACITY, json!({}), "", check),
            (BEST_EFFORT_ATOMIC, json!({}), "", Some(Class::BestEffortAtomic)),
            ("queued-provisioning.gke.io", json!({}), "", None),
            (CHECK_CAPACITY, json!({"processorInstance": "a"}), "", None),
            (CHECK_CAPACITY, json!({"processorInstance": "a"}), "a", check),
            (CHECK_CAPACITY, json!({"processorInstance": "b"}), "a", None),
            (CHECK_CAPACITY, json!({}), "a", None),
            ("acheck-capacity.autoscaling.x-k8s.io", json!({}), "a", check),
            (BEST_EFFORT_ATOMIC, json!({}), "a", None),
        ] {
            let class_of = terms(class, &parameters, instance).map(|terms| terms.class);
            assert_eq!(class_of, wanted, "{class} {parameters} {instance:?}");
        }
    }

    #[test]
    fn parameters_that_cannot_be_read_are_named() {
        let good = json!({"ValidUntilSeconds": "90", "noRetry": "true", "partialCapacityCheck": "checkOnly"});
        let wanted = Terms {
            class: Class::CheckCapacity(Some(Partial::CheckOnly)),
            retries: false,
            valid: SignedDuration::from_secs(90),
            ignored: vec![],
        };
        assert_eq!(terms(CHECK_CAPACITY, &good, ""), Some(wanted));
        for (class, parameters, said) in [
            (
                BEST_EFFORT_ATOMIC,
                json!({"ValidUntilSeconds": "soon"}),
                "ValidUntilSeconds is \"soon\"; write a whole number of seconds",
            ),
            (CHECK_CAPACITY, json!({"noRetry": "yes"}), "noRetry is \"yes\"; write true or false"),
            (
                CHECK_CAPACITY,
                json!({"partialCapacityCheck": "half"}),
                "partialCapacityCheck is \"half\"; write bookPartial or checkOnly",
            ),
            (BEST_EFFORT_ATOMIC, json!({"noRetry": "true"}), "noRetry means nothing to this class"),
        ] {
            let terms = terms(class, &parameters, "").unwrap();
            assert_eq!(terms.ignored, [said], "{parameters}");
            assert_eq!((terms.retries, terms.valid), (true, VALID), "{parameters}: as if it were not there");
        }
    }
}
