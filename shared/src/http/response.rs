//! The common forms of responses. Those of a resource are in its own `response.rs`.
use crate::{
    error::{AuthFailure, Error, FieldError, Limit},
    http::body::Body,
};
use lambda_http::{
    aws_lambda_events::apigw::ApiGatewayV2httpResponse,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY,
            RETRY_AFTER, STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
        },
    },
};
use serde::Serialize;
use std::borrow::Cow;

/// A response in the format of API Gateway's HTTP API (payload format 2.0).
#[derive(Serialize)]
pub struct Response {
    /// Status and headers; its own `body` stays empty.
    #[serde(flatten)]
    head: ApiGatewayV2httpResponse,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Body>,
}

/// Seconds after which a client may retry when the database or the settings are unavailable.
const RETRY_AFTER_S: &str = "1";
/// Seconds after which a client may retry while another search of the same user is running: few take longer.
const RETRY_SEARCH_AFTER_S: &str = "1";
/// Seconds after which a client may retry when the user has used up the idempotency keys: the purge runs every hour.
const RETRY_KEY_AFTER_S: &str = "3600";

/// The content security policy of our pages: they may load files from this origin, and call the API there.
const FILE_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The media type of the API's responses.
const JSON: &str = "application/json";

impl Response {
    /// 200 with a JSON body.
    pub fn ok(body: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, body)
    }

    /// 200 with a body that only the caller's own client may cache, and must revalidate before each use.
    pub fn private_ok(body: &impl Serialize) -> Self {
        Self::ok(body).private()
    }

    /// 201 with the created resource, and its path as `Location`.
    pub fn created(body: &impl Serialize, path: &str) -> Self {
        Self::json(StatusCode::CREATED, body).with_header(LOCATION, path)
    }

    /// 204 without a body.
    pub fn no_content() -> Self {
        Self::empty(StatusCode::NO_CONTENT)
    }

    /// 200 with a public file that browsers may cache for an hour. If it is a page, it may load files from this origin
    /// and from no other.
    pub fn file(media_type: &'static str, content: &'static [u8]) -> Self {
        let mut response = Self::empty(StatusCode::OK)
            .with_static(CACHE_CONTROL, "public, max-age=3600")
            .with_static(CONTENT_SECURITY_POLICY, FILE_CSP)
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

    /// Like [`Response::file`], for a gzip-compressed file: every browser accepts that.
    pub fn gzip_file(media_type: &'static str, content: &'static [u8]) -> Self {
        Self::file(media_type, content).with_static(CONTENT_ENCODING, "gzip")
    }

    /// Problem details (RFC 9457) for a failed request. The `type` is `about:blank`, because the status says
    /// everything.
    pub(crate) fn problem(error: &Error, path: &str) -> Self {
        let status = error.status();
        let body = Body::json(&Problem::new(error, path));
        let response = Self::with_media_type(status, "application/problem+json", body);
        match error {
            Error::Unauthenticated(AuthFailure::Jwt(failure)) => {
                let why = failure.description();
                let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{why}\"");
                response.with_header(WWW_AUTHENTICATE, &challenge)
            }
            Error::Unauthenticated(_) => response.with_static(WWW_AUTHENTICATE, "Bearer"),
            Error::Unavailable(_) | Error::NoSettings(_) => response.with_static(RETRY_AFTER, RETRY_AFTER_S),
            Error::LimitReached(Limit::Searches) => response.with_static(RETRY_AFTER, RETRY_SEARCH_AFTER_S),
            Error::LimitReached(Limit::Keys(_)) => response.with_static(RETRY_AFTER, RETRY_KEY_AFTER_S),
            _ => response,
        }
    }

    /// 200 with a body that is already JSON.
    pub(crate) fn ok_body(body: Body) -> Self {
        Self::with_media_type(StatusCode::OK, JSON, Ok(body))
    }

    /// 304: the client already has this version.
    pub(crate) fn not_modified() -> Self {
        Self::empty(StatusCode::NOT_MODIFIED)
    }

    /// Lets only the caller's own cache store the response, and use it only after revalidation: a 304 saves the body.
    pub(crate) fn private(self) -> Self {
        self.with_static(CACHE_CONTROL, "private, no-cache")
    }

    /// Sets a header. A value that HTTP cannot carry is left out.
    pub(crate) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.head.headers.insert(name, value);
        }
        self
    }

    /// Adds the headers that every response has: the request's id, and restrictions on what browsers and caches may do
    /// with it (OWASP's REST Security Cheat Sheet). Restrictions that are already set are kept.
    pub(crate) fn finish(self, request_id: &str) -> Self {
        let mut response = self.with_header(HeaderName::from_static("x-request-id"), request_id);
        for (name, value) in [
            (CACHE_CONTROL, "no-store"),
            (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
            (REFERRER_POLICY, "no-referrer"),
            (STRICT_TRANSPORT_SECURITY, "max-age=63072000; includeSubDomains"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            response.head.headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        response
    }

    /// The status code.
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

    /// Sets the body; 500 if the body could not be created.
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

/// Problem details, the body of an error response.
#[derive(Serialize)]
pub(crate) struct Problem<'a> {
    #[serde(rename = "type")]
    problem_type: &'static str,
    title: &'static str,
    status: u16,
    detail: Cow<'static, str>,
    instance: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: Cow<'a, [FieldError]>,
}

impl<'a> Problem<'a> {
    /// `instance` is the path of the request, or of the part of it that failed.
    pub(crate) fn new(error: &'a Error, instance: &'a str) -> Self {
        let status = error.status();
        Self {
            problem_type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: error.detail(),
            instance,
            errors: error.fields(),
        }
    }
}
