//! The API as a client sees it: requests take the routes of openapi.yaml to the real functions.
use crate::{
    contract::{self, OPENAPI},
    http,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use std::{collections::HashMap, path::Path};
use testing::{Database, GatewayRequest, Lambda, Route, SERVICES, User};

/// The secret that signs cookies in the tests.
pub const SECRET: &str = testing::SECRET;
/// The origin that `TRUSTED_ORIGINS` holds in the tests.
pub const ORIGIN: &str = "https://app.example.com";

/// The whole API, on its own database.
pub struct Api {
    pub database: Database,
    settings: Vec<(String, String)>,
    functions: HashMap<String, Lambda>,
    /// Host and port of the API, if it runs already.
    address: Option<String>,
}

impl Api {
    pub async fn start() -> Self {
        Self::with_settings(&[]).await
    }

    /// Like [`Api::start`], with additional or replaced settings.
    pub async fn with_settings(changes: &[(&str, &str)]) -> Self {
        match &SERVICES.running_api {
            None => Self::over(Database::create().await).with_changes(changes),
            Some(running) => {
                let database = Database::of_running_api(running).await;
                Self { address: Some(running.address.clone()), ..Self::over(database).with_changes(changes) }
            }
        }
    }

    /// New functions, with the usual settings, on an existing database.
    pub fn over(database: Database) -> Self {
        let usual =
            [("DATABASE_URL", &*database.api_url()), ("BETTER_AUTH_SECRET", SECRET), ("TRUSTED_ORIGINS", ORIGIN)];
        let settings = usual.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { database, settings, functions: HashMap::new(), address: None }
    }

    /// The same API with new functions, on another database behind a pooler without TLS.
    pub fn moved_to(self, database: Database, pooler_port: u16) -> Self {
        let url = database.plain_api_url(pooler_port);
        let mut moved = Self { database, functions: HashMap::new(), ..self };
        moved.set("DATABASE_URL", &url);
        moved
    }

    fn with_changes(mut self, changes: &[(&str, &str)]) -> Self {
        for (name, value) in changes {
            self.set(name, value);
        }
        self
    }

    /// Changes a setting for all functions that have not been started yet.
    pub fn set(&mut self, name: &str, value: &str) {
        assert_starts_functions();
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Lets the functions connect to `port` of this machine under the name of a host of Neon's: for those, statements may be
    /// prepared.
    pub fn connect_as_to_neon(&mut self, port: u16) {
        let url = self.database.plain_api_url(port);
        let url = url.replace("@127.0.0.1:", "@ep-test-pooler.eu-central-1.aws.neon.tech:");
        self.set("DATABASE_URL", &format!("{url}&hostaddr=127.0.0.1"));
    }

    /// Sends a request and checks that the response has a request id and matches openapi.yaml.
    pub async fn call(&mut self, request: Request) -> Answer {
        let (route, _) = request.route();
        let answer = self.call_undeclared(request).await;
        assert!(answer.header("x-request-id").is_some(), "{answer:?}");
        contract::check_answer(&route, &answer);
        answer
    }

    /// Like [`Api::call`], for an answer that the route does not declare, such as one that only a setting makes possible.
    pub async fn call_undeclared(&mut self, request: Request) -> Answer {
        if let Some(address) = &self.address {
            return Answer::new(&http::send(address, &request).await);
        }
        let (route, parameters) = request.route();
        Answer::new(&self.function(&route.function).await.invoke(request.event(&route, &parameters)).await)
    }

    /// Whether a request can be sent: an event can hold more than what arrives over HTTP.
    pub fn can_send(&self, request: &Request) -> bool {
        self.address.is_none() || http::is_sendable(request)
    }

    /// Returns a function by its binary's name; the first call starts it.
    pub async fn function(&mut self, name: &str) -> &mut Lambda {
        if !self.functions.contains_key(name) {
            let lambda = Lambda::start(&binary(name), &self.settings).await;
            self.functions.insert(name.to_owned(), lambda);
        }
        self.functions.get_mut(name).expect("just started")
    }

    /// The settings that functions are started with.
    pub fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    /// Removes a running function and hands it over, so that a test can wait for its exit.
    pub fn take_function(&mut self, name: &str) -> Lambda {
        self.functions.remove(name).expect("it was called")
    }

    /// Creates a task and returns its id.
    pub async fn make_task(&mut self, owner: &User, title: &str) -> i64 {
        let answer = self.call(post("/api/tasks").bearer(&owner.token).json(json!({"title": title}))).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["id"].as_i64().expect("an id")
    }
}

/// An API and a user who calls it with a bearer token: enough for most tests.
pub struct Person {
    pub api: Api,
    pub user: User,
}

impl Person {
    /// Starts the API and signs up a user: `let mut ada = Person::sign_up().await; ada.get("/api/tasks").await`.
    pub async fn sign_up() -> Self {
        let api = Api::start().await;
        let user = api.database.sign_up("ada").await;
        Self { api, user }
    }

    /// Sends a GET request.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.call(get(path)).await
    }

    /// Sends a POST request with a JSON body.
    pub async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.call(post(path).json(body)).await
    }

    /// Sends any other request.
    pub async fn call(&mut self, request: Request) -> Answer {
        self.api.call(request.bearer(&self.user.token)).await
    }
}

/// Fails if the functions run already: a test that starts functions of its own would not test those.
fn assert_starts_functions() {
    assert!(
        SERVICES.running_api.is_none(),
        "this test starts functions or changes their settings, which an API that runs already does not allow: exclude it in devtools/src/test/sam_local.rs"
    );
}

/// Returns the path of a function's binary.
pub fn binary(name: &str) -> String {
    assert_starts_functions();
    let program = Path::new(&testing::program(env!("CARGO_BIN_EXE_health"))).with_file_name(name);
    assert!(program.is_file(), "there is no function {name}: functions/src/bin/{name}.rs");
    program.display().to_string()
}

/// Builds a request to a route that succeeds if `owner` sends it: about the owner's `task`, with the examples of
/// openapi.yaml.
pub fn valid_request(route: &Route, owner: &User, task: i64) -> Request {
    let request = request(&route.method, &route.path_and_query(&owner.id, &task.to_string()));
    match &route.body {
        Some((media_type, body)) => request.header("content-type", media_type).text(&body.to_string()),
        None => request,
    }
}

/// A request to send.
#[derive(Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Map<String, Value>,
    pub cookies: Vec<String>,
    pub body: Option<String>,
    pub is_base64: bool,
}

pub fn get(path: &str) -> Request {
    request("GET", path)
}

pub fn post(path: &str) -> Request {
    request("POST", path)
}

pub fn put(path: &str) -> Request {
    request("PUT", path)
}

pub fn patch(path: &str) -> Request {
    request("PATCH", path)
}

pub fn delete(path: &str) -> Request {
    request("DELETE", path)
}

pub fn request(method: &str, path_and_query: &str) -> Request {
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: Map::new(),
        cookies: Vec::new(),
        body: None,
        is_base64: false,
    }
}

impl Request {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), json!(value));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Adds a cookie as it is: `name=value`.
    pub fn raw_cookie(mut self, cookie: &str) -> Self {
        self.cookies.push(cookie.to_owned());
        self
    }

    /// Adds the signed session cookie and a trusted `Origin`.
    pub fn cookie(self, token: &str) -> Self {
        self.raw_cookie(&session_cookie(token, SECRET)).header("origin", ORIGIN)
    }

    pub fn json(self, body: Value) -> Self {
        self.header("content-type", "application/json").text(&body.to_string())
    }

    pub fn text(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self
    }

    pub fn bytes(self, body: &[u8]) -> Self {
        self.header("content-type", "application/json").base64(&STANDARD.encode(body))
    }

    /// Sets a body that the event marks as base64, even if it is not.
    pub fn base64(mut self, body: &str) -> Self {
        self.is_base64 = true;
        self.text(body)
    }

    /// Returns the event that API Gateway makes of this request.
    pub fn routed_event(&self) -> Value {
        let (route, parameters) = self.route();
        self.event(&route, &parameters)
    }

    fn route(&self) -> (Route, Map<String, Value>) {
        let route = OPENAPI.route(&self.method, &self.path);
        let (route, parameters) =
            route.unwrap_or_else(|| panic!("openapi.yaml has no route for {} {}", self.method, self.path));
        (route.clone(), parameters)
    }

    fn event(&self, route: &Route, parameters: &Map<String, Value>) -> Value {
        let request = GatewayRequest {
            method: self.method.clone(),
            path: self.path.clone(),
            query: self.query.clone(),
            headers: self.headers.clone(),
            cookies: self.cookies.clone(),
            body: self.body.clone(),
            is_base64: self.is_base64,
            id: "gateway-request".to_owned(),
            time_ms: 1_769_862_896_000,
        };
        request.event(route, parameters)
    }
}

/// A response of a function.
#[derive(Debug)]
pub struct Answer {
    pub status: u64,
    pub headers: Map<String, Value>,
    /// The body if it is JSON, else null.
    pub body: Value,
    /// The body as in the response: base64 if it is binary.
    pub text: String,
    /// The size of the whole response as JSON for Lambda, in bytes.
    pub encoded_bytes: usize,
}

impl Answer {
    pub fn new(answer: &Value) -> Self {
        let body = answer["body"].as_str().unwrap_or_default();
        Self {
            status: answer["statusCode"].as_u64().expect("a status"),
            headers: answer["headers"].as_object().cloned().unwrap_or_default(),
            body: serde_json::from_str(body).unwrap_or_default(),
            text: body.to_owned(),
            encoded_bytes: answer.to_string().len(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.as_str()
    }

    /// Returns the path and query of the next page, from the `Link` header.
    pub fn next_page(&self) -> Option<&str> {
        let link = self.header("link")?;
        link.strip_prefix('<')?.strip_suffix(">; rel=\"next\"")
    }
}

/// Returns the session cookie as Better Auth would set it: `name=value`.
pub fn session_cookie(token: &str, secret: &str) -> String {
    format!(
        "better-auth.session_token={}",
        signed(token, secret).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
    )
}

/// Signs a token like Better Auth: `token.signature`.
pub fn signed(token: &str, secret: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key").chain_update(token);
    format!("{token}.{}", STANDARD.encode(mac.finalize().into_bytes()))
}
