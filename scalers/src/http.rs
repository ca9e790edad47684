//! HTTP clients, shared by all scalers.

use crate::error::Error;

/// Connection pools; cloning shares them.
#[derive(Clone)]
pub struct HttpClients {
    verified: reqwest::Client,
}

impl HttpClients {
    /// Fresh pools.
    pub fn new() -> Result<Self, Error> {
        let verified =
            reqwest::Client::builder().build().map_err(|problem| Error::Configuration(problem.to_string()))?;
        Ok(Self { verified })
    }

    /// The pool that verifies certificates.
    pub fn verified(&self) -> &reqwest::Client {
        &self.verified
    }
}
