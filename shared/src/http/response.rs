//! The forms that answers have.
use crate::{
    caller::Caller,
    error::{Error, FieldError},
    http::body::Body,
    http::request::Request,
    tasks::{page::Page, precondition, task::Task},
};
use lambda_http::{
    aws_lambda_events::apigw::ApiGatewayV2httpResponse,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, LINK, LOCATION, RETRY_AFTER,
            STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
        },
    },
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

/// An answer, as API Gateway's HTTP API takes it (payload format 2.0).
#[derive(Serialize)]
pub struct Response {
    /// All but the body, which this has none of.
    #[serde(flatten)]
    head: ApiGatewayV2httpResponse,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Body>,
}

impl Response {
    /// Its status, as a number.
    pub(crate) fn status(&self) -> i64 {
        self.head.status_code
    }
}

/// After how many seconds a client may try again when the database or a setting is away.
const RETRY_AFTER_S: &str = "1";

/// What a page of ours may do: load from here, and call the API here.
const CSP_OF_FILES: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Everything but what RFC 3986 allows in a path's segment (section 3.3).
const NOT_IN_SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// 200 with a body.
pub fn ok(body: &impl Serialize) -> Response {
    json_response(StatusCode::OK, "application/json", body)
}

/// 200 with a body that only the caller's own client may keep, and has to ask about before it uses it again.
pub fn private_ok(body: &impl Serialize) -> Response {
    private(ok(body))
}

/// 200 with a task that was changed, and its entity tag.
pub fn task(task: &Task) -> Response {
    task_response(StatusCode::OK, task)
}

/// 200 with a task and its entity tag, or 304 when the client has it as it is (RFC 9110, section 13.1.2).
///
/// # Errors
/// [`Error::Invalid`] for an `If-None-Match` that is too long.
pub fn task_if_changed(request: &Request, task: &Task) -> Result<Response, Error> {
    if precondition::is_known(request, task)? {
        let mut response = private(empty(StatusCode::NOT_MODIFIED));
        set_header(&mut response, ETAG, &task.etag().to_string());
        return Ok(response);
    }
    Ok(private(task_response(StatusCode::OK, task)))
}

/// 201 with the new task, its entity tag and where it is; `is_replay` when it was made by an earlier request.
pub fn created_task(caller: &Caller, task: &Task, is_replay: bool) -> Response {
    let mut response = task_response(StatusCode::CREATED, task);
    set_header(&mut response, LOCATION, &format!("{}/{}", tasks_path(caller), task.id));
    if is_replay {
        set_header(&mut response, HeaderName::from_static("idempotent-replayed"), "true");
    }
    response
}

/// 200 with a page of tasks, and where the next one is (RFC 8288).
pub fn task_page(caller: &Caller, page: Page) -> Response {
    let mut response = private(json(StatusCode::OK, "application/json", Ok(page.body)));
    if let Some(next) = page.next {
        set_header(&mut response, LINK, &format!("<{}?{next}>; rel=\"next\"", tasks_path(caller)));
    }
    response
}

/// 200 with a file that everybody may see, for browsers to keep for an hour. A page of it may load what comes from here,
/// and nothing from elsewhere.
pub fn file(media_type: &'static str, content: &'static [u8]) -> Response {
    let mut response = empty(StatusCode::OK);
    for (name, value) in
        [(CACHE_CONTROL, "public, max-age=3600"), (CONTENT_SECURITY_POLICY, CSP_OF_FILES), (CONTENT_TYPE, media_type)]
    {
        response.head.headers.insert(name, HeaderValue::from_static(value));
    }
    let body = match std::str::from_utf8(content) {
        Ok(text) => Body::text(text),
        Err(_) => {
            response.head.is_base64_encoded = true;
            Body::binary(content)
        }
    };
    with_body(response, body)
}

/// As [`file()`], for one that is compressed with gzip: every browser takes that.
pub fn gzip_file(media_type: &'static str, content: &'static [u8]) -> Response {
    let mut response = file(media_type, content);
    response.head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response
}

/// 204.
pub fn no_content() -> Response {
    empty(StatusCode::NO_CONTENT)
}

/// The path of the caller's tasks, of the family that the request came by.
fn tasks_path(caller: &Caller) -> String {
    match caller.path_user_id() {
        Some(user_id) => format!("/api/{}/tasks", utf8_percent_encode(user_id, NOT_IN_SEGMENT)),
        None => "/api/tasks".to_owned(),
    }
}

fn task_response(status: StatusCode, task: &Task) -> Response {
    let mut response = json_response(status, "application/json", task);
    set_header(&mut response, ETAG, &task.etag().to_string());
    response
}

/// For the caller's own cache only, and there only to be asked about: what a 304 saves is the body.
fn private(mut response: Response) -> Response {
    response.head.headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

/// Problem details (RFC 9457).
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

/// The answer to a request that failed. Its `type` is `about:blank`: the status says it all.
pub(crate) fn problem(error: &Error, path: &str) -> Response {
    let status = error.status();
    let detail = match error {
        Error::Unauthenticated(_) => "This needs a live session: sign in.".to_owned(),
        Error::Forbidden(why) | Error::BadRequest(why) => (*why).to_owned(),
        Error::NotFound => "There is no such task.".to_owned(),
        Error::NoSuchFile => "There is nothing at this path.".to_owned(),
        Error::PreconditionFailed => "The task has been changed since: fetch it again.".to_owned(),
        Error::PayloadTooLarge => "The body is larger than 256 KiB.".to_owned(),
        Error::UnsupportedMediaType => "The body has to be application/json.".to_owned(),
        Error::Invalid(fields) => {
            let sentences: Vec<_> = fields.iter().map(|error| format!("{} {}.", error.field, error.message)).collect();
            sentences.join(" ")
        }
        Error::Unavailable(_) => "The database does not answer. Try again.".to_owned(),
        Error::NoSettings(_) => "The API cannot read its settings. Try again.".to_owned(),
        Error::Internal(_) => "Something went wrong on our side.".to_owned(),
    };
    let body = Problem {
        problem_type: "about:blank",
        title: status.canonical_reason().unwrap_or_default(),
        status: status.as_u16(),
        detail: &detail,
        instance: path,
        errors: if let Error::Invalid(fields) = error { fields } else { &[] },
    };
    let mut response = json_response(status, "application/problem+json", &body);
    match error {
        Error::Unauthenticated(_) => set_header(&mut response, WWW_AUTHENTICATE, "Bearer"),
        Error::Unavailable(_) | Error::NoSettings(_) => set_header(&mut response, RETRY_AFTER, RETRY_AFTER_S),
        _ => {}
    }
    response
}

fn json_response(status: StatusCode, media_type: &'static str, body: &impl Serialize) -> Response {
    json(status, media_type, Body::json(body))
}

fn json(status: StatusCode, media_type: &'static str, body: serde_json::Result<Body>) -> Response {
    let mut response = empty(status);
    response.head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    with_body(response, body)
}

/// The response with its body; 500 where that cannot be made.
fn with_body(response: Response, body: serde_json::Result<Body>) -> Response {
    match body {
        Ok(body) => Response { body: Some(body), ..response },
        Err(_) => empty(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn empty(status: StatusCode) -> Response {
    let mut head = ApiGatewayV2httpResponse::default();
    head.status_code = status.as_u16().into();
    Response { head, body: None }
}

/// Sets what every answer has: its request's id, and what keeps browsers and caches from doing more with it than it is for
/// (OWASP's REST Security Cheat Sheet). What the answer has said already stays.
pub(crate) fn finish(response: &mut Response, request_id: &str) {
    set_header(response, HeaderName::from_static("x-request-id"), request_id);
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (STRICT_TRANSPORT_SECURITY, "max-age=63072000"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.head.headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// Sets a header whose value is ours; one that HTTP cannot carry is left out.
fn set_header(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.head.headers.insert(name, value);
    }
}
