//! What the API server refuses by an object's CRD before a webhook sees it.

use kube::{Resource, core::CustomResourceExt};
use serde_json::Value;

/// The one rule that the CRDs have beside their types.
const MIN_AND_MAX: &str = "!has(self.minReplicaCount) || self.minReplicaCount <= (has(self.maxReplicaCount) ? \
                           self.maxReplicaCount : 100)";

/// Paths of the fields that the schema of a kind refuses.
pub(super) fn refused<K: Resource<DynamicType = ()> + CustomResourceExt>(object: &Value) -> Vec<String> {
    let crd = serde_json::to_value(K::crd()).expect("a CRD is JSON");
    let mut refused = Vec::new();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    check(schema, &object["spec"], "spec", &mut refused);
    refused
}

fn check(schema: &Value, value: &Value, path: &str, refused: &mut Vec<String>) {
    let fits = match value {
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    refused.push(format!("{path}.{name}"));
                }
            }
            for (name, field) in fields {
                let property = &schema["properties"][name];
                let property = if property.is_null() { &schema["additionalProperties"] } else { property };
                check(property, field, &format!("{path}.{name}"), refused);
            }
            schema.is_null() || schema["type"] == "object"
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                check(&schema["items"], element, &format!("{path}[{index}]"), refused);
            }
            let enough = schema["minItems"].as_u64().is_none_or(|least| elements.len() as u64 >= least);
            schema["type"] == "array" && enough
        }
        scalar => scalar_fits(schema, scalar),
    };
    let keeps_rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten().all(|rule| {
        assert_eq!(rule["rule"], MIN_AND_MAX, "a rule that is not known here");
        min_and_max(value)
    });
    if !fits || !keeps_rules {
        refused.push(path.to_owned());
    }
}

fn scalar_fits(schema: &Value, value: &Value) -> bool {
    let of_type = match value {
        Value::String(text) => {
            let enough =
                schema["minLength"].as_u64().is_none_or(|least| text.chars().count() as u64 >= least);
            schema["type"] == "string" && enough
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            (schema["type"] == "integer" || schema["type"] == "number")
                && schema["minimum"].as_f64().is_none_or(|least| number >= least)
                && schema["maximum"].as_f64().is_none_or(|most| number <= most)
        }
        Value::Bool(_) => schema["type"] == "boolean",
        _ => true,
    };
    let of_enum = schema["enum"].as_array().is_none_or(|values| values.contains(value));
    schema.is_null() || schema["x-kubernetes-int-or-string"] == true || (of_type && of_enum)
}

fn min_and_max(spec: &Value) -> bool {
    let max = spec["maxReplicaCount"].as_i64().unwrap_or(100);
    spec["minReplicaCount"].as_i64().is_none_or(|min| min <= max)
}
