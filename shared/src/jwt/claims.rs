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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: i64 = 1_800_000_000;
    const BETTER_AUTH: Signer = Signer::BetterAuth { key_counts_until: None };

    /// Checks claims that are good but for one, or all of them if `name` is empty. `None` removes it.
    fn check(signer: Signer, name: &str, value: Option<Value>) -> Result<VerifiedJwt, JwtFailure> {
        let rules = ClaimRules {
            issuers: vec!["https://app.example.com".into(), "app".into()],
            audiences: vec!["https://app.example.com".into(), "api".into()],
        };
        let good = json!({"sub": "ada", "iat": NOW - 10, "exp": NOW + 900, "iss": "app", "aud": "api"});
        let Value::Object(mut claims) = good else { unreachable!() };
        match value {
            Some(value) => claims.insert(name.to_owned(), value),
            None => claims.remove(name),
        };
        rules.check(&claims, signer, NOW)
    }

    fn verdict(name: &str, value: Value) -> Option<JwtFailure> {
        check(BETTER_AUTH, name, Some(value)).err()
    }

    #[test]
    fn the_subject_and_the_times_are_returned() {
        let expected =
            VerifiedJwt { subject: "ada".into(), issued_at: NOW - 10, expires_at: NOW + 900, counts_until: NOW + 900 };
        assert_eq!(check(BETTER_AUTH, "", None), Ok(expected.clone()));
        let ending = Signer::BetterAuth { key_counts_until: Some(NOW + 5) };
        assert_eq!(check(ending, "", None), Ok(VerifiedJwt { counts_until: NOW + 5, ..expected }));
        let fraction = check(BETTER_AUTH, "exp", Some(json!(NOW as f64 + 1.75))).unwrap();
        assert_eq!(fraction.expires_at, NOW + 1);
    }

    #[test]
    fn each_claim_is_required_of_better_auth() {
        for (name, failure) in [
            ("sub", JwtFailure::Subject),
            ("iat", JwtFailure::Times),
            ("exp", JwtFailure::Times),
            ("iss", JwtFailure::Issuer),
            ("aud", JwtFailure::Audience),
        ] {
            assert_eq!(check(BETTER_AUTH, name, None), Err(failure), "{name}");
            let is_optional = matches!(name, "iss" | "aud");
            assert_eq!(check(Signer::SharedSecret, name, None).is_ok(), is_optional, "{name}");
            assert_eq!(check(Signer::SharedSecret, name, Some(Value::Null)), Err(failure), "{name}");
        }
    }

    #[test]
    fn one_minute_is_tolerated_between_the_clocks() {
        for (name, accepted, refused, failure) in [
            ("exp", NOW - 59, NOW - 60, JwtFailure::Expired),
            ("iat", NOW + 60, NOW + 61, JwtFailure::NotYetValid),
            ("nbf", NOW + 60, NOW + 61, JwtFailure::NotYetValid),
        ] {
            assert_eq!(verdict(name, json!(accepted)), None, "{name}");
            assert_eq!(verdict(name, json!(refused)), Some(failure), "{name}");
        }
    }

    #[test]
    fn a_time_is_a_number_of_seconds_until_the_year_9999() {
        for name in ["exp", "iat", "nbf"] {
            let text = (NOW + 5).to_string();
            for value in
                [json!(text), json!(null), json!([NOW]), json!(true), json!(-1), json!(1e300), json!(NOW * 1000)]
            {
                assert_eq!(verdict(name, value.clone()), Some(JwtFailure::Times), "{name} {value}");
            }
        }
        assert_eq!(verdict("exp", json!(253_402_300_799_i64)), None);
        assert_eq!(verdict("exp", json!(253_402_300_800_i64)), Some(JwtFailure::Times));
    }

    #[test]
    fn the_audience_is_a_text_or_one_of_an_array() {
        for good in [json!("api"), json!(["api"]), json!(["other", "https://app.example.com"]), json!([1, "api"])] {
            assert_eq!(verdict("aud", good.clone()), None, "{good}");
        }
        for bad in
            [json!("other"), json!([]), json!(["other"]), json!([["api"]]), json!({"api": 1}), json!("API"), json!("")]
        {
            assert_eq!(verdict("aud", bad.clone()), Some(JwtFailure::Audience), "{bad}");
        }
        for bad in [json!("other"), json!(["app"]), json!("api"), json!("")] {
            assert_eq!(verdict("iss", bad.clone()), Some(JwtFailure::Issuer), "{bad}");
        }
    }

    #[test]
    fn the_subject_is_a_text_that_postgresql_can_store() {
        for bad in [json!(""), json!("a\0"), json!(1), json!(null), json!(["ada"])] {
            assert_eq!(verdict("sub", bad.clone()), Some(JwtFailure::Subject), "{bad}");
        }
    }

    #[test]
    fn what_is_signed_for_another_purpose_is_refused() {
        for name in ["azp", "client_id", "scope"] {
            assert_eq!(verdict(name, json!("x")), Some(JwtFailure::Purpose), "{name}");
        }
        for name in ["session", "user"] {
            let content = Some(json!({}));
            assert_eq!(check(Signer::SharedSecret, name, content.clone()), Err(JwtFailure::Purpose), "{name}");
            assert!(check(BETTER_AUTH, name, content).is_ok(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_verified_time_fits_a_timestamp_of_postgresql(exp in any::<f64>(), iat in any::<f64>()) {
            let rules = ClaimRules { issuers: vec![], audiences: vec![] };
            let Value::Object(claims) = json!({"sub": "ada", "iat": iat, "exp": exp}) else { unreachable!() };
            if let Ok(jwt) = rules.check(&claims, Signer::SharedSecret, NOW) {
                prop_assert!((NOW - 60..=253_402_300_799).contains(&jwt.expires_at));
                prop_assert!((0..=NOW + 60).contains(&jwt.issued_at));
            }
        }
    }
}
