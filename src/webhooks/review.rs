//! One `AdmissionReview`: who asks what of which object, and the answer.

use bytes::Bytes;
use kube::{
    ResourceExt,
    core::{
        DynamicObject, Status,
        admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation},
        response::{StatusCause, StatusDetails},
    },
};
use serde_json::Value;

use super::{Webhooks, warnings};
use crate::check::{self, Finding, Kind, Report, World};

/// Why a body cannot be answered by an `AdmissionReview`.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReviewError {
    /// Not JSON, or not an `AdmissionReview`.
    #[error("the body is no AdmissionReview of admission.k8s.io/v1: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// An `AdmissionReview` without a request.
    #[error("the AdmissionReview has no request")]
    NoRequest,
}

impl Webhooks {
    pub(super) fn review(&self, kind: Kind, body: &[u8]) -> Result<Bytes, ReviewError> {
        let review: AdmissionReview<DynamicObject> = serde_json::from_slice(body)?;
        let request: AdmissionRequest<DynamicObject> =
            review.try_into().map_err(|_| ReviewError::NoRequest)?;
        let response = self.answer(kind, &request)?;
        Ok(serde_json::to_vec(&response.into_review())?.into())
    }

    fn answer(
        &self,
        kind: Kind,
        request: &AdmissionRequest<DynamicObject>,
    ) -> Result<AdmissionResponse, serde_json::Error> {
        let response = AdmissionResponse::from(request);
        let action = match request.operation {
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Delete | Operation::Connect => return Ok(response),
        };
        let Some(object) = &request.object else { return Ok(response) };
        let change = Change::between(request.old_object.as_ref(), object);
        if change == Change::Irrelevant {
            return Ok(response);
        }
        let mut value = serde_json::to_value(object)?;
        let namespace = request.namespace.clone().or_else(|| object.namespace()).unwrap_or_default();
        if kind.is_namespaced() {
            value["metadata"]["namespace"] = Value::String(namespace.clone());
        }
        let world = World { lookup: &*self.0.lookup, dry_run: request.dry_run, complete: true };
        let mut report = check::object(kind, &value, &self.0.schemas, &world);
        if change == Change::Metadata {
            report.soften();
        }
        if kind == Kind::ScaledObject {
            let reasons = report.errors.iter().map(|finding| finding.rule.reason());
            self.0.observer.scaled_object(&namespace, action, reasons);
        }
        if !report.errors.is_empty() {
            let count = report.errors.len();
            tracing::info!(?kind, %namespace, name = object.name_any(), action, count, "refused at admission");
        }
        Ok(judge(response, &report))
    }
}

/// What an update changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Nothing that a rule reads. A controller's label or finalizer never meets a refusal, so an object that went in
    /// unchecked, or under an older rule, can still be worked on and deleted.
    Irrelevant,
    /// Annotations, but not the spec.
    Metadata,
    /// The spec, or everything.
    Spec,
}

impl Change {
    fn between(old: Option<&DynamicObject>, new: &DynamicObject) -> Self {
        let Some(old) = old else { return Self::Spec };
        if old.data.get("spec") != new.data.get("spec") {
            Self::Spec
        } else if new.metadata.deletion_timestamp.is_some()
            || new.finalizers().len() < old.finalizers().len()
            || old.annotations() == new.annotations()
        {
            Self::Irrelevant
        } else {
            Self::Metadata
        }
    }
}

/// Puts a report into an answer: all violations in one message, one a line, each again as a cause for programs.
fn judge(mut response: AdmissionResponse, report: &Report) -> AdmissionResponse {
    let said: Vec<String> =
        report.warnings.iter().flat_map(|finding| warnings::lines(&finding.to_string())).collect();
    response.warnings = (!said.is_empty()).then_some(said);
    if !report.errors.is_empty() {
        let lines: Vec<String> = report.errors.iter().map(Finding::to_string).collect();
        response.allowed = false;
        response.result =
            Status::failure(&lines.join("\n"), "Forbidden").with_code(403).with_details(details(report));
    }
    response
}

fn details(report: &Report) -> StatusDetails {
    let causes = report.errors.iter().map(|finding| StatusCause {
        reason: finding.rule.reason().to_owned(),
        message: finding.message.clone(),
        field: finding.path.to_string(),
    });
    StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: causes.collect(),
        retry_after_seconds: 0,
    }
}
