//! `OAuth` 2.0 client credentials: fetches a token and keeps it until it runs out (RFC 6749 §4.4).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::context::Context;
use crate::error::Error;
use crate::http::{address, send};
use crate::input::Secret;

/// A token is renewed this long before it runs out, so that none runs out on its way.
const EARLY: SignedDuration = SignedDuration::from_secs(10);

/// What a token is asked with.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) token_uri: Url,
    pub(crate) client_id: Secret,
    pub(crate) client_secret: Option<Secret>,
    /// Separated by spaces.
    pub(crate) scope: String,
    pub(crate) endpoint_params: Vec<(String, Secret)>,
}

/// A grant, and the token that it gave last.
#[derive(Debug)]
pub(crate) struct OAuth {
    grant: Grant,
    token: Mutex<Option<Token>>,
}

#[derive(Clone, Debug)]
struct Token {
    value: Secret,
    /// `None`: the endpoint did not say.
    expires: Option<Timestamp>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: Option<i64>,
}

impl OAuth {
    pub(crate) fn new(grant: Grant) -> Self {
        Self { grant, token: Mutex::new(None) }
    }

    /// A token that holds for some seconds more.
    pub(crate) async fn token(
        &self,
        cx: &Context,
        client: &Client,
        timeout: Duration,
    ) -> Result<Secret, Error> {
        let now = (cx.now)();
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_ref().filter(|token| token.expires.is_none_or(|end| now + EARLY < end)) {
            return Ok(token.value.clone());
        }
        let token = self.grant.ask(cx, client, timeout).await?;
        Ok(held.insert(token).value.clone())
    }
}

impl Grant {
    /// The client's secret goes into the header first, as the standard prefers; endpoints that refuse that get it in
    /// the form, as Go's `golang.org/x/oauth2` does.
    async fn ask(&self, cx: &Context, client: &Client, timeout: Duration) -> Result<Token, Error> {
        let (id, secret) = (self.client_id.expose(), self.client_secret.as_ref().map(Secret::expose));
        let in_header = client.post(self.token_uri.clone()).basic_auth(id, secret).form(&self.form());
        if let Ok(token) = self.read(cx, in_header, timeout).await? {
            return Ok(token);
        }
        let secret = secret.map(|secret| ("client_secret", secret));
        let form: Vec<_> = self.form().into_iter().chain([("client_id", id)]).chain(secret).collect();
        let in_form = client.post(self.token_uri.clone()).form(&form);
        self.read(cx, in_form, timeout).await?.map_err(|status| {
            let address = address(&self.token_uri);
            Error::Refused(format!(
                "{address} gave no token for oauth: it answered {status} (check clientID and clientSecret)"
            ))
        })
    }

    /// The token, or the status of the refusal.
    async fn read(
        &self,
        cx: &Context,
        request: RequestBuilder,
        timeout: Duration,
    ) -> Result<Result<Token, StatusCode>, Error> {
        let answer = send(cx, request, timeout).await?;
        if !answer.status.is_success() {
            return Ok(Err(answer.status));
        }
        let token: TokenAnswer = serde_json::from_slice(&answer.body).map_err(|_| {
            Error::Answer(format!("{} answered an oauth request without a token", address(&self.token_uri)))
        })?;
        let now = (cx.now)();
        let expires =
            token.expires_in.and_then(|seconds| now.checked_add(SignedDuration::from_secs(seconds)).ok());
        Ok(Ok(Token { value: token.access_token.into(), expires }))
    }

    fn form(&self) -> Vec<(&str, &str)> {
        let more = self.endpoint_params.iter().map(|(name, value)| (name.as_str(), value.expose()));
        let scope = (!self.scope.is_empty()).then_some(("scope", self.scope.as_str()));
        [("grant_type", "client_credentials")].into_iter().chain(scope).chain(more).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Transport;
    use crate::testing::{Fixture, Server};

    fn grant(server: &Server) -> Grant {
        Grant {
            token_uri: Url::parse(&server.url()).unwrap(),
            client_id: "me".into(),
            client_secret: Some("hunter2".into()),
            scope: "a b".to_owned(),
            endpoint_params: vec![("audience".to_owned(), "metrics".into())],
        }
    }

    #[tokio::test]
    async fn a_token_is_asked_once_while_it_holds() {
        let server =
            Server::answering(200, r#"{"access_token":"t0k3n","token_type":"Bearer","expires_in":60}"#).await;
        let oauth = OAuth::new(grant(&server));
        for (now, asked) in
            [("2026-01-01T00:00:00Z", 1), ("2026-01-01T00:00:49Z", 1), ("2026-01-01T00:00:51Z", 2)]
        {
            let fixture = Fixture::at(now);
            let client = Transport::Verified.client(&fixture.context.http).unwrap();
            let token = oauth.token(&fixture.context, client, Duration::from_secs(30)).await.unwrap();
            assert_eq!(token.expose(), "t0k3n");
            assert_eq!(server.requests().len(), asked, "{now}");
        }
        let request = &server.requests()[0];
        assert_eq!(request.method, "POST");
        assert_eq!(request.headers["authorization"], "Basic bWU6aHVudGVyMg==");
        assert_eq!(request.body, "grant_type=client_credentials&scope=a+b&audience=metrics");
    }

    #[tokio::test]
    async fn the_secret_goes_into_the_form_where_the_header_is_refused() {
        let server = Server::start(|request| {
            let fits = request.body.contains("client_id=me&client_secret=hunter2");
            if fits { (200, r#"{"access_token":"t"}"#.to_owned()) } else { (401, String::new()) }
        })
        .await;
        let fixture = Fixture::new();
        let client = Transport::Verified.client(&fixture.context.http).unwrap();
        let oauth = OAuth::new(grant(&server));
        let token = oauth.token(&fixture.context, client, Duration::from_secs(30)).await.unwrap();
        assert_eq!(token.expose(), "t");
    }

    #[tokio::test]
    async fn a_refusal_says_so_without_the_secret() {
        let server = Server::answering(401, "hunter2 is wrong").await;
        let fixture = Fixture::new();
        let client = Transport::Verified.client(&fixture.context.http).unwrap();
        let error = OAuth::new(grant(&server)).token(&fixture.context, client, Duration::from_secs(30)).await;
        let text = error.err().unwrap().to_string();
        assert!(text.contains("it answered 401 Unauthorized"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}
