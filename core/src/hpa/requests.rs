//! What a pod requests of a resource, in milli-units.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::api::resource::Quantity};
use kube::ResourceExt;

use super::{Gates, pods::TallyError};
use crate::quantity::parse_milli;

/// Of one container, of the pod as a whole if it says so, or of all its containers and sidecars.
///
/// As in Kubernetes a container without the request is an error: a part of the usage would have no counterpart.
pub(super) fn of_pod(
    pod: &core::Pod,
    container: Option<&str>,
    resource: &str,
    gates: Gates,
) -> Result<i64, TallyError> {
    let reader = Reader { pod, resource };
    match container {
        Some(container) => reader.of_container(container),
        None if gates.pod_level_resources && reader.has_pod_level_requests() => reader.of_whole(),
        None => reader
            .long_lived()
            .try_fold(0_i64, |sum, container| Ok(sum.saturating_add(reader.required(container)?))),
    }
}

struct Reader<'a> {
    pod: &'a core::Pod,
    resource: &'a str,
}

impl<'a> Reader<'a> {
    fn spec(&self) -> Option<&'a core::PodSpec> {
        self.pod.spec.as_ref()
    }

    /// Containers that run as long as the pod: its own, then its sidecars.
    fn long_lived(&self) -> impl Iterator<Item = &'a core::Container> {
        let spec = self.spec();
        let own = spec.into_iter().flat_map(|spec| &spec.containers);
        let init = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten());
        own.chain(init.filter(|container| is_sidecar(container)))
    }

    fn of_container(&self, name: &str) -> Result<i64, TallyError> {
        match self.long_lived().find(|container| container.name == name) {
            Some(container) => self.required(container),
            None => Err(TallyError::NoContainer { container: name.to_owned(), pod: self.pod.name_any() }),
        }
    }

    fn required(&self, container: &core::Container) -> Result<i64, TallyError> {
        self.requested(container)?.ok_or_else(|| TallyError::NoRequest {
            resource: self.resource.to_owned(),
            container: container.name.clone(),
            pod: self.pod.name_any(),
        })
    }

    fn requested(&self, container: &core::Container) -> Result<Option<i64>, TallyError> {
        self.milli(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
    }

    fn milli(&self, amounts: Option<&BTreeMap<String, Quantity>>) -> Result<Option<i64>, TallyError> {
        let Some(quantity) = amounts.and_then(|amounts| amounts.get(self.resource)) else { return Ok(None) };
        parse_milli(&quantity.0).map(Some).map_err(|source| TallyError::Quantity {
            resource: self.resource.to_owned(),
            pod: self.pod.name_any(),
            source,
        })
    }

    fn pod_level(&self) -> Option<&'a BTreeMap<String, Quantity>> {
        self.spec()?.resources.as_ref()?.requests.as_ref()
    }

    fn has_pod_level_requests(&self) -> bool {
        let supported = |name: &String| name == "cpu" || name == "memory" || name.starts_with("hugepages-");
        self.pod_level().is_some_and(|requests| requests.keys().any(supported))
    }

    /// The pod's own request, else the most that its containers request at a time, and the overhead of its runtime
    /// (component-helpers, `resource/helpers.go`).
    fn of_whole(&self) -> Result<i64, TallyError> {
        let request = match self.milli(self.pod_level())? {
            None => self.of_phases()?,
            own => own,
        };
        let overhead = self.milli(self.spec().and_then(|spec| spec.overhead.as_ref()))?;
        match (request, overhead) {
            (None, None) => {
                Err(TallyError::NoPodRequest { resource: self.resource.to_owned(), pod: self.pod.name_any() })
            }
            (request, overhead) => Ok(request.unwrap_or(0).saturating_add(overhead.unwrap_or(0))),
        }
    }

    /// The greater of what runs for good and what the start takes; `None` when no container says.
    fn of_phases(&self) -> Result<Option<i64>, TallyError> {
        let Some(spec) = self.spec() else { return Ok(None) };
        let mut all: Option<i64> = None;
        let mut add = |request: Option<i64>| {
            if let Some(request) = request {
                all = Some(all.unwrap_or(0).saturating_add(request));
            }
        };
        for container in self.long_lived() {
            add(self.requested(container)?);
        }
        let (mut sidecars, mut start) = (0_i64, None);
        for container in spec.init_containers.iter().flatten() {
            let Some(request) = self.requested(container)? else { continue };
            let at_a_time = sidecars.saturating_add(request);
            if is_sidecar(container) {
                sidecars = at_a_time;
            }
            start = start.max(Some(at_a_time));
        }
        Ok(all.max(start))
    }
}

fn is_sidecar(container: &core::Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}
