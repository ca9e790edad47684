//! A runner a topic, and what they share.

mod balanced;
mod budgets;
mod drain;
mod estimator;
mod expanders;
mod fallback;
mod hpa;
mod hpa_controller;
mod instance_selection;
mod modifiers;
mod requirements;
mod scale;
mod schema;
mod similar_groups;
mod taints_hostports_volume;
mod utilization;
mod webhook;

use std::{fmt::Debug, panic::catch_unwind};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// What became of a case.
pub(crate) enum Verdict {
    Agrees,
    /// What was got, and what was wanted.
    Disagrees(String),
    /// Its part of the product is not built; the part.
    LeftOut(&'static str),
}

/// Runs a case of a topic; one that panics disagrees. `meta` is what the cases of its file share.
pub(crate) fn judge(topic: &str, case: &Value, meta: &Value) -> Verdict {
    let runner = match topic {
        "instance_selection" => {
            return catch_unwind(|| instance_selection::judge(case, meta)).unwrap_or_else(|_| panicked());
        }
        "balanced" => balanced::judge,
        "budgets" => budgets::judge,
        "hpa" => hpa_controller::judge,
        "drain" => drain::judge,
        "estimator" => estimator::judge,
        "taints_hostports_volume" => taints_hostports_volume::judge,
        "expanders" => expanders::judge,
        "keda_fallback" => fallback::judge,
        "keda_hpa" => hpa::judge,
        "keda_modifiers" => modifiers::judge,
        "keda_scale" => scale::judge,
        "keda_webhook" => webhook::judge,
        "requirements" => requirements::judge,
        "similar_groups" => similar_groups::judge,
        "utilization" => utilization::judge,
        _ => return Verdict::Disagrees("no runner knows the topic".to_owned()),
    };
    catch_unwind(|| runner(case)).unwrap_or_else(|_| panicked())
}

fn panicked() -> Verdict {
    Verdict::Disagrees("the runner panicked, see above".to_owned())
}

/// A variant that a runner does not know.
pub(crate) fn unknown_kind(case: &Value) -> Verdict {
    Verdict::Disagrees(format!("no runner knows the kind {}", case["kind"]))
}

/// The differences between what was got and what was wanted.
#[derive(Default)]
pub(crate) struct Differences(Vec<String>);

impl Differences {
    /// Notes a difference, if there is one.
    #[allow(clippy::needless_pass_by_value, reason = "literals and temporaries are what is compared")]
    pub(crate) fn same<T: PartialEq + Debug>(&mut self, what: &str, got: T, wanted: T) {
        if got != wanted {
            self.0.push(format!("{what}: got {got:?}, wanted {wanted:?}"));
        }
    }

    /// Notes what holds not.
    pub(crate) fn holds(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(what());
        }
    }

    /// The verdict over all of them.
    pub(crate) fn verdict(self) -> Verdict {
        if self.0.is_empty() { Verdict::Agrees } else { Verdict::Disagrees(self.0.join("; ")) }
    }
}

/// A part of a case, as its type; what is missing or null is the default.
pub(crate) fn read<T: DeserializeOwned + Default>(value: &Value) -> T {
    match value {
        Value::Null => T::default(),
        value => {
            serde_json::from_value(value.clone()).unwrap_or_else(|problem| panic!("{problem} in {value}"))
        }
    }
}

/// A part of a case that is an object; cases leave out a `metadata` and a `spec` that do not matter.
pub(crate) fn object<T: DeserializeOwned + Default>(value: &Value) -> T {
    let mut value = value.clone();
    for part in ["metadata", "spec"] {
        let missing = value.as_object_mut().filter(|fields| !fields.contains_key(part));
        missing.map(|fields| fields.insert(part.to_owned(), Value::Object(serde_json::Map::new())));
    }
    read(&value)
}
