//! The credential of a request: Better Auth's session token, in a cookie or a bearer header, read as better-auth 1.7
//! does, or one of its JWTs.
use base64::{
    Engine as _, alphabet,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD},
    },
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use crate::{
    error::{AuthFailure, Error},
    http::request::Request,
    jwt::{JwtRules, claims::VerifiedJwt, failure::JwtFailure, known::KnownKeys, looks_like_jwt},
};

/// The characters that JavaScript's `encodeURIComponent` encodes.
const NOT_IN_URI_COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// Decodes the base64 of a signature as Better Auth does: without padding, and ignoring trailing bits.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::RequireNone)
    .with_decode_allow_trailing_bits(true);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The reason for refusing a write that is authorised by a cookie.
const UNTRUSTED_ORIGIN: &str = "A change authorised by a cookie needs an Origin that is trusted.";

/// The rules for reading and checking a request's credential.
pub struct SessionRules {
    cookie_name: String,
    /// `None` where Better Auth's secret is not known: only bare tokens are a credential then.
    signature: Option<Hmac<Sha256>>,
    require_signed: bool,
    trusted_origins: Vec<String>,
    /// `None` where no JWT is a credential.
    jwt: Option<JwtRules>,
    jwt_needs_session: bool,
}

/// The column `session.token`. Whoever has it is signed in, so it cannot be printed.
#[derive(Clone)]
pub(crate) struct SessionToken(String);

/// What the database finds the caller by. It cannot be printed.
#[derive(Clone)]
pub(crate) enum Identity {
    Session(SessionToken),
    Jwt(JwtUser),
}

/// The user of a verified JWT.
#[derive(Clone)]
pub(crate) struct JwtUser {
    /// The argument of the database's `caller(text[])`: the user's id and, if a session is needed, when the JWT was made.
    pub(crate) claims: Vec<String>,
    /// In seconds since the epoch.
    pub(crate) expires_at: i64,
}

/// A request with an acceptable credential. Only the database knows whether its session is live. It cannot be printed.
pub(crate) struct Admission {
    pub(crate) identity: Identity,
    /// Whether the request is allowed if its session is live; otherwise [`Error::Forbidden`].
    pub(crate) verdict: Result<(), Error>,
}

/// What a function does with the caller's data. The function says so itself: the method of an event is the client's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It only reads.
    Read,
    /// It changes something: a caller who is known by a cookie must also send a trusted `Origin`.
    Write,
}

/// What identifies the caller, and how it was sent.
pub(crate) enum Credential {
    /// `Authorization: Bearer`, which a page of another origin cannot make a browser send.
    Bearer(Identity),
    /// A cookie, which browsers attach on their own: a write also needs a trusted `Origin`.
    Cookie(SessionToken),
}

impl SessionRules {
    pub(crate) fn new(
        cookie_name: String,
        secret: Option<&str>,
        require_signed: bool,
        trusted_origins: Vec<String>,
    ) -> Self {
        let signature = secret.map(|secret| match Hmac::new_from_slice(secret.as_bytes()) {
            Ok(signature) => signature,
            Err(_) => unreachable!("HMAC accepts keys of any length (RFC 2104, section 2)"),
        });
        Self { cookie_name, signature, require_signed, trusted_origins, jwt: None, jwt_needs_session: true }
    }

    /// Makes JWTs a credential, of users with a live session or, unless `needs_session`, of all users.
    pub(crate) fn with_jwts(self, rules: JwtRules, needs_session: bool) -> Self {
        Self { jwt: Some(rules), jwt_needs_session: needs_session, ..self }
    }

    /// Builds the session cookie for a token, as the `name=value` that a browser sends back. For tools that act as a
    /// browser. `None` if Better Auth's secret is not known.
    pub fn cookie(&self, token: &str) -> Option<String> {
        let signature = self.signature.clone()?.chain_update(token.as_bytes()).finalize().into_bytes();
        let value = format!("{token}.{}", STANDARD.encode(signature));
        Some(format!("{}={}", self.cookie_name, utf8_percent_encode(&value, NOT_IN_URI_COMPONENT)))
    }

    /// Whether cookies and signed tokens are a credential: Better Auth's secret is known.
    pub(crate) fn checks_signatures(&self) -> bool {
        self.signature.is_some()
    }

    /// Whether JWTs are a credential.
    pub(crate) fn accepts_jwts(&self) -> bool {
        self.jwt.is_some()
    }

    /// Checks the bearer of a request if it looks like a JWT.
    pub(crate) fn verify_jwt(&self, request: &Request, keys: &KnownKeys) -> Option<Result<VerifiedJwt, JwtFailure>> {
        let token = bearer_value(request.header("authorization")?).filter(|token| looks_like_jwt(token))?;
        Some(self.jwt.as_ref().ok_or(JwtFailure::NotAccepted).and_then(|rules| keys.verify(rules, token)))
    }

    /// Checks everything about the caller that the request itself shows, for a function with this `access`. `jwt` is the verdict on its JWT, if it has one.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] if there is no credential, or only badly signed ones.
    pub(crate) fn admit(
        &self,
        request: &Request,
        access: Access,
        jwt: Option<Result<VerifiedJwt, JwtFailure>>,
    ) -> Result<Admission, Error> {
        let (identity, is_allowed) = match self.credential(request, jwt).map_err(Error::Unauthenticated)? {
            Credential::Bearer(identity) => (identity, true),
            Credential::Cookie(token) => {
                (Identity::Session(token), access == Access::Read || self.has_trusted_origin(request))
            }
        };
        Ok(Admission { identity, verdict: if is_allowed { Ok(()) } else { Err(Error::Forbidden(UNTRUSTED_ORIGIN)) } })
    }

    /// Returns the credential of a request.
    ///
    /// A bearer header takes precedence over a cookie unless it is badly signed, as in Better Auth's bearer plugin. A JWT
    /// does too.
    ///
    /// # Errors
    /// [`AuthFailure::Missing`] if there is no credential; if none is good, [`AuthFailure::Jwt`] if one is a JWT, else
    /// [`AuthFailure::BadSignature`].
    fn credential(
        &self,
        request: &Request,
        jwt: Option<Result<VerifiedJwt, JwtFailure>>,
    ) -> Result<Credential, AuthFailure> {
        let bearer = request.header("authorization");
        if let Some(token) = bearer.and_then(|header| self.bearer_token(header)) {
            return token.map(|token| Credential::Bearer(Identity::Session(token)));
        }
        let refusal = match jwt {
            Some(Ok(jwt)) => return Ok(Credential::Bearer(Identity::Jwt(self.jwt_user(jwt)))),
            Some(Err(failure)) => AuthFailure::Jwt(failure),
            None => AuthFailure::BadSignature,
        };
        match self.cookie_value(request.cookies()) {
            Some(value) => self.cookie_token(value).map(Credential::Cookie).ok_or(refusal),
            None if bearer.is_some() => Err(refusal),
            None => Err(AuthFailure::Missing),
        }
    }

    fn jwt_user(&self, jwt: VerifiedJwt) -> JwtUser {
        let mut claims = vec![jwt.subject];
        if self.jwt_needs_session {
            claims.push(jwt.issued_at.to_string());
        }
        JwtUser { claims, expires_at: jwt.expires_at }
    }

    fn has_trusted_origin(&self, request: &Request) -> bool {
        request.header("origin").is_some_and(|origin| self.trusted_origins.iter().any(|known| known == origin))
    }

    /// Returns the token of an `Authorization` header: `token.signature`, percent-encoded or not, or the bare token.
    /// `None` means that Better Auth ignores the header and reads the cookie. Otherwise it does not read the cookie,
    /// even if the token is invalid.
    fn bearer_token(&self, header: &str) -> Option<Result<SessionToken, AuthFailure>> {
        let value = bearer_value(header)?;
        let token = if value.contains('.') {
            // Better Auth's bearer plugin checks the parts around the first dot, and accepts more as a signature than a
            // cookie may have. It puts a value that passes into the cookie, where the last dot counts.
            let value = decode_uri_component(value);
            let (token, rest) = value.split_once('.')?;
            if !self.is_signed(token, rest.split('.').next()?) {
                return None;
            }
            self.verified(&value)
        } else if self.require_signed || value.is_empty() {
            return None;
        } else {
            SessionToken::new(value)
        };
        Some(token.ok_or(AuthFailure::BadSignature))
    }

    /// Returns the value of the session cookie, from the `name=value` pairs of a request.
    fn cookie_value<'a>(&self, cookies: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        cookies
            .flat_map(|header| header.split(';'))
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(name, value)| (trim(name) == self.cookie_name).then(|| trim(value)))
    }

    /// Returns the token in a session cookie's value.
    fn cookie_token(&self, value: &str) -> Option<SessionToken> {
        let value = match value.strip_prefix('"') {
            Some(quoted) => {
                // The last character is dropped, whether it is a quote or not.
                let mut quoted = quoted.chars();
                quoted.next_back();
                quoted.as_str()
            }
            None => value,
        };
        self.verified(&decode_uri_component(value))
    }

    /// Returns the token of `token.signature` if the signature is good.
    fn verified(&self, signed: &str) -> Option<SessionToken> {
        const SIGNATURE_LENGTH: usize = 44;
        let (token, signature) = signed.rsplit_once('.')?;
        let is_well_formed =
            signature.len() == SIGNATURE_LENGTH && signature.ends_with('=') && !signature.contains(['-', '_']);
        if is_well_formed && self.is_signed(token, signature) { SessionToken::new(token) } else { None }
    }

    /// Whether the signature belongs to the token. Compares in constant time.
    fn is_signed(&self, token: &str, signature: &str) -> bool {
        let Some(mac) = &self.signature else { return false };
        let engine = if signature.contains(['-', '_']) { BASE64_URL_SAFE } else { BASE64 };
        let digits = signature.split('=').next().unwrap_or_default();
        let is_good = |bytes: Vec<u8>| mac.clone().chain_update(token).verify_slice(&bytes).is_ok();
        engine.decode(digits).is_ok_and(is_good)
    }
}

impl SessionToken {
    /// Returns `None` for empty text and for U+0000, which PostgreSQL cannot store.
    fn new(token: &str) -> Option<Self> {
        (!token.is_empty() && !token.contains('\0')).then(|| Self(token.to_owned()))
    }

    /// The secret token, for the statement that looks it up where the sessions cannot be indexed by a digest.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }

    /// The SHA-256 digest by which the database finds the session, as its function `token_hash` computes it. It opens no
    /// session.
    pub(crate) fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

/// Returns what follows `Bearer` in an `Authorization` header.
fn bearer_value(header: &str) -> Option<&str> {
    const SCHEME: &str = "bearer ";
    let scheme = header.get(..SCHEME.len())?;
    if scheme.eq_ignore_ascii_case(SCHEME) { header.get(SCHEME.len()..).map(trim) } else { None }
}

/// JavaScript's `trim`, which counts U+FEFF as white space but not U+0085.
fn trim(text: &str) -> &str {
    text.trim_matches(|it: char| it == '\u{FEFF}' || (it.is_whitespace() && it != '\u{85}'))
}

/// JavaScript's `decodeURIComponent`. Returns the text unchanged where that would throw, as Better Auth does.
fn decode_uri_component(text: &str) -> String {
    let is_well_formed = text.split('%').skip(1).all(|rest| {
        let mut digits = rest.bytes();
        let is_hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
        is_hex(digits.next()) && is_hex(digits.next())
    });
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) if is_well_formed => decoded.into_owned(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: &str = "better-auth.session_token";
    const SECRET: &str = "a-secret-of-the-tests-0123456789abcdef";

    fn rules() -> SessionRules {
        SessionRules::new(NAME.into(), Some(SECRET), false, vec!["https://app.example.com".into()])
    }

    fn signed(token: &str, secret: &str) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(token.as_bytes());
        format!("{token}.{}", STANDARD.encode(mac.finalize().into_bytes()))
    }

    fn cookie(header: &str) -> Option<String> {
        let rules = rules();
        let value = rules.cookie_value([header].into_iter())?;
        rules.cookie_token(value).map(|token| token.0)
    }

    fn bearer(header: &str) -> Option<String> {
        rules().bearer_token(header)?.ok().map(|token| token.0)
    }

    #[test]
    fn a_cookie_made_by_better_auth_is_read_and_written_alike() {
        // Made with better-call's serializeSignedCookie, of better-auth 1.7.25.
        let better_auth_cookie = "better-auth.session_token=Xy0kSvfK2gVhCQxqyHbEYrH4lWZt9f3A.otKwFhQH7p%2BwK7Azte6QrZu8KhzzIWGFhSUt1KkMNRQ%3D";
        assert_eq!(cookie(better_auth_cookie).as_deref(), Some("Xy0kSvfK2gVhCQxqyHbEYrH4lWZt9f3A"));
        assert_eq!(rules().cookie("Xy0kSvfK2gVhCQxqyHbEYrH4lWZt9f3A").as_deref(), Some(better_auth_cookie));
    }

    #[test]
    fn a_signed_cookie_is_accepted_in_each_form_that_better_auth_reads() {
        let value = signed("tok", SECRET);
        let encoded = value.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        for header in [
            format!("{NAME}={encoded}"),
            format!("{NAME}={value}"),
            format!("{NAME}=\"{encoded}\""),
            format!("a=b; {NAME}={encoded}; c=d"),
            format!("a=b;{NAME}={encoded}"),
            format!("  {NAME} = {encoded} "),
            format!("{NAME}={encoded}; {NAME}=other"),
        ] {
            assert_eq!(cookie(&header).as_deref(), Some("tok"), "{header}");
        }
    }

    #[test]
    fn a_cookie_without_a_good_signature_is_no_session() {
        let value = signed("tok", SECRET);
        let other = signed("tok", "another-secret-of-the-tests-0123456789");
        for header in [
            String::new(),
            NAME.to_owned(),
            format!("{NAME}="),
            format!("{NAME}=tok"),
            format!("{NAME}=tok."),
            format!("{NAME}={other}"),
            format!("{NAME}=x{value}"),
            format!("{NAME}={value}="),
            format!("{NAME}={}", value.replace("tok.", "tok2.")),
            format!("{NAME}={}", value.replace("tok.", ".")),
            format!("{NAME}={}", value.trim_end_matches('=')),
            format!("{NAME}={}", value.replace('=', "%253D")),
            format!("__Secure-{NAME}={value}"),
            format!("Better-Auth.session_token={value}"),
            format!("{NAME}=bad; {NAME}={value}"),
        ] {
            assert_eq!(cookie(&header), None, "{header}");
        }
    }

    #[test]
    fn a_bearer_is_the_bare_token_or_a_signed_one() {
        let value = signed("tok", SECRET);
        let encoded = value.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        for header in [
            "Bearer tok".to_owned(),
            "bearer tok".to_owned(),
            "BEARER   tok  ".to_owned(),
            format!("Bearer {value}"),
            format!("Bearer {encoded}"),
        ] {
            assert_eq!(bearer(&header).as_deref(), Some("tok"), "{header}");
        }
        for header in
            ["", "Bearer", "Bearer ", "Basic tok", "Bearertok", "tok", "Bearer tok.x", "Bearer .", "Bearér tok"]
        {
            assert_eq!(bearer(header), None, "{header}");
        }
        assert_eq!(bearer(&format!("Bearer {}", signed("a.b", SECRET))), None, "Better Auth refuses a second dot");
        assert_eq!(bearer("Bearer any-alphabet+/=~"), Some("any-alphabet+/=~".into()));
    }

    #[test]
    fn a_signature_is_decoded_as_better_auth_does() {
        // In 43 base64 digits, two bits of the last are not part of the 32 bytes.
        let value = signed("tok", SECRET);
        let (start, last) = value.trim_end_matches('=').split_at(value.len() - 2);
        let other_bits = format!("{start}{}=", char::from(last.as_bytes()[0] + 1));
        assert_eq!(cookie(&format!("{NAME}={other_bits}")).as_deref(), Some("tok"));
        assert_eq!(bearer(&format!("Bearer {other_bits}")).as_deref(), Some("tok"));
        // The first and the last character of a quoted value are dropped, whatever the last one is.
        assert_eq!(cookie(&format!("{NAME}=\"{value}x")).as_deref(), Some("tok"));
        assert_eq!(cookie(&format!("{NAME}=\"{value}")), None);
        assert_eq!(bearer("Bearer \u{FEFF}tok\u{a0}").as_deref(), Some("tok"));
        assert_eq!(bearer("Bearer \u{85}tok").as_deref(), Some("\u{85}tok"));
    }

    #[test]
    fn a_bearer_that_only_the_plugin_accepts_hides_the_cookie() {
        let value = signed("tok", SECRET);
        for bearer in [value.trim_end_matches('=').to_owned(), format!("{value}.x"), format!("{value}=")] {
            assert!(matches!(rules().bearer_token(&format!("Bearer {bearer}")), Some(Err(_))), "{bearer}");
        }
        assert!(rules().bearer_token("Bearer tok.x").is_none(), "a badly signed bearer is ignored");
    }

    #[test]
    fn only_the_origins_that_are_named_may_write_with_a_cookie() {
        let may = |headers: &[(&str, &str)]| {
            let headers: std::collections::HashMap<_, _> = headers.iter().copied().collect();
            let event = serde_json::json!({"headers": headers, "requestContext": {"http": {"method": "POST"}}});
            rules().has_trusted_origin(&serde_json::from_value(event).unwrap())
        };
        assert!(may(&[("origin", "https://app.example.com")]));
        assert!(may(&[("Origin", "https://app.example.com")]));
        assert!(!may(&[]));
        for origin in [
            "",
            "null",
            "*",
            "https://app.example.com/",
            "https://app.example.com ",
            "https://app.example.com:443",
            "https://app.example.com.",
            "https://app.example.com.evil.example",
            "https://app.example.com@evil.example",
            "https://evil.example/https://app.example.com",
            "https://evil.example?https://app.example.com",
            "https://evil.example#https://app.example.com",
            "https://app.example.com, https://evil.example",
            "https://evil.example,https://app.example.com",
            "https://app.example.com\0",
            "https://sub.app.example.com",
            "https://example.com",
            "https://appXexample.com",
            "http://app.example.com",
            "HTTPS://app.example.com",
            "https://APP.example.com",
            "https%3A%2F%2Fapp.example.com",
            "app.example.com",
            "//app.example.com",
        ] {
            assert!(!may(&[("origin", origin)]), "{origin}");
            // Other headers in which a browser names the page are no proof.
            let others = [("origin", origin), ("referer", "https://app.example.com/"), ("host", "app.example.com")];
            assert!(!may(&others), "{origin}");
        }
    }

    #[test]
    fn bare_tokens_can_be_refused() {
        let rules = SessionRules::new(NAME.into(), Some(SECRET), true, vec![]);
        assert!(rules.bearer_token("Bearer tok").is_none());
        assert!(rules.bearer_token(&format!("Bearer {}", signed("tok", SECRET))).is_some());
    }

    #[test]
    fn without_the_secret_only_a_bare_token_is_a_credential() {
        let rules = SessionRules::new(NAME.into(), None, false, vec![]);
        assert!(matches!(rules.bearer_token("Bearer tok"), Some(Ok(_))));
        assert!(rules.bearer_token(&format!("Bearer {}", signed("tok", SECRET))).is_none());
        assert!(rules.cookie_token(&signed("tok", SECRET)).is_none() && rules.cookie("tok").is_none());
        // HMAC with an empty key is one that anybody can compute.
        assert!(rules.cookie_token(&signed("tok", "")).is_none());
    }

    proptest! {
        #[test]
        fn an_accepted_cookie_holds_the_signed_token_and_nothing_panics(
            name in prop_oneof![4 => Just(NAME.to_owned()), 1 => any::<String>()],
            token in "[A-Za-z0-9]{0,40}|\\PC{0,20}",
            is_ours in any::<bool>(),
            cut in any::<prop::sample::Index>(),
            inserted in "|=|%|\"|\\.|\\PC{1,3}",
            authorization in ".*|[Bb]earer \\PC*",
        ) {
            let mut value = signed(&token, if is_ours { SECRET } else { "another-secret-of-the-tests-0123456789" });
            let places: Vec<_> = value.char_indices().map(|(place, _)| place).collect();
            value.insert_str(*cut.get(&places), &inserted);
            let event = serde_json::json!({
                "headers": {"authorization": authorization},
                "cookies": [format!("{name}={value}")],
                "requestContext": {"http": {"method": "GET"}},
            });
            if let Ok(Credential::Cookie(accepted)) = rules().credential(&serde_json::from_value(event).unwrap(), None) {
                prop_assert!(is_ours);
                prop_assert_eq!(accepted.0, token);
            }
        }
    }

    #[test]
    fn decoding_is_that_of_javascript() {
        for (text, decoded) in [
            ("a%2Bb", "a+b"),
            ("a+b", "a+b"),
            ("%C3%A9", "é"),
            ("%", "%"),
            ("%2", "%2"),
            ("%zz%41", "%zz%41"),
            ("%4z%41", "%4z%41"),
            ("%z4%41", "%z4%41"),
            ("%ff", "%ff"),
        ] {
            assert_eq!(decode_uri_component(text), decoded);
        }
    }
}
