//! A directory that changes, for better and for worse.

use tempfile::TempDir;

use super::*;
use crate::serve::testing::Authority;

fn write(directory: &TempDir, file: &str, content: &str) {
    std::fs::write(directory.path().join(file), content).unwrap();
}

#[tokio::test]
async fn takes_up_what_fits() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = CertificateResolver::default();
    let mut served = None;
    let error = take_up(directory.path(), &certificates, &mut served).await.unwrap_err();
    assert!(error.to_string().contains("tls.crt"), "{error}");

    let authority = Authority::new("user's own");
    let (chain, key) = authority.server().pem();
    write(&directory, "tls.crt", &chain);
    write(&directory, "tls.key", &key);
    assert!(take_up(directory.path(), &certificates, &mut served).await.unwrap());
    assert!(certificates.is_ready());
    assert_eq!(served.as_ref().unwrap().bundle, None);
    assert!(!take_up(directory.path(), &certificates, &mut served).await.unwrap(), "nothing changed");

    write(&directory, "ca.crt", &authority.pem());
    assert!(take_up(directory.path(), &certificates, &mut served).await.unwrap());
    assert_eq!(served.as_ref().unwrap().bundle.as_deref(), Some(authority.pem().as_str()));

    // Half of an update, then the other half.
    let (chain, key) = authority.server().pem();
    write(&directory, "tls.crt", &chain);
    assert!(take_up(directory.path(), &certificates, &mut served).await.is_err());
    assert!(certificates.is_ready());
    write(&directory, "tls.key", &key);
    assert!(take_up(directory.path(), &certificates, &mut served).await.unwrap());
}
