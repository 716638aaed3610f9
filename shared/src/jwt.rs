//! Better Auth's JWTs (RFC 7519): the tokens of its `jwt` plugin, and those that a front end signs with a shared secret.
//! Whether the user is still signed in, only the database knows.
//!
//! The signatures are checked by the OpenSSL that native-tls links already. What else a JWT needs are the rules of this
//! module, which are stricter than a general library's, so that one would add size and no check.
pub(crate) mod claims;
pub(crate) mod failure;
pub(crate) mod key;
pub(crate) mod known;
pub(crate) mod memory;

use crate::jwt::{
    claims::{ClaimRules, Signer, VerifiedJwt},
    failure::JwtFailure,
    key::{Algorithm, Keys},
    memory::VerifiedTokens,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value};
use sha2::Sha256;

/// The longest JWT that is read, in bytes. API Gateway accepts 10,240 bytes of headers in all.
const MAX_TOKEN_BYTES: usize = 8192;

/// The algorithm of JWTs that are signed with a shared secret.
const SHARED_SECRET_ALGORITHM: &str = "HS256";

/// The rules for checking a JWT. It cannot be printed.
pub(crate) struct JwtRules {
    claims: ClaimRules,
    /// `None` where no JWT is signed with a shared secret.
    shared_secret: Option<Hmac<Sha256>>,
}

/// The three parts of a JWT.
struct Parts<'a> {
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
    /// The header and the claims, as they were signed.
    signed: &'a str,
}

impl JwtRules {
    /// A JWT needs one of the issuers and one of the audiences. JWTs with HS256 are accepted if there is a shared
    /// secret.
    pub(crate) fn new(issuers: Vec<String>, audiences: Vec<String>, shared_secret: Option<&str>) -> Self {
        let shared_secret = shared_secret.map(|secret| match Hmac::new_from_slice(secret.as_bytes()) {
            Ok(mac) => mac,
            Err(_) => unreachable!("HMAC accepts keys of any length (RFC 2104, section 2)"),
        });
        Self { claims: ClaimRules { issuers, audiences }, shared_secret }
    }

    /// Checks everything about a JWT that the keys and the time show. `now` is in seconds since the epoch.
    ///
    /// Nothing in the claims is looked at before the signature is known to be good.
    ///
    /// # Errors
    /// The first reason for refusing it.
    pub(crate) fn verify(&self, token: &str, keys: &Keys, now: i64) -> Result<VerifiedJwt, JwtFailure> {
        let parts = Parts::split(token).ok_or(JwtFailure::Malformed)?;
        let header = json_object(parts.header).ok_or(JwtFailure::Malformed)?;
        check_header(&header)?;
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(JwtFailure::Algorithm)?;
        let signature = URL_SAFE_NO_PAD.decode(parts.signature).map_err(|_| JwtFailure::Malformed)?;
        let claims = || json_object(parts.claims).ok_or(JwtFailure::Malformed);

        if algorithm == SHARED_SECRET_ALGORITHM {
            let mac = self.shared_secret.clone().ok_or(JwtFailure::Algorithm)?;
            mac.chain_update(parts.signed).verify_slice(&signature).map_err(|_| JwtFailure::Signature)?;
            return self.claims.check(&claims()?, Signer::SharedSecret, now);
        }
        let algorithm = Algorithm::from_name(algorithm).ok_or(JwtFailure::Algorithm)?;
        let id = header.get("kid").and_then(Value::as_str).ok_or(JwtFailure::UnknownKey)?;
        let key = keys.get(id).ok_or(JwtFailure::UnknownKey)?;
        key.check_time(now)?;
        key.check_signature(algorithm, parts.signed.as_bytes(), &signature)?;
        self.claims.check(&claims()?, Signer::BetterAuth { key_counts_until: key.counts_until() }, now)
    }

    /// Like [`verify`](Self::verify), but checks a token that was good before only once. The memory has to be a new one
    /// whenever these rules or the keys are replaced.
    ///
    /// # Errors
    /// The first reason for refusing it.
    pub(crate) fn verify_once(
        &self,
        token: &str,
        keys: &Keys,
        memory: &VerifiedTokens,
        now: i64,
    ) -> Result<VerifiedJwt, JwtFailure> {
        if let Some(known) = memory.get(token, now) {
            return Ok(known);
        }
        let verified = self.verify(token, keys, now)?;
        memory.insert(token, verified.clone());
        Ok(verified)
    }
}

/// Whether a bearer token is meant as a JWT: three parts, of which the first is a header. It need not be a good one.
pub(crate) fn looks_like_jwt(token: &str) -> bool {
    let header = token.split_once('.').filter(|(_, rest)| rest.matches('.').count() == 1).map(|(header, _)| header);
    header.and_then(json_object).is_some_and(|header| header.contains_key("alg"))
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Option<Self> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        (!claims.contains('.')).then_some(Self { header, claims, signature, signed })
    }
}

/// Reads an encoded JSON object. Of two members with one name the last counts, as in JavaScript.
fn json_object(encoded: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

/// Refuses what is not a plain JWT: tokens of another type, such as Better Auth's cookie cache, and those with
/// extensions (RFC 7515, section 4.1.11; RFC 7797).
fn check_header(header: &Map<String, Value>) -> Result<(), JwtFailure> {
    let is_jwt = |kind: &str| ["jwt", "application/jwt"].iter().any(|known| kind.eq_ignore_ascii_case(known));
    if header.get("typ").is_some_and(|kind| !kind.as_str().is_some_and(is_jwt)) {
        return Err(JwtFailure::Type);
    }
    if ["crit", "b64"].iter().any(|extension| header.contains_key(*extension)) {
        return Err(JwtFailure::Malformed);
    }
    Ok(())
}
