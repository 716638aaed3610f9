//! `cargo xtask bench batch`: a hundred operations in one batch beside a hundred calls, to warm functions.
use crate::bench::{
    cost::{Comparison, Cost, report},
    database::{TOKEN, sign_in, start_empty},
    ours::{build_some, our_environment, start},
};
use anyhow::{Result, ensure};
use bench::{
    backends::Backends,
    event::Call,
    function::{Function, Invocation},
    relay::Relay,
};
use serde_json::json;
use std::{fs, time::Duration};
use xtask::{place::target, step};

/// Operations in a batch.
const OPERATIONS: usize = 100;
/// Delay of a round trip to the database.
const DELAY: Duration = Duration::from_millis(2);
/// As many tasks of the user as a batch has operations, beside those of another one.
const TASKS: [&str; 3] = [
    "insert into \"user\" (id, email) values ('other', 'other@example.com')",
    "insert into tasks (user_id, title) select case when n <= 100 then 'bench' else 'other' end, 'Task ' || n
        from generate_series(1, 100000) n",
    "vacuum analyze tasks",
];

/// Runs all measurements, prints the table, and writes target/bench/batch.json.
pub async fn batch(quick: bool) -> Result<()> {
    build_some(&["batch-tasks", "create-task", "complete-task"]).await?;
    let folder = target().join("bench");
    fs::create_dir_all(folder.join("logs"))?;
    let (postgres, mut connection) = start_empty(&folder.join("batch")).await?;
    sign_in(&mut connection).await?;
    for statement in TASKS {
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
                let start =
                    |name: &str| start(&target().join("release").join(name), &environment, &folder, "batch.log");
                let (mut single, mut together) = (start(name)?, start("batch-tasks")?);
                let mut costs = Vec::new();
                for _ in 0..=rounds {
                    costs.push([
                        Cost::measure(&backends, || single_calls(&mut single, what, &ids))?,
                        Cost::measure(&backends, || one_batch(&mut together, what, &ids))?,
                    ]);
                }
                // The first round fills caches.
                anyhow::Ok(costs.split_off(1))
            });
            rows.push(Comparison { what: format!("{what}, database {place}"), rounds: costs.await?? });
        }
    }
    report("batch.json", ["calls", "batch"], &rows)
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
