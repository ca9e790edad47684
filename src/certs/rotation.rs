//! When to replace which certificate: pure, decided from what the Secret holds, what is published, and the time.
//!
//! A certificate authority is replaced in three steps, so that at no moment a client meets a certificate that its
//! bundle does not verify, however late a replica or an API server notices:
//!
//! 1. the new authority joins the bundle; the old one's serving certificate stays in use;
//! 2. once the bundle stands in every `caBundle`, the new authority signs the serving certificate;
//! 3. once every replica must have taken that up, the old authority leaves the bundle.
//!
//! No step is stored anywhere: which one is due can be read from the certificates.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its beginning.
    pub not_before: Timestamp,
    /// Its end.
    pub not_after: Timestamp,
}

impl Validity {
    /// Two thirds of the way: time to renew it, with a third left to fail in. cert-manager renews at the same point.
    fn renewal(self) -> Timestamp {
        self.not_before + self.not_before.duration_until(self.not_after) * 2 / 3
    }

    /// 29 thirtieths of the way, three days before the end of ninety: no more waiting for others.
    fn last_call(self) -> Timestamp {
        self.not_before + self.not_before.duration_until(self.not_after) * 29 / 30
    }
}

/// What the Secret holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The authorities of the bundle, newest first; the first one signs. Not empty.
    pub authorities: Vec<Validity>,
    /// Whether the first authority's key is there and fits.
    pub can_sign: bool,
    /// The serving certificate, if certificate and key are there and fit.
    pub serving: Option<Serving>,
}

/// The serving certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Its time.
    pub validity: Validity,
    /// Which authority of the bundle signed it, if any did.
    pub issuer: Option<usize>,
    /// Whether it is valid for all names that clients use.
    pub covers_names: bool,
}

/// Lifetimes and waiting times.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Lifetime of an authority.
    pub authority_lifetime: Duration,
    /// Lifetime of a serving certificate.
    pub serving_lifetime: Duration,
    /// From "the bundle stands in every `caBundle`" to "every API server has read it".
    pub settle: Duration,
    /// From "there is a new serving certificate" to "every replica serves it".
    pub overlap: Duration,
    /// How far certificates are dated back, for clocks that are behind ours.
    pub backdate: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        const DAY: Duration = Duration::from_hours(24);
        Self {
            authority_lifetime: DAY * 365,
            serving_lifetime: DAY * 90,
            // API servers and replicas watch, so seconds would do; waiting costs nothing.
            settle: Duration::from_mins(2),
            overlap: DAY,
            backdate: Duration::from_mins(10),
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing before this time, unless something changes.
    Wait(Timestamp),
    /// Put a new authority in front of the bundle; keep the rest.
    AddAuthority(Reason),
    /// Sign a new serving certificate with the first authority.
    IssueServing(Reason),
    /// Leave only the first authority in the bundle.
    DropAuthorities(Reason),
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The authority's key is missing or does not fit.
    AuthorityHasNoKey,
    /// The authority is two thirds through its life, or past it.
    AuthorityIsOld,
    /// There is no serving certificate with a fitting key.
    ServingIsMissing,
    /// The serving certificate is two thirds through its life, or past it.
    ServingIsOld,
    /// No authority of the bundle signed the serving certificate.
    ServingIsNotOfTheBundle,
    /// The serving certificate lacks a name.
    ServingLacksNames,
    /// The bundle with the new authority stands everywhere.
    BundleIsPublished,
    /// The bundle was not seen everywhere, but the serving certificate ends soon.
    ServingEndsSoon,
    /// Every replica serves the new authority's certificate.
    OverlapIsOver,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AuthorityHasNoKey => "the certificate authority has no usable key",
            Self::AuthorityIsOld => "the certificate authority is due for renewal",
            Self::ServingIsMissing => "there is no usable serving certificate",
            Self::ServingIsOld => "the serving certificate is due for renewal",
            Self::ServingIsNotOfTheBundle => "no authority of the bundle signed the serving certificate",
            Self::ServingLacksNames => "the serving certificate lacks a name",
            Self::BundleIsPublished => "the bundle with the new authority is published",
            Self::ServingEndsSoon => "the serving certificate ends soon",
            Self::OverlapIsOver => "the former authority's overlap is over",
        })
    }
}

/// The next step. `published` is since when this very bundle has stood in every `caBundle` of ours.
pub fn decide(state: &State, published: Option<Timestamp>, policy: &Policy, now: Timestamp) -> Action {
    let authority = state.authorities[0];
    if !state.can_sign {
        return Action::AddAuthority(Reason::AuthorityHasNoKey);
    }
    if authority.not_after <= now {
        return Action::AddAuthority(Reason::AuthorityIsOld);
    }
    let serving = match usable(state.serving, now) {
        Ok(serving) => serving,
        Err(reason) => return Action::IssueServing(reason),
    };
    if serving.issuer == Some(0) {
        after_the_swap(state, serving, published, policy, now)
    } else {
        before_the_swap(serving, published, policy, now)
    }
}

/// The serving certificate, or why nobody can be served with it: then a new one cannot make things worse.
fn usable(serving: Option<Serving>, now: Timestamp) -> Result<Serving, Reason> {
    let serving = serving.ok_or(Reason::ServingIsMissing)?;
    if serving.issuer.is_none() {
        return Err(Reason::ServingIsNotOfTheBundle);
    }
    if serving.validity.not_after <= now {
        return Err(Reason::ServingIsOld);
    }
    if !serving.covers_names {
        return Err(Reason::ServingLacksNames);
    }
    Ok(serving)
}

/// An older authority signed the serving certificate.
fn before_the_swap(
    serving: Serving,
    published: Option<Timestamp>,
    policy: &Policy,
    now: Timestamp,
) -> Action {
    let last_call = serving.validity.last_call();
    if last_call <= now {
        return Action::IssueServing(Reason::ServingEndsSoon);
    }
    match published.map(|since| since + signed(policy.settle)) {
        Some(settled) if settled <= now => Action::IssueServing(Reason::BundleIsPublished),
        Some(settled) => Action::Wait(settled.min(last_call)),
        None => Action::Wait(last_call),
    }
}

/// The first authority signed the serving certificate.
fn after_the_swap(
    state: &State,
    serving: Serving,
    published: Option<Timestamp>,
    policy: &Policy,
    now: Timestamp,
) -> Action {
    // What ends with its authority cannot be had longer from it.
    let longest = serving.validity.not_after >= state.authorities[0].not_after;
    let renewal = if longest { serving.validity.not_after } else { serving.validity.renewal() };
    if renewal <= now {
        return Action::IssueServing(Reason::ServingIsOld);
    }
    if state.authorities.len() > 1 {
        let over = serving.validity.not_before + signed(policy.backdate + policy.overlap);
        return if over <= now {
            Action::DropAuthorities(Reason::OverlapIsOver)
        } else {
            Action::Wait(over.min(renewal))
        };
    }
    let authority = state.authorities[0].renewal();
    if authority > now {
        return Action::Wait(authority.min(renewal));
    }
    // Without a word from every caBundle that it can be changed, a new authority could never be used.
    if published.is_none() { Action::Wait(renewal) } else { Action::AddAuthority(Reason::AuthorityIsOld) }
}

/// Durations of this module are days: they fit.
fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests;
