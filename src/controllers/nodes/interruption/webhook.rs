//! A webhook that is told of notices, as aws-node-termination-handler tells it (`pkg/webhook`).

mod announcement;
mod template;

use std::{
    collections::BTreeMap, error::Error as _, fs, io, iter::successors, path::PathBuf, time::Duration,
};

use reqwest::{
    Client, Proxy, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use scalers::Secret;
use thiserror::Error;

use crate::cli::interruption::WebhookArgs;
pub use announcement::Announcement;
pub(super) use announcement::event_id;
pub use template::{Template, TemplateError};

/// A webhook has as long to answer (`pkg/webhook`).
const DEADLINE: Duration = Duration::from_secs(5);

/// Why no webhook can be told. Neither the address nor the headers are in it: both may hold a token.
#[derive(Debug, Error)]
pub enum WebhookError {
    /// The address.
    #[error("WEBHOOK_URL is no address of a webhook: {0}; it is https://… or http://…")]
    Url(String),
    /// The proxy.
    #[error("WEBHOOK_PROXY is no address of a proxy: {0}")]
    Proxy(String),
    /// The headers as a whole.
    #[error("WEBHOOK_HEADERS is no JSON object of texts, as its column {column} shows")]
    Headers {
        /// Where reading stopped, from 1.
        column: usize,
    },
    /// One of the headers.
    #[error("WEBHOOK_HEADERS: {name:?} is no name of a header, or its value none of one")]
    Header {
        /// Its name.
        name: String,
    },
    /// The file of the template.
    #[error("WEBHOOK_TEMPLATE_FILE {path:?} cannot be read: {error}")]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The template.
    #[error("the template of the webhook: {0}")]
    Template(#[from] TemplateError),
    /// The HTTP client.
    #[error("no HTTP client for WEBHOOK_URL: {0}")]
    Client(String),
}

/// Why it was not told.
#[derive(Debug, Error)]
pub(super) enum Untold {
    /// It was reached.
    #[error("it answers with status {0}")]
    Status(u16),
    /// It was not, or not in time.
    #[error("{0}")]
    Lost(String),
}

/// A webhook.
#[derive(Debug)]
pub struct Webhook {
    url: Secret,
    headers: HeaderMap,
    template: Template,
    http: Client,
}

impl Webhook {
    /// The webhook of the flags, if they name one. The file of the template is read once.
    ///
    /// # Errors
    /// What of them has no meaning.
    pub fn new(args: &WebhookArgs) -> Result<Option<Self>, WebhookError> {
        let url = args.webhook_url.expose();
        if url.is_empty() {
            return Ok(None);
        }
        match Url::parse(url) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => {}
            Ok(url) => return Err(WebhookError::Url(format!("its scheme is {:?}", url.scheme()))),
            Err(error) => return Err(WebhookError::Url(error.to_string())),
        }
        let template = match &args.webhook_template_file {
            None => Template::parse(&args.webhook_template)?,
            Some(path) => {
                let text = fs::read_to_string(path)
                    .map_err(|error| WebhookError::File { path: path.clone(), error })?;
                Template::parse(&text)?
            }
        };
        Ok(Some(Self {
            url: args.webhook_url.clone(),
            headers: headers(args.webhook_headers.expose())?,
            template,
            http: client(args.webhook_proxy.expose())?,
        }))
    }

    /// What it is told.
    pub(super) fn text(&self, announcement: &Announcement<'_>) -> Result<String, TemplateError> {
        self.template.render(announcement)
    }

    /// Tells it, in [`DEADLINE`].
    pub(super) async fn post(&self, text: String) -> Result<(), Untold> {
        let request = self.http.post(self.url.expose()).headers(self.headers.clone()).body(text);
        let answer = request.send().await.map_err(|error| Untold::Lost(problem(error)))?;
        if answer.status().is_success() { Ok(()) } else { Err(Untold::Status(answer.status().as_u16())) }
    }
}

fn headers(text: &str) -> Result<HeaderMap, WebhookError> {
    let given: BTreeMap<String, String> =
        serde_json::from_str(text).map_err(|error| WebhookError::Headers { column: error.column() })?;
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let (Ok(key), Ok(mut value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) else {
            return Err(WebhookError::Header { name });
        };
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// No proxy of the environment is asked, only the one that is named.
fn client(proxy: &str) -> Result<Client, WebhookError> {
    let mut builder = Client::builder().no_proxy().timeout(DEADLINE);
    if !proxy.is_empty() {
        builder = builder.proxy(Proxy::all(proxy).map_err(|error| WebhookError::Proxy(problem(error)))?);
    }
    builder.build().map_err(|error| WebhookError::Client(problem(error)))
}

/// What went wrong stands in the sources of an error; the address does not, which may hold a token.
fn problem(error: reqwest::Error) -> String {
    let error = error.without_url();
    let causes = successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests;
