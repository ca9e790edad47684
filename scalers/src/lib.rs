//! KEDA-compatible trigger types: one file a scaler, one line each in one table.
//!
//! A trigger goes through three forms: [`Input`] (as written, with its references resolved), typed metadata (parsed,
//! all errors together), and [`Scaler`] (asks its source). [`build`] makes the last from the first, [`check`] only
//! looks; neither does I/O. [`KINDS`] is the table.
//!
//! The crate knows neither Kubernetes clients nor the rest of the program: what scalers need of the world comes in
//! through [`Context`].

mod auth;
mod channels;
mod context;
mod docs;
mod document;
mod error;
mod exposition;
mod externalscaler;
mod http;
mod identity;
mod input;
mod kind;
mod metadata;
mod names;
mod nearest;
mod oauth;
mod promql;
mod quantity;
mod resource;
mod rules;
mod scaler;
mod selector;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod testing_grpc;
mod values;

pub use channels::Channels;
pub use context::{Cluster, Context, Observer};
pub use docs::docs_markdown;
pub use error::Error;
pub use http::{HttpClients, HttpSettings, TlsVersion};
pub use input::{DEFAULT_HTTP_TIMEOUT, Input, PodIdentity, Secret};
pub use kind::{Example, Findings, Kind, Replay, UnknownTrigger, build, check, kind, outline, replay};
pub use metadata::{Errors, Finding, Offline, Param, ParamError, Source};
pub use names::{IndexError, metric_name, normalize, without_index};
pub use nearest::nearest;
pub use scaler::{
    Metric, MetricType, Push, Range, Reading, ResourceTarget, Scaler, UnknownMetricType,
    UnsupportedMetricType, milli,
};

/// Declares the modules of the scalers and the table of their kinds, in the order of the documentation.
macro_rules! scalers {
    ($($module:ident),* $(,)?) => {
        $(mod $module;)*

        /// Every trigger type.
        pub const KINDS: &[&Kind] = &[$(&$module::KIND),*];
    };
}

scalers! {
    prometheus,
    cron,
    cpu,
    memory,
    kubernetes_workload,
    kubernetes_resource,
    metrics_api,
    external,
    external_push,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let names: Vec<_> = KINDS.iter().flat_map(|kind| kind.names).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        for kind in KINDS {
            let params: Vec<_> = kind.params.iter().flat_map(|param| param.names).collect();
            assert_eq!(
                params.iter().collect::<BTreeSet<_>>().len(),
                params.len(),
                "{} {params:?}",
                kind.name()
            );
        }
    }

    #[test]
    fn everything_is_documented() {
        for kind in KINDS {
            let (summary, _) = kind.docs.split_once("\n\n").unwrap_or_else(|| panic!("{}", kind.name()));
            assert!(summary.ends_with('.') && summary.len() < 140, "{}: {summary}", kind.name());
            for param in kind.params {
                assert!(param.docs.ends_with('.'), "{} {}: {:?}", kind.name(), param.name(), param.docs);
                assert!(!param.from.is_empty() && !param.kind.is_empty(), "{} {}", kind.name(), param.name());
            }
        }
    }

    #[test]
    fn every_example_is_right() {
        for kind in KINDS {
            let mut input = testing::input(kind.name(), kind.example.metadata);
            input.metric_type = kind.example.metric_type.map(|name| name.parse().unwrap());
            assert_eq!(check(&input, Offline::default()), Findings::default(), "{}", kind.name());
            assert!(build(&input).is_ok(), "{}", kind.name());
        }
    }

    #[test]
    fn an_unknown_type_is_named_with_the_nearest() {
        for (written, wanted) in [
            ("promethues", "unknown trigger type \"promethues\", did you mean \"prometheus\"?"),
            ("Cron", "unknown trigger type \"Cron\", did you mean \"cron\"?"),
            ("external_push", "unknown trigger type \"external_push\", did you mean \"external-push\"?"),
            ("tea-leaves", "unknown trigger type \"tea-leaves\""),
        ] {
            assert_eq!(kind(written).unwrap_err().to_string(), wanted);
            let input = testing::input(written, &[]);
            assert_eq!(check(&input, Offline::default()).errors[0].message, wanted);
            assert!(build(&input).err().unwrap().to_string().ends_with(wanted));
        }
    }

    #[test]
    fn what_cannot_be_seen_is_taken_for_right() {
        let input = testing::input(
            "metrics-api",
            &[("url", "http://api"), ("valueLocation", "a"), ("targetValue", "1"), ("authMode", "basic,tls")],
        );
        assert_eq!(check(&input, Offline::default()).errors.len(), 2);
        assert_eq!(check(&input, Offline { auth: true, env: false }), Findings::default());
    }

    #[test]
    fn a_trigger_without_its_secret_has_its_metrics_still() {
        let cx = testing::Fixture::new().context;
        let secret = Offline { auth: true, env: false };
        let metadata =
            [("serverAddress", "http://p"), ("query", "up"), ("threshold", "10"), ("authModes", "basic")];
        let metrics =
            |kind: &str, metadata: &[(&str, &str)]| outline(&testing::input(kind, metadata), secret, &cx);
        assert!(build(&testing::input("prometheus", &metadata)).is_err());
        let wanted = Metric::External { name: "prometheus".to_owned(), target_milli: 10_000 };
        assert_eq!(metrics("prometheus", &metadata), Some(vec![wanted]));
        assert_eq!(metrics("prometheus", &metadata[..2]), None, "no target");
        assert_eq!(metrics("external", &[("scalerAddress", "localhost:1")]), None, "only the process knows");
    }

    #[test]
    fn a_target_in_percent_is_for_resources_only() {
        for kind in KINDS {
            let mut input = testing::input(kind.name(), kind.example.metadata);
            input.metric_type = Some(MetricType::Utilization);
            if kind.resource {
                input.metadata.insert("value".to_owned(), "50".to_owned());
            }
            assert_eq!(build(&input).is_ok(), kind.resource, "{}", kind.name());
        }
    }
}
