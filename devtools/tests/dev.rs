//! Tests of `cargo xtask dev`, from its start to Ctrl-C.
mod clone;
mod harness;

use harness::{Dev, command, free_port, new_folder};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::{Method, Response, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use std::{collections::HashMap, net::TcpListener, path::Path};

/// A client of the API with one credential.
struct Client {
    http: reqwest::Client,
    base_url: String,
    credential: (&'static str, String),
}

impl Client {
    fn new(base_url: &str, header: &'static str, value: String) -> Self {
        Self { http: reqwest::Client::new(), base_url: base_url.to_owned(), credential: (header, value) }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, HeaderMap, Value) {
        let mut request =
            self.http.request(method, format!("{}{path}", self.base_url)).header(self.credential.0, &self.credential.1);
        if let Some(body) = body {
            request = request.json(&body);
        }
        read(request.header("Origin", "http://localhost:3000").send().await.unwrap()).await
    }
}

async fn read(answer: Response) -> (StatusCode, HeaderMap, Value) {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let text = answer.text().await.unwrap();
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    (status, headers, body)
}

/// Checks preflight requests: a browser sends one before a page of another origin may change anything with the user's
/// cookie.
async fn check_preflight(url: &str) {
    for (origin, is_allowed) in [("http://localhost:3000", true), ("https://evil.example.com", false)] {
        let request = reqwest::Client::new().request(Method::OPTIONS, url);
        let request = request.header("Origin", origin).header("Access-Control-Request-Method", "PATCH");
        let answer = request.header("Access-Control-Request-Headers", "content-type,if-match").send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("access-control-allow-origin"), is_allowed.then(|| origin.to_owned()));
        assert_eq!(header("access-control-allow-credentials").as_deref(), Some("true"));
        assert!(header("access-control-allow-methods").is_some_and(|methods| methods.contains("PATCH")));
        assert!(header("access-control-allow-headers").is_some_and(|names| names.contains("if-match")));
    }
}

#[tokio::test]
async fn a_newcomer_gets_a_working_api_that_keeps_its_data() {
    let folder = new_folder("dev");
    let port = free_port();
    let mut dev = Dev::start(&folder, port, &[], &[]);
    let env = dev.environment();
    assert_eq!(env["TASKS_URL"], format!("http://localhost:{port}"));
    for name in ["DATABASE_URL", "DATABASE_URL_UNPOOLED", "BETTER_AUTH_SECRET", "BETTER_AUTH_URL"] {
        assert!(!env.contains_key(name), "{name} would win over a front end's .env.local");
    }
    let kept = every_route_works(&env).await;
    migrate_commands_work(&env);
    a_second_one_in_the_same_folder_is_refused(&folder);
    assert_eq!(get(&env, "/health").await, StatusCode::OK, "the first one still runs");
    psql_and_logs_find_it(&folder);
    wrong_passwords_are_named(&env).await;
    a_given_database_is_not_written_to(&env).await;
    a_given_database_and_given_settings_are_used(&env).await;
    dev.stop();

    // Restart with cargo lambda watch, from a shell that has exported the same variables: database, tokens and tasks are
    // the same.
    let settings = ["DATABASE_URL", "DATABASE_URL_UNPOOLED", "BETTER_AUTH_SECRET", "BETTER_AUTH_URL"];
    let settings = settings.map(|name| (name, env[&format!("TASKS_{name}")].as_str()));
    let mut dev = Dev::start(&folder, port, &settings, &["--watch", "cargo-lambda"]);
    let again = dev.environment();
    for name in ["TASKS_TOKEN", "TASKS_COOKIE", "TASKS_USER_ID", "TASKS_TOKEN_2", "TASKS_BETTER_AUTH_SECRET"] {
        assert_eq!(again[name], env[name], "{name}");
    }
    assert_eq!(get(&again, &kept).await, StatusCode::OK);
    every_route_works(&again).await;
    dev.stop();

    // Start with an empty database, on any port.
    let mut dev = Dev::start(&folder, 0, &settings, &["--reset"]);
    let anew = dev.environment();
    assert!(anew["TASKS_TOKEN"] != env["TASKS_TOKEN"] && anew["TASKS_URL"] != "http://localhost:0", "{anew:?}");
    assert_eq!(get(&anew, "/health").await, StatusCode::OK);
    // If PostgreSQL ends, dev ends.
    let pid = std::fs::read_to_string(folder.join("postgres/data/postmaster.pid")).unwrap();
    let pid = Pid::from_raw(pid.lines().next().unwrap().parse().unwrap());
    kill(pid, Signal::SIGQUIT).unwrap();
    assert_eq!(dev.ended(), Some(1));
}

/// Returns the status of a GET by the first user.
async fn get(env: &HashMap<String, String>, path: &str) -> StatusCode {
    let client = Client::new(&env["TASKS_URL"], "authorization", format!("Bearer {}", env["TASKS_TOKEN"]));
    client.call(Method::GET, path, None).await.0
}

/// Calls every route with both credentials and both families of paths. Returns the path of a task that is not deleted.
async fn every_route_works(env: &HashMap<String, String>) -> String {
    let bearer = |token: &str| Client::new(&env["TASKS_URL"], "authorization", format!("Bearer {}", env[token]));
    let ada = bearer("TASKS_TOKEN");
    let grace = bearer("TASKS_TOKEN_2");
    let cookie = Client::new(&env["TASKS_URL"], "cookie", env["TASKS_COOKIE"].clone());

    for path in ["/api/tasks/1", "/api/tasks/"] {
        check_preflight(&format!("{}{path}", env["TASKS_URL"])).await;
    }
    let page = reqwest::get(&env["TASKS_URL"]).await.unwrap();
    assert_eq!((page.status(), page.url().path()), (StatusCode::OK, "/docs"), "/ redirects to /docs");
    let mut made = Vec::new();
    for (client, base) in [(&ada, "/api/tasks".to_owned()), (&cookie, format!("/api/{}/tasks", env["TASKS_USER_ID"]))] {
        let (status, headers, task) = client.call(Method::POST, &base, Some(json!({"title": "Buy bread"}))).await;
        assert_eq!((status, &task["user_id"]), (StatusCode::CREATED, &json!(env["TASKS_USER_ID"])), "{task}");
        let path = headers["location"].to_str().unwrap().to_owned();
        assert_eq!(path, format!("{base}/{}", task["id"]));
        assert!(headers.contains_key("x-request-id"));
        assert_eq!(client.call(Method::GET, &format!("{base}/"), None).await.0, StatusCode::OK, "a trailing slash");

        let (status, headers, read) = client.call(Method::GET, &path, None).await;
        assert_eq!((status, &read), (StatusCode::OK, &task));
        assert!(headers.contains_key("etag"));
        let (_, _, changed) = client.call(Method::PUT, &path, Some(json!({"description": "rye"}))).await;
        assert_eq!((&changed["title"], &changed["description"]), (&json!("Buy bread"), &json!("rye")));
        for (body, completed) in [(None, true), (Some(json!({})), false), (Some(json!({"completed": true})), true)] {
            let (status, _, task) = client.call(Method::PATCH, &format!("{path}/complete"), body).await;
            assert_eq!((status, &task["completed"]), (StatusCode::OK, &json!(completed)));
        }
        let (status, _, list) = client.call(Method::GET, &format!("{base}?status=completed"), None).await;
        assert!(status == StatusCode::OK && list.as_array().unwrap().iter().any(|listed| listed["id"] == task["id"]));

        // The other user cannot access the task, by either family of paths.
        for (method, path) in [
            (Method::GET, path.clone()),
            (Method::PUT, path.clone()),
            (Method::DELETE, path.clone()),
            (Method::PATCH, format!("{path}/complete")),
        ] {
            let body = (method == Method::PUT).then(|| json!({"title": "stolen"}));
            let (status, _, _) = grace.call(method, &path, body).await;
            assert_eq!(status, if path.contains("/api/tasks") { StatusCode::NOT_FOUND } else { StatusCode::FORBIDDEN });
        }
        made.push((client, path));
    }
    let (_, _, list) = grace.call(Method::GET, "/api/tasks", None).await;
    let path_of = |task: &Value| format!("/api/tasks/{}", task["id"]);
    let mine = |path: &String| made.iter().any(|(_, made)| made.ends_with(path.trim_start_matches("/api")));
    assert!(
        !list.as_array().unwrap().iter().map(path_of).any(|path| mine(&path)),
        "the other user sees foreign tasks: {list}"
    );

    // Follow the link to the next page.
    let (_, headers, first) = ada.call(Method::GET, "/api/tasks?limit=1", None).await;
    let next = headers["link"].to_str().unwrap().trim_start_matches('<').split('>').next().unwrap().to_owned();
    let (_, _, second) = ada.call(Method::GET, &next, None).await;
    assert!(first[0]["id"] != second[0]["id"] && second.as_array().unwrap().len() == 1);

    let (status, _, session) = cookie.call(Method::GET, "/api/session", None).await;
    assert_eq!((status, &session["user_id"]), (StatusCode::OK, &json!(env["TASKS_USER_ID"])));
    let nobody = Client::new(&env["TASKS_URL"], "x-nothing", String::new());
    assert_eq!(nobody.call(Method::GET, "/health", None).await.0, StatusCode::OK);
    let (status, headers, problem) = nobody.call(Method::GET, "/api/tasks", None).await;
    assert_eq!(
        (status, &headers["content-type"], &problem["status"]),
        (StatusCode::UNAUTHORIZED, &"application/problem+json".parse().unwrap(), &json!(401))
    );
    let forged =
        Client::new(&env["TASKS_URL"], "cookie", env["TASKS_COOKIE"].replace("session_token=", "session_token=x"));
    assert_eq!(forged.call(Method::GET, "/api/tasks", None).await.0, StatusCode::UNAUTHORIZED);
    let (status, _, problem) = ada.call(Method::POST, "/api/tasks", Some(json!({"title": " "}))).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("title")));

    let (kept, removed) = (made.pop().unwrap().1, made.pop().unwrap().1);
    assert_eq!(ada.call(Method::DELETE, &removed, None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(ada.call(Method::GET, &removed, None).await.0, StatusCode::NOT_FOUND);
    kept
}

/// Tests `cargo xtask psql` and `cargo xtask logs` with a running `cargo xtask dev`.
fn psql_and_logs_find_it(folder: &Path) {
    let run = |arguments: &[&str]| {
        let (command_name, rest) = arguments.split_first().unwrap();
        let output = command().arg(command_name).arg("--folder").arg(folder).args(rest).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run(&["psql", "-Atc", "select current_user"]).trim(), "tasks_owner");
    assert!(run(&["logs"]).contains(r#""route":"GET /api/tasks""#));
    assert!(run(&["logs", "postgres"]).contains("database system is ready"));
    let output = command().args(["psql", "--folder"]).arg(folder.join("none")).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("no 'cargo xtask dev' runs in"));
}

fn a_second_one_in_the_same_folder_is_refused(folder: &Path) {
    let port = free_port().to_string();
    let output = command().args(["dev", "--port", &port, "--folder"]).arg(folder).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    for words in ["is in use by 'cargo xtask dev", "(process ", "--folder", "--port"] {
        assert!(error.contains(words), "{words}: {error}");
    }
}

/// Starts a second API on the database of the first, without `--seed`. It does not know that the database is ours, so
/// it must not change any row. Seeding would extend the sessions.
async fn a_given_database_is_not_written_to(env: &HashMap<String, String>) {
    let rows = async || {
        let mut owner = PgConnection::connect(&env["TASKS_DATABASE_URL_UNPOOLED"]).await.unwrap();
        let digest = "select md5((select string_agg(s::text, ',' order by s.id) from session s)
            || (select string_agg(u::text, ',' order by u.id) from \"user\" u)
            || (select string_agg(t::text, ',' order by t.id) from tasks t))";
        sqlx::query_scalar::<_, String>(digest).fetch_one(&mut owner).await.unwrap()
    };
    let before = rows().await;
    let urls = ["DATABASE_URL", "DATABASE_URL_UNPOOLED"].map(|name| (name, env[&format!("TASKS_{name}")].as_str()));
    let mut dev = Dev::start(&new_folder("dev-unseeded"), free_port(), &urls, &[]);
    let given = dev.environment();
    assert!(
        !given.contains_key("TASKS_TOKEN") && given["TASKS_DATABASE_URL"] == env["TASKS_DATABASE_URL"],
        "{:?}",
        given.keys()
    );
    let client = Client::new(&given["TASKS_URL"], "authorization", format!("Bearer {}", env["TASKS_TOKEN"]));
    assert_eq!(client.call(Method::GET, "/api/tasks", None).await.0, StatusCode::OK);
    dev.stop();
    assert_eq!(rows().await, before);
}

/// Starts a second API on the database of the first, with `--seed` and other settings.
async fn a_given_database_and_given_settings_are_used(env: &HashMap<String, String>) {
    let folder = new_folder("dev-given");
    let settings = [
        ("DATABASE_URL", env["TASKS_DATABASE_URL"].as_str()),
        ("DATABASE_URL_UNPOOLED", env["TASKS_DATABASE_URL_UNPOOLED"].as_str()),
        ("BETTER_AUTH_SECRET", testing::SECRET),
        ("BETTER_AUTH_URL", "https://app.example.com"),
        ("TRUSTED_ORIGINS", "https://other.example.com"),
    ];
    let mut dev = Dev::start(&folder, free_port(), &settings, &["--seed"]);
    let given = dev.environment();
    assert_eq!(given["TASKS_BETTER_AUTH_SECRET"], settings[2].1);
    for name in ["TASKS_DATABASE_URL", "TASKS_DATABASE_URL_UNPOOLED", "TASKS_TOKEN", "TASKS_USER_ID"] {
        assert_eq!(given[name], env[name], "{name}");
    }
    let cookie = given["TASKS_COOKIE"].clone();
    assert!(cookie.starts_with("__Secure-better-auth.session_token=") && cookie != env["TASKS_COOKIE"], "{cookie}");
    let client = Client::new(&given["TASKS_URL"], "cookie", cookie);
    let (status, _, list) = client.call(Method::GET, "/api/tasks", None).await;
    assert!(status == StatusCode::OK && !list.as_array().unwrap().is_empty(), "{list}");
    // The client's origin is not in TRUSTED_ORIGINS.
    let (status, _, _) = client.call(Method::POST, "/api/tasks", Some(json!({"title": "x"}))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    dev.stop();
    assert!(!folder.join("postgres").exists());
}

/// Tests `cargo xtask migrate` with the running database.
fn migrate_commands_work(env: &HashMap<String, String>) {
    let migrate = |action: &str, url: &str| {
        let output =
            command().arg("migrate").args(action.split(' ')).env("DATABASE_URL_UNPOOLED", url).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, status, _) = migrate("status", &env["TASKS_DATABASE_URL_UNPOOLED"]);
    assert!(code == Some(0) && status.contains("0001") && !status.contains("pending"), "{status}");
    let (code, up, _) = migrate("up", &env["TASKS_DATABASE_URL_UNPOOLED"]);
    let found = "found Better Auth's sessions in public.session, users in public.\"user\"";
    assert_eq!((code, up.trim()), (Some(0), &*format!("nothing is pending\n{found}")));
    let (code, check, _) = migrate("check", &env["TASKS_DATABASE_URL_UNPOOLED"]);
    assert_eq!((code, check.trim()), (Some(0), "the database is what the migrations made of it"));
    let (code, check, _) = migrate("check --json", &env["TASKS_DATABASE_URL_UNPOOLED"]);
    assert_eq!((code, check.trim()), (Some(0), r#"{"differences":[],"notes":[]}"#));
    let (code, _, error) = migrate("up", "postgresql://a:s3cret@ep-x-1-pooler.eu.aws.neon.tech/db");
    assert!(code == Some(1) && error.contains("DATABASE_URL_UNPOOLED") && error.contains("-pooler"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
    let (code, _, error) = migrate("status", "");
    assert!(code == Some(1) && error.contains("DATABASE_URL_UNPOOLED is not set"), "{error}");
}

#[test]
fn wrong_settings_are_reported_before_anything_is_started() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    let folder = new_folder("dev-wrong");
    let dev = |flags: &[&str], settings: &[(&str, &str)]| {
        let mut command = command();
        command.args(["dev", "--folder"]).arg(&folder).args(flags).envs(settings.iter().copied());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!error.contains("s3cret") && !error.contains("==> Starting"), "{error}");
        error
    };
    let any = ["--port", "0"];
    assert!(dev(&["--port", &taken_port.to_string()], &[]).contains("--port"));
    assert!(dev(&any, &[("LOG_LEVEL", "loud")]).contains("LOG_LEVEL"));
    assert!(dev(&any, &[("BETTER_AUTH_SECRETS", "x")]).contains("BETTER_AUTH_SECRETS"));
    let url = |user: &str, host: &str| format!("postgresql://{user}:s3cret@{host}/x");
    let pair = |url: &str, owner: &str| dev(&any, &[("DATABASE_URL", url), ("DATABASE_URL_UNPOOLED", owner)]);
    let local = format!("127.0.0.1:{taken_port}");
    assert!(dev(&any, &[("DATABASE_URL", &url("a", &local))]).contains("DATABASE_URL_UNPOOLED is not set"));
    let error = pair(&url("a", "nowhere.invalid"), &url("b", &local));
    assert!(error.contains("DATABASE_URL: the host nowhere.invalid is not known"), "{error}");
    let error = pair(&url("a", &local), &url("b", "127.0.0.1:1"));
    assert!(error.contains("DATABASE_URL_UNPOOLED: 127.0.0.1 does not accept connections on port 1"), "{error}");
    let error = pair(&url("b", &local), &url("tasks_api", &local));
    assert!(error.contains("swapped with DATABASE_URL?"), "{error}");
    assert!(!folder.join("postgres").exists());
}

/// Wrong passwords are reported before the functions are built.
async fn wrong_passwords_are_named(env: &HashMap<String, String>) {
    let folder = new_folder("dev-passwords");
    let (url, owner) = (&env["TASKS_DATABASE_URL"], &env["TASKS_DATABASE_URL_UNPOOLED"]);
    let spoilt = |url: &str| {
        let (start, rest) = url.split_once("://").unwrap();
        let (user, rest) = rest.split_once(':').unwrap();
        format!("{start}://{user}:s3cret@{}", rest.split_once('@').unwrap().1)
    };
    let other_role = spoilt(url).replace("tasks_api", "nobody");
    for (url, owner, name) in [(url, &spoilt(owner), "DATABASE_URL_UNPOOLED:"), (&other_role, owner, "DATABASE_URL:")] {
        let mut command = command();
        command.args(["dev", "--port", "0", "--folder"]).arg(&folder);
        let output = command.env("DATABASE_URL", url).env("DATABASE_URL_UNPOOLED", owner).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(name) && error.contains("password authentication failed"), "{name}: {error}");
        assert!(!error.contains("s3cret") && !error.contains("Starting the API"), "{error}");
    }
}

#[tokio::test]
async fn a_change_is_served_and_a_compile_error_is_returned() {
    let clone = clone::Clone::new("dev-clone");
    let mut dev = Dev::start_with(clone.command(), &clone.folder().join("target/dev"), 0, &[], &[]);
    let env = dev.environment();
    let client = Client::new(&env["TASKS_URL"], "authorization", format!("Bearer {}", env["TASKS_TOKEN"]));
    let call = async |path: &'static str| {
        let (status, headers, body) = client.call(Method::GET, path, None).await;
        (status, headers["content-type"].to_str().unwrap().to_owned(), body)
    };
    assert_eq!(call("/api/tasks").await.0, StatusCode::OK);

    // An error in one function does not affect the others.
    let function = clone.folder().join("functions/src/bin/list-tasks.rs");
    let before = clone::edit(&function, "use shared::", "compile_error!(\"left undone\");\nuse shared::");
    let (status, content_type, problem) = call("/api/tasks").await;
    assert_eq!((status, &*content_type), (StatusCode::INTERNAL_SERVER_ERROR, "application/problem+json"));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("left undone") && detail.contains("functions/src/bin/list-tasks.rs"), "{detail}");
    assert!(!detail.contains('\u{1b}'), "no colours: {detail}");
    assert_eq!(call("/api/session").await.0, StatusCode::OK);
    std::fs::write(&function, before).unwrap();
    assert_eq!(call("/api/tasks").await.0, StatusCode::OK);

    // A change in shared code affects every function.
    let file = clone.folder().join("shared/src/http/response.rs");
    let before = clone::edit(&file, "application/json", "application/changed+json");
    for path in ["/api/tasks", "/api/session"] {
        let (status, content_type, _) = call(path).await;
        assert_eq!((status, &*content_type), (StatusCode::OK, "application/changed+json"), "{path}");
    }
    std::fs::write(&file, "this is no Rust").unwrap();
    for path in ["/api/tasks", "/health"] {
        let (status, _, problem) = call(path).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(problem["detail"].as_str().unwrap().contains("shared/src/http/response.rs"), "{problem}");
    }
    std::fs::write(&file, before).unwrap();
    assert_eq!(call("/api/tasks").await.1, "application/json");
    dev.stop();
}
