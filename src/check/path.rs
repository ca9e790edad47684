//! Where in an object something stands.

use std::fmt;

/// A path of field names and list positions, shown as the API server does: `spec.triggers[0].metadata.threshold`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<Segment>);

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A field or the key of a map.
    Key(String),
    /// A position in a list, from 0.
    Index(usize),
}

impl Path {
    /// A path of fields, written with dots; no field of ours has one in its name.
    pub fn of(fields: &str) -> Self {
        Self(fields.split('.').map(|field| Segment::Key(field.to_owned())).collect())
    }

    /// A path as it is shown, of fields and list positions.
    pub fn parse(text: &str) -> Self {
        let mut segments = Vec::new();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let mut pieces = part.split(['[', ']']).filter(|piece| !piece.is_empty());
            segments.extend(pieces.next().map(|field| Segment::Key(field.to_owned())));
            segments.extend(
                pieces.map(|piece| {
                    piece.parse().map_or_else(|_| Segment::Key(piece.to_owned()), Segment::Index)
                }),
            );
        }
        Self(segments)
    }

    /// This path and a field or key below it.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    /// This path and an element of the list there.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    /// The steps from the object's root.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if key.contains(['.', '/']) => write!(f, "[{key}]")?,
                Segment::Key(key) if i == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_as_the_api_server_does() {
        let path = Path::of("spec.triggers").index(0).key("metadata").key("threshold");
        assert_eq!(path.to_string(), "spec.triggers[0].metadata.threshold");
        let path = Path::of("metadata.annotations").key("autoscaling.keda.sh/paused");
        assert_eq!(path.to_string(), "metadata.annotations[autoscaling.keda.sh/paused]");
        assert_eq!(Path::default().to_string(), "");
        for text in ["spec.triggers[12].metadata.query", "metadata.name", "spec"] {
            assert_eq!(Path::parse(text).to_string(), text);
        }
        assert_eq!(Path::parse("spec.triggers[1].name"), Path::of("spec.triggers").index(1).key("name"));
    }
}
