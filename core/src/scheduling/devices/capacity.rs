//! Capacity of devices that several requests share.
//!
//! Source of the rules: Kubernetes, API documentation of `CapacityRequestPolicy`.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1 as k8s;

use super::slice::{Device, amount, qualified};

/// What requests ask of capacities, in thousandths, by name as it is written.
pub type Requested = BTreeMap<Box<str>, i64>;

/// What is taken of the capacities of a device, in thousandths, by domain and name.
pub(super) type Consumed = BTreeMap<(Box<str>, Box<str>), i64>;

/// A capacity of a device, in thousandths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capacity {
    /// All of it.
    pub value: i64,
    /// What a request may take of it.
    pub policy: Option<Policy>,
}

/// What a request may take of a capacity, in thousandths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// What a request takes that does not say.
    pub default: Option<i64>,
    /// One of these alone, ascending; empty means any.
    pub values: Vec<i64>,
    /// Something between these.
    pub range: Option<Range>,
}

/// A range of amounts, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    /// The least.
    pub min: i64,
    /// The most.
    pub max: Option<i64>,
    /// Only so many steps above the least.
    pub step: Option<i64>,
}

impl Capacity {
    pub(super) fn read(capacity: &k8s::DeviceCapacity) -> Self {
        Self {
            value: amount(&capacity.value),
            policy: capacity.request_policy.as_ref().map(|policy| Policy {
                default: policy.default.as_ref().map(amount),
                values: policy.valid_values.iter().flatten().map(amount).collect(),
                range: policy.valid_range.as_ref().map(|range| Range {
                    min: amount(&range.min),
                    max: range.max.as_ref().map(amount),
                    step: range.step.as_ref().map(amount).filter(|step| *step > 0),
                }),
            }),
        }
    }

    /// What a request takes; `None` if it may not take that.
    fn taken(&self, requested: Option<i64>) -> Option<i64> {
        let Some(policy) = &self.policy else { return Some(requested.unwrap_or(self.value)) };
        let Some(requested) = requested else {
            let taken = policy.default.unwrap_or(self.value);
            return (policy.default.is_some() || policy.permits(taken)).then_some(taken);
        };
        let taken = policy.rounded(requested);
        (policy.default == Some(taken) || policy.permits(taken)).then_some(taken)
    }
}

impl Policy {
    /// The least permitted amount that is enough, if there is one.
    fn rounded(&self, requested: i64) -> i64 {
        if let Some(Range { min, step, .. }) = self.range {
            let above = requested.saturating_sub(min);
            return match step {
                _ if above < 0 => min,
                None => requested,
                Some(step) => {
                    let steps = above / step + i64::from(above % step != 0);
                    min.saturating_add(steps.saturating_mul(step))
                }
            };
        }
        self.values.iter().copied().find(|value| requested <= *value).unwrap_or(requested)
    }

    fn permits(&self, taken: i64) -> bool {
        if let Some(Range { min, max, step }) = self.range {
            return max.is_none_or(|max| taken <= max)
                && step.is_none_or(|step| taken.saturating_sub(min) % step == 0);
        }
        self.values.is_empty() || self.values.contains(&taken)
    }
}

/// What a request takes of each capacity of a device beside what `others` have; `None` if the device has too little.
pub(super) fn consumption<'a>(
    device: &Device,
    driver: &str,
    requested: &Requested,
    others: &(impl Iterator<Item = &'a Consumed> + Clone),
) -> Option<Consumed> {
    let by_name: Consumed =
        requested.iter().map(|(name, amount)| (qualified(name, driver), *amount)).collect();
    if by_name.keys().any(|name| !device.capacity.contains_key(name)) {
        return None;
    }
    let mut consumed = Consumed::new();
    for (name, capacity) in &device.capacity {
        let taken = capacity.taken(by_name.get(name).copied())?;
        let there: i64 = others.clone().filter_map(|other| other.get(name)).sum();
        if taken < 0 || there.saturating_add(taken) > capacity.value {
            return None;
        }
        consumed.insert(name.clone(), taken);
    }
    Some(consumed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(policy: Option<Policy>) -> Capacity {
        Capacity { value: 10, policy }
    }

    #[test]
    fn requests_are_rounded_up_to_what_the_policy_permits() {
        let range = |max, step| Policy {
            default: Some(2),
            range: Some(Range { min: 2, max, step }),
            ..Policy::default()
        };
        let values = Policy { default: Some(4), values: vec![4, 8], ..Policy::default() };
        let cases = [
            ("the whole without a policy", None, None, Some(10)),
            ("as it is without a policy", None, Some(3), Some(3)),
            ("the default", Some(values.clone()), None, Some(4)),
            ("the next value", Some(values.clone()), Some(5), Some(8)),
            ("beyond all values", Some(values), Some(9), None),
            ("at least the least", Some(range(None, None)), Some(1), Some(2)),
            ("as it is in the range", Some(range(None, None)), Some(7), Some(7)),
            ("the next step", Some(range(None, Some(3))), Some(6), Some(8)),
            ("a step beyond the most", Some(range(Some(7), Some(3))), Some(6), None),
        ];
        for (name, policy, requested, taken) in cases {
            assert_eq!(capacity(policy).taken(requested), taken, "{name}");
        }
    }
}
