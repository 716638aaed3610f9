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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::key::Key;
    use openssl::{
        error::ErrorStack,
        pkey::{PKey, Private},
        sign::Signer as OpenSslSigner,
    };
    use proptest::prelude::*;
    use serde_json::json;

    const URL: &str = "http://localhost:3000";
    const SECRET: &str = "a-shared-secret-of-the-tests-0123456789";
    const NOW: i64 = 1_800_000_000;

    fn rules() -> JwtRules {
        JwtRules::new(vec![URL.into()], vec![URL.into()], Some(SECRET))
    }

    fn claims() -> Value {
        json!({"sub": "ada", "iat": NOW - 10, "exp": NOW + 900, "iss": URL, "aud": URL})
    }

    fn encode(part: impl AsRef<[u8]>) -> String {
        URL_SAFE_NO_PAD.encode(part)
    }

    fn with_hs256(header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(&signed);
        format!("{signed}.{}", encode(mac.finalize().into_bytes()))
    }

    fn with_ed25519(key: &PKey<Private>, header: &str, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header), encode(claims.to_string()));
        let signature = OpenSslSigner::new_without_digest(key).unwrap().sign_oneshot_to_vec(signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature))
    }

    fn ed25519() -> (PKey<Private>, Keys) {
        let key = PKey::generate_ed25519().unwrap();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(key.raw_public_key().unwrap())}).to_string();
        (key, Keys::from_rows([("k", &*jwk, None, None)]))
    }

    /// Rows of `jwks`, each with a token of `/api/auth/token`. Made with better-auth 1.7.25.
    fn better_auth_tokens() -> Vec<Map<String, Value>> {
        serde_json::from_str(include_str!("jwt/vectors.json")).unwrap()
    }

    fn text<'a>(row: &'a Map<String, Value>, name: &str) -> &'a str {
        row[name].as_str().unwrap()
    }

    #[test]
    fn a_token_of_better_auth_is_accepted_with_each_of_its_five_algorithms() {
        let rows = better_auth_tokens();
        for with_algorithm in [true, false] {
            // Better Auth 1.4 stores no algorithm.
            let key = |row| (text(row, "id"), text(row, "publicKey"), with_algorithm.then(|| text(row, "alg")), None);
            let keys = Keys::from_rows(rows.iter().map(key));
            let algorithms: Vec<_> = rows.iter().map(|row| text(row, "alg")).collect();
            assert_eq!(algorithms, ["EdDSA", "ES256", "ES512", "PS256", "RS256"]);
            for row in &rows {
                let (token, issued_at) = (text(row, "token"), row["iat"].as_i64().unwrap());
                let verified = rules().verify(token, &keys, issued_at + 1).unwrap();
                let expires_at = issued_at + 900;
                let subject = text(row, "sub").to_owned();
                assert_eq!(verified, VerifiedJwt { subject, issued_at, expires_at, counts_until: expires_at });
                assert!(looks_like_jwt(token));
                let expired = rules().verify(token, &keys, expires_at + 60);
                assert_eq!(expired, Err(JwtFailure::Expired), "{}", text(row, "alg"));
            }
        }
    }

    #[test]
    fn a_changed_signature_is_refused_and_leaves_no_error_in_openssls_queue() {
        let rows = better_auth_tokens();
        let key = |row| (text(row, "id"), text(row, "publicKey"), Some(text(row, "alg")), None);
        let keys = Keys::from_rows(rows.iter().map(key));
        for row in &rows {
            let (signed, signature) = text(row, "token").rsplit_once('.').unwrap();
            let good = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let mut changed = vec![vec![], vec![0; good.len()], vec![255; good.len()], good[1..].to_vec()];
            changed.push([&[0], &good[..]].concat());
            changed.push([&good[..], &[0]].concat());
            // With a zero before the second number of an elliptic curve's signature.
            changed.push([&good[..good.len() / 2], &[0], &good[good.len() / 2..]].concat());
            for at in [0, good.len() / 2, good.len() - 1] {
                changed.push(good.clone());
                changed.last_mut().unwrap()[at] ^= 1;
            }
            for signature in changed {
                let token = format!("{signed}.{}", encode(signature));
                let verdict = rules().verify(&token, &keys, row["iat"].as_i64().unwrap());
                assert_eq!(verdict, Err(JwtFailure::Signature), "{token}");
                // A later call for TLS would take such an error for its own.
                assert!(ErrorStack::get().errors().is_empty(), "{token}");
            }
        }
    }

    #[test]
    fn the_key_decides_on_the_algorithm_not_the_token() {
        let (key, keys) = ed25519();
        let header = |algorithm: &str| json!({"alg": algorithm, "kid": "k"}).to_string();
        let verify = |algorithm: &str| rules().verify(&with_ed25519(&key, &header(algorithm), &claims()), &keys, NOW);
        assert_eq!(verify("EdDSA").unwrap().subject, "ada");
        for other in ["none", "None", "", "ES256", "RS256", "Ed25519", "eddsa", "HS512"] {
            assert_eq!(verify(other), Err(JwtFailure::Algorithm), "{other}");
        }
        assert_eq!(verify("HS256"), Err(JwtFailure::Signature));
    }

    #[test]
    fn a_token_without_the_id_of_a_known_key_is_refused() {
        let (key, keys) = ed25519();
        let verify = |kid: Value| {
            let header = json!({"alg": "EdDSA", "kid": kid}).to_string();
            rules().verify(&with_ed25519(&key, &header, &claims()), &keys, NOW)
        };
        assert!(verify(json!("k")).is_ok());
        for other in [json!("K"), json!("k "), json!(""), json!(null), json!(0), json!(["k"])] {
            assert_eq!(verify(other.clone()), Err(JwtFailure::UnknownKey), "{other}");
        }
        let without = with_ed25519(&key, r#"{"alg":"EdDSA"}"#, &claims());
        assert_eq!(rules().verify(&without, &keys, NOW), Err(JwtFailure::UnknownKey));
    }

    #[test]
    fn the_shared_secret_signs_only_where_it_is_set() {
        let token = with_hs256(&json!({"alg": "HS256"}), &claims());
        assert_eq!(rules().verify(&token, &Keys::default(), NOW).unwrap().subject, "ada");
        let without = JwtRules::new(vec![URL.into()], vec![URL.into()], None);
        assert_eq!(without.verify(&token, &Keys::default(), NOW), Err(JwtFailure::Algorithm));
        let other = JwtRules::new(vec![URL.into()], vec![URL.into()], Some(&SECRET.to_uppercase()));
        assert_eq!(other.verify(&token, &Keys::default(), NOW), Err(JwtFailure::Signature));
    }

    #[test]
    fn a_token_of_another_type_or_with_extensions_is_refused() {
        let verify = |name: &str, value: Value| {
            let header = json!({"alg": "HS256", name: value});
            rules().verify(&with_hs256(&header, &claims()), &Keys::default(), NOW).map(|jwt| jwt.subject)
        };
        for kind in ["JWT", "jwt", "application/JWT"] {
            assert_eq!(verify("typ", json!(kind)), Ok("ada".to_owned()), "{kind}");
        }
        for kind in [json!("better-auth.session-cache+jwt"), json!("at+jwt"), json!(""), json!(null), json!(["JWT"])] {
            assert_eq!(verify("typ", kind.clone()), Err(JwtFailure::Type), "{kind}");
        }
        for (name, value) in [("crit", json!(["exp"])), ("crit", json!([])), ("b64", json!(true)), ("b64", json!(null))]
        {
            assert_eq!(verify(name, value.clone()), Err(JwtFailure::Malformed), "{name} {value}");
        }
    }

    #[test]
    fn of_two_members_with_one_name_the_last_counts_as_in_javascript() {
        let (key, keys) = ed25519();
        let verify = |header: &str| rules().verify(&with_ed25519(&key, header, &claims()), &keys, NOW);
        assert!(verify(r#"{"alg":"none","alg":"EdDSA","kid":"k"}"#).is_ok());
        assert_eq!(verify(r#"{"alg":"EdDSA","kid":"k","alg":"none"}"#), Err(JwtFailure::Algorithm));
    }

    #[test]
    fn base64_that_is_not_exact_is_refused() {
        let token = with_hs256(&json!({"alg": "HS256"}), &claims());
        let last = token.as_bytes()[token.len() - 1];
        let other_bits = format!("{}{}", &token[..token.len() - 1], char::from(last + 1));
        for other in [format!("{token}="), format!("{token} "), format!("{token}\n"), other_bits, format!("{token}.")] {
            assert_eq!(rules().verify(&other, &Keys::default(), NOW), Err(JwtFailure::Malformed), "{other}");
        }
    }

    #[test]
    fn a_token_of_8192_bytes_is_read_and_a_longer_one_is_not() {
        let mut long = claims();
        let of_length = |padding: usize, claims: &mut Value| {
            claims["x"] = json!("x".repeat(padding));
            with_hs256(&json!({"alg": "HS256"}), claims)
        };
        let accepted = (5000..6500).map(|padding| of_length(padding, &mut long)).rfind(|token| token.len() <= 8192);
        assert_eq!(accepted.as_ref().map(String::len), Some(8192));
        assert!(rules().verify(&accepted.unwrap(), &Keys::default(), NOW).is_ok());
        let refused = (5000..6500).map(|padding| of_length(padding, &mut long)).find(|token| token.len() > 8192);
        assert_eq!(rules().verify(&refused.unwrap(), &Keys::default(), NOW), Err(JwtFailure::Malformed));
    }

    #[test]
    fn a_key_counts_for_30_days_after_its_end() {
        let (key, _) = ed25519();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(key.raw_public_key().unwrap())}).to_string();
        let end = NOW - 30 * 24 * 60 * 60;
        let token = with_ed25519(&key, r#"{"alg":"EdDSA","kid":"k"}"#, &claims());
        let verify = |end| {
            let keys: Keys = [Key::from_row("k", &jwk, Some("EdDSA"), Some(end)).unwrap()].into_iter().collect();
            rules().verify(&token, &keys, NOW).map(|jwt| jwt.counts_until)
        };
        assert_eq!(verify(NOW), Ok(NOW + 900));
        assert_eq!(verify(end + 1), Ok(NOW + 1));
        assert_eq!(verify(end), Err(JwtFailure::KeyExpired));
        assert_eq!(verify(i64::MAX), Ok(NOW + 900));
        assert_eq!(verify(i64::MIN), Err(JwtFailure::KeyExpired));
    }

    #[test]
    fn a_token_is_checked_once_while_it_counts() {
        let (memory, none) = (VerifiedTokens::default(), Keys::default());
        let (key, keys) = ed25519();
        let token = with_ed25519(&key, r#"{"alg":"EdDSA","kid":"k"}"#, &claims());
        let verify = |keys: &Keys, now| rules().verify_once(&token, keys, &memory, now);
        assert_eq!(verify(&none, NOW), Err(JwtFailure::UnknownKey));
        let first = verify(&keys, NOW);
        assert!(first.is_ok());
        // Without the key it cannot be checked, only remembered.
        assert_eq!(verify(&none, NOW + 899), first);
        assert_eq!(verify(&none, NOW + 900), Err(JwtFailure::UnknownKey));
        let other = with_ed25519(&key, r#"{"kid":"k","alg":"EdDSA"}"#, &claims());
        assert_eq!(rules().verify_once(&other, &none, &memory, NOW), Err(JwtFailure::UnknownKey));
    }

    #[test]
    fn a_bearer_token_looks_like_a_jwt_if_its_first_part_of_three_is_a_header() {
        let header = encode(r#"{"alg":"x"}"#);
        for token in [format!("{header}.a.b"), format!("{header}..")] {
            assert!(looks_like_jwt(&token), "{token}");
        }
        let no_header = encode(r#"{"typ":"JWT"}"#);
        for token in ["", "a.b", "a.b.c", "..", &header, &format!("{header}.a"), &format!("{header}.a.b.c")] {
            assert!(!looks_like_jwt(token), "{token}");
        }
        assert!(!looks_like_jwt(&format!("{no_header}.a.b")));
    }

    #[test]
    fn names_are_unique() {
        use JwtFailure::*;
        let all = [
            Malformed,
            Type,
            Algorithm,
            UnknownKey,
            KeyExpired,
            Signature,
            Times,
            Expired,
            NotYetValid,
            Issuer,
            Audience,
            Subject,
            Purpose,
        ];
        let names: std::collections::BTreeSet<_> = all.iter().map(|failure| failure.name()).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.iter().all(|name| name.starts_with("jwt_")));
    }

    proptest! {
        #[test]
        fn no_token_panics(token in "[\\PC.]{0,80}", header in "\\PC{0,40}", claims in "\\PC{0,40}", signature in any::<Vec<u8>>()) {
            let (_, keys) = ed25519();
            let encoded = format!("{}.{}.{}", encode(header), encode(claims), encode(&signature));
            let signed = format!("{}.e30.{}", encode(r#"{"alg":"EdDSA","kid":"k"}"#), encode(&signature));
            for token in [token, encoded, signed] {
                looks_like_jwt(&token);
                prop_assert!(rules().verify(&token, &keys, NOW).is_err());
            }
        }
    }
}
