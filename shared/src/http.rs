//! From event to answer: serving, the session before all else, and the forms that answers have.
use crate::{
    Caller, Config, Error, FieldError, Probe, Request, database::Database, log, log::RequestLog, page::Page,
    session::Credential, session::SessionRules, tasks::Task,
};
use lambda_http::{
    Body,
    aws_lambda_events::apigw::ApiGatewayV2httpResponse,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, ETAG, LINK, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    lambda_runtime::{LambdaEvent, Runtime, service_fn},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;
use std::{convert::Infallible, process::ExitCode, sync::Arc};

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

/// Answers every request with `handler`, as the caller whose session it carries.
///
/// A request without a live session is answered before what is wrong with it otherwise: 401 comes first, then 403 for
/// another user's path or a cookie's write from an untrusted origin, then the rest.
///
/// Runs until Lambda ends the process; gives a failure at once when a setting is missing or wrong.
pub async fn serve<H, F>(handler: H) -> ExitCode
where
    H: Fn(Caller, Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response, Error>> + Send + 'static,
{
    run(move |app: Arc<App>, request| {
        let handler = handler.clone();
        async move { app.answer_caller(request, handler).await }
    })
    .await
}

/// Answers every request with `handler`, whoever asks; it can see whether the database answers, and nothing in it.
pub async fn serve_without_session<H, F>(handler: H) -> ExitCode
where
    H: Fn(Probe) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response, Error>> + Send + 'static,
{
    run(move |app: Arc<App>, _| handler(Probe(app.database.clone()))).await
}

/// What lives as long as the process.
struct App {
    database: Database,
    session_rules: SessionRules,
}

impl App {
    /// Reads the settings and connects. A database that is away does not fail Init: requests say so, and try again.
    async fn start() -> Result<Self, String> {
        let config = Config::from_env().map_err(|errors| errors.to_string())?;
        let database = Database::new(&config)?;
        if let Err(error) = database.connect().await {
            tracing::warn!(cause = error.cause(), "the database cannot be reached yet");
        }
        Ok(Self { database, session_rules: config.session_rules })
    }

    async fn answer_caller<H, F>(&self, request: Request, handler: H) -> Result<Response, Error>
    where
        H: Fn(Caller, Request) -> F,
        F: Future<Output = Result<Response, Error>>,
    {
        let credential = self.session_rules.credential(&request).ok_or(Error::Unauthenticated)?;
        let (token, is_cookie) = match credential {
            Credential::Bearer(token) => (token, false),
            Credential::Cookie(token) => (token, true),
        };
        let caller = Caller::new(self.database.clone(), token, request.path_user_id());
        let answer = if is_cookie && !self.session_rules.may_write_with_cookie(&request) {
            Err(Error::Forbidden("A change authorised by a cookie needs an Origin that is trusted."))
        } else {
            handler(caller.clone(), request).await
        };
        caller.prove().await?;
        answer
    }
}

async fn run<A, F>(answer: A) -> ExitCode
where
    A: Fn(Arc<App>, Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response, Error>> + Send + 'static,
{
    log::begin();
    let app = match App::start().await {
        Ok(app) => Arc::new(app),
        Err(cause) => {
            tracing::error!(cause, "the function cannot start");
            return ExitCode::FAILURE;
        }
    };
    let service = service_fn(move |event: LambdaEvent<Request>| {
        let (app, answer) = (app.clone(), answer.clone());
        async move {
            let LambdaEvent { payload: request, context } = event;
            let log = RequestLog::begin(&request, &context.request_id);
            let path = request.path().to_owned();
            let (mut response, error) = match answer(app, request).await {
                Ok(response) => (response, None),
                Err(error) => (problem(&error, &path), Some(error)),
            };
            log.end(&response, error.as_ref());
            set_header(&mut response, HeaderName::from_static("x-request-id"), &context.request_id);
            Ok::<_, Infallible>(response)
        }
    });
    match Runtime::new(service).run_concurrent().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(cause = error.to_string(), "the Lambda Runtime API failed");
            ExitCode::FAILURE
        }
    }
}

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
fn problem(error: &Error, path: &str) -> Response {
    let status = error.status();
    let detail = match error {
        Error::Unauthenticated => "This needs a live session: sign in.".to_owned(),
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
        Error::Unauthenticated => set_header(&mut response, WWW_AUTHENTICATE, "Bearer"),
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
fn set_header(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers.insert(name, value);
    }
}
