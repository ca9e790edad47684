//! Scales on a number in a `ConfigMap` or `Secret`.

use async_trait::async_trait;
use scalers_derive::Metadata;

use crate::context::Context;
use crate::document::{self, Found};
use crate::error::Error;
use crate::kind::{Example, Kind, Trigger};
use crate::metadata::{Finding, View};
use crate::names::normalize;
use crate::quantity;
use crate::scaler::{Metric, Reading, Scaler, milli};
use crate::values::choices;

pub(crate) const KIND: Kind = Kind::of::<Parameters>(
    &["kubernetes-resource"],
    "A number in a ConfigMap or Secret of the object's namespace.\n\n\
     The value at a key is the number itself, or a JSON or YAML document with the number in it.",
    Example {
        metadata: &[
            ("resourceKind", "ConfigMap"),
            ("resourceName", "capacity"),
            ("key", "plan.json"),
            ("format", "json"),
            ("valueLocation", "workers.wanted"),
            ("targetValue", "1"),
        ],
        metric_type: None,
    },
);

choices! {
    /// What holds the value.
    ResourceKind { ConfigMap = "ConfigMap", Secret = "Secret" }
}

choices! {
    /// How the value is written.
    Format { Number = "number", Json = "json", Yaml = "yaml" }
}

choices! {
    /// What kind of number it is.
    ValueType { Float = "float64", Integer = "int64", Quantity = "quantity" }
}

#[derive(Debug, Metadata)]
struct Parameters {
    /// What holds the value.
    resource_kind: ResourceKind,
    /// Its name.
    resource_name: String,
    /// The key in it.
    key: String,
    /// How the value at the key is written.
    #[param(default = "number")]
    format: Format,
    /// Where the number is in a document: a GJSON path in JSON, a dotted path in YAML.
    value_location: Option<String>,
    /// What kind of number it is.
    #[param(default = "float64")]
    value_type: ValueType,
    /// Target; may be 0 only where a scaling formula uses the trigger.
    target_value: f64,
    /// The trigger is active above this.
    #[param(default = "0")]
    activation_target_value: f64,
}

/// A value at a key.
struct Resource {
    namespace: String,
    parameters: Parameters,
}

impl Trigger for Parameters {
    fn build(self, view: &mut View<'_>) -> Option<Box<dyn Scaler>> {
        if milli(self.target_value) == 0 && !view.input.as_metric_source {
            view.error(Finding::of("targetValue", "targetValue must be a float greater than 0"));
        }
        match (self.format, &self.value_location) {
            (Format::Number, Some(_)) => {
                let message = "valueLocation is only supported with json or yaml format";
                view.error(Finding::of("valueLocation", message));
            }
            (Format::Json, None) => {
                view.error(Finding::of("valueLocation", "valueLocation is required for json format"));
            }
            (Format::Yaml, None) => {
                view.error(Finding::of("valueLocation", "valueLocation is required for yaml format"));
            }
            _ => {}
        }
        Some(Box::new(Resource { namespace: view.input.namespace.clone(), parameters: self }))
    }
}

#[async_trait]
impl Scaler for Resource {
    async fn metrics(&self, _: &Context) -> Result<Vec<Metric>, Error> {
        let Parameters { resource_name, key, target_value, .. } = &self.parameters;
        let name = normalize(&format!("{}-{resource_name}-{key}", self.kind().to_lowercase()));
        Ok(vec![Metric::External { name, target_milli: milli(*target_value) }])
    }

    fn activation(&self) -> f64 {
        self.parameters.activation_target_value
    }

    async fn read(&self, cx: &Context, _: &str) -> Result<Reading, Error> {
        let Parameters { resource_name, key, .. } = &self.parameters;
        let value = match self.parameters.resource_kind {
            ResourceKind::ConfigMap => cx.cluster.config_map_value(&self.namespace, resource_name, key).await?,
            ResourceKind::Secret => cx.cluster.secret_value(&self.namespace, resource_name, key).await?,
        };
        let place = || format!("{} {}/{resource_name}", self.kind(), self.namespace);
        let value = value.ok_or_else(|| Error::Cluster(format!("key {key} not found in {}", place())))?;
        let number = self.parameters.number(&value).map_err(|problem| {
            Error::Answer(format!("error getting metric value from {}, key {key}: {problem}", place()))
        })?;
        Ok(Reading::above(number, self.parameters.activation_target_value))
    }
}

impl Resource {
    fn kind(&self) -> &'static str {
        match self.parameters.resource_kind {
            ResourceKind::ConfigMap => "ConfigMap",
            ResourceKind::Secret => "Secret",
        }
    }
}

impl Parameters {
    /// The number in a value. The error does not quote a Secret's value.
    fn number(&self, value: &str) -> Result<f64, String> {
        let path = self.value_location.as_deref().unwrap_or_default();
        let found = match self.format {
            Format::Number => Found::Text(value.trim().to_owned()),
            Format::Json => document::json(value.as_bytes(), path).map_err(|problem| self.syntax(&problem))?,
            Format::Yaml => document::yaml(value.as_bytes(), path).map_err(|problem| self.syntax(&problem))?,
        };
        match found {
            Found::Number(number) => match self.value_type {
                ValueType::Integer => Ok(number.trunc()),
                ValueType::Float | ValueType::Quantity => Ok(number),
            },
            Found::Text(text) => {
                let number = match self.value_type {
                    ValueType::Integer => {
                        #[expect(clippy::cast_precision_loss, reason = "metrics are floats in the end")]
                        text.parse::<i64>().ok().map(|number| number as f64)
                    }
                    // A document's string may be a quantity; a bare value says by its type that it is.
                    ValueType::Float if self.format == Format::Number => {
                        text.parse().ok().filter(|number: &f64| number.is_finite())
                    }
                    ValueType::Float | ValueType::Quantity => quantity::parse(&text),
                };
                number.ok_or_else(|| format!("{} is not {}", self.quote(&text), self.wanted()))
            }
            Found::Other(what) => Err(format!("there is {what} at {path}, not {}", self.wanted())),
        }
    }

    /// The parser's text may hold a piece of the document.
    fn syntax(&self, problem: &document::DocumentError) -> String {
        match (self.resource_kind, problem) {
            (ResourceKind::Secret, document::DocumentError::Syntax { format, .. }) => {
                format!("the value is not {format}")
            }
            _ => problem.to_string(),
        }
    }

    fn quote(&self, text: &str) -> String {
        match self.resource_kind {
            ResourceKind::ConfigMap => format!("{text:?}"),
            ResourceKind::Secret => "the value".to_owned(),
        }
    }

    fn wanted(&self) -> &'static str {
        match self.value_type {
            ValueType::Float => "a number",
            ValueType::Integer => "a whole number",
            ValueType::Quantity => "a quantity",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, World, input};

    async fn read(kind: &'static str, value: &str, more: &[(&str, &str)]) -> Result<Reading, String> {
        let data = [("k.y".to_owned(), value.to_owned())].into();
        let values = [((kind, "shop".to_owned(), "res".to_owned()), data)].into();
        let fixture = Fixture::of(World { values, ..World::default() });
        let mut metadata =
            vec![("resourceKind", kind), ("resourceName", "res"), ("key", "k.y"), ("targetValue", "10")];
        metadata.extend(more);
        let scaler = crate::build(&input("kubernetes-resource", &metadata)).unwrap();
        scaler.read(&fixture.context, "").await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn values_are_read_by_format_and_type() {
        let json = [("format", "json"), ("valueLocation", "a.b")];
        let yaml = [("format", "yaml"), ("valueLocation", "a.b")];
        for (value, more, wanted) in [
            ("12.5\n", vec![], Some(12_500)),
            ("12", vec![("valueType", "int64")], Some(12_000)),
            ("12.5", vec![("valueType", "int64")], None),
            ("2k", vec![("valueType", "quantity")], Some(2_000_000)),
            ("2k", vec![], None),
            (r#"{"a":{"b":7}}"#, json.to_vec(), Some(7_000)),
            (r#"{"a":{"b":"7k"}}"#, json.to_vec(), Some(7_000_000)),
            (r#"{"a":{"b":true}}"#, json.to_vec(), None),
            (r#"{"a":1}"#, json.to_vec(), None),
            ("a: {b: 7}", yaml.to_vec(), Some(7_000)),
            ("a: {b: 7.9}", [&yaml[..], &[("valueType", "int64")]].concat(), Some(7_000)),
            ("a: [", yaml.to_vec(), None),
        ] {
            let got = read("ConfigMap", value, &more).await.ok().map(|reading| reading.milli);
            assert_eq!(got, wanted, "{value} {more:?}");
        }
    }

    #[tokio::test]
    async fn errors_name_the_place_and_never_a_secret() {
        for (kind, value, more, wanted) in [
            ("ConfigMap", "many", vec![], "error getting metric value from ConfigMap shop/res, key k.y: \"many\" is not a number"),
            ("Secret", "hunter2", vec![], "error getting metric value from Secret shop/res, key k.y: the value is not a number"),
            (
                "Secret",
                "hunter2",
                vec![("format", "json"), ("valueLocation", "a")],
                "error getting metric value from Secret shop/res, key k.y: the value is not JSON",
            ),
            ("Secret", "1", vec![("key", "other")], "key other not found in Secret shop/res"),
            ("Secret", "1", vec![("resourceName", "gone")], "Secret shop/gone not found"),
        ] {
            assert_eq!(read(kind, value, &more).await.unwrap_err(), wanted);
        }
    }

    #[tokio::test]
    async fn the_name_spells_the_place() {
        let metadata =
            [("resourceKind", "Secret"), ("resourceName", "my-secret"), ("key", "a.b"), ("targetValue", "0.5")];
        let scaler = crate::build(&input("kubernetes-resource", &metadata)).unwrap();
        let metrics = scaler.metrics(&Fixture::new().context).await.unwrap();
        let name = "secret-my-secret-a-b".to_owned();
        assert_eq!(metrics, [Metric::External { name, target_milli: 500 }]);
    }

    #[test]
    fn metadata_is_refused_where_keda_refuses_it() {
        let base = [("resourceKind", "Secret"), ("resourceName", "s"), ("key", "k"), ("targetValue", "10")];
        for (more, fits) in [
            (vec![], true),
            (vec![("format", "json"), ("valueLocation", "a")], true),
            (vec![("resourceKind", "Pod")], false),
            (vec![("resourceName", "")], false),
            (vec![("key", "")], false),
            (vec![("targetValue", "0")], false),
            (vec![("targetValue", "x")], false),
            (vec![("format", "json")], false),
            (vec![("format", "toml"), ("valueLocation", "a")], false),
            (vec![("valueLocation", "a")], false),
            (vec![("valueType", "string")], false),
        ] {
            let metadata = [&base[..], &more].concat();
            assert_eq!(crate::build(&input("kubernetes-resource", &metadata)).is_ok(), fits, "{more:?}");
        }
    }
}
