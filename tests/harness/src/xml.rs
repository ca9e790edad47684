//! Just enough XML for answers of AWS: elements by name, without attributes.

/// The contents of the direct children `<name>` of the first element `<parent>`.
pub fn children<'a>(xml: &'a str, parent: &str, name: &str) -> Vec<&'a str> {
    content(xml, parent).map(|inside| elements(inside, name)).unwrap_or_default()
}

/// What stands between the tags of the first element `<name>`, nested ones of that name included.
pub fn content<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    elements(xml, name).into_iter().next()
}

/// The contents of all outermost elements `<name>`.
pub fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let (mut found, mut rest) = (Vec::new(), xml);
    while let Some(start) = rest.find(&open).map(|at| at + open.len()) {
        let (mut depth, mut at) = (1, start);
        while depth > 0 {
            let Some(end) = rest[at..].find(&close).map(|end| at + end) else { return found };
            depth += rest[at..end].matches(&open).count();
            depth -= 1;
            at = end + close.len();
        }
        found.push(&rest[start..at - close.len()]);
        rest = &rest[at..];
    }
    found
}

/// The text of the first element `<name>`; empty if there is none.
pub fn text<'a>(xml: &'a str, name: &str) -> &'a str {
    content(xml, name).unwrap_or_default()
}

/// The document with the text of the first `<name>` after the first `after` set to `value`.
pub fn replace_after(xml: &str, after: &str, name: &str, value: &str) -> String {
    let replaced = xml.find(after).and_then(|at| {
        let start = at + xml[at..].find(&format!("<{name}>"))? + name.len() + 2;
        let end = start + xml[start..].find(&format!("</{name}>"))?;
        Some(format!("{}{value}{}", &xml[..start], &xml[end..]))
    });
    replaced.unwrap_or_else(|| xml.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_elements_of_one_name_are_one() {
        let xml = "<R><L><m><n>1</n><m>x</m></m><m><n>2</n></m></L><m>y</m></R>";
        assert_eq!(children(xml, "L", "m"), ["<n>1</n><m>x</m>", "<n>2</n>"]);
        assert_eq!((text(xml, "n"), text(xml, "none")), ("1", ""));
        assert_eq!(
            replace_after("<a>g</a><b>1</b><a>h</a><b>2</b>", "<a>h</a>", "b", "3"),
            "<a>g</a><b>1</b><a>h</a><b>3</b>"
        );
    }
}
