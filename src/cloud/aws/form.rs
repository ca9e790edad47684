//! Parameters of the query APIs.

use std::fmt::Display;

/// The parameters of a call, in the order given.
#[derive(Debug, Clone, Default)]
pub struct Form {
    fields: Vec<(String, String)>,
}

impl Form {
    /// No parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a parameter.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.fields.push((name.into(), value.to_string()));
        self
    }

    /// Sets a parameter if there is a value.
    #[must_use]
    pub fn set_some(self, name: impl Into<String>, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.set(name, value),
            None => self,
        }
    }

    /// A list of EC2: `NAME.1`, `NAME.2`. With the name `NAME.member` one of Auto Scaling.
    #[must_use]
    pub fn list<T: Display>(mut self, name: &str, values: impl IntoIterator<Item = T>) -> Self {
        for (index, value) in values.into_iter().enumerate() {
            self = self.set(format!("{name}.{}", index + 1), value);
        }
        self
    }

    /// A filter of EC2, of which any value will do; several filters must all hold.
    #[must_use]
    pub fn filter<T: Display>(self, name: &str, values: impl IntoIterator<Item = T>) -> Self {
        let index = 1 + self
            .fields
            .iter()
            .filter(|(key, _)| key.starts_with("Filter.") && key.ends_with(".Name"))
            .count();
        self.set(format!("Filter.{index}.Name"), name).list(&format!("Filter.{index}.Value"), values)
    }

    /// Its fields under another name, for a parameter that has parameters.
    #[must_use]
    pub fn nest(mut self, name: &str, inner: Self) -> Self {
        self.fields.extend(inner.fields.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
        self
    }

    pub(super) fn encode(self, action: &str, version: &str) -> String {
        let mut text = format!("Action={action}&Version={version}");
        for (name, value) in self.fields {
            text.push('&');
            escape(&name, &mut text);
            text.push('=');
            escape(&value, &mut text);
        }
        text
    }
}

/// Percent-encodes all but what RFC 3986 leaves unreserved.
fn escape(value: &str, text: &mut String) {
    use std::fmt::Write;
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

/// A name as one segment of a path.
pub(super) fn segment(name: &str) -> String {
    let mut text = String::new();
    escape(name, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_filters_are_numbered() {
        let form = Form::new()
            .set("A", 1)
            .set_some("B", None::<&str>)
            .list("Names.member", ["x y", "ü"])
            .filter("tag:k", ["v"])
            .filter("tag-key", ["k/1", "k=2"])
            .nest("Data", Form::new().set("Id", "i"));
        assert_eq!(
            form.encode("Do", "2"),
            "Action=Do&Version=2&A=1&Names.member.1=x%20y&Names.member.2=%C3%BC&Filter.1.Name=tag%3Ak&\
             Filter.1.Value.1=v&Filter.2.Name=tag-key&Filter.2.Value.1=k%2F1&Filter.2.Value.2=k%3D2&Data.Id=i"
        );
        assert_eq!(segment("a/b"), "a%2Fb");
    }
}
