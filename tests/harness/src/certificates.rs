//! The certificates of a cluster: a certificate authority, and what it signs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// A certificate authority; its certificate lies in `<folder>/<name>.crt`.
pub struct Authority {
    folder: PathBuf,
    /// PEM.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
    name: String,
}

/// A certificate and its key: as PEM, and in files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PEM.
    pub certificate: String,
    /// PKCS#8 PEM.
    pub key: String,
    /// `<name>.crt`.
    pub certificate_file: PathBuf,
    /// `<name>.key`.
    pub key_file: PathBuf,
}

impl Authority {
    /// Makes an authority and writes its certificate and key into `folder`.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key)?.pem();
        write(folder, name, &certificate, &key.serialize_pem())?;
        Ok(Self {
            folder: folder.to_owned(),
            certificate,
            issuer: Issuer::new(params, key),
            name: name.to_owned(),
        })
    }

    /// The file that holds the authority's certificate.
    pub fn certificate_file(&self) -> PathBuf {
        self.folder.join(format!("{}.crt", self.name))
    }

    /// The file that holds the authority's key.
    pub fn key_file(&self) -> PathBuf {
        self.folder.join(format!("{}.key", self.name))
    }

    /// A client certificate: `user` is the common name, `groups` the organisations, as Kubernetes reads them.
    pub fn client(&self, file: &str, user: &str, groups: &[&str]) -> Result<Identity> {
        self.sign(file, user, groups, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A serving certificate for `names` (DNS names and addresses).
    pub fn server(&self, file: &str, names: &[&str]) -> Result<Identity> {
        self.sign(file, file, &[], names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn sign(
        &self,
        file: &str,
        common_name: &str,
        organisations: &[&str],
        names: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Identity> {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        for organisation in organisations {
            params.distinguished_name.push(DnType::OrganizationName, *organisation);
        }
        params.extended_key_usages.push(usage);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        write(&self.folder, file, &certificate, &key.serialize_pem())
    }
}

/// A key pair for signing `ServiceAccount` tokens: `<name>.key`, and `<name>.crt` that carries the public half.
pub fn token_signer(folder: &Path, name: &str) -> Result<Identity> {
    let key = KeyPair::generate()?;
    write(folder, name, &key.public_key_pem(), &key.serialize_pem())
}

fn write(folder: &Path, name: &str, certificate: &str, key: &str) -> Result<Identity> {
    let identity = Identity {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        certificate_file: folder.join(format!("{name}.crt")),
        key_file: folder.join(format!("{name}.key")),
    };
    fs::write(&identity.certificate_file, certificate)?;
    fs::write(&identity.key_file, key)?;
    Ok(identity)
}
