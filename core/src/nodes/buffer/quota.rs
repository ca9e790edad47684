//! ResourceQuotas: room for pods that their namespace would not admit is no room.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::core::v1::ResourceQuota, apimachinery::pkg::api::resource::Quantity};

use crate::scheduling::Resources;

/// What a ResourceQuota leaves of what pods request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Its name.
    pub name: Arc<str>,
    /// What is free, by resource, in the units of [`Resources`].
    pub free: Vec<(Box<str>, i64)>,
}

impl Quota {
    /// Reads a quota; `None` if it is about some pods only (scopes), since it is not known whether a buffer's would be such.
    pub fn read(quota: &ResourceQuota) -> Option<Self> {
        let scoped = quota.spec.as_ref().is_some_and(|spec| {
            spec.scopes.as_ref().is_some_and(|scopes| !scopes.is_empty()) || spec.scope_selector.is_some()
        });
        let status = quota.status.as_ref().filter(|_| !scoped)?;
        let used = |name: &String| status.used.as_ref().and_then(|used| used.get(name));
        let hard = status.hard.iter().flatten();
        let free = hard.filter_map(|(name, hard)| {
            // Of what is requested a quota has two names; limits are another matter.
            let resource = match name.as_str() {
                "count/pods" => "pods",
                limit if limit.starts_with("limits.") => return None,
                other => other.strip_prefix("requests.").unwrap_or(other),
            };
            let used = used(name).map_or(0, |used| amount(resource, used));
            Some((resource.into(), amount(resource, hard) - used))
        });
        Some(Self { name: quota.metadata.name.as_deref().unwrap_or_default().into(), free: free.collect() })
    }

    /// How many pods with such requests it admits.
    fn admits(&self, requests: &Resources) -> u32 {
        let bounds = self.free.iter().filter_map(|(name, free)| {
            let each = requests.get(name);
            (each > 0).then(|| u32::try_from(free.max(&0) / each).unwrap_or(u32::MAX))
        });
        bounds.min().unwrap_or(u32::MAX)
    }
}

/// A quantity in the unit that [`Resources`] keeps of this resource.
fn amount(resource: &str, quantity: &Quantity) -> i64 {
    Resources::from_list(&BTreeMap::from([(resource.to_owned(), quantity.clone())])).get(resource)
}

/// What quotas leave a buffer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allotment {
    /// Pods.
    pub replicas: u32,
    /// Quotas that would not admit all.
    pub by: Vec<Arc<str>>,
}

/// Gives a buffer what the quotas of its namespace leave, and takes that off them, for the buffers after it.
pub fn allot(wanted: u32, requests: &Resources, quotas: &mut [Quota]) -> Allotment {
    let mut allotment = Allotment { replicas: wanted, by: Vec::new() };
    for quota in quotas.iter() {
        let admitted = quota.admits(requests);
        if admitted < wanted {
            allotment.replicas = allotment.replicas.min(admitted);
            allotment.by.push(quota.name.clone());
        }
    }
    for (name, free) in quotas.iter_mut().flat_map(|quota| &mut quota.free) {
        *free = free.saturating_sub(requests.get(name).saturating_mul(i64::from(allotment.replicas)));
    }
    allotment
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn quota(name: &str, hard: &Value, used: &Value) -> Quota {
        let object = json!({"metadata": {"name": name}, "status": {"hard": hard, "used": used}});
        Quota::read(&serde_json::from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn buffers_share_what_quotas_leave() {
        let requests = Resources { cpu: 500, memory: 1 << 30, pods: 1, ..Resources::default() };
        let mut quotas = [
            quota("cpu", &json!({"requests.cpu": "4", "services": "2"}), &json!({"requests.cpu": "1"})),
            quota("pods", &json!({"pods": "9", "limits.cpu": "1"}), &json!({"pods": "4"})),
        ];
        assert_eq!(allot(4, &requests, &mut quotas), Allotment { replicas: 4, by: vec![] });
        let second = allot(4, &requests, &mut quotas);
        assert_eq!(second, Allotment { replicas: 1, by: vec!["cpu".into(), "pods".into()] });
        assert_eq!(allot(4, &requests, &mut quotas).replicas, 0);
        assert_eq!(allot(0, &requests, &mut quotas), Allotment::default());
    }

    #[test]
    fn names_and_units_are_those_of_quotas() {
        let free = |hard: &Value, used: &Value| quota("q", hard, used).free;
        let one = |name: &str, free: i64| vec![(Box::from(name), free)];
        assert_eq!(free(&json!({"cpu": "2"}), &json!({"cpu": "500m"})), one("cpu", 1_500));
        assert_eq!(free(&json!({"requests.cpu": "2"}), &json!({"requests.cpu": "1500m"})), one("cpu", 500));
        assert_eq!(free(&json!({"requests.memory": "1Gi"}), &json!({})), one("memory", 1 << 30));
        assert_eq!(free(&json!({"requests.nvidia.com/gpu": "1"}), &json!({})), one("nvidia.com/gpu", 1));
        assert_eq!(free(&json!({"count/pods": "3"}), &json!({"count/pods": "5"})), one("pods", -2));
        let scoped = json!({"spec": {"scopes": ["BestEffort"]}, "status": {"hard": {"pods": "0"}}});
        assert_eq!(Quota::read(&serde_json::from_value(scoped).unwrap()), None);
    }
}
