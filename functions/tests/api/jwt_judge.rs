//! Thousands of changed JWTs: the API must accept exactly those that jose accepts when it is set to the API's rules, and
//! none that Better Auth refuses.
use crate::{
    api::{Api, get},
    jwt::TABLE,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::PathBuf, process::Stdio};
use testing::{Database, remember_secret};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

/// JWTs to try under each configuration, unless `PROPTEST_CASES` is set.
const CASES: usize = 4000;

const BASE_URL: &str = "https://app.example.com";
const SHARED_SECRET: &str = "a-shared-secret-of-the-tests-0123456789";

/// Why the API refuses JWTs that Better Auth's `verifyJWT` accepts. docs/authentication.md lists the same.
const REFUSED_ONLY_BY_THE_API: [&str; 16] = [
    "JSON that is nested too deeply",
    "JSON with a byte order mark",
    "JSON with a number that is too large",
    "JSON with half a character",
    "a claim of another purpose",
    "a key that has expired",
    "a signature of another length",
    "a subject that is no id",
    "a time out of range",
    "a token that is too long",
    "a wrong iat",
    "a wrong typ",
    "an extension",
    "base64url with padding, white space or spare bits",
    "no exp",
    "no iat",
];

/// A row of `jwks`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    id: String,
    public_key: String,
    alg: Option<String>,
    expires_at: Option<f64>,
}

/// A JWT, and what jwt-judge.mjs says about it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    token: String,
    /// The user, by jose with the API's rules.
    subject: Option<String>,
    /// Why jose refuses it.
    reason: Option<String>,
    /// Whether Better Auth accepts it.
    better_auth: bool,
    /// Whether it counts only because of the API's leeway, which Better Auth has not.
    leeway: bool,
}

async fn insert_keys(database: &Database, keys: &[Key]) {
    database.batch(TABLE).await;
    for key in keys {
        database
            .sql(
                "insert into public.jwks values ($1, $2, '', now(), to_timestamp($3), $4, null)",
                &[&key.id, &key.public_key, &key.expires_at, &key.alg],
            )
            .await;
    }
}

/// Whether the token's header names the algorithm of the shared secret, which Better Auth's `verifyJWT` never accepts.
fn is_of_the_shared_secret(case: &Case) -> bool {
    let header = case.token.split('.').next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
    let header: Option<Value> = header.and_then(|header| serde_json::from_slice(&header).ok());
    header.is_some_and(|header| header["alg"] == "HS256")
}

#[tokio::test]
#[ignore = "needs Better Auth, which 'cargo xtask test better-auth' installs"]
async fn better_auth_agrees_on_every_jwt_that_the_api_accepts_and_jose_on_all() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let cases: usize = number("PROPTEST_CASES").unwrap_or(CASES);
    let mut refused_only_by_the_api = BTreeSet::new();
    for (seed, shared_secret) in [(1, Some(SHARED_SECRET)), (2, None)] {
        let seed = number("JWT_SEED").unwrap_or(seed);
        let mut settings = vec![("BETTER_AUTH_URL", BASE_URL)];
        settings.extend(shared_secret.map(|secret| ("JWT_SHARED_SECRET", secret)));
        let mut api = Api::with_settings(&settings).await;
        let users = [api.database.sign_up("ada").await.id, api.database.sign_up("bob").await.id];
        // Older than each JWT.
        api.database.sql("update session set created_at = '1970-01-01'", &[]).await;

        let folder: PathBuf =
            std::env::var_os("BETTER_AUTH").expect("'cargo xtask test better-auth' names its folder").into();
        let mut judge = tokio::process::Command::new("node")
            .arg("jwt-judge.mjs")
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Node.js");
        let input =
            json!({"seed": seed, "count": cases, "baseURL": BASE_URL, "users": users, "sharedSecret": shared_secret});
        let mut pipe = judge.stdin.take().expect("a pipe");
        pipe.write_all(input.to_string().as_bytes()).await.expect("jwt-judge.mjs reads its input");
        drop(pipe);
        let mut lines = BufReader::new(judge.stdout.take().expect("a pipe")).lines();
        let keys = lines.next_line().await.expect("output").expect("a line");
        insert_keys(&api.database, &serde_json::from_str::<Vec<Key>>(&keys).expect("keys")).await;

        let (mut judged, mut accepted, mut disagreements) = (0, 0, Vec::new());
        while let Some(line) = lines.next_line().await.expect("output") {
            let case: Case = serde_json::from_str(&line).expect("a case");
            let answer = api.call(get("/api/session").bearer(&case.token)).await;
            let user = match answer.status {
                200 => answer.body["user_id"].as_str().map(str::to_owned),
                401 => None,
                _ => panic!("{line}\n    {answer:?}"),
            };
            judged += 1;
            if user.is_some() {
                accepted += 1;
                remember_secret(&case.token);
            }
            let expected = case.subject.clone().filter(|subject| users.contains(subject));
            if user != expected {
                disagreements.push(format!("{line}\n    jose: {expected:?}, this API: {user:?}"));
            }
            if user.is_some() && !case.better_auth && !case.leeway && !is_of_the_shared_secret(&case) {
                disagreements.push(format!("{line}\n    Better Auth refuses it, this API: {user:?}"));
            }
            if case.better_auth
                && let Some(reason) = case.reason
            {
                refused_only_by_the_api.insert(reason);
            }
        }
        assert!(judge.wait().await.expect("jwt-judge.mjs exits").success());
        println!("seed {seed}: {judged} JWTs, {accepted} accepted, {} disagreements", disagreements.len());
        assert_eq!(judged, cases);
        assert!(accepted * 10 > cases, "less than a tenth was accepted, too few for a meaningful test: {accepted}");
        disagreements.truncate(20);
        assert!(disagreements.is_empty(), "{}", disagreements.join("\n"));
    }
    println!("refused by this API only: {refused_only_by_the_api:#?}");
    let known = BTreeSet::from(REFUSED_ONLY_BY_THE_API.map(str::to_owned));
    let unknown: Vec<_> = refused_only_by_the_api.difference(&known).collect();
    assert!(unknown.is_empty(), "Better Auth accepts more than is known: {unknown:?}");
    let page = include_str!("../../../docs/authentication.md");
    for reason in &known {
        assert!(page.contains(&format!("| {reason} |")), "docs/authentication.md does not list: {reason}");
    }
    if cases >= CASES {
        assert_eq!(refused_only_by_the_api, known, "a difference has gone");
    }
}
