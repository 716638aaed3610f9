//! `cargo xtask bench fair`: what one person notices while another one, who has many large tasks, searches all the time.
use crate::{
    bench::{
        database::start_empty,
        ours::{build_ours, our_environment, start},
    },
    servers::pgbouncer::{PgBouncer, Pooling},
};
use anyhow::{Context as _, Result, ensure};
use bench::{
    event::Call,
    function::Function,
    report::{number, table},
    statistics::{median, quantile},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use xtask::{cli::Bench, place::target, step};

/// PgBouncer's server connections for both people.
const POOLING: Pooling = Pooling { server_connections: 4, ..Pooling::TRANSACTION };
/// Processes that search at once, for one person.
const SEARCHES: usize = 16;
/// Lists of the other person that are timed, and the maximum duration of that.
const LISTS: usize = 1000;
const QUICK_LISTS: usize = 200;
const LISTS_TAKE_S: u64 = 20;
/// Maximum ratio of the p99 of a list beside the searches to that of a quiet run.
const RATIO: f64 = 2.0;

/// One person with 10,000 tasks of 10,000 characters, one with 100 tasks, and 100,000 tasks of others.
const SEED: &str = "
    insert into \"user\" (id, email)
    select name, name || '@example.com' from (select 'user-' || n from generate_series(1, 1000) n union values ('greedy'), ('quiet')) as names (name);
    insert into session (id, token, user_id, expires_at)
    select id, id, id, now() at time zone 'UTC' + interval '7 days' from \"user\";
    insert into tasks (user_id, title, description, completed, created_at, updated_at)
    select id, 'Task ' || n, case id when 'greedy' then left(repeat(md5(n::text) || ' Some words ', 250), 10000) else repeat('Details follow here. ', n % 8) end,
        n % 4 = 0, at, at
    from \"user\", lateral generate_series(1, case id when 'greedy' then 10000 else 100 end) n,
        lateral (select '2026-01-01'::timestamp + n * interval '1 minute' as at) times";

/// Runs the measurements, prints a table, and writes target/bench/fair.json.
pub async fn fair(options: &Bench) -> Result<()> {
    build_ours().await?;
    let folder = target().join("bench");
    fs::create_dir_all(folder.join("logs"))?;
    let (postgres, mut connection) = start_empty(&folder.join("fair")).await?;
    step("Adding 10,000 tasks of 10,000 characters");
    sqlx::raw_sql(SEED).execute(&mut connection).await?;
    sqlx::raw_sql("vacuum analyze tasks").execute(&mut connection).await?;
    let pooler = PgBouncer::start(&folder.join("fair-pgbouncer"), &postgres, POOLING).await?;
    let host = |port: u16| format!("127.0.0.1:{port}");
    let url = postgres.api_url().replace(&host(postgres.port()), &host(pooler.port()));

    let (mut rows, mut results) = (Vec::new(), Vec::new());
    let built = options.before.iter().map(|folder| ("before", folder.clone()));
    for (functions, built) in built.chain([("ours", target().join("release"))]) {
        let mut quiet_p99 = None;
        for load in [Load::None, Load::Waits, Load::Hurries] {
            step(format!("Measuring: {functions}, {}", load.name()));
            let run = Run { environment: our_environment(url.clone())?, built: built.clone(), folder: folder.clone() };
            let lists = if options.quick { QUICK_LISTS } else { LISTS };
            let outcome = tokio::task::spawn_blocking(move || run.measure(load, lists)).await??;
            let p99 = outcome.p99_ms()?;
            let ratio = p99 / *quiet_p99.get_or_insert(p99);
            rows.push(outcome.cells(functions, load, ratio)?);
            results.push(json!({
                "functions": functions, "load": load.name(), "lists": outcome.lists_ms.len(), "p99_ms": p99, "ratio": ratio,
                "searches": outcome.searches_ms.len(), "refused": outcome.refused_ms.len(), "failed": outcome.failed,
            }));
        }
    }
    let headers = [
        "functions",
        "searches",
        "lists",
        "p50 ms",
        "p99 ms",
        "p99 / quiet",
        "answered",
        "refused",
        "refused p99 ms",
        "5xx",
    ];
    println!(
        "\nLists of 50 beside {SEARCHES} searches of another person, {} server connections (p99 at most {RATIO} times the quiet one)\n\n{}",
        POOLING.server_connections,
        table(&headers, &rows)
    );
    let file = folder.join("fair.json");
    fs::write(&file, serde_json::to_vec_pretty(&results)?)?;
    println!("\nWritten: {}", file.display());
    Ok(())
}

/// What the person with many tasks does meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    None,
    /// Searches, and waits as long as `Retry-After` says.
    Waits,
    /// Searches, and tries again at once.
    Hurries,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Waits => "16, wait when refused",
            Self::Hurries => "16, do not wait",
        }
    }
}

/// The functions to measure.
struct Run {
    environment: Vec<(&'static str, String)>,
    built: PathBuf,
    folder: PathBuf,
}

/// The latencies of both people's calls.
#[derive(Default)]
struct Outcome {
    lists_ms: Vec<f64>,
    searches_ms: Vec<f64>,
    refused_ms: Vec<f64>,
    failed: usize,
}

impl Run {
    fn measure(&self, load: Load, lists: usize) -> Result<Outcome> {
        let is_over = AtomicBool::new(false);
        let mut quiet = self.start()?;
        let searches = if load == Load::None { 0 } else { SEARCHES };
        let greedy = (0..searches).map(|_| self.start()).collect::<Result<Vec<_>>>()?;
        thread::scope(|scope| {
            let searching: Vec<_> =
                greedy.into_iter().map(|process| scope.spawn(|| search(process, load, &is_over))).collect();
            let listed = list(&mut quiet, lists);
            is_over.store(true, Ordering::Relaxed);
            let mut outcome = Outcome { lists_ms: listed?, ..Outcome::default() };
            for thread in searching {
                let found = thread.join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;
                outcome.searches_ms.extend(found.searches_ms);
                outcome.refused_ms.extend(found.refused_ms);
                outcome.failed += found.failed;
            }
            Ok(outcome)
        })
    }

    fn start(&self) -> Result<Function> {
        start(&self.built.join("list-tasks"), &self.environment, &self.folder, "fair.log")
    }
}

/// Lists the tasks of the person who has few, and returns the latencies.
fn list(process: &mut Function, lists: usize) -> Result<Vec<f64>> {
    let event = call("quiet", "limit=50");
    // The searches begin, and the connection has been used.
    for _ in 0..10 {
        process.invoke(&event)?;
    }
    let began = Instant::now();
    let mut latencies = Vec::new();
    while latencies.len() < lists && began.elapsed() < Duration::from_secs(LISTS_TAKE_S) {
        let invocation = process.invoke(&event)?;
        let answer: Value = serde_json::from_slice(&invocation.answer)?;
        ensure!(answer["statusCode"] == 200 || answer["statusCode"] == 503, "answered with {answer}");
        latencies.push(invocation.latency_ms);
    }
    Ok(latencies)
}

/// Searches for a text that no task has, until the lists are done.
fn search(mut process: Function, load: Load, is_over: &AtomicBool) -> Result<Outcome> {
    let event = call("greedy", "q=nothing-has-this");
    let mut outcome = Outcome::default();
    while !is_over.load(Ordering::Relaxed) {
        let invocation = process.invoke(&event)?;
        let answer: Value = serde_json::from_slice(&invocation.answer)?;
        match answer["statusCode"].as_u64() {
            Some(200) => outcome.searches_ms.push(invocation.latency_ms),
            Some(429) => {
                outcome.refused_ms.push(invocation.latency_ms);
                if load == Load::Waits {
                    let seconds = answer["headers"]["retry-after"].as_str().context("Retry-After")?.parse()?;
                    thread::sleep(Duration::from_secs(seconds));
                }
            }
            _ => outcome.failed += 1,
        }
    }
    Ok(outcome)
}

fn call(token: &str, query: &str) -> String {
    Call { method: "GET", path: "/api/tasks".to_owned(), query, task: None, token, body: None }.event()
}

impl Outcome {
    fn p99_ms(&self) -> Result<f64> {
        quantile(self.lists_ms.iter().copied(), 0.99).context("lists")
    }

    fn cells(&self, functions: &str, load: Load, ratio: f64) -> Result<Vec<String>> {
        let p50 = median(self.lists_ms.iter().copied()).context("lists")?;
        let refused = quantile(self.refused_ms.iter().copied(), 0.99);
        Ok(vec![
            functions.to_owned(),
            load.name().to_owned(),
            self.lists_ms.len().to_string(),
            number(p50),
            number(self.p99_ms()?),
            number(ratio),
            self.searches_ms.len().to_string(),
            self.refused_ms.len().to_string(),
            refused.map(number).unwrap_or_default(),
            self.failed.to_string(),
        ])
    }
}
