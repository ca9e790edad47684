//! The commands that apply a setting to a live cluster.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::setting::Field;

/// One command an object for what lies in maps, and one for what lies in lists: a merge patch would replace a whole list.
pub(super) fn commands(fields: &[Vec<Field>], values: &[Value]) -> Vec<String> {
    let mut objects: BTreeMap<(&str, &str, &str), (Value, Vec<Value>)> = BTreeMap::new();
    for (fields, value) in fields.iter().zip(values) {
        for field in fields {
            let (merge, operations) =
                objects.entry((&field.kind, &field.namespace, &field.name)).or_default();
            let value = field.written(value);
            if field.path.contains('[') {
                operations.push(json!({ "op": "replace", "path": pointer(&field.path), "value": value }));
            } else {
                place(merge, &field.path, value);
            }
        }
    }
    let mut commands = Vec::new();
    for ((kind, namespace, name), (merge, operations)) in objects {
        // Node pools belong to no namespace.
        let namespace = if kind == "NodePool" { String::new() } else { format!(" -n {namespace}") };
        let kind = kind.to_lowercase();
        let command = |form, patch: &Value| {
            format!("kubectl patch {kind} {name}{namespace} --type {form} -p {}", quoted(patch))
        };
        commands.extend((!merge.is_null()).then(|| command("merge", &merge)));
        commands.extend((!operations.is_empty()).then(|| command("json", &json!(operations))));
    }
    commands
}

/// `spec.triggers[0].metadata.threshold` as a JSON pointer.
fn pointer(path: &str) -> String {
    let parts = path.split(['.', '[']).map(|part| part.trim_end_matches(']'));
    parts.fold(String::new(), |pointer, part| pointer + "/" + &part.replace('~', "~0").replace('/', "~1"))
}

/// Sets a field of nested maps.
fn place(mut map: &mut Value, path: &str, value: Value) {
    for part in path.split('.') {
        if map.is_null() {
            *map = json!({});
        }
        map = &mut map[part];
    }
    *map = value;
}

/// For a shell.
fn quoted(patch: &Value) -> String {
    format!("'{}'", patch.to_string().replace('\'', r"'\''"))
}
