//! Selectors of devices, each compiled once, with what they say of each device kept beside it.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use super::{
    expression::{Program, compile, holds},
    slice::Slice,
};

/// An expression that says of a device whether it will do.
#[derive(Clone)]
pub struct Selector {
    /// As it is written.
    pub expression: Arc<str>,
    program: Arc<OnceLock<Result<Program, String>>>,
}

/// What a selector says of a device; why it cannot be asked if it cannot.
pub(super) type Verdict = Result<bool, Arc<str>>;

/// What selectors say of the devices of a slice, by expression. Worked out when it is first asked for, and the same ever
/// after, since a slice never changes: two slices are equal whatever has been asked of them.
#[derive(Default)]
pub(super) struct Judged(RwLock<BTreeMap<Arc<str>, Arc<[Verdict]>>>);

impl Selector {
    /// A selector.
    pub fn new(expression: &str) -> Self {
        Self { expression: expression.into(), program: Arc::default() }
    }

    /// What it says of each device of a slice.
    pub(super) fn verdicts(&self, slice: &Slice) -> Arc<[Verdict]> {
        // A thread that panicked left what it had found.
        let known = slice.judged.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(verdicts) = known.get(&self.expression) {
            return verdicts.clone();
        }
        drop(known);
        let program = self.program.get_or_init(|| compile(&self.expression));
        let verdict = |device| {
            let program = program.as_ref().map_err(|error| Arc::from(error.as_str()))?;
            holds(program, device, &slice.pool.0).map_err(Arc::from)
        };
        let verdicts: Arc<[Verdict]> = slice.devices.iter().map(verdict).collect();
        let mut known = slice.judged.0.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(self.expression.clone(), verdicts.clone());
        verdicts
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Selector").field(&self.expression).finish()
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression
    }
}

impl Eq for Selector {}

impl Hash for Selector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expression.hash(state);
    }
}

impl Clone for Judged {
    fn clone(&self) -> Self {
        Self(RwLock::new(self.0.read().unwrap_or_else(PoisonError::into_inner).clone()))
    }
}

impl PartialEq for Judged {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Judged {}

impl fmt::Debug for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judged")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::devices::slice::{Attribute, Device};

    fn judge(expression: &str) -> Verdict {
        let attribute = |name: &str, value| (("gpu.test".into(), name.into()), value);
        let capacity = super::super::capacity::Capacity { value: 80 << 30, policy: None };
        let device = Device {
            attributes: [
                attribute("model", Attribute::Text("a100".into())),
                attribute("index", Attribute::Int(3)),
                attribute("healthy", Attribute::Bool(true)),
                attribute("driverVersion", Attribute::Version("1.4.2".into())),
            ]
            .into(),
            capacity: [(
                ("gpu.test".into(), "memory".into()),
                super::super::capacity::Capacity { value: (80 << 30) * 1000, ..capacity },
            )]
            .into(),
            ..Device::default()
        };
        let slice =
            Slice { pool: ("gpu.test".into(), "p".into()), devices: vec![device], ..Slice::default() };
        Selector::new(expression).verdicts(&slice)[0].clone()
    }

    #[test]
    fn expressions_say_what_kube_scheduler_says() {
        let cases = [
            ("device.driver == 'gpu.test'", true),
            ("device.attributes['gpu.test'].model == 'a100'", true),
            ("device.attributes['gpu.test'].model in ['h100', 'a100']", true),
            ("device.attributes['gpu.test'].index < 3", false),
            ("device.attributes['gpu.test'].healthy", true),
            ("has(device.attributes['gpu.test'].absent)", false),
            ("has(device.attributes['other.test'].absent)", false),
            ("'other.test' in device.attributes", false),
            ("'gpu.test' in device.attributes", true),
            ("device.attributes['gpu.test'].?absent.orValue('x') == 'x'", true),
            ("device.capacity['gpu.test'].memory.compareTo(quantity('40Gi')) >= 0", true),
            ("device.capacity['gpu.test'].memory.isLessThan(quantity('40Gi'))", false),
            ("device.capacity['gpu.test'].memory == quantity('80Gi')", true),
            ("quantity('1Gi').add(quantity('1Gi')).sub(1).asInteger() == 2147483647", true),
            ("isQuantity('x') || device.allowMultipleAllocations", false),
            ("device.attributes['gpu.test'].driverVersion.isGreaterThan(semver('1.4.0'))", true),
            ("device.attributes['gpu.test'].driverVersion.compareTo(semver('v1.5', true)) < 0", true),
            ("device.attributes['gpu.test'].driverVersion.minor() == 4", true),
            ("cel.bind(gpu, device.attributes['gpu.test'], gpu.model == 'a100' && gpu.index == 3)", true),
            ("device.attributes['gpu.test'].model.startsWith('a') && 'A'.lowerAscii() == 'a'", true),
            ("device.attributes['gpu.test'].model.matches('^a[0-9]+$')", true),
            ("device.attributes['gpu.test'].absent == 1 || true", true),
        ];
        for (expression, expected) in cases {
            assert_eq!(judge(expression), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        let cases = [
            ("device.attributes['gpu.test'].absent == 1", "No such key: absent"),
            ("device.attributes['other.test'].absent == 1", "No such key: absent"),
            ("device.driver ==", "CEL compile error"),
            ("device.driver", "is no truth value"),
            ("url('x') == 1", "url"),
            ("cel.bind(1, 2, true)", "the first argument of cel.bind is a name"),
        ];
        for (expression, error) in cases {
            let said = judge(expression).unwrap_err();
            assert!(said.contains(error), "{expression}: {said}");
        }
    }
}
