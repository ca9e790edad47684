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
mod scaler;
mod schedule;
mod selector;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod testing_grpc;
mod values;

pub use channels::Channels;
pub use context::{Cluster, Context};
pub use error::Error;
pub use http::HttpClients;
pub use input::{DEFAULT_HTTP_TIMEOUT, Input, PodIdentity, Secret};
pub use kind::{Example, Findings, Kind, UnknownTrigger, build, check, kind};
pub use metadata::{Errors, Finding, Offline, Param, ParamError, Source};
pub use names::{IndexError, metric_name, normalize, without_index};
pub use nearest::nearest;
pub use scaler::{
    Metric, MetricType, Push, Reading, ResourceTarget, Scaler, UnknownMetricType, UnsupportedMetricType,
    milli,
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
