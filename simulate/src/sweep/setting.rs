//! What is swept: `--sweep key=values`, and the fields that a key stands for.

use std::str::FromStr;

use serde_json::Value;

use crate::{Input, Manifest, Problem};

/// One key with the values that it takes in turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Dimension {
    /// As the user wrote it: `threshold`, `web:max`, `ScaledObject/shop/web:spec.triggers[0].metadata.threshold`.
    pub key: String,
    /// In the order in which they were written.
    pub values: Vec<Value>,
}

/// One field of one object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    /// Such as `spec.triggers[0].metadata.threshold`.
    pub(super) path: String,
    /// How a value is written there.
    form: Form,
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    AsIs,
    /// Metadata of triggers and quantities are text, numbers too.
    Text,
    /// Seconds, where a number has no unit.
    Duration,
}

impl FromStr for Dimension {
    type Err = String;

    /// `key=values`, where values are `5,10,20` or `5..50/5` (to the end, which is included, in steps).
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, values) = text.split_once('=').ok_or_else(|| format!("{text:?} is not key=values"))?;
        let mut all = Vec::new();
        for part in values.split(',').map(str::trim) {
            match range(part)? {
                Some(numbers) => all.extend(numbers),
                None if part.is_empty() => return Err(format!("{text:?} has an empty value")),
                None => all.push(scalar(part)),
            }
        }
        Ok(Self { key: key.trim().to_owned(), values: all })
    }
}

/// The numbers of `FROM..TO/STEP`; none if it is no range.
fn range(text: &str) -> Result<Option<Vec<Value>>, String> {
    let Some((from, rest)) = text.split_once("..") else { return Ok(None) };
    let wrong = || format!("{text:?} is no range such as 5..50/5");
    let (to, step) = rest.split_once('/').unwrap_or((rest, "1"));
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    let (from, to, step) =
        number(from).zip(number(to)).zip(number(step)).map(|((a, b), c)| (a, b, c)).ok_or_else(wrong)?;
    if step <= 0.0 || to < from || (to - from) / step > 10_000.0 {
        return Err(wrong());
    }
    // Counted rather than added up, and to nine digits: 0.1 three times is 0.3.
    let numbers = (0..)
        .map(|i| from + f64::from(i) * step)
        .take_while(|number| *number <= to + step * 1e-9)
        .map(|number| scalar(&format!("{}", (number * 1e9).round() / 1e9)));
    Ok(Some(numbers.collect()))
}

/// A whole number, a number, true or false, or text.
fn scalar(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

impl Dimension {
    /// The fields of `input` that the key stands for.
    pub(super) fn fields(&self, input: &Input) -> Result<Vec<Field>, Problem> {
        let (object, field) =
            self.key.rsplit_once(':').map_or((None, self.key.as_str()), |(o, f)| (Some(o), f));
        let named = |manifest: &&Manifest| object.is_none_or(|object| is_named(manifest, object));
        if field.contains('.') {
            let object = object.ok_or_else(|| {
                Problem::new(format!("--sweep {field}: name the object: KIND/NAMESPACE/NAME:{field}"))
            })?;
            let fields: Vec<_> = input
                .manifests
                .iter()
                .filter(named)
                .map(|manifest| Field::by_path(manifest, field))
                .collect();
            if fields.is_empty() {
                return Err(Problem::new(format!("--sweep {}: the manifests hold no {object}", self.key)));
            }
            return Ok(fields);
        }
        let mut fields = Vec::new();
        for manifest in input.manifests.iter().filter(named) {
            fields.extend(Field::by_key(manifest, field)?);
        }
        match fields.as_slice() {
            [] => Err(Problem::new(format!(
                "--sweep {}: no object of the manifests has such a setting",
                self.key
            ))),
            [_, _, ..] if object.is_none() && field == "threshold" => {
                let objects: Vec<_> =
                    fields.iter().map(|field| format!("{}:threshold", field.name)).collect();
                let objects = objects.join(", ");
                Err(Problem::new(format!("--sweep threshold: several objects have one: name it: {objects}")))
            }
            _ => Ok(fields),
        }
    }
}

/// Whether `object` (`NAME`, `NAMESPACE/NAME`, `KIND/NAME` or `KIND/NAMESPACE/NAME`) is the manifest's.
fn is_named(manifest: &Manifest, object: &str) -> bool {
    let kind = |kind: &str| kind.eq_ignore_ascii_case(manifest.kind());
    match object.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name == manifest.name() && is_scaled(manifest),
        [first, name] => {
            *name == manifest.name()
                && (kind(first) || (*first == manifest.namespace() && is_scaled(manifest)))
        }
        [first, namespace, name] => {
            kind(first) && *namespace == manifest.namespace() && *name == manifest.name()
        }
        _ => false,
    }
}

/// A Deployment often has the name of its ScaledObject: a name without a kind means what has settings.
fn is_scaled(manifest: &Manifest) -> bool {
    ["ScaledObject", "HorizontalPodAutoscaler", "NodePool"].contains(&manifest.kind())
}

/// What triggers call the load that one replica is meant to take; the first that a trigger names is its threshold.
const THRESHOLDS: [&str; 15] = [
    "threshold",
    "targetValue",
    "value",
    "queueLength",
    "lagThreshold",
    "targetQueueLength",
    "targetQueryValue",
    "listLength",
    "pendingEntriesCount",
    "messageCount",
    "subscriptionSize",
    "desiredReplicas",
    "targetMetricValue",
    "queryValue",
    "unprocessedEventThreshold",
];

impl Field {
    fn new(manifest: &Manifest, path: &str, form: Form) -> Self {
        Self {
            kind: manifest.kind().to_owned(),
            namespace: manifest.namespace().to_owned(),
            name: manifest.name().to_owned(),
            path: path.to_owned(),
            form,
        }
    }

    /// A field that the user named, written as what stands there now.
    fn by_path(manifest: &Manifest, path: &str) -> Self {
        let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
        let is_text = manifest.value.pointer(&pointer).is_some_and(Value::is_string);
        let form = if is_text || path.contains(".metadata.") { Form::Text } else { Form::AsIs };
        Self::new(manifest, path, form)
    }

    /// The field that a short key stands for; none if the kind has no such setting.
    ///
    /// # Errors
    /// There is no such key.
    fn by_key(manifest: &Manifest, key: &str) -> Result<Option<Self>, Problem> {
        const BEHAVIOR: &str = "behavior.scaleDown.stabilizationWindowSeconds";
        let (scaled_object, hpa, node_pool) = match key {
            "threshold" => (threshold(manifest), hpa_target(manifest), None),
            "min" => (Some("spec.minReplicaCount".to_owned()), Some("spec.minReplicas".to_owned()), None),
            "max" => (Some("spec.maxReplicaCount".to_owned()), Some("spec.maxReplicas".to_owned()), None),
            "cooldown" => (Some("spec.cooldownPeriod".to_owned()), None, None),
            "polling" => (Some("spec.pollingInterval".to_owned()), None, None),
            "stabilization" => (
                Some(format!("spec.advanced.horizontalPodAutoscalerConfig.{BEHAVIOR}")),
                Some(format!("spec.{BEHAVIOR}")),
                None,
            ),
            "consolidateAfter" => (None, None, Some("spec.disruption.consolidateAfter".to_owned())),
            other => {
                return Err(Problem::new(format!(
                    "--sweep {other}: the keys are threshold, min, max, cooldown, stabilization, polling and \
                     consolidateAfter; any other field is KIND/NAMESPACE/NAME:PATH"
                )));
            }
        };
        let path = match manifest.kind() {
            "ScaledObject" => scaled_object,
            "HorizontalPodAutoscaler" => hpa,
            "NodePool" => node_pool,
            _ => None,
        };
        let form = match key {
            "consolidateAfter" => Form::Duration,
            "threshold" if path.as_ref().is_some_and(|path| !path.ends_with("averageUtilization")) => {
                Form::Text
            }
            _ => Form::AsIs,
        };
        Ok(path.map(|path| Self::new(manifest, &path, form)))
    }

    /// `value` as it is written into the field.
    pub(super) fn written(&self, value: &Value) -> Value {
        match (self.form, value) {
            (Form::Text, Value::Number(number)) => Value::String(number.to_string()),
            (Form::Duration, Value::Number(seconds)) => Value::String(format!("{seconds}s")),
            _ => value.clone(),
        }
    }
}

/// The threshold of the first trigger of a ScaledObject that has one.
fn threshold(manifest: &Manifest) -> Option<String> {
    let triggers = manifest.value.pointer("/spec/triggers")?.as_array()?;
    triggers.iter().enumerate().find_map(|(place, trigger)| {
        let metadata = trigger.get("metadata")?;
        let key = THRESHOLDS.iter().find(|key| metadata.get(key).is_some())?;
        Some(format!("spec.triggers[{place}].metadata.{key}"))
    })
}

/// The target of the first metric of an HPA.
fn hpa_target(manifest: &Manifest) -> Option<String> {
    let metric = manifest.value.pointer("/spec/metrics/0")?;
    ["external", "resource", "pods", "object", "containerResource"].iter().find_map(|source| {
        let target = metric.get(source)?.get("target")?;
        let key =
            ["averageValue", "value", "averageUtilization"].iter().find(|key| target.get(key).is_some())?;
        Some(format!("spec.metrics[0].{source}.target.{key}"))
    })
}

/// The input with a value in each field.
pub(super) fn applied(input: &Input, fields: &[Vec<Field>], values: &[Value]) -> Result<Input, Problem> {
    let mut world = input.clone();
    for (fields, value) in fields.iter().zip(values) {
        for field in fields {
            let object = format!("{}/{}", field.namespace, field.name);
            world.set(&field.kind, &object, &field.path, &field.written(value))?;
        }
    }
    Ok(world)
}

/// `threshold=20 max=50`.
pub(super) fn name(dimensions: &[Dimension], values: &[Value]) -> String {
    let parts: Vec<_> = dimensions
        .iter()
        .zip(values)
        .map(|(dimension, value)| format!("{}={}", dimension.key, plain(value)))
        .collect();
    parts.join(" ")
}

/// A value without the quotes of JSON.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
