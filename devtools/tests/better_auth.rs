//! Tests with the real Better Auth and the API on one database: every session works with every route and credential,
//! and stops working at once after a sign-out. `cargo xtask test better-auth` starts the servers.
mod databases;
mod harness;
mod jwt;

use harness::{Dev, free_port, new_folder};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const PASSWORD: &str = "correct horse battery staple";
const SECRET: &str = testing::SECRET;

/// A test's own database, on the server that `cargo xtask test` has started.
struct Database {
    superuser_url: String,
    owner_url: String,
    api_url: String,
}

impl Database {
    async fn create(name: &str) -> Self {
        let file = std::env::var("TASKS_TEST_SERVICES")
            .expect("these tests need PostgreSQL and PgBouncer: run 'cargo xtask test better-auth', which starts them");
        let services: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let text = |name: &str| services[name].as_str().unwrap();
        let password = text("superuser_password");
        let admin = |database: &str| {
            let port = &services["postgres_port"];
            format!("postgresql://postgres:{password}@127.0.0.1:{port}/{database}?sslmode=disable")
        };
        execute(&admin("postgres"), &format!("create database {name} owner tasks_owner template template0")).await;
        Self {
            superuser_url: admin(name),
            owner_url: text("owner_url").replace("/tasks?", &format!("/{name}?")),
            api_url: format!(
                "postgresql://tasks_api:{}@127.0.0.1:{}/{name}?sslmode=verify-full&sslrootcert={}",
                text("api_password"),
                services["pooler_port"],
                text("certificate"),
            ),
        }
    }

    async fn execute(&self, statement: &str) {
        execute(&self.owner_url, statement).await;
    }

    async fn count(&self, table: &str) -> i64 {
        let mut owner = PgConnection::connect(&self.owner_url).await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {table}"))).fetch_one(&mut owner).await.unwrap()
    }
}

async fn execute(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.unwrap();
}

/// The API and Better Auth, running on one database.
struct Servers {
    dev: Dev,
    api: String,
    auth: String,
    /// The front end's origin, from Better Auth's settings.
    origin: String,
    http: Client,
}

impl Servers {
    fn start(folder: &str, database: &Database, settings: &[(&str, &str)]) -> Self {
        let mut all = vec![("DATABASE_URL", &*database.api_url), ("DATABASE_URL_UNPOOLED", &*database.owner_url)];
        all.extend(settings);
        let port = free_port();
        let mut dev = Dev::start(&new_folder(folder), port, &all, &["--better-auth"]);
        let env = dev.environment();
        let auth = format!("http://127.0.0.1:{}", port + 1);
        Self {
            dev,
            api: env["TASKS_URL"].clone(),
            auth,
            origin: env["TASKS_BETTER_AUTH_URL"].clone(),
            http: Client::new(),
        }
    }

    /// Calls Better Auth. Fails unless it answers 200.
    async fn auth(&self, path: &str, body: Value, credential: Option<&Credential>) -> reqwest::Response {
        let request =
            self.http.post(format!("{}/api/auth/{path}", self.auth)).json(&body).header("Origin", &self.origin);
        let request = credential.map_or(request.try_clone().unwrap(), |credential| credential.on(request));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}: {}", answer.text().await.unwrap());
        answer
    }

    async fn sign_up(&self, email: &str) -> Session {
        Session::from_response(
            &self.auth("sign-up/email", json!({"email": email, "password": PASSWORD, "name": "A person"}), None).await,
        )
    }

    async fn sign_in(&self, email: &str) -> Session {
        Session::from_response(&self.auth("sign-in/email", json!({"email": email, "password": PASSWORD}), None).await)
    }

    /// The API's status for a credential.
    async fn api_status(&self, credential: &Credential) -> StatusCode {
        credential.on(self.http.get(format!("{}/api/session", self.api))).send().await.unwrap().status()
    }

    /// Better Auth's verdict on a credential, as a status.
    async fn better_auth_status(&self, credential: &Credential) -> StatusCode {
        let answer = credential.on(self.http.get(format!("{}/api/auth/get-session", self.auth))).send().await.unwrap();
        let session: Value = answer.json().await.unwrap();
        if session.is_null() { StatusCode::UNAUTHORIZED } else { StatusCode::OK }
    }

    /// Fails unless Better Auth and the API both return `expected` for each credential of a session that counts.
    async fn assert_both(&self, session: &Session, expected: StatusCode, when: &str) {
        for credential in session.credentials() {
            assert_eq!(
                self.better_auth_status(&credential).await,
                expected,
                "Better Auth, {when}: {}",
                credential.kind
            );
            let expected = if session.counts(&credential) { expected } else { StatusCode::UNAUTHORIZED };
            assert_eq!(self.api_status(&credential).await, expected, "the API, {when}: {}", credential.kind);
        }
    }

    /// Deletes a user who has made a task, and fails unless it is deleted with its owner.
    async fn delete_user_with_a_task(&self, database: &Database, session: &Session) {
        let request = self.http.post(format!("{}/api/tasks", self.api));
        let [.., bare] = session.credentials();
        let made = bare.on(request).json(&json!({"title": "left behind"})).send().await.unwrap();
        assert_eq!(made.status(), StatusCode::CREATED);
        let before = database.count("public.tasks").await;
        self.auth("delete-user", json!({"password": PASSWORD}), Some(&session.cookie())).await;
        assert_eq!(database.count("public.tasks").await, before - 1, "the tasks went with their owner");
    }

    /// Calls every route with each credential of a session that counts.
    async fn call_every_route(&self, session: &Session) {
        for credential in session.credentials().into_iter().filter(|credential| session.counts(credential)) {
            self.call_every_route_with(&credential).await;
        }
    }

    async fn call_every_route_with(&self, credential: &Credential) {
        let me: Value = credential
            .on(self.http.get(format!("{}/api/session", self.api)))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        for base in ["/api/tasks".to_owned(), format!("/api/{}/tasks", me["user_id"].as_str().unwrap())] {
            let mut path = base.clone();
            for (method, suffix, body) in [
                (Method::POST, "", Some(json!({"title": "Buy milk"}))),
                (Method::GET, "", None),
                (Method::PUT, "", Some(json!({"title": "Buy bread"}))),
                (Method::PATCH, "/complete", None),
                (Method::GET, "?status=completed", None),
                (Method::DELETE, "", None),
            ] {
                let target =
                    if suffix.starts_with('?') { format!("{base}{suffix}") } else { format!("{path}{suffix}") };
                let mut request =
                    self.http.request(method.clone(), format!("{}{target}", self.api)).header("Origin", &self.origin);
                if let Some(body) = body {
                    request = request.json(&body);
                }
                let answer = credential.on(request).send().await.unwrap();
                assert!(answer.status().is_success(), "{method} {target} by {}: {}", credential.kind, answer.status());
                if method == Method::POST {
                    path = answer.headers()["location"].to_str().unwrap().to_owned();
                }
            }
        }
    }
}

/// The credentials from a sign-in.
struct Session {
    /// `name=value`.
    cookie: String,
    /// `token.signature`.
    signed_token: String,
    /// Whether the API has Better Auth's secret, as it has not with Neon Auth.
    secret_is_known: bool,
}

impl Session {
    fn from_response(answer: &reqwest::Response) -> Self {
        let cookies = answer.headers().get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap());
        let cookie = cookies
            .map(|cookie| cookie.split(';').next().unwrap())
            .find(|cookie| cookie.contains("session_token="))
            .unwrap();
        let signed_token = answer.headers()["set-auth-token"].to_str().unwrap();
        Self { cookie: cookie.to_owned(), signed_token: signed_token.to_owned(), secret_is_known: true }
    }

    fn credentials(&self) -> [Credential; 3] {
        let token = self.signed_token.split('.').next().unwrap();
        [
            Credential { kind: "cookie", header: "cookie", value: self.cookie.clone() },
            Credential {
                kind: "signed bearer",
                header: "authorization",
                value: format!("Bearer {}", self.signed_token),
            },
            Credential { kind: "bare bearer", header: "authorization", value: format!("Bearer {token}") },
        ]
    }

    /// Whether the API can check a credential.
    fn counts(&self, credential: &Credential) -> bool {
        self.secret_is_known || credential.kind == "bare bearer"
    }

    fn cookie(&self) -> Credential {
        let [cookie, ..] = self.credentials();
        cookie
    }
}

/// A header that identifies a session.
struct Credential {
    kind: &'static str,
    header: &'static str,
    value: String,
}

impl Credential {
    fn on(&self, request: RequestBuilder) -> RequestBuilder {
        request.header(self.header, &self.value)
    }
}

#[tokio::test]
async fn only_a_live_session_gets_in() {
    for naming in ["specification", "default"] {
        let database = Database::create(&format!("better_auth_{naming}")).await;
        if naming == "default" {
            create_better_auth_tables(&database);
        }
        let servers = Servers::start(&format!("better-auth-{naming}"), &database, &[]);

        let ada = servers.sign_up("ada-lovelace@example.com").await;
        servers.call_every_route(&ada).await;
        servers.assert_both(&ada, StatusCode::OK, "after the sign-up").await;

        // A second device signs out the first.
        let elsewhere = servers.sign_in("ada-lovelace@example.com").await;
        servers.call_every_route(&elsewhere).await;
        servers.auth("revoke-other-sessions", json!({}), Some(&elsewhere.cookie())).await;
        servers.assert_both(&ada, StatusCode::UNAUTHORIZED, "after it was revoked").await;
        servers.assert_both(&elsewhere, StatusCode::OK, "after the others were revoked").await;

        servers.auth("sign-out", json!({}), Some(&elsewhere.cookie())).await;
        servers.assert_both(&elsewhere, StatusCode::UNAUTHORIZED, "after the sign-out").await;

        let expired = servers.sign_in("ada-lovelace@example.com").await;
        servers.assert_both(&expired, StatusCode::OK, "before its end").await;
        let column = if naming == "default" { "\"expiresAt\"" } else { "expires_at" };
        database
            .execute(&format!("set timezone = 'UTC'; update session set {column} = now() - interval '1 second'"))
            .await;
        for credential in expired.credentials() {
            // Only the API: Better Auth would remove the expired session.
            assert_eq!(
                servers.api_status(&credential).await,
                StatusCode::UNAUTHORIZED,
                "after its end: {}",
                credential.kind
            );
        }

        let leaving = servers.sign_in("ada-lovelace@example.com").await;
        servers.delete_user_with_a_task(&database, &leaving).await;
        servers.assert_both(&leaving, StatusCode::UNAUTHORIZED, "after the user was deleted").await;
        servers.dev.stop();
    }
}

#[tokio::test]
async fn cookies_of_https_with_a_prefix_and_a_rotated_secret_work() {
    let (old, new) = ("an-old-secret-0123456789-0123456789abc", "a-new-secret-0123456789-0123456789abc");
    let (before, after) = (format!("1:{old}"), format!("2:{new},1:{old}"));
    let settings = |secrets| {
        [
            ("BETTER_AUTH_URL", "https://app.example.com"),
            ("BETTER_AUTH_COOKIE_PREFIX", "acme"),
            ("BETTER_AUTH_SECRETS", secrets),
        ]
    };
    for naming in ["specification", "default"] {
        let database = Database::create(&format!("better_auth_settings_{naming}")).await;
        if naming == "default" {
            create_better_auth_tables(&database);
        }
        let folder = format!("better-auth-settings-{naming}");
        let servers = Servers::start(&folder, &database, &settings(&before));
        let earlier = servers.sign_up("ada@acme.example.com").await;
        assert!(earlier.cookie.starts_with("__Secure-acme.session_token="), "{}", earlier.cookie);
        servers.assert_both(&earlier, StatusCode::OK, "before the rotation").await;
        servers.call_every_route(&earlier).await;
        servers.dev.stop();

        let servers = Servers::start(&folder, &database, &settings(&after));
        for credential in earlier.credentials() {
            let better_auth = servers.better_auth_status(&credential).await;
            assert_eq!(servers.api_status(&credential).await, better_auth, "after the rotation: {}", credential.kind);
            let is_signed = credential.kind != "bare bearer";
            assert_eq!(better_auth == StatusCode::UNAUTHORIZED, is_signed, "after the rotation: {}", credential.kind);
        }
        let later = servers.sign_in("ada@acme.example.com").await;
        servers.assert_both(&later, StatusCode::OK, "after the rotation").await;
        servers.dev.stop();
    }
}

#[tokio::test]
async fn the_mapping_in_the_documentation_fits_the_tables_that_up_makes() {
    let page = include_str!("../../docs/authentication.md");
    let (_, block) = page.split_once("```ts\n// lib/auth-tables.ts\n").unwrap();
    let (module, _) = block.split_once("```").unwrap();
    let file = better_auth_folder().join("documentation.mjs");
    fs::write(&file, module).unwrap();
    let database = Database::create("better_auth_documentation").await;
    let settings = [("BETTER_AUTH_TABLES", file.to_str().unwrap())];
    let servers = Servers::start("better-auth-documentation", &database, &settings);

    let ada = servers.sign_up("ada@example.com").await;
    servers.assert_both(&ada, StatusCode::OK, "after the sign-up").await;
    servers.call_every_route(&ada).await;
    servers.dev.stop();
}

/// Where `cargo xtask dev --better-auth` has installed Better Auth.
fn better_auth_folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tools/better-auth")
}

/// The server of Better Auth alone, before `cargo xtask dev`.
fn better_auth_alone(database: &Database, url: &str) -> Command {
    let mut command = Command::new("node");
    command
        .arg("server.mjs")
        .current_dir(better_auth_folder())
        .env("DATABASE_URL", &database.owner_url)
        .env("BETTER_AUTH_SECRET", SECRET)
        .env("BETTER_AUTH_URL", url)
        .env("API_URL", url);
    command
}

/// Lets Better Auth create its default tables.
fn create_better_auth_tables(database: &Database) {
    assert!(better_auth_alone(database, "http://127.0.0.1").arg("migrate").status().unwrap().success());
}
