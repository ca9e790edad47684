//! Kubernetes quantities, as far as values of metrics need them.

/// A quantity (`64`, `1k`, `1.5Gi`, `100m`, `1e3`) as a number; `None` when it is none.
///
/// The grammar is Kubernetes' (`apimachinery/pkg/api/resource`): sign, digits, then a decimal or binary suffix or an
/// exponent.
pub(crate) fn parse(text: &str) -> Option<f64> {
    let (number, suffix) = text.split_at(number_length(text));
    // Rust also reads `inf`, `nan` and `1e3`; `number` has none of these.
    let number: f64 = number.parse().ok()?;
    let scale = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 2_f64.powi(10),
        "Mi" => 2_f64.powi(20),
        "Gi" => 2_f64.powi(30),
        "Ti" => 2_f64.powi(40),
        "Pi" => 2_f64.powi(50),
        "Ei" => 2_f64.powi(60),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            10_f64.powi(exponent)
        }
    };
    // Dividing keeps `100m` exactly a tenth, where multiplying by 1e-3 would not.
    let value = if scale < 1.0 { number / scale.recip().round() } else { number * scale };
    value.is_finite().then_some(value)
}

/// Bytes of the sign, digits and point at the start.
fn number_length(text: &str) -> usize {
    let sign = usize::from(text.starts_with(['+', '-']));
    let digits = text[sign..].find(|c: char| !c.is_ascii_digit() && c != '.');
    sign + digits.unwrap_or(text.len() - sign)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_what_kubernetes_reads() {
        for (text, wanted) in [
            ("64", Some(64.0)),
            ("2.43", Some(2.43)),
            ("1k", Some(1000.0)),
            ("1Ki", Some(1024.0)),
            ("100m", Some(0.1)),
            ("1500u", Some(0.0015)),
            ("-3", Some(-3.0)),
            ("+3", Some(3.0)),
            ("1e3", Some(1000.0)),
            ("1E3", Some(1000.0)),
            ("1E", Some(1e18)),
            ("12e-1", Some(1.2)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("NaN", None),
            ("inf", None),
            ("", None),
            ("-", None),
            ("1 k", None),
            ("1kk", None),
            ("0x10", None),
            ("1.2.3", None),
            ("abc", None),
        ] {
            assert_eq!(parse(text), wanted, "{text:?}");
        }
    }
}
