//! Bind addresses as Go programs write them.

use std::{net::SocketAddr, str::FromStr};

/// `:8080`, `127.0.0.1:8080` or `[::1]:8080`; `0` is off, as controller-runtime has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindAddress(pub Option<SocketAddr>);

/// An address that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no bind address; write :PORT, IP:PORT, or 0 to turn it off")]
pub struct BindAddressError(String);

impl FromStr for BindAddress {
    type Err = BindAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if matches!(text, "0" | "") {
            return Ok(Self(None));
        }
        let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
        full.parse().map(|address| Self(Some(address))).map_err(|_| BindAddressError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_go_writes_them() {
        for (text, want) in [
            (":8080", Some("0.0.0.0:8080")),
            ("127.0.0.1:9443", Some("127.0.0.1:9443")),
            ("[::1]:6443", Some("[::1]:6443")),
            ("0", None),
        ] {
            assert_eq!(text.parse(), Ok(BindAddress(want.map(|a| a.parse().unwrap()))), "{text}");
        }
        assert!("localhost".parse::<BindAddress>().is_err());
    }
}
