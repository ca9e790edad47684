//! ResourceQuotas: room for pods that their namespace would not admit is no room.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::core::v1::ResourceQuota, apimachinery::pkg::api::resource::Quantity};

use super::scopes::{Scopes, Traits};
use crate::scheduling::Resources;

/// What a ResourceQuota leaves of what pods request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Its name.
    pub name: Arc<str>,
    /// Which pods it is about.
    scopes: Scopes,
    /// What is free, by resource, in the units of [`Resources`].
    pub free: Vec<(Box<str>, i64)>,
}

impl Quota {
    /// Reads a quota; `None` if it is not known yet what it leaves.
    pub fn read(quota: &ResourceQuota) -> Option<Self> {
        let status = quota.status.as_ref()?;
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
        let name = quota.metadata.name.as_deref().unwrap_or_default().into();
        Some(Self { name, scopes: Scopes::of(quota), free: free.collect() })
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

/// Gives a buffer what those quotas of its namespace leave that are about such pods, and takes that off them, for the buffers
/// after it.
pub fn allot(wanted: u32, (requests, pod): (&Resources, &Traits), quotas: &mut [Quota]) -> Allotment {
    let mut allotment = Allotment { replicas: wanted, by: Vec::new() };
    let mut quotas: Vec<&mut Quota> = quotas.iter_mut().filter(|quota| quota.scopes.take(pod)).collect();
    for quota in &quotas {
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
        let mut allot = |wanted| allot(wanted, (&requests, &Traits::default()), &mut quotas);
        assert_eq!(allot(4), Allotment { replicas: 4, by: vec![] });
        let second = allot(4);
        assert_eq!(second, Allotment { replicas: 1, by: vec!["cpu".into(), "pods".into()] });
        assert_eq!(allot(4).replicas, 0);
        assert_eq!(allot(0), Allotment::default());
    }

    #[test]
    fn a_quota_for_other_pods_leaves_a_buffer_alone() {
        let requests = Resources { cpu: 500, pods: 1, ..Resources::default() };
        let scoped = json!({"metadata": {"name": "q"}, "spec": {"scopes": ["PriorityClass"]},
            "status": {"hard": {"pods": "1"}}});
        let mut quotas = [Quota::read(&serde_json::from_value(scoped).unwrap()).unwrap()];
        let mut allot = |pod: &Traits| allot(3, (&requests, pod), &mut quotas).replicas;
        assert_eq!(allot(&Traits::default()), 3);
        assert_eq!(allot(&Traits { priority_class: Some("high".to_owned()), ..Traits::default() }), 1);
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
        assert_eq!(Quota::read(&ResourceQuota::default()), None, "nobody has counted yet");
    }
}
