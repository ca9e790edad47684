//! Who asks: front proxy, then client certificate, then bearer token.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use k8s_openapi::api::authentication::v1::TokenReviewStatus;

use super::{
    percent,
    reviews::{Clock, LONGEST_USE, Lifetime, ReviewError, Reviewer, Verdicts},
    trust::{IdentityHeaders, TrustStore, VerifiedPeer},
};
use crate::serve::PeerCertificates;

/// Every authenticated user is in it; RBAC's default discovery rights are given to it. kube-aggregator relies on it:
/// its user `system:kube-aggregator` may come without groups.
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
const ANONYMOUS: &str = "system:anonymous";

/// How long a token is not reviewed again (k8s.io/apiserver, `DelegatingAuthenticatorConfig.CacheTTL`).
const TOKEN_LIFETIME: Duration = Duration::from_secs(10);

/// Tokens remembered. Anybody can send some: with [`LONGEST_TOKEN`] this bounds their memory to 8 MB.
const TOKENS: usize = 256;

/// Longer tokens, in bytes, are no tokens. Those of service accounts have one or two thousand.
const LONGEST_TOKEN: usize = 16 * 1024;

/// An authenticated user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) groups: Vec<String>,
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

/// Finds out who asks.
pub(super) struct Authenticator {
    trust: Arc<TrustStore>,
    reviewer: Reviewer,
    tokens: Verdicts<String, Option<Arc<User>>>,
}

impl Authenticator {
    pub(super) fn new(trust: Arc<TrustStore>, reviewer: Reviewer, clock: Clock) -> Self {
        Self { trust, reviewer, tokens: Verdicts::new(TOKENS, clock) }
    }

    /// None is anonymous. The error is that of the token's review.
    pub(super) async fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: &PeerCertificates,
    ) -> Result<Option<Arc<User>>, ReviewError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if let Some(verified) = self.trust.verify(peer, now)
            && let Some(user) = from_certificate(&verified, headers)
        {
            return Ok(Some(Arc::new(user)));
        }
        match bearer_token(headers) {
            Some(token) => self.review(token).await,
            None => Ok(None),
        }
    }

    async fn review(&self, token: &str) -> Result<Option<Arc<User>>, ReviewError> {
        let (reviewer, asked) = (self.reviewer.clone(), token.to_owned());
        let ask = || async move { Ok(from_token_review(reviewer.token(asked).await?).map(Arc::new)) };
        self.tokens.get(token.to_owned(), token_lifetime, ask).await
    }
}

#[expect(clippy::ref_option, reason = "the shape that Verdicts asks for")]
fn token_lifetime(user: &Option<Arc<User>>) -> Lifetime {
    let usable = if user.is_some() { LONGEST_USE } else { TOKEN_LIFETIME };
    Lifetime { fresh: TOKEN_LIFETIME, usable }
}

/// The identity headers count only when the front proxy's own certificate stands behind them; from anybody else they
/// are forged and ignored.
fn from_certificate(verified: &VerifiedPeer, headers: &HeaderMap) -> Option<User> {
    let proxied = verified.front_proxy.as_ref().and_then(|names| from_headers(names, headers));
    let user = proxied.or_else(|| {
        let (name, groups) = verified.client.clone()?;
        Some(User { name, groups, ..User::default() })
    })?;
    Some(with_authenticated_group(user))
}

fn from_headers(names: &IdentityHeaders, headers: &HeaderMap) -> Option<User> {
    let name = first(headers, &names.username)?;
    let groups = names.group.iter().flat_map(|header| headers.get_all(header));
    Some(User {
        name,
        uid: first(headers, &names.uid).unwrap_or_default(),
        groups: groups.filter_map(text).collect(),
        extra: extra(headers, &names.extra_prefix),
    })
}

/// The first value that is not empty, over the headers in their configured order.
fn first(headers: &HeaderMap, names: &[HeaderName]) -> Option<String> {
    names.iter().find_map(|name| headers.get(name).and_then(text).filter(|value| !value.is_empty()))
}

/// User names are UTF-8, which `HeaderValue::to_str` refuses.
fn text(value: &http::HeaderValue) -> Option<String> {
    std::str::from_utf8(value.as_bytes()).ok().map(str::to_owned)
}

/// `X-Remote-Extra-Acme.com%2Fproject: x` → `acme.com/project: [x]` (k8s.io/apiserver, `headerrequest`).
fn extra(headers: &HeaderMap, prefixes: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        for key in prefixes.iter().filter_map(|prefix| name.as_str().strip_prefix(prefix.as_str())) {
            let key = percent::decode(key).map_or_else(|| key.to_owned(), std::borrow::Cow::into_owned);
            extra.entry(key).or_default().extend(text(value));
        }
    }
    extra
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    let is_token = scheme.eq_ignore_ascii_case("bearer") && (1..=LONGEST_TOKEN).contains(&token.len());
    is_token.then_some(token)
}

fn from_token_review(status: TokenReviewStatus) -> Option<User> {
    let user = status.user.filter(|_| status.authenticated == Some(true))?;
    let user = User {
        name: user.username.filter(|name| !name.is_empty())?,
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    };
    Some(with_authenticated_group(user))
}

fn with_authenticated_group(mut user: User) -> User {
    let said = user.groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED);
    if user.name != ANONYMOUS && !said {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    user
}

#[cfg(test)]
mod tests;
