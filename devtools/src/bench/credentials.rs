//! `cargo xtask bench credentials`: a list by JWT beside the same list by the session's token, and with `--before` a cold
//! start by token beside an earlier build's.
use crate::bench::{
    database::{TOKEN, sign_in, start_empty},
    ours::{build_some, our_environment, start},
};
use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bench::{
    event::Call,
    function::Function,
    report::{number, table},
    statistics::{Estimate, median},
};
use openssl::{
    pkey::{PKey, Private},
    sign::Signer,
};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};
use xtask::place::target;

/// Pairs of calls to one process, after as many that are not counted.
const PAIRS: usize = 100;
/// What the benchmark's user lists.
const TASKS: &str = "insert into tasks (user_id, title, description)
    select 'bench', 'Task number ' || n, repeat('Details follow here. ', n % 5) from generate_series(1, 50) n";

/// Who lists: the same user, by either credential.
struct Credentials {
    token: String,
    jwt: String,
}

/// Runs all measurements, prints the ratios, and writes target/bench/credentials.json.
pub async fn credentials(quick: bool, before: Option<&Path>) -> Result<()> {
    build_some(&["list-tasks"]).await?;
    let folder = target().join("bench");
    fs::create_dir_all(folder.join("logs"))?;
    let (postgres, mut connection) = start_empty(&folder.join("credentials")).await?;
    let credentials = add_credentials(&mut connection).await?;
    let environment = our_environment(postgres.api_url())?;

    let rounds = if quick { 10 } else { 40 };
    let program = target().join("release/list-tasks");
    let before = before.map(|folder| folder.join("list-tasks"));
    let start = move |program: &Path| start(program, &environment, &folder, "credentials.log");
    let results = tokio::task::spawn_blocking(move || {
        let mut results = vec![("warm list by JWT, of the token's", warm(rounds, &credentials, || start(&program))?)];
        if let Some(before) = before {
            let starts = || Ok([cold(&credentials, || start(&program))?, cold(&credentials, || start(&before))?]);
            results.push(("cold start by token, of the earlier build's", ratios(rounds, starts)?));
        }
        anyhow::Ok(results)
    });
    let results = results.await??;
    let row = |(what, it): &(&str, Estimate)| {
        [*what].into_iter().map(str::to_owned).chain([it.median, it.low, it.high].map(number)).collect()
    };
    println!("{}", table(&["ratio", "median", "from", "to"], &results.iter().map(row).collect::<Vec<_>>()));
    let file = target().join("bench/credentials.json");
    fs::write(&file, serde_json::to_vec_pretty(&json!(results))?)?;
    println!("\nWritten: {}", file.display());
    Ok(())
}

/// Adds a user with a session, tasks and a key of Better Auth's `jwt` plugin.
async fn add_credentials(connection: &mut PgConnection) -> Result<Credentials> {
    sign_in(connection).await?;
    let key = PKey::generate_ed25519()?;
    let x = URL_SAFE_NO_PAD.encode(key.raw_public_key()?);
    for statement in [
        "create table jwks (id text primary key, \"publicKey\" text not null, \"privateKey\" text not null, \"createdAt\" timestamptz not null)",
        TASKS,
    ] {
        sqlx::raw_sql(statement).execute(&mut *connection).await?;
    }
    sqlx::query("insert into jwks values ('bench', $1, '', now())")
        .bind(json!({"kty": "OKP", "crv": "Ed25519", "x": x}).to_string())
        .execute(&mut *connection)
        .await?;
    sqlx::raw_sql("vacuum analyze").execute(connection).await?;
    Ok(Credentials { token: TOKEN.to_owned(), jwt: jwt(&key)? })
}

/// A JWT with the claims that Better Auth writes, for a day.
fn jwt(key: &PKey<Private>) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let url = "https://app.example.com";
    let header = json!({"alg": "EdDSA", "kid": "bench"});
    let claims = json!({"id": "bench", "email": "bench@example.com", "name": "Bench", "emailVerified": true, "image": null,
        "sub": "bench", "iat": now, "exp": now + 86_400, "iss": url, "aud": url});
    let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = Signer::new_without_digest(key)?.sign_oneshot_to_vec(signed.as_bytes())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// Lists, and returns the latency in ms.
fn list(function: &mut Function, credential: &str) -> Result<f64> {
    let path = "/api/tasks".to_owned();
    let call = Call { method: "GET", path, query: "limit=50", task: None, token: credential, body: None };
    let invocation = function.invoke(&call.event())?;
    let answer: Value = serde_json::from_slice(&invocation.answer)?;
    ensure!(answer["statusCode"] == 200, "answered with {answer}");
    Ok(invocation.latency_ms)
}

/// The ratio of two values that `measure` returns, in each of some rounds.
fn ratios(rounds: usize, measure: impl Fn() -> Result<[f64; 2]>) -> Result<Estimate> {
    let mut ratios = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let [one, other] = measure()?;
        ratios.push(one / other);
        eprint!("\r    round {} of {rounds}", round + 1);
    }
    eprintln!();
    Estimate::from_values(&ratios).context("rounds")
}

/// Compares the medians of lists by JWT and by token, which alternate in one process a round.
fn warm(rounds: usize, credentials: &Credentials, start: impl Fn() -> Result<Function>) -> Result<Estimate> {
    ratios(rounds, || {
        let mut function = start()?;
        let (mut by_jwt, mut by_token) = (Vec::new(), Vec::new());
        for _ in 0..2 * PAIRS {
            by_jwt.push(list(&mut function, &credentials.jwt)?);
            by_token.push(list(&mut function, &credentials.token)?);
        }
        let counted = |latencies: Vec<f64>| median(latencies.into_iter().skip(PAIRS)).context("calls");
        Ok([counted(by_jwt)?, counted(by_token)?])
    })
}

/// The time from a start to the first answer, by token, in ms.
fn cold(credentials: &Credentials, start: impl Fn() -> Result<Function>) -> Result<f64> {
    let mut function = start()?;
    Ok(function.init_ms + list(&mut function, &credentials.token)?)
}
