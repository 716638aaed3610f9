//! What a request carries: Better Auth's session token, from a cookie or a bearer header, as better-auth 1.7 reads them.
use base64::{
    Engine as _, alphabet,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD},
    },
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use lambda_http::http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::Sha256;

use crate::{
    error::{AuthFailure, Error},
    http::request::Request,
};

/// What JavaScript's `encodeURIComponent` encodes.
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

/// How Better Auth decodes a signature's digits: without their padding, and without looking at the bits that are left over.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::RequireNone)
    .with_decode_allow_trailing_bits(true);
const DIGITS: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE_DIGITS: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Why a cookie's write is refused.
const NO_ORIGIN: &str = "A change authorised by a cookie needs an Origin that is trusted.";

/// How a request proves whose it is.
pub struct SessionRules {
    cookie_name: String,
    signature: Hmac<Sha256>,
    require_signed: bool,
    trusted_origins: Vec<String>,
}

/// `session.token`: whoever has it is signed in. It cannot be printed.
#[derive(Clone)]
pub(crate) struct SessionToken(String);

/// A request with a credential that is in order; whether its session is live is for the database to say. It cannot be printed.
pub(crate) struct Admission {
    pub(crate) token: SessionToken,
    /// Whether the request may do what it asks for, if its session is live: else [`Error::Forbidden`].
    pub(crate) verdict: Result<(), Error>,
}

/// A token and how it came.
pub(crate) enum Credential {
    /// `Authorization: Bearer`, which a page of another origin cannot make a browser send.
    Bearer(SessionToken),
    /// A cookie, which browsers send by themselves: a write needs a trusted `Origin` as well.
    Cookie(SessionToken),
}

impl SessionRules {
    pub(crate) fn new(cookie_name: String, secret: &str, require_signed: bool, trusted_origins: Vec<String>) -> Self {
        let signature = match Hmac::new_from_slice(secret.as_bytes()) {
            Ok(signature) => signature,
            Err(_) => unreachable!("HMAC takes keys of every length (RFC 2104, section 2)"),
        };
        Self { cookie_name, signature, require_signed, trusted_origins }
    }

    /// The session cookie with a token in it, `name=value` as a browser sends it back: for tools that play the browser.
    pub fn cookie(&self, token: &str) -> String {
        let signature = STANDARD.encode(self.signature.clone().chain_update(token.as_bytes()).finalize().into_bytes());
        let value = format!("{token}.{signature}");
        format!("{}={}", self.cookie_name, utf8_percent_encode(&value, NOT_IN_URI_COMPONENT))
    }

    /// Who may be answered, as far as the request itself shows it.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] without a credential, or with badly signed ones only.
    pub(crate) fn admit(&self, request: &Request) -> Result<Admission, Error> {
        let (token, is_allowed) = match self.credential(request).map_err(Error::Unauthenticated)? {
            Credential::Bearer(token) => (token, true),
            Credential::Cookie(token) => (token, self.may_write_with_cookie(request)),
        };
        Ok(Admission { token, verdict: if is_allowed { Ok(()) } else { Err(Error::Forbidden(NO_ORIGIN)) } })
    }

    /// The credential of a request.
    ///
    /// A bearer header wins over a cookie unless it is badly signed, as in Better Auth's bearer plugin.
    ///
    /// # Errors
    /// Whether it has none, or only badly signed ones.
    fn credential(&self, request: &Request) -> Result<Credential, AuthFailure> {
        let bearer = request.header("authorization");
        if let Some(token) = bearer.and_then(|header| self.bearer_token(header)) {
            return token.map(Credential::Bearer);
        }
        match self.cookie_value(request.cookies()) {
            Some(value) => self.cookie_token(value).map(Credential::Cookie).ok_or(AuthFailure::BadSignature),
            None if bearer.is_some() => Err(AuthFailure::BadSignature),
            None => Err(AuthFailure::Missing),
        }
    }

    /// Whether a request authorised by a cookie may write: its `Origin` is one of the trusted ones.
    fn may_write_with_cookie(&self, request: &Request) -> bool {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        is_read
            || request.header("origin").is_some_and(|origin| self.trusted_origins.iter().any(|known| known == origin))
    }

    /// The token of an `Authorization` header: `token.signature`, percent-encoded or not, or the bare token. `None` where
    /// Better Auth ignores the header; else it does not look at the cookie, even if the token is not valid.
    fn bearer_token(&self, header: &str) -> Option<Result<SessionToken, AuthFailure>> {
        const SCHEME: &str = "bearer ";
        let scheme = header.get(..SCHEME.len())?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return None;
        }
        let value = trim(header.get(SCHEME.len()..)?);
        let token = if value.contains('.') {
            // The library's bearer plugin checks what stands around the first dot, and takes more for a signature than a cookie
            // may have. What passes it puts into the cookie, where the last dot counts.
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

    /// The value of the session cookie, from the `name=value` pairs of a request.
    fn cookie_value<'a>(&self, cookies: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        cookies
            .flat_map(|header| header.split(';'))
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(name, value)| (trim(name) == self.cookie_name).then(|| trim(value)))
    }

    /// The token of a session cookie's value.
    fn cookie_token(&self, value: &str) -> Option<SessionToken> {
        let value = match value.strip_prefix('"') {
            Some(quoted) => {
                // Whatever stands in the closing quote's place goes.
                let mut quoted = quoted.chars();
                quoted.next_back();
                quoted.as_str()
            }
            None => value,
        };
        self.verified(&decode_uri_component(value))
    }

    /// The token of `token.signature`, when the signature is good.
    fn verified(&self, signed: &str) -> Option<SessionToken> {
        const SIGNATURE_LENGTH: usize = 44;
        let (token, signature) = signed.rsplit_once('.')?;
        let has_form =
            signature.len() == SIGNATURE_LENGTH && signature.ends_with('=') && !signature.contains(['-', '_']);
        if has_form && self.is_signed(token, signature) { SessionToken::new(token) } else { None }
    }

    /// Whether a signature is the token's. Compared in constant time.
    fn is_signed(&self, token: &str, signature: &str) -> bool {
        let engine = if signature.contains(['-', '_']) { URL_SAFE_DIGITS } else { DIGITS };
        let digits = signature.split('=').next().unwrap_or_default();
        let is_good = |bytes: Vec<u8>| self.signature.clone().chain_update(token).verify_slice(&bytes).is_ok();
        engine.decode(digits).is_ok_and(is_good)
    }
}

impl SessionToken {
    /// An opaque token. `None` for empty text and for U+0000, which PostgreSQL cannot store.
    fn new(token: &str) -> Option<Self> {
        (!token.is_empty() && !token.contains('\0')).then(|| Self(token.to_owned()))
    }

    /// The token itself, for the statement that checks it.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

/// JavaScript's `trim`: it knows U+FEFF for white space, and U+0085 not.
fn trim(text: &str) -> &str {
    text.trim_matches(|it: char| it == '\u{FEFF}' || (it.is_whitespace() && it != '\u{85}'))
}

/// JavaScript's `decodeURIComponent`, and the text as it was where that would throw, as Better Auth does.
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
        SessionRules::new(NAME.into(), SECRET, false, vec!["https://app.example.com".into()])
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
    fn the_librarys_own_cookie_is_read_and_written_alike() {
        // Made by better-call's serializeSignedCookie, of better-auth 1.7.25.
        let cookie_of_the_library = "better-auth.session_token=Xy0kSvfK2gVhCQxqyHbEYrH4lWZt9f3A.otKwFhQH7p%2BwK7Azte6QrZu8KhzzIWGFhSUt1KkMNRQ%3D";
        assert_eq!(cookie(cookie_of_the_library).as_deref(), Some("Xy0kSvfK2gVhCQxqyHbEYrH4lWZt9f3A"));
        assert_eq!(rules().cookie("Xy0kSvfK2gVhCQxqyHbEYrH4lWZt9f3A"), cookie_of_the_library);
    }

    #[test]
    fn a_signed_cookie_is_a_session_in_each_form_that_the_library_reads() {
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
        assert_eq!(bearer(&format!("Bearer {}", signed("a.b", SECRET))), None, "the library refuses a second dot");
        assert_eq!(bearer("Bearer any-alphabet+/=~"), Some("any-alphabet+/=~".into()));
    }

    #[test]
    fn a_signature_is_decoded_as_the_library_does() {
        // Of 43 digits the last has two bits that are no part of the 32 bytes.
        let value = signed("tok", SECRET);
        let (start, last) = value.trim_end_matches('=').split_at(value.len() - 2);
        let other_bits = format!("{start}{}=", char::from(last.as_bytes()[0] + 1));
        assert_eq!(cookie(&format!("{NAME}={other_bits}")).as_deref(), Some("tok"));
        assert_eq!(bearer(&format!("Bearer {other_bits}")).as_deref(), Some("tok"));
        // The first and the last character of a quoted value go, whatever the last is.
        assert_eq!(cookie(&format!("{NAME}=\"{value}x")).as_deref(), Some("tok"));
        assert_eq!(cookie(&format!("{NAME}=\"{value}")), None);
        assert_eq!(bearer("Bearer \u{FEFF}tok\u{a0}").as_deref(), Some("tok"));
        assert_eq!(bearer("Bearer \u{85}tok").as_deref(), Some("\u{85}tok"));
    }

    #[test]
    fn a_bearer_that_the_plugin_takes_and_the_cookie_does_not_ends_the_search() {
        let value = signed("tok", SECRET);
        for bearer in [value.trim_end_matches('=').to_owned(), format!("{value}.x"), format!("{value}=")] {
            assert!(matches!(rules().bearer_token(&format!("Bearer {bearer}")), Some(Err(_))), "{bearer}");
        }
        assert!(rules().bearer_token("Bearer tok.x").is_none(), "a bad signature is passed over");
    }

    #[test]
    fn only_the_origins_that_are_named_may_write_with_a_cookie() {
        let may = |method: &str, headers: &[(&str, &str)]| {
            let headers: std::collections::HashMap<_, _> = headers.iter().copied().collect();
            let event = serde_json::json!({"headers": headers, "requestContext": {"http": {"method": method}}});
            rules().may_write_with_cookie(&serde_json::from_value(event).unwrap())
        };
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "LINK"] {
            assert!(may(method, &[("origin", "https://app.example.com")]), "{method}");
            assert!(may(method, &[("Origin", "https://app.example.com")]), "{method}");
            assert!(!may(method, &[]), "{method}");
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
                assert!(!may(method, &[("origin", origin)]), "{method} {origin}");
                // What else a browser says of the page is no proof.
                let others = [("origin", origin), ("referer", "https://app.example.com/"), ("host", "app.example.com")];
                assert!(!may(method, &others), "{method} {origin}");
            }
        }
        for method in ["GET", "HEAD"] {
            assert!(may(method, &[]) && may(method, &[("origin", "https://evil.example")]), "{method}");
        }
    }

    #[test]
    fn bare_tokens_can_be_refused() {
        let rules = SessionRules::new(NAME.into(), SECRET, true, vec![]);
        assert!(rules.bearer_token("Bearer tok").is_none());
        assert!(rules.bearer_token(&format!("Bearer {}", signed("tok", SECRET))).is_some());
    }

    proptest! {
        #[test]
        fn whatever_is_sent_a_cookies_token_is_the_one_that_was_signed_and_nothing_panics(
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
            if let Ok(Credential::Cookie(accepted)) = rules().credential(&serde_json::from_value(event).unwrap()) {
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
