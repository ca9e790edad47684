//! Certificates and keys: made, signed, written into a Secret and read back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::prelude::{BASE64_STANDARD, Engine};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use rustls::{
    CertificateError, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    sign::CertifiedKey,
};
use thiserror::Error;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::rotation::{Policy, Serving, State, Validity};
use crate::serve::parse_certificates;

/// The bundle: every authority to trust, newest first, PEM.
pub(super) const CA_CERTIFICATE: &str = "ca.crt";
/// The key of the first authority of the bundle.
const CA_KEY: &str = "ca.key";
/// The serving certificate.
pub(super) const SERVING_CERTIFICATE: &str = "tls.crt";
/// Its key.
pub(super) const SERVING_KEY: &str = "tls.key";

/// Who our authorities say they are.
const ORGANIZATION: &str = "tandem";

/// Why there is no material.
#[derive(Debug, Error)]
pub(super) enum MaterialError {
    /// The Secret has no readable bundle; its other keys can be made anew.
    #[error("{CA_CERTIFICATE}: {0}")]
    Bundle(#[from] crate::serve::CertificateError),
    /// A certificate of the bundle does not parse.
    #[error("{CA_CERTIFICATE}: certificate {0} does not parse")]
    Authority(usize),
    /// Making or signing failed.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// All that the Secret holds, as PEM. Keys do not show in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Material {
    /// Newest first.
    authorities: Vec<CertificateDer<'static>>,
    authority_key: String,
    chain: String,
    key: String,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("authorities", &self.authorities.len()).finish_non_exhaustive()
    }
}

impl Material {
    /// One authority and its serving certificate.
    pub(super) fn generate(names: &[String], policy: &Policy, now: Timestamp) -> Result<Self, MaterialError> {
        let (authority, authority_key) = make_authority(policy, now)?;
        let mut material =
            Self { authorities: vec![authority], authority_key, chain: String::new(), key: String::new() };
        material.issue_serving(names, policy, now)?;
        Ok(material)
    }

    /// A new authority in front; the serving certificate stays.
    pub(super) fn add_authority(&mut self, policy: &Policy, now: Timestamp) -> Result<(), MaterialError> {
        let (authority, key) = make_authority(policy, now)?;
        // What has expired verifies nothing; dropping it here bounds the bundle however often this happens.
        self.authorities
            .retain(|authority| validity(authority).is_some_and(|validity| validity.not_after > now));
        self.authorities.insert(0, authority);
        self.authority_key = key;
        Ok(())
    }

    /// A new serving certificate, signed by the first authority.
    pub(super) fn issue_serving(
        &mut self,
        names: &[String],
        policy: &Policy,
        now: Timestamp,
    ) -> Result<(), MaterialError> {
        let authority = &self.authorities[0];
        let issuer = Issuer::from_ca_cert_der(authority, KeyPair::from_pem(&self.authority_key)?)?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = distinguished_name(names.first().map_or(ORGANIZATION, String::as_str));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        // Not longer than what it hangs on.
        let end = validity(authority).map_or(Timestamp::MAX, |authority| authority.not_after);
        date(&mut params, policy.serving_lifetime, end, policy, now);
        let key = KeyPair::generate()?;
        self.chain = params.signed_by(&key, &issuer)?.pem();
        self.key = key.serialize_pem();
        Ok(())
    }

    /// Only the first authority stays.
    pub(super) fn drop_authorities(&mut self) {
        self.authorities.truncate(1);
    }

    /// What verifies us, now and in the step that is under way: the `caBundle`.
    pub(super) fn bundle(&self) -> String {
        self.authorities.iter().map(pem).collect()
    }

    /// Certificate chain and key to serve.
    pub(super) fn serving(&self) -> (&str, &str) {
        (&self.chain, &self.key)
    }

    /// As the Secret stores it.
    pub(super) fn to_data(&self) -> BTreeMap<String, ByteString> {
        [
            (CA_CERTIFICATE, self.bundle()),
            (CA_KEY, self.authority_key.clone()),
            (SERVING_CERTIFICATE, self.chain.clone()),
            (SERVING_KEY, self.key.clone()),
        ]
        .map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes())))
        .into()
    }

    /// Reads a Secret. Only the bundle must be readable, so that what clients trust is not lost; whatever else is
    /// missing or broken shows in [`Material::state`].
    pub(super) fn from_data(data: &BTreeMap<String, ByteString>) -> Result<Self, MaterialError> {
        let bytes = |key: &str| data.get(key).map_or(&[][..], |value| value.0.as_slice());
        let text = |key: &str| String::from_utf8_lossy(bytes(key)).into_owned();
        let authorities = parse_certificates(bytes(CA_CERTIFICATE))?;
        if let Some(broken) = authorities.iter().position(|authority| validity(authority).is_none()) {
            return Err(MaterialError::Authority(broken));
        }
        Ok(Self {
            authorities,
            authority_key: text(CA_KEY),
            chain: text(SERVING_CERTIFICATE),
            key: text(SERVING_KEY),
        })
    }

    /// What the rotation decides from.
    pub(super) fn state(&self, names: &[String]) -> State {
        State {
            authorities: self.authorities.iter().filter_map(validity).collect(),
            can_sign: self.can_sign(),
            serving: self.serving_state(names),
        }
    }

    fn can_sign(&self) -> bool {
        let Ok(key) = KeyPair::from_pem(&self.authority_key) else { return false };
        X509Certificate::from_der(&self.authorities[0])
            .is_ok_and(|(_, parsed)| parsed.public_key().raw == key.subject_public_key_info())
    }

    fn serving_state(&self, names: &[String]) -> Option<Serving> {
        let chain = parse_certificates(self.chain.as_bytes()).ok()?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).ok()?;
        CertifiedKey::from_der(chain.clone(), key, &ring::default_provider()).ok()?;
        let certificate = &chain[0];
        let verdicts: Vec<Verdict> =
            self.authorities.iter().map(|authority| verify(certificate, authority, names)).collect();
        let issuer = verdicts.iter().position(|verdict| *verdict != Verdict::NotSigned);
        let covers_names = issuer.is_some_and(|issuer| verdicts[issuer] == Verdict::Valid);
        Some(Serving { validity: validity(certificate)?, issuer, covers_names })
    }
}

/// How a serving certificate stands to an authority.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Signed, and for all names.
    Valid,
    /// Signed, but a name is missing.
    LacksName,
    NotSigned,
}

/// Verifies as a client would, at the beginning of the certificate's time: its age is not the question.
fn verify(certificate: &CertificateDer<'_>, authority: &CertificateDer<'_>, names: &[String]) -> Verdict {
    let mut roots = RootCertStore::empty();
    let (Ok(()), Some(validity)) = (roots.add(authority.clone().into_owned()), validity(certificate)) else {
        return Verdict::NotSigned;
    };
    let provider = Arc::new(ring::default_provider());
    let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
        return Verdict::NotSigned;
    };
    let seconds = u64::try_from(validity.not_before.as_second()).unwrap_or(0);
    let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let mut verdict = Verdict::Valid;
    for name in names.iter().filter_map(|name| ServerName::try_from(name.as_str()).ok()) {
        match verifier.verify_server_cert(certificate, &[], &name, &[], time) {
            Ok(_) => {}
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => verdict = Verdict::LacksName,
            Err(_) => return Verdict::NotSigned,
        }
    }
    verdict
}

fn make_authority(
    policy: &Policy,
    now: Timestamp,
) -> Result<(CertificateDer<'static>, String), MaterialError> {
    let mut params = CertificateParams::default();
    // A name of its own: two authorities of one name in a bundle make some clients try only the first.
    params.distinguished_name = distinguished_name(&format!("tandem-ca-{}", now.as_millisecond()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    date(&mut params, policy.authority_lifetime, Timestamp::MAX, policy, now);
    let key = KeyPair::generate()?;
    let certificate: Certificate = params.self_signed(&key)?;
    Ok((certificate.der().clone(), key.serialize_pem()))
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, ORGANIZATION);
    name.push(DnType::CommonName, common_name);
    name
}

fn date(params: &mut CertificateParams, lifetime: Duration, end: Timestamp, policy: &Policy, now: Timestamp) {
    let epoch = date_time_ymd(1970, 1, 1);
    let since_epoch = |time: Timestamp| Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0));
    params.not_before = epoch + since_epoch(now).saturating_sub(policy.backdate);
    params.not_after = epoch + (since_epoch(now) + lifetime).min(since_epoch(end));
}

/// PEM as RFC 7468 writes it.
fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = BASE64_STANDARD.encode(certificate);
    let mut lines = String::with_capacity(text.len() + text.len() / 64 + 64);
    lines.push_str("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        lines.push_str(std::str::from_utf8(line).unwrap_or_default());
        lines.push('\n');
    }
    lines.push_str("-----END CERTIFICATE-----\n");
    lines
}

fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    // "Never" is written as the last second of the year 9999, which is beyond what a `Timestamp` holds.
    let last = Timestamp::MAX.as_second();
    let time = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp().min(last)).ok();
    Some(Validity {
        not_before: time(parsed.validity().not_before)?,
        not_after: time(parsed.validity().not_after)?,
    })
}

#[cfg(test)]
mod tests;
