//! Whose client certificates mean something: the `ConfigMap` `kube-system/extension-apiserver-authentication`, watched,
//! and the verification of a peer's chain against it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use futures::{StreamExt, pin_mut};
use http::HeaderName;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher::watch_object},
};
use parking_lot::RwLock;
use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::serve::{PeerCertificates, parse_certificates};

const NAMESPACE: &str = "kube-system";
/// kube-apiserver writes it for extension servers; the Role `extension-apiserver-authentication-reader` lets them read.
const NAME: &str = "extension-apiserver-authentication";

/// Verified certificates remembered: one per kube-apiserver and per client with a certificate. Beyond it all are
/// forgotten and verified again, which costs a fraction of a millisecond each.
const REMEMBERED: usize = 256;

/// A key of the `ConfigMap` that cannot be used.
#[derive(Debug, Error)]
#[error("{NAMESPACE}/{NAME}: {key}: {problem}")]
pub struct TrustError {
    key: &'static str,
    problem: String,
}

/// The authorities of client certificates and the names of the front proxy's headers, as one `ConfigMap` states them.
#[derive(Default)]
pub struct Trust {
    front_proxy: Option<FrontProxy>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    /// Chains that verified, by the peer's own certificate. Part of the value, so a new `ConfigMap` starts with none.
    verified: RwLock<HashMap<CertificateDer<'static>, Arc<VerifiedPeer>>>,
}

struct FrontProxy {
    authority: Arc<dyn ClientCertVerifier>,
    /// Common names that may be the front proxy; empty means any that the authority signed.
    allowed_names: Vec<String>,
    headers: Arc<IdentityHeaders>,
}

/// The headers in which the front proxy names the user.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct IdentityHeaders {
    pub(super) username: Vec<HeaderName>,
    pub(super) uid: Vec<HeaderName>,
    pub(super) group: Vec<HeaderName>,
    /// Lower case.
    pub(super) extra_prefix: Vec<String>,
}

/// What a verified client certificate says.
#[derive(Debug)]
pub(super) struct VerifiedPeer {
    /// Set if it is the front proxy's: whom it speaks for is in these headers.
    pub(super) front_proxy: Option<Arc<IdentityHeaders>>,
    /// Set if the cluster's client authority signed it: common name and organizations.
    pub(super) client: Option<(String, Vec<String>)>,
    /// Seconds since 1970 between which the whole chain is valid.
    valid: (u64, u64),
}

impl Trust {
    /// Reads the `ConfigMap`. A missing authority turns its way of authenticating off; a broken one is an error, so
    /// that the former state can be kept: a list that cannot be read must never mean "any name".
    pub fn from_config_map(data: &BTreeMap<String, String>) -> Result<Self, TrustError> {
        let front_proxy = match authority(data, "requestheader-client-ca-file")? {
            None => None,
            Some(authority) => Some(FrontProxy {
                authority,
                allowed_names: list(data, "requestheader-allowed-names")?,
                headers: Arc::new(IdentityHeaders {
                    username: header_names(data, "requestheader-username-headers")?,
                    uid: header_names(data, "requestheader-uid-headers")?,
                    group: header_names(data, "requestheader-group-headers")?,
                    extra_prefix: list(data, "requestheader-extra-headers-prefix")?
                        .iter()
                        .map(|prefix| prefix.to_ascii_lowercase())
                        .collect(),
                }),
            }),
        };
        let clients = authority(data, "client-ca-file")?;
        Ok(Self { front_proxy, clients, verified: RwLock::default() })
    }

    /// Whether a front proxy can authenticate at all.
    fn has_front_proxy(&self) -> bool {
        self.front_proxy.is_some()
    }

    /// Verifies a peer's chain at `now`, in seconds since 1970. None if it presented nothing, or nothing that an
    /// authority of ours signed for client use. Verified once per certificate, not per request.
    pub(super) fn verify(&self, peer: &PeerCertificates, now: u64) -> Option<Arc<VerifiedPeer>> {
        let (certificate, intermediates) = peer.split()?;
        if let Some(known) = self.verified.read().get(certificate)
            && (known.valid.0..=known.valid.1).contains(&now)
        {
            return Some(known.clone());
        }
        let verified = Arc::new(self.verify_chain(certificate, intermediates, now)?);
        let mut remembered = self.verified.write();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(certificate.clone(), verified.clone());
        Some(verified)
    }

    fn verify_chain(
        &self,
        certificate: &CertificateDer<'static>,
        intermediates: &[CertificateDer<'static>],
        now: u64,
    ) -> Option<VerifiedPeer> {
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
        let signed_by = |authority: &Arc<dyn ClientCertVerifier>| {
            authority.verify_client_cert(certificate, intermediates, at).is_ok()
        };
        let front_proxy = self.front_proxy.as_ref().filter(|proxy| signed_by(&proxy.authority));
        let is_client = self.clients.as_ref().is_some_and(signed_by);
        if front_proxy.is_none() && !is_client {
            return None;
        }
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        // As Go's crypto/x509: of several common names the last counts.
        let common_name = parsed.subject().iter_common_name().last().and_then(|name| name.as_str().ok());
        let organizations = parsed.subject().iter_organization().filter_map(|name| name.as_str().ok());
        let allowed = |proxy: &&FrontProxy| {
            proxy.allowed_names.is_empty()
                || common_name.is_some_and(|name| proxy.allowed_names.iter().any(|allowed| allowed == name))
        };
        let verified = VerifiedPeer {
            front_proxy: front_proxy.filter(allowed).map(|proxy| proxy.headers.clone()),
            client: common_name
                .filter(|name| is_client && !name.is_empty())
                .map(|name| (name.to_owned(), organizations.map(str::to_owned).collect())),
            valid: validity(std::iter::once(certificate).chain(intermediates))?,
        };
        (verified.front_proxy.is_some() || verified.client.is_some()).then_some(verified)
    }
}

/// The time in which all of the certificates are valid, in seconds since 1970.
fn validity<'a>(chain: impl Iterator<Item = &'a CertificateDer<'static>>) -> Option<(u64, u64)> {
    let mut valid = (0, u64::MAX);
    for certificate in chain {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        valid.0 = valid.0.max(seconds(parsed.validity().not_before));
        valid.1 = valid.1.min(seconds(parsed.validity().not_after));
    }
    Some(valid)
}

fn authority(
    data: &BTreeMap<String, String>,
    key: &'static str,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TrustError> {
    let Some(pem) = data.get(key).filter(|pem| !pem.trim().is_empty()) else { return Ok(None) };
    let certificates =
        parse_certificates(pem.as_bytes()).map_err(|error| TrustError { key, problem: error.to_string() })?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(TrustError { key, problem: "none of its certificates can be an authority".to_owned() });
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
        .build()
        .map(Some)
        .map_err(|error| TrustError { key, problem: error.to_string() })
}

/// A JSON array of strings; a missing key is an empty one.
fn list(data: &BTreeMap<String, String>, key: &'static str) -> Result<Vec<String>, TrustError> {
    let Some(text) = data.get(key).filter(|text| !text.trim().is_empty()) else { return Ok(Vec::new()) };
    serde_json::from_str(text).map_err(|error| TrustError { key, problem: error.to_string() })
}

fn header_names(data: &BTreeMap<String, String>, key: &'static str) -> Result<Vec<HeaderName>, TrustError> {
    let parse = |name: &String| {
        HeaderName::try_from(name)
            .map_err(|_| TrustError { key, problem: format!("{name:?} is no header name") })
    };
    list(data, key)?.iter().map(parse).collect()
}

/// The trust in force, replaced as a whole when the `ConfigMap` changes.
#[derive(Default)]
pub struct TrustStore {
    current: ArcSwap<Trust>,
    loaded: AtomicBool,
}

impl TrustStore {
    /// Puts a trust in force.
    pub fn set(&self, trust: Trust) {
        self.current.store(Arc::new(trust));
        self.loaded.store(true, Ordering::Release);
    }

    /// Whether the `ConfigMap` was read once. Before that kube-apiserver cannot authenticate here.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    pub(super) fn verify(&self, peer: &PeerCertificates, now: u64) -> Option<Arc<VerifiedPeer>> {
        self.current.load().verify(peer, now)
    }
}

/// Keeps `store` up to date until `shutdown`. What cannot be read leaves the last good state in force, as in
/// kube-apiserver's own library (k8s.io/apiserver, `ConfigMapCAController`).
pub async fn watch(client: Client, store: Arc<TrustStore>, shutdown: CancellationToken) {
    let api = Api::<ConfigMap>::namespaced(client, NAMESPACE);
    let changes = watch_object(api, NAME).default_backoff();
    pin_mut!(changes);
    let mut former = None;
    loop {
        let change = tokio::select! {
            () = shutdown.cancelled() => return,
            Some(change) = changes.next() => change,
            else => return,
        };
        match change {
            // The watch repeats itself; and a client that was verified need not be again for that.
            Ok(Some(map)) if former.is_some() && former == map.data => {}
            Ok(Some(map)) => {
                apply(&store, map.data.as_ref());
                former = map.data;
            }
            Ok(None) => warn!("{NAMESPACE}/{NAME} is missing: kube-apiserver writes it within a minute"),
            Err(error) => warn!(
                %error,
                "cannot watch {NAMESPACE}/{NAME}: is Role extension-apiserver-authentication-reader bound?"
            ),
        }
    }
}

fn apply(store: &TrustStore, data: Option<&BTreeMap<String, String>>) {
    match Trust::from_config_map(data.unwrap_or(&BTreeMap::new())) {
        Ok(trust) => {
            if trust.has_front_proxy() {
                info!("client authorities loaded from {NAMESPACE}/{NAME}");
            } else {
                warn!(
                    "{NAMESPACE}/{NAME} names no front proxy: is aggregation configured on kube-apiserver?"
                );
            }
            store.set(trust);
        }
        Err(error) => warn!(%error, "client authorities not changed"),
    }
}

#[cfg(test)]
mod tests;
