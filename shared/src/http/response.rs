//! The forms that answers have. What a resource answers is in its own `response.rs`.
use crate::{
    error::{Error, FieldError},
    http::body::Body,
};
use lambda_http::{
    aws_lambda_events::apigw::ApiGatewayV2httpResponse,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, RETRY_AFTER,
            STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
        },
    },
};
use serde::Serialize;

/// An answer, as API Gateway's HTTP API takes it (payload format 2.0).
#[derive(Serialize)]
pub struct Response {
    /// Status and headers; its own `body` stays empty.
    #[serde(flatten)]
    head: ApiGatewayV2httpResponse,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Body>,
}

/// After how many seconds a client may try again when the database or a setting is away.
const RETRY_AFTER_S: &str = "1";

/// What a page of ours may do: load from here, and call the API here.
const CSP_OF_FILES: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The media type of what the API answers.
const JSON: &str = "application/json";

impl Response {
    /// 200 with a body.
    pub fn ok(body: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, body)
    }

    /// 200 with a body that only the caller's own client may keep, and has to ask about before it uses it again.
    pub fn private_ok(body: &impl Serialize) -> Self {
        Self::ok(body).private()
    }

    /// 201 with what was made, and the path where it is.
    pub fn created(body: &impl Serialize, path: &str) -> Self {
        Self::json(StatusCode::CREATED, body).with_header(LOCATION, path)
    }

    /// 204.
    pub fn no_content() -> Self {
        Self::empty(StatusCode::NO_CONTENT)
    }

    /// 200 with a file that everybody may see, for browsers to keep for an hour. A page of it may load what comes from here,
    /// and nothing from elsewhere.
    pub fn file(media_type: &'static str, content: &'static [u8]) -> Self {
        let mut response = Self::empty(StatusCode::OK)
            .with_static(CACHE_CONTROL, "public, max-age=3600")
            .with_static(CONTENT_SECURITY_POLICY, CSP_OF_FILES)
            .with_static(CONTENT_TYPE, media_type);
        let body = match std::str::from_utf8(content) {
            Ok(text) => Body::text(text),
            Err(_) => {
                response.head.is_base64_encoded = true;
                Body::binary(content)
            }
        };
        response.with_body(body)
    }

    /// Like [`Response::file`], for a file that is compressed with gzip: every browser accepts that.
    pub fn gzip_file(media_type: &'static str, content: &'static [u8]) -> Self {
        Self::file(media_type, content).with_static(CONTENT_ENCODING, "gzip")
    }

    /// Problem details (RFC 9457) for a request that failed. The `type` is `about:blank`: the status says it all.
    pub(crate) fn problem(error: &Error, path: &str) -> Self {
        let status = error.status();
        let body = Problem {
            problem_type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: &error.detail(),
            instance: path,
            errors: if let Error::Invalid(fields) = error { fields } else { &[] },
        };
        let response = Self::with_media_type(status, "application/problem+json", Body::json(&body));
        match error {
            Error::Unauthenticated(_) => response.with_static(WWW_AUTHENTICATE, "Bearer"),
            Error::Unavailable(_) | Error::NoSettings(_) => response.with_static(RETRY_AFTER, RETRY_AFTER_S),
            _ => response,
        }
    }

    /// 200 with a body that is JSON already.
    pub(crate) fn ok_body(body: Body) -> Self {
        Self::with_media_type(StatusCode::OK, JSON, Ok(body))
    }

    /// 304: the client has what it asks for.
    pub(crate) fn not_modified() -> Self {
        Self::empty(StatusCode::NOT_MODIFIED)
    }

    /// For the caller's own cache only, and there only to be asked about: what a 304 saves is the body.
    pub(crate) fn private(self) -> Self {
        self.with_static(CACHE_CONTROL, "private, no-cache")
    }

    /// With a header of ours; one that HTTP cannot carry is left out.
    pub(crate) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.head.headers.insert(name, value);
        }
        self
    }

    /// With what every answer has: its request's id, and what keeps browsers and caches from doing more with it than it is for
    /// (OWASP's REST Security Cheat Sheet). Headers that the answer has already stay.
    pub(crate) fn finish(self, request_id: &str) -> Self {
        let mut response = self.with_header(HeaderName::from_static("x-request-id"), request_id);
        for (name, value) in [
            (CACHE_CONTROL, "no-store"),
            (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
            (STRICT_TRANSPORT_SECURITY, "max-age=63072000"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            response.head.headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        response
    }

    /// The status, as a number.
    pub(crate) fn status(&self) -> i64 {
        self.head.status_code
    }

    fn json(status: StatusCode, body: &impl Serialize) -> Self {
        Self::with_media_type(status, JSON, Body::json(body))
    }

    fn with_media_type(status: StatusCode, media_type: &'static str, body: serde_json::Result<Body>) -> Self {
        Self::empty(status).with_static(CONTENT_TYPE, media_type).with_body(body)
    }

    fn with_static(mut self, name: HeaderName, value: &'static str) -> Self {
        self.head.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// With a body; 500 where that cannot be made.
    fn with_body(self, body: serde_json::Result<Body>) -> Self {
        match body {
            Ok(body) => Self { body: Some(body), ..self },
            Err(_) => Self::empty(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    fn empty(status: StatusCode) -> Self {
        let mut head = ApiGatewayV2httpResponse::default();
        head.status_code = status.as_u16().into();
        Self { head, body: None }
    }
}

/// The body of an answer to a request that failed.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    problem_type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}
