//! The forms that answers have.
use crate::{Caller, Error, FieldError, page::Page, tasks::Task};
use lambda_http::{
    Body,
    aws_lambda_events::apigw::ApiGatewayV2httpResponse,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, ETAG, LINK, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE},
    },
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

/// An answer, as API Gateway's HTTP API takes it (payload format 2.0).
pub type Response = ApiGatewayV2httpResponse;

/// After how many seconds a client may try again when the database is away.
const RETRY_AFTER_S: &str = "1";

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

/// 200 with a task and its entity tag.
pub fn task(task: &Task) -> Response {
    task_response(StatusCode::OK, task)
}

/// 201 with the new task, its entity tag and where it is.
pub fn created_task(caller: &Caller, task: &Task) -> Response {
    let mut response = task_response(StatusCode::CREATED, task);
    set_header(&mut response, LOCATION, &format!("{}/{}", tasks_path(caller), task.id));
    response
}

/// 200 with a page of tasks, and where the next one is (RFC 8288).
pub fn task_page(caller: &Caller, page: Page) -> Response {
    let mut response = response(StatusCode::OK, "application/json", page.json);
    if let Some(next) = page.next {
        set_header(&mut response, LINK, &format!("<{}?{next}>; rel=\"next\"", tasks_path(caller)));
    }
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
    set_header(&mut response, ETAG, &task.etag());
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
        Error::PayloadTooLarge => "The body is larger than 256 KiB.".to_owned(),
        Error::UnsupportedMediaType => "The body has to be application/json.".to_owned(),
        Error::Invalid(fields) => {
            let sentences: Vec<_> = fields.iter().map(|error| format!("{} {}.", error.field, error.message)).collect();
            sentences.join(" ")
        }
        Error::Unavailable(_) => "The database does not answer. Try again.".to_owned(),
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
        Error::Unavailable(_) => set_header(&mut response, RETRY_AFTER, RETRY_AFTER_S),
        _ => {}
    }
    response
}

fn json_response(status: StatusCode, media_type: &'static str, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(body) => response(status, media_type, body),
        Err(_) => empty(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn response(status: StatusCode, media_type: &'static str, body: String) -> Response {
    let mut response = empty(status);
    response.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.body = Some(Body::Text(body));
    response
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::default();
    response.status_code = status.as_u16().into();
    response
}

/// Sets a header whose value is ours; one that HTTP cannot carry is left out.
pub(crate) fn set_header(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers.insert(name, value);
    }
}
