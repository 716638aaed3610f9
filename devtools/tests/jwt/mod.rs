//! The JWTs of the real Better Auth: each of its algorithms is accepted, and signing out, a ban and the user's deletion
//! end a JWT at once.
use crate::{
    Credential, Database, PASSWORD, SECRET, Servers, Session, better_auth_alone, better_auth_folder, execute,
    harness::free_port,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use std::{
    fs,
    time::{Duration, Instant},
};

const URL: &str = "https://app.example.com";
const ALGORITHMS: [&str; 5] = ["EdDSA", "ES256", "ES512", "PS256", "RS256"];
/// Timeout for a JWT of a new key, in seconds. The API looks for new keys every 30 s.
const NEW_KEY_TIMEOUT_S: u64 = 45;

/// A front end whose Better Auth has the `jwt` plugin.
struct FrontEnd {
    name: &'static str,
    database: Database,
    settings: Vec<(String, String)>,
    http: Client,
}

impl FrontEnd {
    async fn create(name: &'static str, package: &str) -> Self {
        let file = better_auth_folder().join(format!("jwt-{name}.mjs"));
        fs::write(&file, include_str!("options.mjs")).unwrap();
        let mut settings = vec![
            ("BETTER_AUTH_TABLES".to_owned(), file.to_str().unwrap().to_owned()),
            ("BETTER_AUTH_PACKAGE".to_owned(), package.to_owned()),
            ("BETTER_AUTH_URL".to_owned(), URL.to_owned()),
            ("JWT_KIND".to_owned(), name.to_owned()),
            ("BETTER_AUTH_SECRET".to_owned(), SECRET.to_owned()),
            // Front ends take Better Auth's secret for this, and 1.4 signs its cookie cache with it.
            ("JWT_SHARED_SECRET".to_owned(), SECRET.to_owned()),
        ];
        let database = Database::create(&format!("better_auth_jwt_{name}")).await;
        if name == "neon" {
            let (_, server) = database.owner_url.split_once('@').unwrap();
            let url = format!("postgresql://neon_jwt:neon_jwt@{server}&options=-c%20search_path%3Dneon_auth");
            settings.push(("BETTER_AUTH_DATABASE_URL".to_owned(), url));
            let statements =
                "create role neon_jwt login password 'neon_jwt'; create schema neon_auth authorization neon_jwt";
            execute(&database.superuser_url, statements).await;
        }
        let front_end = Self { name, database, settings, http: Client::new() };
        let migrate = front_end.better_auth("EdDSA").arg("migrate").status().unwrap();
        assert!(migrate.success());
        if name == "neon" {
            let rights = "grant usage on schema neon_auth to tasks_owner;
                grant all on all tables in schema neon_auth to tasks_owner with grant option";
            execute(&front_end.database.superuser_url, rights).await;
        }
        front_end
    }

    /// Better Auth's server without the API, which makes keys for an algorithm.
    fn better_auth(&self, algorithm: &str) -> std::process::Command {
        let mut command = better_auth_alone(&self.database, URL);
        command.envs(self.settings.iter().map(|(name, value)| (name, value))).env("JWT_ALGORITHM", algorithm);
        command
    }

    fn schema(&self) -> &'static str {
        if self.name == "neon" { "neon_auth" } else { "public" }
    }

    async fn execute(&self, statement: &str) {
        execute(&self.database.superuser_url, &statement.replace("auth.", &format!("{}.", self.schema()))).await;
    }

    /// Signs a user up with a Better Auth that makes keys for an algorithm, and returns the user's session and JWT. Other
    /// algorithms' keys expire.
    async fn sign_up_with(&self, algorithm: &str, email: &str) -> (Session, Credential) {
        self.execute("update auth.jwks set \"expiresAt\" = now()").await;
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let mut server = self.better_auth(algorithm).env("PORT", port.to_string()).spawn().unwrap();
        let body = json!({"email": email, "password": PASSWORD, "name": "A person"});
        let sign_up =
            || self.http.post(format!("{url}/api/auth/sign-up/email")).header("Origin", URL).json(&body).send();
        let mut answer = sign_up().await;
        for _ in 0..600 {
            if answer.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            answer = sign_up().await;
        }
        let answer = answer.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{}", self.name);
        let session = self.session(&answer);
        let jwt = self.jwt(&url, "token", &session).await;
        server.kill().unwrap();
        server.wait().unwrap();
        (session, jwt)
    }

    fn session(&self, answer: &reqwest::Response) -> Session {
        Session { secret_is_known: self.name != "neon", ..Session::from_response(answer) }
    }

    /// Lets an OAuth client sign a user in with Better Auth, and returns the ID token.
    async fn id_token(&self, url: &str, session: &Session) -> Credential {
        self.execute(
            "insert into auth.\"oauthApplication\" (id, name, \"clientId\", \"redirectUrls\", type, \"createdAt\", \"updatedAt\")
                values ('client', 'Client', 'client', '', 'web', now(), now())",
        )
        .await;
        let callback = format!("{URL}/callback");
        let query = [
            ("client_id", "client"),
            ("response_type", "code"),
            ("scope", "openid"),
            ("state", "s"),
            ("redirect_uri", &callback),
        ];
        let http = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let request = http.get(format!("{url}/api/auth/oauth2/authorize?{}", encoded(&query)));
        let answer = session.cookie().on(request).send().await.unwrap();
        let location = answer.headers()["location"].to_str().unwrap();
        let code = location.split_once("code=").unwrap().1.split('&').next().unwrap();
        let body = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("client_id", "client"),
            ("client_secret", "the-secret-of-a-client"),
            ("redirect_uri", &callback),
        ];
        let request = http.post(format!("{url}/api/auth/oauth2/token")).header("Origin", URL);
        let request = request.header("Content-Type", "application/x-www-form-urlencoded").body(encoded(&body));
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        jwt(answer["id_token"].as_str().unwrap())
    }

    /// Asks Better Auth for a JWT.
    async fn jwt(&self, url: &str, path: &str, session: &Session) -> Credential {
        let request = self.http.get(format!("{url}/api/auth/{path}"));
        let answer = session.cookie().on(request).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let answer: Value = answer.json().await.unwrap();
        jwt(answer["token"].as_str().unwrap())
    }
}

fn jwt(token: &str) -> Credential {
    Credential { kind: "JWT", header: "authorization", value: format!("Bearer {token}") }
}

fn encoded(parameters: &[(&str, &str)]) -> String {
    let encode =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    parameters.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
}

/// A part of a JWT: the header or the claims.
fn part(jwt: &Credential, number: usize) -> Value {
    let encoded = jwt.value.trim_start_matches("Bearer ").split('.').nth(number).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
}

/// Returns the cookie cache, a JWT.
fn cookie_cache(answer: &reqwest::Response) -> Credential {
    let cookies = answer.headers().get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap());
    let cookie = cookies.map(|cookie| cookie.split(';').next().unwrap()).find(|it| it.contains("session_data="));
    jwt(cookie.unwrap().split_once('=').unwrap().1)
}

async fn jwts_count_until_their_user_is_signed_out(name: &'static str, package: &str) {
    let front_end = FrontEnd::create(name, package).await;
    let mut people = Vec::new();
    for algorithm in ALGORITHMS {
        let (session, jwt) = front_end.sign_up_with(algorithm, &format!("{algorithm}@example.com")).await;
        assert_eq!(part(&jwt, 0)["alg"], algorithm);
        people.push((algorithm, session, jwt));
    }
    let mut settings: Vec<_> = front_end.settings.iter().map(|(name, value)| (&**name, &**value)).collect();
    // The last key's: 1.4 stores no algorithm, and takes each key for one of the configured algorithm.
    settings.push(("JWT_ALGORITHM", ALGORITHMS[4]));
    let servers = Servers::start(&format!("better-auth-jwt-{name}"), &front_end.database, &settings);

    // All keys but the last have expired, and count for the grace period.
    for (algorithm, _, jwt) in &people {
        assert_eq!(servers.api_status(jwt).await, StatusCode::OK, "{algorithm}");
        servers.call_every_route_with(jwt).await;
    }

    // What the same keys sign for another purpose.
    let body = json!({"email": "EdDSA@example.com", "password": PASSWORD});
    let answer = servers.auth("sign-in/email", body, None).await;
    let (session, cache) = (front_end.session(&answer), cookie_cache(&answer));
    assert!(part(&cache, 1)["session"].is_object());
    let access_token = front_end.jwt(&servers.auth, "access-token", &session).await;
    assert_eq!((&part(&access_token, 1)["aud"], &part(&access_token, 1)["azp"]), (&json!(URL), &json!("client")));
    assert_eq!(servers.api_status(&session.credentials()[2]).await, StatusCode::OK);
    let mut others = vec![("the cookie cache", cache), ("an OAuth access token", access_token)];
    if package == "better-auth-1-4" {
        others.push(("an ID token", front_end.id_token(&servers.auth, &session).await));
    }
    for (what, token) in others {
        assert_eq!(servers.api_status(&token).await, StatusCode::UNAUTHORIZED, "{what}");
    }

    // A key that is made while the API runs.
    front_end.execute("update auth.jwks set \"expiresAt\" = now()").await;
    let rotated = front_end.jwt(&servers.auth, "token", &session).await;
    assert!(people.iter().all(|(_, _, jwt)| part(jwt, 0)["kid"] != part(&rotated, 0)["kid"]));
    let until = Instant::now() + Duration::from_secs(NEW_KEY_TIMEOUT_S);
    while servers.api_status(&rotated).await != StatusCode::OK {
        assert!(Instant::now() < until, "the API does not find the new key");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    // What ends a user's sessions ends the user's JWTs at once.
    let [(_, signed_out, its_jwt), (_, banned, banned_jwt), (_, deleted, deleted_jwt), (_, admin, admin_jwt), ..] =
        &people[..]
    else {
        unreachable!()
    };
    servers.auth("sign-out", json!({}), Some(&session.cookie())).await;
    assert_eq!(servers.api_status(its_jwt).await, StatusCode::OK, "another session is left");
    servers.auth("sign-out", json!({}), Some(&signed_out.cookie())).await;
    assert_eq!(servers.api_status(its_jwt).await, StatusCode::UNAUTHORIZED, "after the sign-out");
    assert_eq!(servers.api_status(&rotated).await, StatusCode::UNAUTHORIZED, "after the sign-out");

    front_end.execute("update auth.\"user\" set role = 'admin' where email = 'ps256@example.com'").await;
    let user_id = part(banned_jwt, 1)["sub"].clone();
    let body = json!({"email": "PS256@example.com", "password": PASSWORD});
    let admin_session = front_end.session(&servers.auth("sign-in/email", body, None).await);
    servers.auth("admin/ban-user", json!({"userId": user_id}), Some(&admin_session.cookie())).await;
    assert_eq!(servers.api_status(banned_jwt).await, StatusCode::UNAUTHORIZED, "after the ban");
    assert_eq!(servers.api_status(&banned.credentials()[2]).await, StatusCode::UNAUTHORIZED, "after the ban");

    servers.delete_user_with_a_task(&front_end.database, deleted).await;
    assert_eq!(servers.api_status(deleted_jwt).await, StatusCode::UNAUTHORIZED, "after the user was deleted");

    // However a person's sessions end, the JWTs of others stay.
    assert_eq!(servers.api_status(admin_jwt).await, StatusCode::OK);
    servers.auth("revoke-sessions", json!({}), Some(&admin.cookie())).await;
    assert_eq!(servers.api_status(admin_jwt).await, StatusCode::UNAUTHORIZED, "after the sessions were revoked");
    let (_, _, last) = people.last().unwrap();
    assert_eq!(servers.api_status(last).await, StatusCode::OK);
    servers.dev.stop();
}

#[tokio::test]
async fn jwts_of_better_auth_1_7_count_until_their_user_is_signed_out() {
    jwts_count_until_their_user_is_signed_out("current", "better-auth").await;
}

#[tokio::test]
async fn jwts_of_better_auth_1_4_count_until_their_user_is_signed_out() {
    jwts_count_until_their_user_is_signed_out("old", "better-auth-1-4").await;
}

#[tokio::test]
async fn jwts_of_neon_auth_count_until_their_user_is_signed_out() {
    jwts_count_until_their_user_is_signed_out("neon", "better-auth").await;
}
