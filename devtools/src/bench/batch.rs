//! `cargo xtask bench batch`: a hundred operations in one batch beside a hundred calls, to warm functions.
use crate::{
    bench::{database::start_empty, ours::our_environment},
    system::{process::run_command, tools::cargo},
};
use anyhow::{Context as _, Result, ensure};
use bench::{
    backends::Backends,
    event::Call,
    function::{Function, Invocation, Start},
    relay::Relay,
    report::{number, table},
    statistics::{Estimate, median},
};
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};
use xtask::{place::target, step};

/// Operations in a batch.
const OPERATIONS: usize = 100;
const TOKEN: &str = "a-token-of-the-benchmark";
/// Delay of a round trip to the database.
const DELAY: Duration = Duration::from_millis(2);
/// A user with a session, and with as many tasks as a batch has operations beside those of others.
const USER: [&str; 4] = [
    "insert into \"user\" (id, email) values ('bench', 'bench@example.com'), ('other', 'other@example.com')",
    "insert into session (id, user_id, token, created_at, expires_at)
        select 'bench', 'bench', 'a-token-of-the-benchmark', at, at + interval '1 day' from (select now() at time zone 'utc') as now (at)",
    "insert into tasks (user_id, title) select case when n <= 100 then 'bench' else 'other' end, 'Task ' || n
        from generate_series(1, 100000) n",
    "vacuum analyze tasks",
];

/// What is measured for one way to do all operations.
#[derive(Clone, Copy, Default)]
struct Cost {
    time_ms: f64,
    function_ms: f64,
    database_ms: f64,
}

/// One of the figures of a cost.
type Part = fn(&Cost) -> f64;

/// Runs all measurements, prints the table, and writes target/bench/batch.json.
pub async fn batch(quick: bool) -> Result<()> {
    step("Building the functions for release (link-time optimisation takes minutes)");
    let mut build = cargo(&["build", "--release", "--locked", "--package", "functions"]);
    for name in ["batch-tasks", "create-task", "complete-task"] {
        build.args(["--bin", name]);
    }
    run_command(&mut build).await?;
    let folder = target().join("bench");
    fs::create_dir_all(folder.join("logs"))?;
    let (postgres, mut connection) = start_empty(&folder.join("batch")).await?;
    for statement in USER {
        sqlx::raw_sql(statement).execute(&mut connection).await?;
    }
    let ids: Vec<i32> =
        sqlx::query_scalar("select id from tasks where user_id = 'bench'").fetch_all(&mut connection).await?;
    let backends = Backends::of_postmaster(postgres.process_id()?);
    let relay = Relay::start(postgres.port(), DELAY)?;
    let near = our_environment(postgres.api_url())?;
    let (from, to) = (format!("127.0.0.1:{}", postgres.port()), format!("127.0.0.1:{}", relay.port()));
    let far = our_environment(postgres.api_url().replace(&from, &to))?;
    // Each round creates 200 tasks. More rounds would measure somebody with very many.
    let rounds = if quick { 3 } else { 10 };
    let mut rows = Vec::new();
    for (place, environment) in [("beside it", near), ("2 ms away", far)] {
        for (what, name) in [("create", "create-task"), ("complete", "complete-task")] {
            step(format!("Measuring: {what}, database {place}"));
            sqlx::raw_sql("delete from tasks where title = 'Buy milk'").execute(&mut connection).await?;
            let (environment, folder, ids) = (environment.clone(), folder.clone(), ids.clone());
            let costs = tokio::task::spawn_blocking(move || {
                let mut single = start(name, &environment, &folder)?;
                let mut together = start("batch-tasks", &environment, &folder)?;
                let mut costs = Vec::new();
                for _ in 0..=rounds {
                    costs.push([
                        measure(&backends, || single_calls(&mut single, what, &ids))?,
                        measure(&backends, || one_batch(&mut together, what, &ids))?,
                    ]);
                }
                // The first round fills caches.
                anyhow::Ok(costs.split_off(1))
            });
            rows.push((format!("{what}, database {place}"), costs.await??));
        }
    }
    report(&rows)
}

fn start(name: &str, environment: &[(&'static str, String)], folder: &Path) -> Result<Function> {
    Function::start(&Start {
        command: &[target().join("release").join(name).display().to_string()],
        folder,
        handler: "bootstrap",
        environment,
        log: &folder.join("logs/batch.log"),
        share: None,
        cpus: None,
    })
}

fn measure(backends: &Backends, run: impl FnOnce() -> Result<Vec<Invocation>>) -> Result<Cost> {
    let before = backends.cpu_ms()?;
    let invocations = run()?;
    let database_ms = backends.cpu_ms()? - before;
    let mut cost = Cost { database_ms, ..Cost::default() };
    for invocation in invocations {
        let answer: Value = serde_json::from_slice(&invocation.answer)?;
        let status = answer["statusCode"].as_u64().unwrap_or_default();
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap_or_default())?;
        ensure!(
            (200..300).contains(&status) && body["refused"].as_u64().unwrap_or_default() == 0,
            "answered with {status}, {} refused",
            body["refused"]
        );
        cost.time_ms += invocation.latency_ms;
        cost.function_ms += invocation.cpu_ms;
    }
    Ok(cost)
}

fn single_calls(function: &mut Function, what: &str, ids: &[i32]) -> Result<Vec<Invocation>> {
    let call = |id: &i32| {
        let (method, path, task, body) = match what {
            "create" => ("POST", "/api/tasks".to_owned(), None, json!({"title": "Buy milk"})),
            _ => ("PATCH", format!("/api/tasks/{id}/complete"), Some(i64::from(*id)), json!({"completed": true})),
        };
        Call { method, path, query: "", task, token: TOKEN, body: Some(body) }.event()
    };
    ids.iter().map(|id| function.invoke(&call(id))).collect()
}

fn one_batch(function: &mut Function, what: &str, ids: &[i32]) -> Result<Vec<Invocation>> {
    let operation = |id: &i32| match what {
        "create" => json!({"op": "create", "title": "Buy milk"}),
        _ => json!({"op": "complete", "id": id, "completed": true}),
    };
    let operations: Vec<_> = ids.iter().map(operation).collect();
    ensure!(operations.len() == OPERATIONS, "{} tasks", operations.len());
    let body = Some(json!({"operations": operations}));
    let call = Call { method: "POST", path: "/api/tasks/batch".to_owned(), query: "", task: None, token: TOKEN, body };
    Ok(vec![function.invoke(&call.event())?])
}

fn report(rows: &[(String, Vec<[Cost; 2]>)]) -> Result<()> {
    let mut lines = Vec::new();
    let mut results = serde_json::Map::new();
    for (title, costs) in rows {
        let mut line = vec![title.clone()];
        let mut fields = serde_json::Map::new();
        let parts: [(&str, Part); 3] = [
            ("time_ms", |cost| cost.time_ms),
            ("function_cpu_ms", |cost| cost.function_ms),
            ("database_cpu_ms", |cost| cost.database_ms),
        ];
        for (name, part) in parts {
            let of = |index: usize| median(costs.iter().filter_map(|both| both.get(index)).map(part)).context("rounds");
            let (single, together) = (of(0)?, of(1)?);
            let ratios: Vec<_> = costs.iter().map(|[single, together]| part(together) / part(single)).collect();
            let ratio = Estimate::from_values(&ratios).context("rounds")?;
            line.extend([number(single), number(together), number(ratio.median)]);
            fields.insert(name.to_owned(), json!({"calls": single, "batch": together, "ratio": ratio}));
        }
        lines.push(line);
        results.insert(title.clone(), fields.into());
    }
    let heads = [
        "100 operations",
        "calls ms",
        "batch ms",
        "ratio",
        "function's CPU ms",
        "batch",
        "ratio",
        "database's CPU ms",
        "batch",
        "ratio",
    ];
    println!("{}", table(&heads, &lines));
    let file = target().join("bench/batch.json");
    fs::write(&file, serde_json::to_vec_pretty(&results)?)?;
    println!("\nWritten: {}", file.display());
    Ok(())
}
