//! How deep an expression is nested, told before anything recurses over it.

/// Deepest nesting of a selector that is compiled. The parser and the evaluator recurse, a stack that overflows ends the
/// process, and whoever may make a claim writes selectors. Those in use have ten levels at most.
pub(super) const MAX_DEPTH: usize = 20;

/// Levels that a bracket counts for: in it the parser goes through every precedence again.
const BRACKET: usize = 2;

/// At least the depth of an expression's syntax tree, but for `&&` and `||`, whose chains are kept in balance.
///
/// Each operator, selection, index or call that a part of an expression stands behind is a level. A bracket is [`BRACKET`].
pub(super) fn depth(expression: &str) -> usize {
    let mut rest = expression;
    // Levels of each open bracket since its last comma, `&&` or `||`.
    let mut levels = vec![0_usize];
    let mut deepest = 0;
    while let Some(first) = rest.chars().next() {
        let (token, after) = rest.split_at(token(rest));
        rest = after;
        match first {
            '(' | '[' | '{' => levels.push(BRACKET),
            ')' | ']' | '}' => {
                levels.pop();
                deepen(&mut levels);
            }
            ',' => reset(&mut levels),
            _ if token == "&&" || token == "||" => reset(&mut levels),
            '.' | '+' | '-' | '*' | '/' | '%' | '<' | '>' | '=' | '!' | '?' | ':' => deepen(&mut levels),
            _ if token == "in" => deepen(&mut levels),
            _ => {}
        }
        deepest = deepest.max(levels.iter().sum());
    }
    deepest
}

fn deepen(levels: &mut Vec<usize>) {
    match levels.last_mut() {
        Some(level) => *level += 1,
        None => levels.push(1),
    }
}

fn reset(levels: &mut [usize]) {
    let is_outermost = levels.len() == 1;
    if let Some(level) = levels.last_mut() {
        *level = if is_outermost { 0 } else { BRACKET };
    }
}

/// The length of the first token in bytes: a string, a word or number, an operator.
fn token(text: &str) -> usize {
    let word = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let behind = &text[word..];
    let is_prefix = word <= 2 && text[..word].chars().all(|c| "rRbB".contains(c));
    if is_prefix && behind.starts_with(['"', '\'']) {
        return word + string(behind, text[..word].contains(['r', 'R']));
    }
    if word > 0 {
        return word;
    }
    if ["&&", "||", "==", "!=", "<=", ">="].iter().any(|operator| text.starts_with(operator)) {
        return 2;
    }
    text.chars().next().map_or(1, char::len_utf8)
}

/// The length of a string in bytes, with its quotes, one or three on each side. In a raw one nothing is escaped.
fn string(text: &str, raw: bool) -> usize {
    let quote = &text[..1];
    let quote = if text.starts_with(&quote.repeat(3)) { &text[..3] } else { quote };
    let mut at = quote.len();
    while let Some(next) = text[at..].chars().next() {
        if text[at..].starts_with(quote) {
            return at + quote.len();
        }
        at += next.len_utf8();
        if next == '\\' && !raw {
            at += text[at..].chars().next().map_or(0, char::len_utf8);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths() {
        for (expression, levels) in [
            ("", 0),
            ("true", 0),
            ("device.driver == 'gpu.example.com'", 2),
            (r#"device.attributes["a.b.c.d"].model == "x" && device.capacity["g"].memory > 1"#, 4),
            ("((1))", 4),
            ("f(a, b, c.d)", 3),
            ("1 + 1 + 1", 2),
            ("x in [1, 2]", 3),
            (r"'a\'.b.c' == 'x'", 1),
            (r"r'\' == '(('", 1),
            (r#""""a"."b((""" == 'x'"#, 1),
            (")))", 1),
        ] {
            assert_eq!(depth(expression), levels, "{expression}");
        }
    }

    #[test]
    fn whatever_can_be_deep_is_told() {
        let many = MAX_DEPTH + 1;
        for expression in [
            format!("{}true{}", "(".repeat(many), ")".repeat(many)),
            format!("{}1{}", "[".repeat(many), "]".repeat(many)),
            vec!["1"; many + 1].join("+"),
            vec!["1"; many + 1].join(" in "),
            format!("{}true", "!".repeat(many)),
            format!("{}true", "a?b:".repeat(many)),
            format!("device{}", "[1]".repeat(many)),
            format!("device{}", ".a".repeat(many)),
            format!("device{}", ".f()".repeat(many)),
            format!("{}x{}", "l.exists(x, ".repeat(many), ")".repeat(many)),
        ] {
            assert!(depth(&expression) > MAX_DEPTH, "{expression}");
        }
    }
}
