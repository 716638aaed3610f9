//! Tests of the output of `sam build` under AWS's Runtime Interface Emulator: every function's bootstrap starts as on
//! Lambda, with its settings in Secrets Manager, and answers API Gateway's events. `cargo xtask test sam-build` builds
//! the functions and starts the servers.
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use testing::{Database, GatewayRequest, OpenApi, Route, SERVICES, Secret, SecretsManager, User, logical_id};

const SECRET: &str = testing::SECRET;
/// Timeout of an answer, in seconds. It does not measure speed.
const ANSWER_TIMEOUT_S: u64 = 30;
/// Maximum duration of Init, in milliseconds. It does not measure speed either: an Init that waits for something that
/// only comes later takes over five seconds.
const INIT_LIMIT_MS: f64 = 1000.0;

/// A bootstrap that runs under the emulator.
struct Emulated {
    name: String,
    process: Child,
    url: String,
    log: PathBuf,
}

impl Emulated {
    fn start(function: &Path, settings: &[(String, String)]) -> Self {
        let emulator = std::env::var_os("RUNTIME_INTERFACE_EMULATOR")
            .expect("this test needs the emulator: run it with 'cargo xtask test sam-build'");
        let (events, runtime) = (free_address(), free_address());
        let name = function.file_name().expect("a name").to_string_lossy().into_owned();
        let log = Path::new(&SERVICES.logs).join(format!("emulated-{name}"));
        let output = fs::File::create(&log).expect("the folder of the logs");
        let process = Command::new(emulator)
            .args(["--runtime-interface-emulator-address", &events, "--runtime-api-address", &runtime])
            .arg(function.join("bootstrap"))
            .env_clear()
            .env("AWS_LAMBDA_FUNCTION_NAME", &name)
            .env("AWS_LAMBDA_FUNCTION_TIMEOUT", "25")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
            .envs(settings.iter().cloned())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file"))
            .stderr(output)
            .spawn()
            .expect("the emulator starts");
        Self { name, process, url: format!("http://{events}/2015-03-31/functions/function/invocations"), log }
    }

    /// Returns the duration of Init, in milliseconds. Fails unless Init connected to the database, or, for the health
    /// function, if it did: /health asks the database only with ?deep=true.
    async fn init_time(&self) -> f64 {
        let until = Instant::now() + Duration::from_secs(ANSWER_TIMEOUT_S);
        loop {
            let log = fs::read_to_string(&self.log).expect("the log");
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(started) = lines.into_iter().find(|line| line["message"] == "started") {
                let connected = started["ConnectTime"].as_f64().is_some_and(|time| time > 0.0);
                let should_connect = self.name != "Health";
                assert_eq!(connected, should_connect, "{}: did Init connect? {log}", self.name);
                return started["InitTime"].as_f64().expect("a time");
            }
            assert!(Instant::now() < until, "{} has not logged 'started': {log}", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn invoke(&self, event: &Value) -> Value {
        let client = reqwest::Client::new();
        let until = Instant::now() + Duration::from_secs(ANSWER_TIMEOUT_S);
        loop {
            match client.post(&self.url).body(event.to_string()).send().await {
                Ok(answer) => return answer.json().await.unwrap_or_else(|error| panic!("{}: {error}", self.name)),
                Err(error) if error.is_connect() && Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{} does not answer: {error}; see {}", self.name, self.log.display()),
            }
        }
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        // After SIGTERM, the emulator stops its function before it exits.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).expect("a pid"));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let until = Instant::now() + Duration::from_secs(5);
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound port").to_string()
}

/// Reads a recorded event and inserts this test's user, token and task.
fn event(name: &str, user: &User, task: i64) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/events").join(name).with_extension("json");
    let rules = shared::Config::from_settings(|name| match name {
        "DATABASE_URL" => Some("postgresql://x@localhost/x".to_owned()),
        "BETTER_AUTH_SECRET" => Some(SECRET.to_owned()),
        _ => None,
    });
    let cookie = rules.expect("good settings").session_rules.cookie(&user.token).expect("a secret");
    let (_, signed) = cookie.split_once('=').expect("a cookie");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let text = text
        .replace("<signed_token>", signed)
        .replace("<token>", &user.token)
        .replace("<user_id>", &user.id)
        .replace("<id>", &task.to_string());
    serde_json::from_str(&text).expect("JSON")
}

/// Builds the event of a valid request from the examples of openapi.yaml.
fn valid_event(openapi: &OpenApi, route: &Route, user: &User, task: i64) -> Value {
    let path_and_query = route.path_and_query(&user.id, &task.to_string());
    let (path, query) = path_and_query.split_once('?').unwrap_or((&path_and_query, ""));
    let mut headers = Map::new();
    headers.insert("authorization".to_owned(), json!(format!("Bearer {}", user.token)));
    headers.extend(route.body.iter().map(|(media_type, _)| ("content-type".to_owned(), json!(media_type))));
    let request = GatewayRequest {
        method: route.method.clone(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: route.body.as_ref().map(|(_, body)| body.to_string()),
        ..GatewayRequest::default()
    };
    let (route, parameters) = openapi.route(&route.method, path).expect("a route");
    request.event(route, &parameters)
}

#[tokio::test]
async fn every_function_answers_under_the_emulator() {
    let database = Database::create().await;
    let ada = database.sign_up("ada").await;
    let insert = format!(
        "with made as (insert into tasks (user_id, title) values ('{}', 'x') returning id) select id::bigint from made",
        ada.id
    );
    let api_secret = json!({"DATABASE_URL": database.api_url(), "BETTER_AUTH_SECRET": SECRET});
    let api_secret = SecretsManager::with_secret(&api_secret).await;
    let database_secret = SecretsManager::with_secret(&json!({"DATABASE_URL": database.api_url()})).await;
    // Like template.yaml.
    let settings = |secret: Secret| {
        let mut settings = match secret {
            Secret::None => Vec::new(),
            Secret::Database => database_secret.settings(),
            Secret::Api => api_secret.settings(),
        };
        settings.push(("TRUSTED_ORIGINS".to_owned(), "https://app.example.com".to_owned()));
        settings
    };
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.aws-sam/build");
    let mut functions: BTreeSet<PathBuf> = fs::read_dir(&build)
        .unwrap_or_else(|error| panic!("{}: {error}", build.display()))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("bootstrap").is_file())
        .collect();
    println!("{:16} {:>9} {:>9} {:>7}  answers", "function", "bytes", "zip", "Init ms");

    let openapi = OpenApi::read().expect("openapi.yaml");
    let task = database.number(&insert).await;
    let mut calls = Vec::new();
    // Recorded events of API Gateway.
    for (name, status) in [
        ("get-with-cookies-and-query", 200),
        ("post", 201),
        ("post-base64", 201),
        ("get-unknown-id", 404),
        ("put-with-user-id", 200),
    ] {
        let event = event(name, &ada, task);
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let (method, path) = (text(&event["requestContext"]["http"]["method"]), text(&event["rawPath"]));
        let (route, _) = openapi.route(&method, &path).expect("a route");
        calls.push((route, event, status));
    }
    // Every function, on its last route: one with the user's id, if the function has any.
    for (_, routes) in openapi.functions() {
        let route = routes[routes.len() - 1];
        let event = valid_event(&openapi, route, &ada, database.number(&insert).await);
        calls.push((route, event, route.status));
    }
    for (route, event, expected) in calls {
        let function = build.join(logical_id(&route.function));
        let emulated = Emulated::start(&function, &settings(route.secret));
        let answer = emulated.invoke(&event).await;
        assert_eq!(answer["statusCode"], expected, "{route:?}: {answer}");
        functions.remove(&function);
        let init_time = if route.secret == Secret::None { None } else { Some(emulated.init_time().await) };
        report(&function, init_time, &expected.to_string());
    }

    let purge = build.join("Purge");
    let emulated = Emulated::start(&purge, &settings(Secret::Database));
    let answer = emulated.invoke(&json!({"source": "aws.events"})).await;
    assert_eq!(answer["is_complete"], true, "{answer}");
    functions.remove(&purge);
    report(&purge, Some(emulated.init_time().await), &answer.to_string());

    // Without secrets, the migrate function can only return its own error.
    let migrate = build.join("Migrate");
    let answer = Emulated::start(&migrate, &settings(Secret::None)).invoke(&json!({"command": "status"})).await;
    assert!(answer["errorMessage"].as_str().is_some_and(|it| it.starts_with("OWNER_SECRET_ID is not set")), "{answer}");
    functions.remove(&migrate);
    report(&migrate, None, "OWNER_SECRET_ID is not set");

    assert!(functions.is_empty(), "functions without an event in this test: {functions:?}");
}

/// Prints a function's size, its compressed size, and the duration of Init. Fails if Init took too long.
fn report(function: &Path, init_time: Option<f64>, answers: &str) {
    if let Some(init_time) = init_time {
        assert!(init_time < INIT_LIMIT_MS, "{}: Init took {init_time} ms", function.display());
    }
    let init_time = init_time.map(|time| format!("{time:.0}")).unwrap_or_default();
    let bootstrap = function.join("bootstrap");
    let bytes = fs::metadata(&bootstrap).expect("a bootstrap").len();
    let gzip = Command::new("gzip").args(["-6", "-c"]).arg(&bootstrap).output().expect("gzip runs");
    println!(
        "{:16} {bytes:>9} {:>9} {init_time:>7}  {answers}",
        function.file_name().expect("a name").to_string_lossy(),
        gzip.stdout.len()
    );
}
