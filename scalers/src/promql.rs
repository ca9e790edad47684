//! Reads a `PromQL` query before it hurts: syntax, raw counters, short ranges, results of many series.

use std::time::Duration;

use promql_parser::label::MatchOp;
use promql_parser::parser::token::{
    T_BOTTOMK, T_COUNT, T_COUNT_VALUES, T_GROUP, T_LAND, T_LIMIT_RATIO, T_LIMITK, T_LOR, T_LUNLESS, T_SUB,
    T_TOPK,
};
use promql_parser::parser::{
    AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, MatrixSelector, VectorMatchCardinality,
    VectorSelector,
};

use crate::metadata::{Finding, View};

/// Targets are scraped every 15 to 60 s nearly everywhere, and a rate needs two samples: at 15 s that is 30 s.
const SHORTEST_RANGE: Duration = Duration::from_secs(30);

/// Four scrapes at the usual 30 s: what Prometheus' documentation advises for rates.
const USUAL_RANGE: &str = "2m";

/// Whether every bracket is closed, which no dialect does without.
fn is_balanced(query: &str) -> bool {
    let mut open = Vec::new();
    let mut characters = query.chars();
    while let Some(character) = characters.next() {
        match character {
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' if open.pop() != Some(character) => return false,
            '"' | '\'' | '`' => {
                let quote = character;
                loop {
                    match characters.next() {
                        None => return false,
                        Some('\\') if quote != '`' => drop(characters.next()),
                        Some(next) if next == quote => break,
                        Some(_) => {}
                    }
                }
            }
            _ => {}
        }
    }
    open.is_empty()
}

/// Adds what is wrong with a query to the errors, and what is doubtful to the warnings.
pub(crate) fn check(query: &str, view: &mut View<'_>) {
    let expr = match promql_parser::parser::parse(query) {
        Ok(expr) => expr,
        Err(problem) => {
            let finding = Finding::of("query", format!("query {query:?} is not PromQL: {problem}"));
            if !is_balanced(query) {
                return view.error(finding);
            }
            // VictoriaMetrics and others answer the same API in dialects of their own.
            return view
                .warn(finding.hint("fine only if the server speaks another dialect, such as MetricsQL"));
        }
    };
    match &expr {
        Expr::MatrixSelector(_) | Expr::Subquery(_) => {
            let message = format!("query {query:?} returns a range of samples, not one value");
            return view.error(Finding::of("query", message).hint("put a function around it, e.g. rate()"));
        }
        Expr::StringLiteral(_) => {
            return view
                .error(Finding::of("query", format!("query {query:?} returns a string, not a number")));
        }
        _ => {}
    }
    let mut found = Found::default();
    found.visit(&expr, Context::default());
    if let Some(counter) = found.raw_counters.first() {
        // Gauges end so too now and then; `_total` and `_bucket` are for counters alone.
        let doubt =
            if counter.ends_with("_total") || counter.ends_with("_bucket") { "" } else { "if it is one, " };
        let message = format!(
            "{counter} looks like a counter; {doubt}it never falls, and the workload would never scale in"
        );
        view.warn(Finding::of("query", message).hint(format!("did you mean {}?", with_rates(&expr))));
    }
    for (range, selector) in found.short_ranges {
        let message = format!(
            "the range of {selector} is {}, shorter than two scrapes at the usual intervals of 15s to 60s: most of the \
             time it holds too few samples for a result",
            crate::values::format_duration(range)
        );
        view.warn(
            Finding::of("query", message).hint(format!("use [{USUAL_RANGE}], or at least two scrapes")),
        );
    }
    if !single(&expr) {
        let message = "the query can return many series, and then the trigger fails".to_owned();
        view.warn(Finding::of("query", message).hint(format!("wrap it in sum(), e.g. sum({query})")));
    }
}

/// What is around an expression.
#[derive(Clone, Copy, Default)]
struct Context {
    /// Inside something for which a raw counter is right.
    counter_is_right: bool,
}

#[derive(Default)]
struct Found {
    raw_counters: Vec<String>,
    short_ranges: Vec<(Duration, String)>,
}

impl Found {
    fn visit(&mut self, expr: &Expr, cx: Context) {
        match expr {
            Expr::VectorSelector(selector) if !cx.counter_is_right => {
                self.raw_counters.extend(counter(selector).map(str::to_owned));
            }
            Expr::MatrixSelector(selector) => self.range(selector),
            Expr::Call(call) => {
                let right = counter_is_right_in(call.func.name) || cx.counter_is_right;
                if !right {
                    let raw = call.args.args.iter().filter_map(|arg| match &**arg {
                        Expr::MatrixSelector(selector) => counter(&selector.vs),
                        _ => None,
                    });
                    self.raw_counters.extend(raw.map(str::to_owned));
                }
                for arg in &call.args.args {
                    self.visit(arg, Context { counter_is_right: right });
                }
            }
            Expr::Aggregate(aggregate) => {
                // Counting series is the same for every kind of series.
                let counts = matches!(aggregate.op.id(), T_COUNT | T_GROUP);
                self.visit(&aggregate.expr, Context { counter_is_right: cx.counter_is_right || counts });
            }
            Expr::Binary(binary) => {
                // `x - x offset 5m` is an increase by hand.
                let by_hand = binary.op.id() == T_SUB && metric(&binary.lhs) == metric(&binary.rhs);
                let cx = Context { counter_is_right: cx.counter_is_right || by_hand };
                self.visit(&binary.lhs, cx);
                self.visit(&binary.rhs, cx);
            }
            Expr::Paren(paren) => self.visit(&paren.expr, cx),
            Expr::Unary(unary) => self.visit(&unary.expr, cx),
            Expr::Subquery(subquery) => self.visit(&subquery.expr, cx),
            Expr::VectorSelector(_)
            | Expr::NumberLiteral(_)
            | Expr::StringLiteral(_)
            | Expr::Extension(_) => {}
        }
    }

    fn range(&mut self, selector: &MatrixSelector) {
        if selector.range < SHORTEST_RANGE {
            self.short_ranges.push((selector.range, selector.to_string()));
        }
    }
}

/// Functions that make sense of a counter, or do not look at its values.
fn counter_is_right_in(function: &str) -> bool {
    matches!(
        function,
        "rate"
            | "increase"
            | "irate"
            | "delta"
            | "idelta"
            | "deriv"
            | "predict_linear"
            | "resets"
            | "changes"
            | "absent"
            | "absent_over_time"
            | "present_over_time"
            | "count_over_time"
            | "timestamp"
    )
}

/// The metric's name, when it is that of a counter by Prometheus' conventions.
fn counter(selector: &VectorSelector) -> Option<&str> {
    let name = name(selector)?;
    ["_total", "_count", "_sum", "_bucket"].iter().any(|suffix| name.ends_with(suffix)).then_some(name)
}

fn name(selector: &VectorSelector) -> Option<&str> {
    let labelled = || {
        let matcher = selector.matchers.matchers.iter().find(|matcher| matcher.name == "__name__")?;
        matches!(matcher.op, MatchOp::Equal | MatchOp::Re(_)).then_some(matcher.value.as_str())
    };
    selector.name.as_deref().or_else(labelled)
}

/// The metric of an expression that is about a single one.
fn metric(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::VectorSelector(selector) => name(selector),
        Expr::Paren(paren) => metric(&paren.expr),
        Expr::Aggregate(aggregate) => metric(&aggregate.expr),
        _ => None,
    }
}

/// The query with `rate(…[2m])` around each raw counter.
fn with_rates(expr: &Expr) -> String {
    let mut rewritten = expr.clone();
    rate_counters(&mut rewritten);
    rewritten.to_string()
}

fn rate_counters(expr: &mut Expr) {
    match expr {
        Expr::VectorSelector(selector) if counter(selector).is_some() => {
            if let Ok(rate) = promql_parser::parser::parse(&format!("rate({selector}[{USUAL_RANGE}])")) {
                *expr = rate;
            }
        }
        Expr::Call(Call { func, args }) if !counter_is_right_in(func.name) => {
            args.args.iter_mut().for_each(|arg| rate_counters(arg));
        }
        Expr::Aggregate(aggregate) => rate_counters(&mut aggregate.expr),
        Expr::Binary(binary) => {
            rate_counters(&mut binary.lhs);
            rate_counters(&mut binary.rhs);
        }
        Expr::Paren(paren) => rate_counters(&mut paren.expr),
        Expr::Unary(unary) => rate_counters(&mut unary.expr),
        Expr::Subquery(subquery) => rate_counters(&mut subquery.expr),
        _ => {}
    }
}

/// Whether the result is at most one series, whatever the data.
fn single(expr: &Expr) -> bool {
    match expr {
        Expr::NumberLiteral(_) => true,
        Expr::Aggregate(aggregate) => single_aggregate(aggregate),
        Expr::Binary(binary) => single_binary(binary),
        Expr::Call(call) => single_call(call),
        Expr::Paren(paren) => single(&paren.expr),
        Expr::Unary(unary) => single(&unary.expr),
        _ => false,
    }
}

fn single_aggregate(aggregate: &AggregateExpr) -> bool {
    let ungrouped = match &aggregate.modifier {
        None => true,
        Some(LabelModifier::Include(labels)) => labels.labels.is_empty(),
        Some(LabelModifier::Exclude(_)) => false,
    };
    match aggregate.op.id() {
        T_COUNT_VALUES | T_LIMIT_RATIO => single(&aggregate.expr),
        T_TOPK | T_BOTTOMK | T_LIMITK => {
            let one = matches!(aggregate.param.as_deref(), Some(Expr::NumberLiteral(k)) if k.val <= 1.0);
            (ungrouped && one) || single(&aggregate.expr)
        }
        _ => ungrouped || single(&aggregate.expr),
    }
}

fn single_binary(binary: &BinaryExpr) -> bool {
    let (left, right) = (single(&binary.lhs), single(&binary.rhs));
    match binary.op.id() {
        T_LAND | T_LUNLESS => left,
        T_LOR => left && right,
        _ => {
            // A number is single, and does not make the other side so.
            let numbers = is_number(&binary.lhs) || is_number(&binary.rhs);
            let one_to_one = binary
                .modifier
                .as_ref()
                .is_none_or(|modifier| modifier.card == VectorMatchCardinality::OneToOne);
            if numbers || !one_to_one { left && right } else { left || right }
        }
    }
}

fn single_call(call: &Call) -> bool {
    let vectors =
        || call.args.args.iter().filter(|arg| !is_number(arg) && !matches!(***arg, Expr::StringLiteral(_)));
    match call.func.name {
        "scalar" | "vector" | "absent" | "absent_over_time" | "time" | "pi" => true,
        // It folds the series that differ in `le` only.
        "histogram_quantile" => vectors().all(|arg| single(arg) || grouped_by_le(arg)),
        // Without an argument these look at the clock.
        "minute" | "hour" | "day_of_week" | "day_of_month" | "day_of_year" | "days_in_month" | "month"
        | "year" => call.args.args.iter().all(|arg| single(arg)),
        _ => vectors().count() > 0 && vectors().all(|arg| single_argument(arg)),
    }
}

/// As [`single`]; a subquery is as single as what it asks.
fn single_argument(arg: &Expr) -> bool {
    match arg {
        Expr::Subquery(subquery) => single(&subquery.expr),
        other => single(other),
    }
}

fn grouped_by_le(expr: &Expr) -> bool {
    match expr {
        Expr::Paren(paren) => grouped_by_le(&paren.expr),
        Expr::Aggregate(aggregate) => matches!(
            &aggregate.modifier,
            Some(LabelModifier::Include(labels)) if labels.labels.iter().all(|label| label == "le")
        ),
        _ => false,
    }
}

fn is_number(expr: &Expr) -> bool {
    match expr {
        Expr::NumberLiteral(_) => true,
        Expr::Call(call) => matches!(call.func.name, "scalar" | "time" | "pi"),
        Expr::Paren(paren) => is_number(&paren.expr),
        Expr::Unary(unary) => is_number(&unary.expr),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Offline;
    use crate::testing::input;

    /// Errors and warnings about a query.
    fn findings(query: &str) -> (Vec<String>, Vec<String>) {
        let input = input("prometheus", &[]);
        let mut view = View::checking(&input, Offline::default());
        check(query, &mut view);
        let texts = |findings: Vec<Finding>| findings.iter().map(ToString::to_string).collect();
        (texts(view.errors), texts(view.warnings))
    }

    #[test]
    fn a_raw_counter_is_said_with_the_query_that_works() {
        for (query, rewritten) in [
            (
                r#"sum(istio_requests_total{destination_app="nginx"})"#,
                r#"sum(rate(istio_requests_total{destination_app="nginx"}[2m]))"#,
            ),
            (r#"sum({__name__="x_total"})"#, r#"sum(rate({__name__="x_total"}[2m]))"#),
            ("sum(a_total) / sum(b_count)", "sum(rate(a_total[2m])) / sum(rate(b_count[2m]))"),
            ("max(max_over_time(x_total[5m]))", "max(max_over_time(x_total[5m]))"),
            (
                "histogram_quantile(0.9, sum by (le) (x_bucket))",
                "histogram_quantile(0.9, sum by (le) (rate(x_bucket[2m])))",
            ),
        ] {
            let (errors, warnings) = findings(query);
            assert!(errors.is_empty(), "{query}: {errors:?}");
            assert!(warnings[0].contains("looks like a counter; it never falls"), "{query}: {warnings:?}");
            assert!(warnings[0].ends_with(&format!("(did you mean {rewritten}?)")), "{query}: {warnings:?}");
        }
    }

    #[test]
    fn a_gauge_that_ends_like_a_counter_is_only_doubted() {
        let (_, warnings) = findings("sum(kafka_consumergroup_lag_sum)");
        assert!(warnings[0].contains("looks like a counter; if it is one, it never falls"), "{warnings:?}");
    }

    #[test]
    fn good_queries_pass_in_silence() {
        for query in [
            r#"sum(rate(istio_requests_total{destination_app="nginx"}[2m]))"#,
            "sum(rate(x_total[30s]))",
            "sum(x_total) - sum(x_total offset 5m)",
            "count(x_total)",
            "sum(queue_length) or vector(0)",
            "scalar(up)",
            "topk(1, queue_length)",
            "max(avg_over_time(queue_length[5m]))",
            "sum(rate(a_total[5m])) / sum(b) * 100",
            "histogram_quantile(0.95, sum by (le) (rate(x_bucket[5m])))",
            "absent(up)",
            "42",
            "time()",
            "hour()",
            "round(sum(x))",
            "max_over_time(sum(x)[1h:5m])",
            "sum(x{a=~\"b|c\",}) or on() vector(0)",
            "sum(rate(x_total[1h30m] offset 5m)) # by the hour",
            "1 - avg(irate(node_cpu_seconds_total{mode=\"idle\"}[5m]))",
            "sum(rate({\"http.server.requests_total\"}[5m]))",
            "sum(x @ end()) > bool 0x1F",
            "max(x) - on() min(x)",
            "quantile(0.9, x)",
            "label_replace(sum(x), \"a\", \"b\", \"\", \"\")",
            "sum(increase(x_total[5m])) by ()",
            "-sum(x)",
            "(sum(x))",
        ] {
            assert_eq!(findings(query), (vec![], vec![]), "{query}");
        }
    }

    #[test]
    fn many_series_and_short_ranges_are_said() {
        for query in [
            "up",
            "sum by (pod) (x)",
            "sum without (pod) (x)",
            "topk(3, x)",
            "rate(x_total[5m])",
            "x * 2",
            "sum(x) or up",
            "x and sum(x)",
            "sum(x) * on() group_left x",
            "histogram_quantile(0.9, sum by (le, pod) (rate(x_bucket[5m])))",
            "count_values(\"v\", x)",
        ] {
            let (errors, warnings) = findings(query);
            assert!(errors.is_empty(), "{query}: {errors:?}");
            assert_eq!(warnings.len(), 1, "{query}: {warnings:?}");
            assert!(warnings[0].contains("can return many series"), "{query}: {warnings:?}");
            assert!(warnings[0].contains(&format!("sum({query})")), "{query}: {warnings:?}");
        }
        let (_, warnings) = findings("sum(rate(x_total[20s]))");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("x_total[20s] is 20s, shorter than two scrapes"), "{warnings:?}");
    }

    #[test]
    fn what_is_no_query_for_a_number_is_an_error() {
        for (query, wanted) in [
            ("sum(rate(x_total[5m])", "is not PromQL"),
            ("sum(x_total{app=\"shop})", "is not PromQL"),
            ("x_total[5m]", "returns a range of samples"),
            ("\"text\"", "returns a string"),
        ] {
            let (errors, _) = findings(query);
            assert_eq!(errors.len(), 1, "{query}: {errors:?}");
            assert!(errors[0].contains(wanted), "{query}: {errors:?}");
        }
    }

    #[test]
    fn a_dialect_is_a_warning() {
        for query in ["sum(rate(x_total))", "sum(increase_pure(x_total[5m])) keep_metric_names", "foo bar"] {
            let (errors, warnings) = findings(query);
            assert!(errors.is_empty(), "{query}: {errors:?}");
            assert!(warnings.iter().any(|text| text.contains("MetricsQL")), "{query}: {warnings:?}");
        }
    }
}
