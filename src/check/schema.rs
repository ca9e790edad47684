//! Reads an object against the schema of its CRD: everything that is missing, of the wrong type, out of range or
//! unknown, together, each with its path.
//!
//! The API server does the same with the same schema; here it serves manifests that have not been near one, and it
//! names what it saw, where the type of a Rust struct would stop at the first fault and name no place.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use scalers::nearest;
use serde_json::{Map, Value};

use super::{Finding, Report, Rule, path::Path};

/// Adds what is wrong with `value` to `report`.
pub(super) fn validate(value: &Value, schema: &JSONSchemaProps, path: &Path, report: &mut Report) {
    if !has_type(value, schema) {
        report.errors.push(wrong_type(value, schema, path));
        return;
    }
    match value {
        Value::Object(fields) => validate_fields(fields, schema, path, report),
        Value::Array(elements) => validate_elements(elements, schema, path, report),
        Value::String(text) => validate_text(text, schema, path, report),
        Value::Number(_) => validate_range(value, schema, path, report),
        Value::Bool(_) | Value::Null => {}
    }
}

fn has_type(value: &Value, schema: &JSONSchemaProps) -> bool {
    if schema.x_kubernetes_int_or_string == Some(true) {
        return value.is_string() || value.is_i64();
    }
    match schema.type_.as_deref() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
        }
        Some("number") => value.is_number(),
        _ => true,
    }
}

fn wrong_type(value: &Value, schema: &JSONSchemaProps, path: &Path) -> Finding {
    let wanted = match schema.type_.as_deref() {
        _ if schema.x_kubernetes_int_or_string == Some(true) => "a string or an integer",
        Some("object") => "a map",
        Some("array") => "a list",
        Some("integer") => "an integer",
        Some("number") => "a number",
        Some("boolean") => "a boolean",
        _ => "a string",
    };
    let finding = Finding::new(Rule::Schema, path, format!("must be {wanted}, not {}", describe(value)));
    match (schema.type_.as_deref(), value) {
        (Some("string"), Value::Number(_) | Value::Bool(_)) => {
            finding.hint(format!("put it in quotes: \"{value}\""))
        }
        (Some("integer" | "number" | "boolean"), Value::String(text)) if is_literal(text, schema) => {
            finding.hint(format!("write it without quotes: {text}"))
        }
        (Some("array"), Value::Object(_)) => finding.hint("begin each element with \"- \""),
        _ => finding,
    }
}

/// Whether the text would be right if it had no quotes.
fn is_literal(text: &str, schema: &JSONSchemaProps) -> bool {
    serde_json::from_str(text).is_ok_and(|value: Value| has_type(&value, schema))
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("the boolean {value}"),
        Value::Number(value) => format!("the number {value}"),
        Value::String(value) => format!("the string {value:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
    }
}

fn validate_fields(fields: &Map<String, Value>, schema: &JSONSchemaProps, path: &Path, report: &mut Report) {
    // The API server drops a null before it looks: it is no value.
    let present = |name: &str| fields.get(name).is_some_and(|value| !value.is_null());
    for name in schema.required.iter().flatten().filter(|name| !present(name)) {
        report.errors.push(Finding::new(Rule::Schema, &path.key(name), "is missing"));
    }
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let property = schema.properties.as_ref().and_then(|properties| properties.get(name));
        match (property, &schema.additional_properties) {
            (Some(property), _) => validate(value, property, &path.key(name), report),
            (None, Some(JSONSchemaPropsOrBool::Schema(any))) => validate(value, any, &path.key(name), report),
            (None, Some(JSONSchemaPropsOrBool::Bool(true))) => {}
            _ if schema.x_kubernetes_preserve_unknown_fields == Some(true) => {}
            _ => report.warnings.push(unknown_field(name, schema, path)),
        }
    }
}

fn unknown_field(name: &str, schema: &JSONSchemaProps, path: &Path) -> Finding {
    let finding =
        Finding::new(Rule::UnknownField, &path.key(name), format!("unknown field {name:?} is ignored"));
    let known = schema.properties.iter().flatten().map(|(known, _)| known.as_str());
    match nearest(name, known).first() {
        Some(near) => finding.hint(format!("did you mean {near:?}?")),
        None => finding,
    }
}

fn validate_elements(elements: &[Value], schema: &JSONSchemaProps, path: &Path, report: &mut Report) {
    if let Some(least) = schema.min_items.and_then(|least| usize::try_from(least).ok())
        && elements.len() < least
    {
        let message = format!("must have at least {least} element{}", if least == 1 { "" } else { "s" });
        report.errors.push(Finding::new(Rule::Schema, path, message));
    }
    if let Some(JSONSchemaPropsOrArray::Schema(element)) = &schema.items {
        for (index, value) in elements.iter().enumerate() {
            validate(value, element, &path.index(index), report);
        }
    }
}

fn validate_text(text: &str, schema: &JSONSchemaProps, path: &Path, report: &mut Report) {
    let choices: Vec<&str> = schema.enum_.iter().flatten().filter_map(|choice| choice.0.as_str()).collect();
    if !choices.is_empty() && !choices.contains(&text) {
        let message = format!("must be one of {}, not {text:?}", choices.join(", "));
        let finding = Finding::new(Rule::Schema, path, message);
        report.errors.push(match nearest(text, choices.into_iter()).first() {
            Some(near) => finding.hint(format!("did you mean {near:?}?")),
            None => finding,
        });
    }
    if text.is_empty() && schema.min_length.is_some_and(|least| least > 0) {
        report.errors.push(Finding::new(Rule::Schema, path, "must not be empty"));
    }
}

fn validate_range(value: &Value, schema: &JSONSchemaProps, path: &Path, report: &mut Report) {
    let Some(number) = value.as_f64() else { return };
    // What a Go or Rust int32 holds; the API server reads the format the same way.
    let widest =
        (schema.format.as_deref() == Some("int32")).then_some((f64::from(i32::MIN), f64::from(i32::MAX)));
    let least = schema.minimum.or(widest.map(|(least, _)| least));
    let most = schema.maximum.or(widest.map(|(_, most)| most));
    let bound = match (least, most) {
        (Some(least), _) if number < least => format!("must be at least {least}, not {value}"),
        (_, Some(most)) if number > most => format!("must be at most {most}, not {value}"),
        _ => return,
    };
    report.errors.push(Finding::new(Rule::Schema, path, bound));
}
