//! From the event to the response: what starts with the process, and the session check that comes before everything
//! else.
use crate::{
    caller::Caller,
    connection::roots,
    credential::{Access, Admission},
    database::Database,
    edge::EdgeKeys,
    environment::variable,
    error::{AuthFailure, Error},
    http::{request::Request, response::Response},
    job::Job,
    jwt::failure::JwtFailure,
    log,
    metrics::{Measures, Metrics, RequestRecord, Started},
    probe::Probe,
    session::{load_jwt_keys, prepare_lookup},
    settings::{RENEW_AFTER_BAD_SIGNATURE_S, RENEW_AFTER_S, Scope, Settings, Snapshot, config::parse_bool},
    statement::Statement,
};
use lambda_runtime::{Context, LambdaEvent, Runtime, service_fn};
use serde::{Serialize, de::IgnoredAny};
use std::{
    convert::Infallible,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::yield_now,
    time::timeout,
};

/// Seconds that Init waits for the secret and the database together. Whatever is missing by then, the first request
/// fetches: Lambda ends an Init after ten seconds, and a client is waiting for it.
const INIT_LIMIT_S: u64 = 2;

/// Answers every request with `handler`, which only reads, as the caller whose session the request carries.
///
/// A request without a live session is refused before anything else in it is reported: 401 comes first, then 403 for
/// another user's path, then the rest.
///
/// `statements` are those that it usually runs: Init prepares them where `PREPARED_STATEMENTS` allows that.
///
/// Runs until Lambda ends the process. Returns a failure at once if a setting is missing or invalid.
pub async fn serve_reads<H, F>(statements: &'static [Statement], handler: H) -> ExitCode
where
    H: Fn(Caller, Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response, Error>> + Send + 'static,
{
    serve_callers(Access::Read, statements, handler).await
}

/// Like [`serve_reads`], for a `handler` that changes something: a caller who is known by a cookie must also send a trusted
/// `Origin`, whatever the request's method. Otherwise the answer is 403.
pub async fn serve_writes<H, F>(statements: &'static [Statement], handler: H) -> ExitCode
where
    H: Fn(Caller, Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response, Error>> + Send + 'static,
{
    serve_callers(Access::Write, statements, handler).await
}

async fn serve_callers<H, F>(access: Access, statements: &'static [Statement], handler: H) -> ExitCode
where
    H: Fn(Caller, Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response, Error>> + Send + 'static,
{
    serve_requests(Scope::Sessions, Init::Connect, statements, move |app, request, measures| {
        let handler = handler.clone();
        async move { app.answer_caller(request, access, measures, handler).await }
    })
    .await
}

/// Answers every request with `handler`, without a session. The handler can check that the database answers, but cannot
/// read from it. Nothing connects to the database before that, so that a suspended one sleeps on.
pub async fn serve_without_session<H, F>(handler: H) -> ExitCode
where
    H: Fn(Probe, Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response, Error>> + Send + 'static,
{
    serve_requests(Scope::Database, Init::Wait, &[], move |app, request, measures| {
        let handler = handler.clone();
        async move { handler(Probe { settings: app.settings.clone(), measures }, request).await }
    })
    .await
}

/// Answers every request with `handler`, without session or database. With the setting `SERVE_DOCS=false`, every request is
/// 404.
pub async fn serve_files<H>(handler: H) -> ExitCode
where
    H: Fn(&Request) -> Result<Response, Error> + Clone + Send + Sync + 'static,
{
    log::begin(&["shared"]);
    let metrics = Arc::new(Metrics::from_env());
    let settings =
        EdgeKeys::from_env().and_then(|edge| Ok((Arc::new(edge), parse_bool(SERVE_DOCS, variable(SERVE_DOCS), true)?)));
    let (edge, is_served) = match settings {
        Ok(settings) => settings,
        Err(cause) => return cannot_start(&cause),
    };
    let service = service_fn(move |event: LambdaEvent<Request>| {
        let (metrics, edge, handler) = (metrics.clone(), edge.clone(), handler.clone());
        let answer =
            move |request: Request| async move { if is_served { handler(&request) } else { Err(Error::NoSuchPath) } };
        async move { respond(&metrics, &edge, Arc::default(), event, answer).await }
    });
    run_until_terminated(Runtime::new(service).run_concurrent()).await
}

/// Runs `job` for each event of the schedule, whatever the event contains. A job that fails is a failed invocation, so
/// that Lambda retries it and counts the error.
pub async fn serve_schedule<J, F, T>(job: J) -> ExitCode
where
    J: Fn(Job) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
    T: Serialize + Send + 'static,
{
    let app = match App::start(Scope::Database, Init::Connect, &[]).await {
        Ok(app) => app,
        Err(failure) => return failure,
    };
    let service = service_fn(move |event: LambdaEvent<IgnoredAny>| {
        let (app, job) = (app.clone(), job.clone());
        async move {
            let run = async {
                let database = app.database(Arc::default()).await?;
                job(Job { database, metrics: app.metrics.clone(), deadline: event.context.deadline() }).await
            };
            run.await.map_err(|error| {
                let cause = error.cause().unwrap_or_default().to_owned();
                tracing::error!(request_id = event.context.request_id, cause, "the job failed");
                cause
            })
        }
    });
    run_until_terminated(Runtime::new(service).run_concurrent()).await
}

/// The setting of [`serve_files`].
const SERVE_DOCS: &str = "SERVE_DOCS";

/// Logs why the function cannot start.
fn cannot_start(cause: &str) -> ExitCode {
    tracing::error!(cause, "the function cannot start");
    ExitCode::FAILURE
}

/// Whether Lambda's Init connects to the database.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Init {
    /// It does, so that the first request need not.
    Connect,
    /// The first request that needs the database connects.
    Wait,
}

/// The state that lives as long as the process.
struct App {
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    edge: EdgeKeys,
}

impl App {
    /// Reads the settings and connects. If the secret or the database is unavailable, Init still succeeds: requests
    /// report it and try again.
    async fn start(scope: Scope, init: Init, statements: &'static [Statement]) -> Result<Arc<Self>, ExitCode> {
        log::begin(&["shared"]);
        roots::hide_system_roots();
        let began = Instant::now();
        let left = || Duration::from_secs(INIT_LIMIT_S).saturating_sub(began.elapsed());
        let metrics = Arc::new(Metrics::from_env());
        let settings = match Settings::start(scope, statements, left()).await {
            Ok(settings) => Arc::new(settings),
            Err(cause) => return Err(cannot_start(&cause)),
        };
        let edge = EdgeKeys::from_env().map_err(|cause| cannot_start(&cause))?;
        let settings_time = began.elapsed();
        if scope == Scope::Sessions && settings.cached().is_some_and(|snapshot| !snapshot.checks_signatures()) {
            tracing::warn!("BETTER_AUTH_SECRET is not set: cookies and signed session tokens are no credential");
        }
        let measures = Arc::<Measures>::default();
        let mut lacks_session_index = false;
        if let Some(snapshot) = settings.cached().filter(|_| init == Init::Connect) {
            let accepts_jwts = snapshot.accepts_jwts();
            let database = Database::new(settings.clone(), snapshot, measures.clone());
            match connect(&database, scope, accepts_jwts, left()).await {
                Ok(lacks_index) => lacks_session_index = lacks_index,
                Err(error) => tracing::warn!(cause = error.cause(), "the database cannot be reached yet"),
            }
        }
        let init_time = began.elapsed();
        metrics.write(&Started { init_time, settings_time, measures: &measures, lacks_session_index });
        Ok(Arc::new(Self { settings, metrics, edge }))
    }

    /// Returns the database for the current settings.
    async fn database(&self, measures: Arc<Measures>) -> Result<Database, Error> {
        let snapshot = self.settings.current(RENEW_AFTER_S).await?;
        Ok(Database::new(self.settings.clone(), snapshot, measures))
    }

    /// Answers a request as the caller whose session it carries. The whole request uses one snapshot of the settings.
    async fn answer_caller<H, F>(
        &self,
        request: Request,
        access: Access,
        measures: Arc<Measures>,
        handler: H,
    ) -> Result<Response, Error>
    where
        H: Fn(Caller, Request) -> F,
        F: Future<Output = Result<Response, Error>>,
    {
        let mut snapshot = self.settings.current(RENEW_AFTER_S).await?;
        let mut admission = self.admit(&snapshot, &request, access, &measures).await;
        if let Err(Error::Unauthenticated(AuthFailure::BadSignature | AuthFailure::Jwt(JwtFailure::Signature))) =
            admission
        {
            snapshot = self.settings.current(RENEW_AFTER_BAD_SIGNATURE_S).await?;
            admission = self.admit(&snapshot, &request, access, &measures).await;
        }
        let Admission { identity, verdict } = admission?;
        let database = Database::new(self.settings.clone(), snapshot, measures);
        let caller = Caller::new(database, identity, access, request.path_user_id());
        let answer = match verdict.and_then(|()| request.check_end_of_path()) {
            Ok(()) => handler(caller.clone(), request).await,
            Err(error) => Err(error),
        };
        caller.prove().await?;
        answer
    }

    /// Checks the request's credential. The keys of JWTs are loaded again if one needs that.
    async fn admit(
        &self,
        snapshot: &Arc<Snapshot>,
        request: &Request,
        access: Access,
        measures: &Arc<Measures>,
    ) -> Result<Admission, Error> {
        let rules = snapshot.session_rules()?;
        let mut jwt = rules.verify_jwt(request, &snapshot.jwt_keys);
        if jwt.as_ref().is_some_and(|verdict| snapshot.jwt_keys.are_too_old_for(verdict)) {
            load_jwt_keys(&Database::new(self.settings.clone(), snapshot.clone(), measures.clone())).await?;
            jwt = rules.verify_jwt(request, &snapshot.jwt_keys);
        }
        rules.admit(request, access, jwt)
    }
}

/// Connects within `limit`. If the function checks sessions, also finds out how the database looks them up, loads the keys of
/// JWTs, and returns whether the index of sessions is missing.
async fn connect(database: &Database, scope: Scope, accepts_jwts: bool, limit: Duration) -> Result<bool, Error> {
    let began = Instant::now();
    database.connect(limit).await?;
    if scope != Scope::Sessions {
        return Ok(false);
    }
    let late = || Error::Unavailable("no answer to a statement during Init".to_owned());
    let left = limit.saturating_sub(began.elapsed());
    timeout(left, prepare_lookup(database, accepts_jwts)).await.map_err(|_| late())?
}

async fn serve_requests<A, F>(scope: Scope, init: Init, statements: &'static [Statement], answer: A) -> ExitCode
where
    A: Fn(Arc<App>, Request, Arc<Measures>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response, Error>> + Send + 'static,
{
    let app = match App::start(scope, init, statements).await {
        Ok(app) => app,
        Err(failure) => return failure,
    };
    let service = service_fn(move |event: LambdaEvent<Request>| {
        let (app, answer) = (app.clone(), answer.clone());
        async move {
            let measures = Arc::<Measures>::default();
            let answer = |request| answer(app.clone(), request, measures.clone());
            respond(&app.metrics, &app.edge, measures.clone(), event, answer).await
        }
    });
    run_until_terminated(Runtime::new(service).run_concurrent()).await
}

/// Answers one event, whatever happens, and writes its line. A request that has not come through the edge is refused first.
async fn respond<F: Future<Output = Result<Response, Error>>>(
    metrics: &Arc<Metrics>,
    edge: &EdgeKeys,
    measures: Arc<Measures>,
    event: LambdaEvent<Request>,
    answer: impl FnOnce(Request) -> F,
) -> Result<Response, Infallible> {
    let LambdaEvent { payload: request, context } = event;
    let record = RequestRecord::begin(&request, &context, metrics.is_cold_start());
    let path = request.path().to_owned();
    let answer = match edge.check(&request) {
        Ok(()) => answer(request).await,
        Err(error) => Err(error),
    };
    let (response, error) = finish_response(answer, &path, &context);
    let record = record.end(&response, error, measures);
    let metrics = metrics.clone();
    tokio::spawn(async move {
        // The response goes first. Lambda freezes the process only when the runtime asks for the next event. Before
        // that, the runtime waits for the response to be accepted, and the line is written meanwhile.
        yield_now().await;
        metrics.write(&record);
    });
    Ok(response)
}

/// Returns the final response and, if the request failed, the error.
pub(crate) fn finish_response(
    result: Result<Response, Error>,
    path: &str,
    context: &Context,
) -> (Response, Option<Error>) {
    let (response, error) = match result {
        Ok(response) => (response, None),
        Err(error) => (Response::problem(&error, path), Some(error)),
    };
    (response.finish(&context.request_id), error)
}

/// Runs until Lambda ends the process, which it does between requests. Connections close as the process exits, so that
/// none are left behind in the database.
async fn run_until_terminated<R>(runtime: R) -> ExitCode
where
    R: Future<Output = Result<(), lambda_runtime::Error>> + Send + 'static,
{
    // Spawned as a separate task: tokio wakes a task by putting it into a queue, but `main`'s future by a system call.
    let runtime = tokio::spawn(runtime);
    let cause = tokio::select! {
        result = runtime => match result {
            Ok(Ok(())) => return ExitCode::SUCCESS,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        },
        () = terminated() => return ExitCode::SUCCESS,
    };
    tracing::error!(cause, "the Lambda Runtime API failed");
    ExitCode::FAILURE
}

/// Waits for SIGTERM, which Lambda sends at shutdown if the function has an extension
/// (docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html, shutdown phase).
async fn terminated() {
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(error) => {
            tracing::warn!(cause = error.to_string(), "SIGTERM cannot be waited for");
            std::future::pending().await
        }
    }
}
