//! `cargo xtask bench changes`: what a write costs by noting, for clients that keep a copy, what has changed.
use crate::bench::{
    cost::{Comparison, Cost, report},
    database::{TOKEN, sign_in, start_empty},
    ours::{build_some, our_environment, start},
};
use anyhow::{Context as _, Result, ensure};
use bench::{backends::Backends, event::Call, function::Function, report::number};
use serde_json::{Value, json};
use std::{collections::HashMap, fs};
use xtask::{place::target, step};

/// Calls of each kind in a round.
const CALLS: usize = 100;
/// 1,000 tasks of the user, beside 100,000 of another one. Both tables are rewritten, so that their indexes are as dense.
const TASKS: [&str; 5] = [
    "insert into \"user\" (id, email) values ('other', 'other@example.com')",
    "insert into tasks (user_id, title) select case when n <= 1000 then 'bench' else 'other' end, 'Task ' || n
        from generate_series(1, 101000) n",
    // Otherwise autovacuum would work for one database while the other one is measured.
    "alter table tasks set (autovacuum_enabled = off)",
    "alter table removed_tasks set (autovacuum_enabled = off)",
    "vacuum full analyze tasks",
];
/// Takes away what migration 0018 made in the table of the tasks. The column's index goes with it.
const WITHOUT_CHANGES: &str = "
    drop trigger note_insert on tasks; drop trigger note_update on tasks; drop trigger note_delete on tasks;
    drop trigger note_truncate on tasks; alter table tasks drop column changed";
/// Bytes of the index for a task, and of the row and the index entries for a deleted one.
const BYTES: &str = "
    select pg_relation_size('idx_tasks_user_changed')::float8 / (select count(*) from tasks),
        pg_total_relation_size('removed_tasks')::float8 / (select count(*) from removed_tasks)";
/// What is measured, with the function that does it. Deletes are of the tasks that were created in the same round.
const KINDS: [(&str, &str); 4] =
    [("list", "list-tasks"), ("create", "create-task"), ("update", "update-task"), ("delete", "delete-task")];

/// Runs all measurements, prints the table, and writes target/bench/changes.json.
pub async fn changes(quick: bool) -> Result<()> {
    build_some(&KINDS.map(|(_, program)| program)).await?;
    let folder = target().join("bench");
    fs::create_dir_all(folder.join("logs"))?;
    let mut servers = Vec::new();
    let mut sides = Vec::new();
    for name in ["without-changes", "with-changes"] {
        let (postgres, mut connection) = start_empty(&folder.join(name)).await?;
        sign_in(&mut connection).await?;
        if name == "without-changes" {
            sqlx::raw_sql(WITHOUT_CHANGES).execute(&mut connection).await?;
        }
        for statement in TASKS {
            sqlx::raw_sql(statement).execute(&mut connection).await?;
        }
        let ids = "select id from tasks where user_id = 'bench' order by id limit 100";
        let ids: Vec<i32> = sqlx::query_scalar(ids).fetch_all(&mut connection).await?;
        ensure!(ids.len() == CALLS, "{} tasks", ids.len());
        let environment = our_environment(postgres.api_url())?;
        let start =
            |program: &str| start(&target().join("release").join(program), &environment, &folder, "changes.log");
        sides.push(Side {
            backends: Backends::of_postmaster(postgres.process_id()?),
            functions: KINDS.iter().map(|(what, program)| Ok((*what, start(program)?))).collect::<Result<_>>()?,
            ids,
            created: Vec::new(),
        });
        servers.push((postgres, connection));
    }
    step("Measuring");
    let rounds = if quick { 5 } else { 40 };
    let comparisons = tokio::task::spawn_blocking(move || measure(sides, rounds));
    report("changes.json", ["not noted", "noted"], &comparisons.await??)?;
    let (_, connection) = servers.last_mut().context("two servers")?;
    let [indexed, removed]: [f64; 2] = sqlx::query_as::<_, (f64, f64)>(BYTES).fetch_one(connection).await?.into();
    println!("{} bytes of index for a task, {} bytes for a deleted task", number(indexed), number(removed));
    Ok(())
}

/// One of the two databases, with functions that use it.
struct Side {
    backends: Backends,
    /// By what is measured.
    functions: HashMap<&'static str, Function>,
    /// The tasks that are updated.
    ids: Vec<i32>,
    /// The tasks that are deleted.
    created: Vec<i32>,
}

impl Side {
    fn run(&mut self, what: &str, round: usize) -> Result<Cost> {
        let Self { backends, functions, ids, created } = self;
        let function = functions.get_mut(what).context("a function for each kind")?;
        let call = |method, id: Option<&i32>, body| Call {
            method,
            path: id.map_or_else(|| "/api/tasks".to_owned(), |id| format!("/api/tasks/{id}")),
            query: "",
            task: id.map(|id| i64::from(*id)),
            token: TOKEN,
            body,
        };
        let calls: Vec<_> = match what {
            "list" => (0..CALLS).map(|_| call("GET", None, None)).collect(),
            "create" => (0..CALLS).map(|_| call("POST", None, Some(json!({"title": "Buy milk"})))).collect(),
            "update" => {
                ids.iter().map(|id| call("PUT", Some(id), Some(json!({"title": format!("Round {round}")})))).collect()
            }
            _ => created.iter().map(|id| call("DELETE", Some(id), None)).collect(),
        };
        let mut answers = Vec::new();
        let cost = Cost::measure(backends, || {
            let invocations: Vec<_> = calls.iter().map(|call| function.invoke(&call.event())).collect::<Result<_>>()?;
            answers.extend(invocations.iter().map(|invocation| invocation.answer.clone()));
            Ok(invocations)
        })?;
        if what == "create" {
            *created = answers.iter().map(|answer| id(answer)).collect::<Result<_>>()?;
        }
        Ok(cost)
    }
}

/// The id of the task in an answer.
fn id(answer: &[u8]) -> Result<i32> {
    let answer: Value = serde_json::from_slice(answer)?;
    let task: Value = serde_json::from_str(answer["body"].as_str().unwrap_or_default())?;
    Ok(i32::try_from(task["id"].as_i64().context("a task has an id")?)?)
}

fn measure(mut sides: Vec<Side>, rounds: usize) -> Result<Vec<Comparison>> {
    let mut comparisons =
        KINDS.map(|(what, _)| Comparison { what: what.to_owned(), rounds: Vec::with_capacity(rounds) });
    // The first round fills caches.
    for round in 0..=rounds {
        for comparison in &mut comparisons {
            let mut costs = [Cost::default(); 2];
            // Each side goes first in every second round.
            for turn in 0..2 {
                let index = (round + turn) % 2;
                let (side, cost) = (sides.get_mut(index), costs.get_mut(index));
                *cost.context("two costs")? = side.context("two sides")?.run(&comparison.what, round)?;
            }
            if round > 0 {
                comparison.rounds.push(costs);
            }
        }
    }
    Ok(comparisons.into())
}
