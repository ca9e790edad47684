//! Certificates from files, for those who make their own: polled by content, since a mounted Secret changes by a
//! symlink swap that file watches miss.

use std::{io, path::Path, sync::Arc, time::Duration};

use tokio::{fs, sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::material::{CA_CERTIFICATE, SERVING_CERTIFICATE, SERVING_KEY};
use crate::serve::{CertificateError, CertificateResolver};

/// How often the files are read.
const INTERVAL: Duration = Duration::from_secs(10);

/// Why the files are not served.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot read {file}: {error}")]
    Read { file: &'static str, error: io::Error },
    #[error("{SERVING_CERTIFICATE}, {SERVING_KEY}: {0}")]
    Certificate(#[from] CertificateError),
}

/// The contents that are served.
#[derive(PartialEq, Eq)]
struct Contents {
    chain: Vec<u8>,
    key: Vec<u8>,
    /// None without a `ca.crt`: then `caBundle` is somebody else's care.
    bundle: Option<Arc<str>>,
}

/// Serves `tls.crt` and `tls.key` of `directory`, and has `ca.crt` published, until `shutdown`. What cannot be served
/// leaves the former certificate in use.
pub(super) async fn keep(
    directory: &Path,
    certificates: &CertificateResolver,
    bundle: watch::Sender<Option<Arc<str>>>,
    shutdown: CancellationToken,
) {
    let mut served = None;
    let mut said = String::new();
    loop {
        match take_up(directory, certificates, &mut served).await {
            Ok(true) => {
                said.clear();
                info!(directory = %directory.display(), "serving certificate taken up");
                bundle.send_replace(served.as_ref().and_then(|contents| contents.bundle.clone()));
            }
            Ok(false) => said.clear(),
            Err(error) => {
                let error = error.to_string();
                if said != error {
                    warn!(error, directory = %directory.display(), "serving certificate not taken up");
                    said = error;
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(INTERVAL) => {}
        }
    }
}

/// Whether there was something new to serve. A pair that does not fit, as in the middle of an update, is tried again.
async fn take_up(
    directory: &Path,
    certificates: &CertificateResolver,
    served: &mut Option<Contents>,
) -> Result<bool, FileError> {
    let contents = read(directory).await?;
    if served.as_ref() == Some(&contents) {
        return Ok(false);
    }
    certificates.set(&contents.chain, &contents.key)?;
    *served = Some(contents);
    Ok(true)
}

async fn read(directory: &Path) -> Result<Contents, FileError> {
    let read = async |file: &'static str| {
        fs::read(directory.join(file)).await.map_err(|error| FileError::Read { file, error })
    };
    let bundle = match read(CA_CERTIFICATE).await {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into()),
        Err(FileError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(Contents { chain: read(SERVING_CERTIFICATE).await?, key: read(SERVING_KEY).await?, bundle })
}

#[cfg(test)]
mod tests;
