//! The claims of a JWT whose signature is good.
use crate::jwt::failure::JwtFailure;
use serde_json::{Map, Value};

/// Tolerated difference between the clocks of the issuer and of this machine, in seconds.
const LEEWAY_S: f64 = 60.0;
/// The latest point in time that is read, in seconds since the epoch: the end of the year 9999. Milliseconds given as
/// seconds are beyond it, and PostgreSQL has a timestamp for all before it.
const MAX_TIME_S: f64 = 253_402_300_799.0;

/// Claims that Better Auth's OAuth servers put into access and ID tokens. The `jwt` plugin signs with the same keys, and
/// sets none of these.
const OAUTH_CLAIMS: [&str; 3] = ["azp", "client_id", "scope"];
/// The content of Better Auth's cookie cache, which lets in people who have signed out. It can be signed with Better
/// Auth's secret.
const COOKIE_CACHE_CLAIMS: [&str; 2] = ["session", "user"];

/// What a JWT says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VerifiedJwt {
    /// The user's id: never empty, and without U+0000.
    pub(crate) subject: String,
    /// In seconds since the epoch, rounded down.
    pub(crate) issued_at: i64,
    /// In seconds since the epoch, rounded down.
    pub(crate) expires_at: i64,
    /// When it has to be checked again, in seconds since the epoch: at its end, or at the end of its key.
    pub(crate) counts_until: i64,
}

/// The issuers and audiences that are accepted.
pub(crate) struct ClaimRules {
    pub(crate) issuers: Vec<String>,
    pub(crate) audiences: Vec<String>,
}

/// Who signed a JWT.
#[derive(Clone, Copy)]
pub(crate) enum Signer {
    /// Better Auth, with a key that may have an end.
    BetterAuth { key_counts_until: Option<i64> },
    /// A front end, with the shared secret.
    SharedSecret,
}

impl ClaimRules {
    /// Checks the claims. `now` is in seconds since the epoch.
    ///
    /// `iss` and `aud` are required of Better Auth. A front end need not set them; if it does, they have to be right.
    pub(crate) fn check(
        &self,
        claims: &Map<String, Value>,
        signer: Signer,
        now: i64,
    ) -> Result<VerifiedJwt, JwtFailure> {
        let (other_purposes, is_optional, key_counts_until) = match signer {
            Signer::BetterAuth { key_counts_until } => (&[][..], false, key_counts_until),
            Signer::SharedSecret => (&COOKIE_CACHE_CLAIMS[..], true, None),
        };
        if OAUTH_CLAIMS.iter().chain(other_purposes).any(|claim| claims.contains_key(*claim)) {
            return Err(JwtFailure::Purpose);
        }
        if !claims.get("iss").map_or(is_optional, |issuer| is_one_of(issuer, &self.issuers)) {
            return Err(JwtFailure::Issuer);
        }
        let is_ours = |audience: &Value| match audience {
            Value::Array(all) => all.iter().any(|one| is_one_of(one, &self.audiences)),
            one => is_one_of(one, &self.audiences),
        };
        if !claims.get("aud").map_or(is_optional, is_ours) {
            return Err(JwtFailure::Audience);
        }
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        if subject.is_empty() || subject.contains('\0') {
            return Err(JwtFailure::Subject);
        }

        let issued_at = time(claims, "iat")?.ok_or(JwtFailure::Times)?;
        let expires_at = time(claims, "exp")?.ok_or(JwtFailure::Times)?;
        let not_before = time(claims, "nbf")?;
        let now = now as f64;
        if expires_at <= now - LEEWAY_S {
            return Err(JwtFailure::Expired);
        }
        if issued_at > now + LEEWAY_S || not_before.is_some_and(|start| start > now + LEEWAY_S) {
            return Err(JwtFailure::NotYetValid);
        }
        let expires_at = expires_at as i64;
        let counts_until = key_counts_until.map_or(expires_at, |end| expires_at.min(end));
        Ok(VerifiedJwt { subject: subject.to_owned(), issued_at: issued_at as i64, expires_at, counts_until })
    }
}

fn is_one_of(value: &Value, known: &[String]) -> bool {
    value.as_str().is_some_and(|value| known.iter().any(|one| one == value))
}

/// Reads a point in time (RFC 7519, section 2: NumericDate, which may have a fraction).
///
/// # Errors
/// [`JwtFailure::Times`] unless the claim is absent, or a number of seconds until the year 9999.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, JwtFailure> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=MAX_TIME_S).contains(seconds));
    seconds.map(Some).ok_or(JwtFailure::Times)
}
