//! Reading answers: XML of the query APIs, and refusals of all of them.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};

/// Why a service refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Its code.
    pub(super) code: String,
    /// Its words.
    pub(super) message: String,
}

/// Characters of an answer that is no refusal of AWS that are quoted, a proxy's page say.
const QUOTED: usize = 200;

/// Reads an answer of a query API; where the result has an element of its own (`…Result`), that.
pub(super) fn xml<T: DeserializeOwned>(body: &[u8], action: &str) -> Result<T, String> {
    let text = std::str::from_utf8(body).map_err(|error| format!("the answer is not UTF-8: {error}"))?;
    let (open, close) = (format!("<{action}Result>"), format!("</{action}Result>"));
    let result = text.find(&open).zip(text.rfind(&close));
    let element = result.map_or(text, |(from, to)| &text[from..to + close.len()]);
    quick_xml::de::from_str(element).map_err(|error| format!("the answer does not read: {error}"))
}

/// Reads a refusal, in XML or JSON; `kind` is what the header says of it.
pub(super) fn failure(body: &[u8], kind: Option<&str>, status: u16) -> Failure {
    let text = String::from_utf8_lossy(body);
    let failure =
        if text.trim_start().starts_with('<') { xml_failure(&text) } else { json_failure(&text, kind) };
    failure.unwrap_or_else(|| Failure {
        code: format!("HTTP {status}"),
        message: text.trim().chars().take(QUOTED).collect(),
    })
}

fn xml_failure(text: &str) -> Option<Failure> {
    #[derive(Deserialize)]
    struct Refusal {
        #[serde(rename = "Error")]
        error: Option<Problem>,
        #[serde(rename = "Errors")]
        errors: Option<Problems>,
    }
    #[derive(Deserialize)]
    struct Problems {
        #[serde(rename = "Error")]
        error: Problem,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Problem {
        code: String,
        #[serde(default)]
        message: String,
    }
    let refusal: Refusal = quick_xml::de::from_str(text).ok()?;
    let problem = refusal.error.or(refusal.errors.map(|errors| errors.error))?;
    Some(Failure { code: problem.code, message: problem.message })
}

fn json_failure(text: &str, kind: Option<&str>) -> Option<Failure> {
    #[derive(Deserialize)]
    struct Refusal {
        #[serde(rename = "__type")]
        kind: Option<String>,
        message: Option<String>,
        /// Some services write it so, and some both.
        #[serde(rename = "Message")]
        capital: Option<String>,
    }
    let refusal: Refusal = serde_json::from_str(text).ok()?;
    let kind = refusal.kind.as_deref().or(kind)?;
    // `com.amazonaws.sqs#QueueDoesNotExist` and `ResourceNotFoundException:http://…` name what lies between.
    let code = kind.rsplit('#').next()?.split(':').next()?;
    Some(Failure { code: code.to_owned(), message: refusal.message.or(refusal.capital).unwrap_or_default() })
}

/// A list of EC2: `<names><item>…</item></names>`.
pub(super) fn items<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    struct List<T> {
        #[serde(default = "Vec::new")]
        item: Vec<T>,
    }
    List::deserialize(from).map(|list| list.item)
}

/// A list of Auto Scaling: `<Names><member>…</member></Names>`.
pub(super) fn members<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    struct List<T> {
        #[serde(default = "Vec::new")]
        member: Vec<T>,
    }
    List::deserialize(from).map(|list| list.member)
}

/// An answer whose content nobody reads.
#[derive(Debug, Deserialize)]
pub(super) struct Ignored {}

/// What leads to the next page.
pub(super) fn next(token: Option<String>) -> Option<String> {
    token.filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_refusal_is_read() {
        for (body, kind, code, message) in [
            (
                "<Response><Errors><Error><Code>InvalidInstanceID.NotFound</Code><Message>no &lt;i-1&gt;</Message></Error>\
                 </Errors><RequestID>r</RequestID></Response>",
                None,
                "InvalidInstanceID.NotFound",
                "no <i-1>",
            ),
            (
                "<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><Error><Type>Sender</Type>\
                 <Code>ValidationError</Code><Message>m</Message></Error><RequestId>r</RequestId></ErrorResponse>",
                None,
                "ValidationError",
                "m",
            ),
            (
                r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"gone","Message":"gone"}"#,
                None,
                "QueueDoesNotExist",
                "gone",
            ),
            (
                r#"{"Message":"who?"}"#,
                Some("AccessDeniedException:http://x"),
                "AccessDeniedException",
                "who?",
            ),
            ("<html>bad gateway</html>", None, "HTTP 502", "<html>bad gateway</html>"),
            ("", None, "HTTP 502", ""),
        ] {
            let wanted = Failure { code: code.to_owned(), message: message.to_owned() };
            assert_eq!(failure(body.as_bytes(), kind, 502), wanted, "{body}");
        }
    }

    #[test]
    fn lists_may_be_empty_or_absent() {
        #[derive(Deserialize, Debug, PartialEq)]
        struct Lists {
            #[serde(default, deserialize_with = "items")]
            a: Vec<String>,
            #[serde(default, deserialize_with = "members")]
            b: Vec<u32>,
        }
        for (body, a, b) in [
            ("<R><a/></R>", vec![], vec![]),
            ("<R><a><item>x</item><item>y</item></a><b><member>1</member></b></R>", vec!["x", "y"], vec![1]),
            (
                "<DoResponse><DoResult><b><member>2</member></b></DoResult><M><I>1</I></M></DoResponse>",
                vec![],
                vec![2],
            ),
        ] {
            let lists: Lists = xml(body.as_bytes(), "Do").unwrap();
            assert_eq!(lists, Lists { a: a.into_iter().map(str::to_owned).collect(), b }, "{body}");
        }
        assert!(xml::<Lists>(b"<R><a>", "Do").unwrap_err().contains("does not read"));
    }
}
