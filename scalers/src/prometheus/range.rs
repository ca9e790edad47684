//! The history of a query, as range queries in chunks.

use serde::Deserialize;

use super::{Prometheus, QueryAnswer};
use crate::context::Context;
use crate::error::Error;
use crate::http::{Answer, send};
use crate::scaler::Range;

/// Points of one range query: a server refuses more than 11000 a series.
const CHUNK: i64 = 10_000;
/// What makes of the path of a request for one value that of one for many: `/api/v1/query_range`.
const RANGE: &str = "_range";

#[derive(Deserialize)]
struct Series {
    values: Vec<(f64, String)>,
}

impl Prometheus {
    /// The values of the query in a range, by time in seconds since 1970; steps without a result are left out.
    pub(super) async fn range(&self, cx: &Context, range: Range) -> Result<Vec<(i64, f64)>, Error> {
        if let Some(unsupported) = &self.unsupported {
            return Err(Error::Configuration(unsupported.to_string()));
        }
        let step = i64::from(range.step.max(1));
        let mut values = Vec::new();
        let mut from = range.start.as_second();
        let end = range.end.as_second();
        while from <= end {
            let to = end.min(from + step * (CHUNK - 1));
            values.extend(self.chunk(cx, from, to, step).await?);
            from = to + step;
        }
        Ok(values)
    }

    async fn chunk(&self, cx: &Context, from: i64, to: i64, step: i64) -> Result<Vec<(i64, f64)>, Error> {
        // The query is a part of the URL already.
        let mut url = (*self.url).clone();
        url.set_path(&format!("{}{RANGE}", self.url.path()));
        let times = [("start", from), ("end", to), ("step", step)];
        let mut request = self.auth.transport.client(&cx.http)?.get(url).query(&times);
        if let Some(headers) = &self.headers {
            request = request.headers((**headers).clone());
        }
        let request = self.auth.apply(cx, request, self.timeout).await?;
        let answer = send(cx, request, self.timeout).await?;
        self.series(&answer)
    }

    fn series(&self, answer: &Answer) -> Result<Vec<(i64, f64)>, Error> {
        let parsed = serde_json::from_slice::<QueryAnswer>(&answer.body);
        if !answer.status.is_success() {
            let said = parsed.ok().and_then(|answer| answer.error).unwrap_or_default();
            let status = answer.status.as_u16();
            return Err(Error::Refused(format!("prometheus query api returned error. status: {status} ({said})")));
        }
        let no_matrix = |problem| Error::Answer(format!("the range query was not answered with series: {problem}"));
        let data = parsed.map_err(no_matrix)?.data;
        let mut series: Vec<Series> = serde_json::from_value(data.result).map_err(no_matrix)?;
        if series.len() > 1 {
            let many = series.len();
            let message = format!("prometheus query {} returned multiple elements", self.query);
            return Err(Error::Answer(format!("{message} ({many} series; wrap it in sum())")));
        }
        let values = series.pop().map(|series| series.values).unwrap_or_default();
        let number = |(time, text): (f64, String)| {
            let value = text.parse().map_err(|_| Error::Answer(format!("{text:?} is no number")))?;
            #[allow(clippy::cast_possible_truncation, reason = "the times are those that were asked for")]
            let time = time.round() as i64;
            Ok((time, value))
        };
        values.into_iter().map(number).collect()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use crate::scaler::Range;
    use crate::testing::{Fixture, Server, input};

    async fn history(body: &str) -> Result<Vec<(i64, f64)>, String> {
        let server = Server::answering(200, body).await;
        let url = server.url();
        let metadata = [("serverAddress", &*url), ("query", "sum(x)"), ("threshold", "10")];
        let scaler = crate::build(&input("prometheus", &metadata)).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let range = Range { start: at(100), end: at(130), step: 15 };
        scaler.history(&Fixture::new().context, range).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn one_series_is_a_history() {
        let matrix = |result: &str| {
            format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{result}]}}}}"#)
        };
        let one = r#"{"metric":{},"values":[[100,"1.5"],[130,"NaN"]]}"#;
        let values = history(&matrix(one)).await.unwrap();
        assert_eq!((values[0], values[1].0, values.len()), ((100, 1.5), 130, 2));
        assert!(values[1].1.is_nan());
        assert_eq!(history(&matrix("")).await, Ok(Vec::new()));
        let two = history(&matrix(&format!("{one},{one}"))).await.unwrap_err();
        assert!(two.contains("returned multiple elements (2 series; wrap it in sum())"), "{two}");
        let error = history("<html>").await.unwrap_err();
        assert!(error.contains("was not answered with series"), "{error}");
    }
}
