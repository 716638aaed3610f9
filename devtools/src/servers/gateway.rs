//! A local API Gateway in front of the functions: an HTTP API with payload format 2.0 and the CORS settings of
//! template.yaml (docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html).
//!
//! The gateway of `cargo lambda watch` does not decode paths, keeps only one of several headers with the same name,
//! fails for a body that is not UTF-8, and does not allow credentials across origins.
use super::functions::{Failure, Functions};
use anyhow::{Context as _, Result};
use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{CONTENT_TYPE, COOKIE},
        request::Parts,
    },
    response::{IntoResponse as _, Redirect, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};
use testing::{GatewayRequest, OpenApi};
use tokio::{net::TcpListener, task::JoinHandle};
use tower_http::cors::CorsLayer;

/// Maximum size of a request, in bytes (API Gateway's payload quota).
const MAX_REQUEST_BYTES: usize = 10 * 1024 * 1024;
/// Timeout of a function (API Gateway's quota).
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// `Access-Control-Max-Age` of a preflight response, in seconds, as in template.yaml.
const MAX_AGE_S: u64 = 7200;

/// A running gateway. Dropping it stops it.
pub struct Gateway(JoinHandle<()>);

/// The routes, with the modification time of openapi.yaml, and the backend.
struct Api {
    openapi: RwLock<(OpenApi, Option<SystemTime>)>,
    backend: Backend,
}

/// What runs the functions.
pub enum Backend {
    /// This process.
    Own(Functions),
    /// `cargo lambda watch`.
    Watch(Watch),
}

/// A client of `cargo lambda watch`.
pub struct Watch {
    url: String,
    client: reqwest::Client,
}

impl Gateway {
    /// Listens on `port`. Allows the comma-separated `origins` by CORS.
    pub async fn start(port: u16, backend: Backend, origins: &str) -> Result<Self> {
        let api = Arc::new(Api { openapi: RwLock::new((OpenApi::read()?, modified())), backend });
        let app = axum::Router::new().fallback(answer).with_state(api).layer(cors(origins)?);
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .with_context(|| format!("the port {port} cannot be listened on"))?;
        Ok(Self(tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        })))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watch {
    /// The client of the instance on a port of 127.0.0.1.
    pub fn on(port: u16) -> Result<Self> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        Ok(Self { url: format!("http://127.0.0.1:{port}/2015-03-31/functions"), client })
    }

    async fn invoke(&self, function: &str, event: String) -> Result<Value, Failure> {
        let request = self.client.post(format!("{}/{function}/invocations", self.url)).body(event);
        let answer = async { request.send().await?.json().await };
        answer
            .await
            .map_err(|error: reqwest::Error| if error.is_timeout() { Failure::TimedOut } else { Failure::Failed })
    }
}

impl Api {
    /// Like the function [`event`], with the current routes.
    fn event(&self, parts: &Parts, body: &Bytes) -> Option<(String, Value)> {
        let modified = modified();
        if self.openapi.read().unwrap_or_else(PoisonError::into_inner).1 != modified
            && let Ok(openapi) = OpenApi::read()
        {
            // If openapi.yaml cannot be read, the old routes stay: it is being written, or the functions do not compile
            // either.
            *self.openapi.write().unwrap_or_else(PoisonError::into_inner) = (openapi, modified);
        }
        event(&self.openapi.read().unwrap_or_else(PoisonError::into_inner).0, parts, body)
    }
}

/// Modification time of openapi.yaml.
fn modified() -> Option<SystemTime> {
    std::fs::metadata(OpenApi::file()).and_then(|metadata| metadata.modified()).ok()
}

/// Returns the function for a request and the event that it gets, or `None` if there is no such route.
pub fn event(openapi: &OpenApi, parts: &Parts, body: &Bytes) -> Option<(String, Value)> {
    let (route, parameters) = openapi.route(parts.method.as_str(), parts.uri.path())?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let cookies = parts.headers.get_all(COOKIE).iter().map(text);
    let (body, is_base64) = match std::str::from_utf8(body) {
        Ok("") => (None, false),
        Ok(body) => (Some(body.to_owned()), false),
        Err(_) => (Some(STANDARD.encode(body)), true),
    };
    let request = GatewayRequest {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: headers(&parts.headers),
        cookies: cookies.flat_map(|header| header.split("; ").map(str::to_owned).collect::<Vec<_>>()).collect(),
        body,
        is_base64,
        id: format!("local-{}", now.as_nanos()),
        time_ms: u64::try_from(now.as_millis()).unwrap_or_default(),
    };
    Some((route.function.clone(), request.event(route, &parameters)))
}

fn cors(origins: &str) -> Result<CorsLayer> {
    let origins = origins.split(',').map(str::trim).filter(|origin| !origin.is_empty());
    let origins: Vec<HeaderValue> = origins.map(str::parse).collect::<Result<_, _>>()?;
    let names = |names: &[&'static str]| names.iter().map(|name| HeaderName::from_static(name)).collect::<Vec<_>>();
    Ok(CorsLayer::new()
        .allow_credentials(true)
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(names(&["authorization", "content-type", "idempotency-key", "if-match", "if-none-match"]))
        .expose_headers(names(&[
            "etag",
            "idempotent-replayed",
            "link",
            "location",
            "retry-after",
            "www-authenticate",
            "x-request-id",
        ]))
        .max_age(Duration::from_secs(MAX_AGE_S)))
}

async fn answer(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_REQUEST_BYTES).await else {
        return message(StatusCode::PAYLOAD_TOO_LARGE, "Request Too Long");
    };
    if parts.method == Method::GET && parts.uri.path() == "/" {
        // For people who open the address in a browser; the deployed API has nothing there.
        return Redirect::temporary("/docs").into_response();
    }
    let Some((function, event)) = api.event(&parts, &body) else {
        return message(StatusCode::NOT_FOUND, "Not Found");
    };
    let answer = match &api.backend {
        Backend::Own(functions) => functions.invoke(&function, event.to_string()).await,
        Backend::Watch(watch) => watch.invoke(&function, event.to_string()).await,
    };
    match answer {
        // An invalid response of a function counts as an error.
        Ok(answer) => {
            response(&answer).unwrap_or_else(|| message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"))
        }
        Err(Failure::Failed) => message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
        Err(Failure::TimedOut) => message(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
        Err(Failure::DoesNotCompile(messages)) => compile_error(&function, &messages),
    }
}

/// Returns the compiler's messages to the developer.
fn compile_error(function: &str, messages: &str) -> Response {
    let problem = json!({
        "type": "about:blank",
        "title": "The function does not compile",
        "status": 500,
        "detail": format!("{function} does not compile:\n\n{}", messages.trim_end()),
    });
    let content_type = [(CONTENT_TYPE, "application/problem+json")];
    (StatusCode::INTERNAL_SERVER_ERROR, content_type, problem.to_string()).into_response()
}

/// A response of the gateway itself.
fn message(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(json!({"message": message}))).into_response()
}

/// Returns the headers by lower-case name, except `Cookie`. Several values of a name are joined by commas.
fn headers(headers: &HeaderMap) -> Map<String, Value> {
    let names = headers.keys().filter(|name| *name != COOKIE);
    let joined = |name| headers.get_all(name).iter().map(text).collect::<Vec<_>>().join(",");
    names.map(|name| (name.as_str().to_owned(), Value::from(joined(name)))).collect()
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// Converts a function's answer into a response, or returns `None` if it is not a valid one.
fn response(answer: &Value) -> Option<Response> {
    let mut response = Response::builder().status(u16::try_from(answer["statusCode"].as_u64()?).ok()?);
    for (name, value) in answer["headers"].as_object().into_iter().flatten() {
        response = response.header(name, value.as_str()?);
    }
    let body = answer["body"].as_str().unwrap_or_default();
    let body = if answer["isBase64Encoded"] == true { STANDARD.decode(body).ok()? } else { body.as_bytes().to_vec() };
    response.body(Body::from(body)).ok()
}
