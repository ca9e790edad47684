//! MIME archives, as cloud-init and nodeadm read them.

/// The type of a `NodeConfig`.
pub(super) const NODE_CONFIG: &str = "application/node.eks.aws";
/// The type of a script.
pub(super) const SHELL: &str = "text/x-shellscript; charset=\"us-ascii\"";

/// What stands between the parts of an archive that is written.
const BOUNDARY: &str = "//";

/// A part of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    headers: String,
    content: String,
}

impl Part {
    /// Content of this type.
    pub(super) fn new(kind: &str, content: String) -> Self {
        Self { headers: format!("Content-Type: {kind}"), content }
    }
}

/// An archive of these parts.
pub(super) fn archive(parts: &[Part]) -> String {
    let mut text = format!("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\n\n");
    for Part { headers, content } in parts {
        text.extend(["--", BOUNDARY, "\n", headers, "\n\n", content, "\n"]);
    }
    text.extend(["--", BOUNDARY, "--\n"]);
    text
}

/// The parts of user data: those of an archive, or the whole as one of the type that `kind` tells; none of nothing.
///
/// # Errors
/// An archive does not read.
pub(super) fn parts(user_data: &str, kind: impl Fn(&str) -> &'static str) -> Result<Vec<Part>, String> {
    let text = user_data.replace('\r', "");
    let text = text.trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if !text.starts_with("MIME-Version:") && !text.starts_with("Content-Type:") {
        return Ok(vec![Part::new(kind(user_data), user_data.to_owned())]);
    }
    let wrong = |problem: &str| format!("it begins as a MIME archive and {problem}");
    let (head, body) = text.split_once("\n\n").ok_or_else(|| wrong("has no parts"))?;
    let boundary = boundary(head).ok_or_else(|| wrong("names no boundary of its parts"))?;
    let (open, close) = (format!("--{boundary}"), format!("--{boundary}--"));
    let mut parts: Vec<Vec<&str>> = Vec::new();
    for line in body.lines() {
        if line.trim_end() == close {
            break;
        } else if line.trim_end() == open {
            parts.push(Vec::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(line);
        }
    }
    let part = |lines: Vec<&str>| {
        let text = lines.join("\n");
        let (headers, content) = text.split_once("\n\n").ok_or_else(|| wrong("a part has no headers"))?;
        Ok(Part { headers: headers.to_owned(), content: content.to_owned() })
    };
    parts.into_iter().map(part).collect()
}

fn boundary(head: &str) -> Option<String> {
    // A header goes on where a line begins with a space.
    let head = head.replace("\n ", " ").replace("\n\t", " ");
    let kind = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-type:"))?;
    let is_multipart = kind.to_ascii_lowercase().contains("multipart/");
    let at = kind.to_ascii_lowercase().find("boundary=")? + "boundary=".len();
    let value = kind.get(at..)?.split(';').next()?.trim().trim_matches('"');
    (is_multipart && !value.is_empty()).then(|| value.to_owned())
}
