//! The rules for manifests, one engine for the admission webhooks and `tandem check`.
//!
//! An object is read against its CRD's schema, then by KEDA's own rules (`tandem_core::pods::validate`), then each of its
//! triggers by the parser of its scaler. All violations are reported together, in this order. Nothing here waits or asks:
//! what exists beside the object comes through [`Lookup`], from memory.

pub mod files;
mod finding;
pub mod manifests;
mod objects;
pub mod path;
pub mod render;
mod schema;
mod triggers;
pub mod yaml;

use std::sync::{Arc, OnceLock};

use k8s_openapi::{
    api::{autoscaling::v2::HorizontalPodAutoscaler, core::v1::LimitRange},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrBool,
    },
};
use kube::CustomResourceExt;
use serde_json::Value;
use tandem_core::{
    api::keda::{ClusterTriggerAuthentication, ScaledJob, ScaledObject, TriggerAuthentication},
    pods::workload::Workload,
};

pub use self::finding::{Finding, Report, Rule};
pub(crate) use self::objects::explained;
use self::path::Path;

/// The kinds that have rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ScaledObject`
    ScaledObject,
    /// `ScaledJob`
    ScaledJob,
    /// `TriggerAuthentication`
    TriggerAuthentication,
    /// `ClusterTriggerAuthentication`
    ClusterTriggerAuthentication,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::ScaledObject,
        Self::ScaledJob,
        Self::TriggerAuthentication,
        Self::ClusterTriggerAuthentication,
    ];

    /// The name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScaledObject => "ScaledObject",
            Self::ScaledJob => "ScaledJob",
            Self::TriggerAuthentication => "TriggerAuthentication",
            Self::ClusterTriggerAuthentication => "ClusterTriggerAuthentication",
        }
    }

    /// Whether its objects live in namespaces.
    pub fn is_namespaced(self) -> bool {
        self != Self::ClusterTriggerAuthentication
    }

    fn crd(self) -> CustomResourceDefinition {
        match self {
            Self::ScaledObject => ScaledObject::crd(),
            Self::ScaledJob => ScaledJob::crd(),
            Self::TriggerAuthentication => TriggerAuthentication::crd(),
            Self::ClusterTriggerAuthentication => ClusterTriggerAuthentication::crd(),
        }
    }
}

/// What exists beside the object that is looked at. Answers come from memory, at once.
pub trait Lookup: Send + Sync {
    /// The ScaledObjects of a namespace.
    fn scaled_objects(&self, namespace: &str) -> Vec<Arc<ScaledObject>>;
    /// The HPAs of a namespace.
    fn hpas(&self, namespace: &str) -> Vec<Arc<HorizontalPodAutoscaler>>;
    /// The LimitRanges of a namespace.
    fn limit_ranges(&self, namespace: &str) -> Vec<Arc<LimitRange>>;
    /// One Deployment.
    fn deployment(&self, namespace: &str, name: &str) -> Option<Arc<Workload>>;
    /// One StatefulSet.
    fn stateful_set(&self, namespace: &str, name: &str) -> Option<Arc<Workload>>;
    /// One TriggerAuthentication.
    fn trigger_authentication(&self, namespace: &str, name: &str) -> Option<Arc<TriggerAuthentication>>;
    /// One ClusterTriggerAuthentication.
    fn cluster_trigger_authentication(&self, name: &str) -> Option<Arc<ClusterTriggerAuthentication>>;
}

/// What an object is judged in.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// What exists beside it.
    pub lookup: &'a dyn Lookup,
    /// The object will not be stored: as in KEDA, its target need not have resource requests.
    pub dry_run: bool,
    /// What `lookup` does not hold does not exist. Of manifests that is not known: it may be in the cluster.
    pub complete: bool,
}

/// The schemas of the kinds, from their CRDs, each made when it is first needed: that of ScaledJob holds all of a pod's and
/// takes milliseconds.
#[derive(Default)]
pub struct Schemas([OnceLock<JSONSchemaProps>; Kind::ALL.len()]);

impl Schemas {
    fn of(&self, kind: Kind) -> &JSONSchemaProps {
        self.0[kind as usize].get_or_init(|| schema_of(kind))
    }
}

/// The schema of `spec`, and what every object has around it.
fn schema_of(kind: Kind) -> JSONSchemaProps {
    let version = kind.crd().spec.versions.into_iter().next();
    let mut schema = version.and_then(|version| version.schema?.open_api_v3_schema).unwrap_or_default();
    let text = JSONSchemaProps { type_: Some("string".to_owned()), ..JSONSchemaProps::default() };
    let anything = JSONSchemaProps {
        type_: Some("object".to_owned()),
        x_kubernetes_preserve_unknown_fields: Some(true),
        ..JSONSchemaProps::default()
    };
    let texts = JSONSchemaProps {
        type_: Some("object".to_owned()),
        additional_properties: Some(JSONSchemaPropsOrBool::Schema(Box::new(text.clone()))),
        ..JSONSchemaProps::default()
    };
    let properties = schema.properties.get_or_insert_default();
    for field in ["apiVersion", "kind"] {
        properties.insert(field.to_owned(), text.clone());
    }
    // The status is written by Tandem and checked by the API server.
    properties.insert("status".to_owned(), anything.clone());
    let fields = [
        ("name", text.clone()),
        ("generateName", text.clone()),
        ("namespace", text),
        ("labels", texts.clone()),
        ("annotations", texts),
    ];
    let metadata = JSONSchemaProps {
        properties: Some(fields.into_iter().map(|(field, schema)| (field.to_owned(), schema)).collect()),
        ..anything
    };
    properties.insert("metadata".to_owned(), metadata);
    schema
}

/// Everything that is wrong with an object, and what looks wrong. Does no I/O.
pub fn object(kind: Kind, value: &Value, schemas: &Schemas, world: &World<'_>) -> Report {
    let mut report = Report::default();
    schema::validate(value, schemas.of(kind), &Path::default(), &mut report);
    match kind {
        Kind::ScaledObject => objects::scaled_object(value, world, &mut report),
        Kind::ScaledJob => objects::scaled_job(value, world, &mut report),
        Kind::TriggerAuthentication | Kind::ClusterTriggerAuthentication => {
            objects::authentication(value, &mut report);
        }
    }
    report
}

#[cfg(test)]
mod tests;
