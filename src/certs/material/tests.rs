//! Certificates that are made, and years of rotation over virtual time.

use jiff::{SignedDuration, ToSpan};
use rcgen::PKCS_RSA_SHA256;

use super::{
    super::{
        CertsConfig,
        rotation::{Action, Reason, decide},
    },
    *,
};

fn names() -> Vec<String> {
    CertsConfig::new("tandem").names()
}

fn start() -> Timestamp {
    "2026-11-20T00:00:00Z".parse().unwrap()
}

/// Whether a client that trusts `bundle` accepts the serving certificate at `now`, under every name.
fn accepted(bundle: &str, material: &Material, now: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    for authority in parse_certificates(bundle.as_bytes()).unwrap() {
        // A client that minds the authority's own time, as Go's does.
        let validity = validity(&authority).unwrap();
        if validity.not_before <= now && now < validity.not_after {
            roots.add(authority).unwrap();
        }
    }
    let provider = Arc::new(ring::default_provider());
    let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
        return false;
    };
    let chain = parse_certificates(material.chain.as_bytes()).unwrap();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().cast_unsigned()));
    names().iter().all(|name| {
        let name = ServerName::try_from(name.as_str()).unwrap();
        verifier.verify_server_cert(&chain[0], &[], &name, &[], time).is_ok()
    })
}

#[test]
fn what_is_made_is_accepted() {
    let material = Material::generate(&names(), &Policy::default(), start()).unwrap();
    assert!(accepted(&material.bundle(), &material, start()));
    assert!(accepted(&material.bundle(), &material, start() - 9.minutes()), "for clocks that are behind");
    assert!(!accepted(&material.bundle(), &material, start() + (24 * 91).hours()));
    let state = material.state(&names());
    assert!(state.can_sign);
    assert_eq!(state.serving.map(|serving| (serving.issuer, serving.covers_names)), Some((Some(0), true)));
    assert_eq!(
        names(),
        [
            "tandem.tandem.svc",
            "tandem",
            "tandem.tandem",
            "tandem.tandem.svc.cluster.local",
            "tandem-webhooks.tandem.svc",
            "tandem-webhooks",
            "tandem-webhooks.tandem",
            "tandem-webhooks.tandem.svc.cluster.local",
        ]
    );
}

#[test]
fn a_secret_keeps_everything() {
    let mut material = Material::generate(&names(), &Policy::default(), start()).unwrap();
    material.add_authority(&Policy::default(), start()).unwrap();
    let read = Material::from_data(&material.to_data()).unwrap();
    assert_eq!(read, material);
    assert_eq!(read.bundle(), material.bundle());
    assert_eq!(material.to_data().keys().collect::<Vec<_>>(), ["ca.crt", "ca.key", "tls.crt", "tls.key"]);
    assert!(!format!("{material:?}").contains("PRIVATE"));
}

#[test]
fn broken_secrets() {
    let good = Material::generate(&names(), &Policy::default(), start()).unwrap();
    let other = Material::generate(&names(), &Policy::default(), start()).unwrap();
    let with = |key: &str, value: &str| {
        let mut data = good.to_data();
        data.insert(key.to_owned(), ByteString(value.as_bytes().to_vec()));
        Material::from_data(&data)
    };
    for bundle in ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(with(CA_CERTIFICATE, bundle).is_err(), "{bundle}");
    }
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (name, key, value, want) in [
        ("no authority key", CA_KEY, "", Reason::AuthorityHasNoKey),
        ("another's authority key", CA_KEY, &other.authority_key, Reason::AuthorityHasNoKey),
        ("no certificate", SERVING_CERTIFICATE, "", Reason::ServingIsMissing),
        ("a broken certificate", SERVING_CERTIFICATE, broken, Reason::ServingIsMissing),
        ("another's certificate", SERVING_CERTIFICATE, &other.chain, Reason::ServingIsMissing),
        ("another's key", SERVING_KEY, &other.key, Reason::ServingIsMissing),
        ("another's authority", CA_CERTIFICATE, &other.bundle(), Reason::AuthorityHasNoKey),
    ] {
        let state = with(key, value).unwrap().state(&names());
        let (Action::AddAuthority(reason) | Action::IssueServing(reason)) =
            decide(&state, None, &Policy::default(), start())
        else {
            panic!("{name}: {state:?}");
        };
        assert_eq!(reason, want, "{name}");
    }
    // The pair of another authority.
    let mut data = good.to_data();
    data.extend(other.to_data().into_iter().filter(|(key, _)| key.starts_with("tls")));
    let state = Material::from_data(&data).unwrap().state(&names());
    assert_eq!(state.serving.unwrap().issuer, None);
    // Names that are not on it.
    let state = good.state(&["elsewhere.tandem.svc".to_owned()]);
    assert_eq!(state.serving.map(|serving| (serving.issuer, serving.covers_names)), Some((Some(0), false)));
}

/// A Secret as KEDA's operator leaves it: an authority whose key this build cannot use, a serving certificate for
/// other names. Its authority stays in the bundle until the overlap is over.
#[test]
fn keda_secret_is_taken_over() {
    let keda = Material::generate(
        &["keda-operator.keda.svc".to_owned()],
        &Policy { authority_lifetime: Duration::from_hours(10 * 365 * 24), ..Policy::default() },
        start(),
    )
    .unwrap();
    assert!(KeyPair::generate_for(&PKCS_RSA_SHA256).is_err(), "as KEDA's RSA keys");
    let mut data = keda.to_data();
    data.insert(
        CA_KEY.to_owned(),
        ByteString(b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n".to_vec()),
    );
    let mut material = Material::from_data(&data).unwrap();
    let policy = Policy::default();
    assert_eq!(
        decide(&material.state(&names()), None, &policy, start()),
        Action::AddAuthority(Reason::AuthorityHasNoKey)
    );
    material.add_authority(&policy, start()).unwrap();
    assert_eq!(
        decide(&material.state(&names()), None, &policy, start()),
        Action::IssueServing(Reason::ServingLacksNames)
    );
    material.issue_serving(&names(), &policy, start()).unwrap();
    assert!(accepted(&material.bundle(), &material, start()));
    assert_eq!(material.authorities.len(), 2);
    let later = start() + 24.hours();
    assert_eq!(
        decide(&material.state(&names()), None, &policy, later),
        Action::DropAuthorities(Reason::OverlapIsOver)
    );
}

/// "Never" is the last second of the year 9999 (RFC 5280, 4.1.2.5).
#[test]
fn an_authority_that_never_ends() {
    let mut params = CertificateParams::default();
    params.not_after = date_time_ymd(9999, 12, 31) + Duration::from_secs(24 * 3600 - 1);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let text = |text: String| ByteString(text.into_bytes());
    let data = [(CA_CERTIFICATE, text(authority.pem())), (CA_KEY, text(key.serialize_pem()))];
    let mut material = Material::from_data(&data.map(|(key, text)| (key.to_owned(), text)).into()).unwrap();
    material.issue_serving(&names(), &Policy::default(), start()).unwrap();
    assert!(accepted(&material.bundle(), &material, start()));
    let wait = decide(&material.state(&names()), None, &Policy::default(), start());
    assert!(matches!(wait, Action::Wait(_)), "{wait:?}");
}

#[test]
fn a_serving_certificate_does_not_outlive_its_authority() {
    let mut material = Material::generate(&names(), &Policy::default(), start()).unwrap();
    let late = start() + (24 * 350).hours();
    material.issue_serving(&names(), &Policy::default(), late).unwrap();
    let state = material.state(&names());
    assert_eq!(state.serving.unwrap().validity.not_after, state.authorities[0].not_after);
}

/// Three years, a look every eight hours. API servers read a bundle up to sixteen hours late, replicas take up a
/// certificate up to sixteen hours late: whoever meets whom, the certificate is accepted.
#[test]
fn years_without_a_gap() {
    let policy = Policy::default();
    let mut recent = vec![Material::generate(&names(), &policy, start()).unwrap()];
    let mut published = None;
    let (mut added, mut swapped, mut dropped) = (0, 0, 0);
    for look in 0..3 * 365 * 3 {
        let now = start() + SignedDuration::from_hours(8 * look);
        let mut material = recent.last().unwrap().clone();
        let all_have_read = recent.iter().all(|former| former.bundle() == material.bundle());
        published = if all_have_read { published.or(Some(now)) } else { None };
        match decide(&material.state(&names()), published, &policy, now) {
            Action::AddAuthority(_) => {
                added += 1;
                material.add_authority(&policy, now).unwrap();
            }
            Action::IssueServing(reason) => {
                swapped += u32::from(reason == Reason::BundleIsPublished);
                material.issue_serving(&names(), &policy, now).unwrap();
            }
            Action::DropAuthorities(_) => {
                dropped += 1;
                material.drop_authorities();
            }
            Action::Wait(_) => {}
        }
        recent.push(material);
        if recent.len() > 3 {
            recent.remove(0);
        }
        // Most looks change nothing: then one pair stands for all.
        let mut different = recent.clone();
        different.dedup();
        for api_server in &different {
            for replica in &different {
                assert!(accepted(&api_server.bundle(), replica, now), "{now}");
            }
        }
    }
    assert_eq!((added, swapped, dropped), (4, 4, 4));
}
