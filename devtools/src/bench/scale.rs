//! `cargo xtask bench scale`: how the cost of a call grows with the number of tasks, the page size and the number of
//! processes.
use crate::{
    bench::{
        database::start_empty,
        ours::{self, build_ours, our_environment},
    },
    servers::pgbouncer::{PgBouncer, Pooling},
};
use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bench::{
    event::Call,
    function::Function,
    relay::Relay,
    report::{number, table},
    statistics::{mean, median, quantile},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::sleep;
use xtask::{place::target, step};

/// Table sizes, in tasks. Each user has [`TASKS_EACH`].
const TASKS: [i64; 4] = [10_000, 100_000, 1_000_000, 10_000_000];
const TASKS_EACH: i64 = 100;
/// Number of tasks of one additional user.
const TASKS_OF_ONE: i64 = 100_000;
/// Number of calls of each kind.
const CALLS: usize = 300;
/// Number of processes that start at once.
const PROCESSES: [usize; 6] = [1, 10, 50, 100, 200, 500];
/// Page sizes, in tasks.
const LIMITS: [i64; 4] = [1, 10, 50, 100];
/// PgBouncer's server connections for all of the processes.
const POOLING: Pooling = Pooling { server_connections: 20, ..Pooling::TRANSACTION };
/// Maximum ratio of a list's buffers in the largest table to those in the smallest.
const FLAT: f64 = 1.2;

/// Runs all measurements, prints tables, and writes target/bench/scale.json.
pub async fn scale(quick: bool) -> Result<()> {
    build_ours().await?;
    let folder = target().join("bench");
    fs::create_dir_all(folder.join("logs"))?;
    let data = folder.join("scale");
    let (postgres, mut connection) = start_empty(&data).await?;
    // Autovacuum's reads would be counted as the calls'.
    sqlx::raw_sql("alter table tasks set (autovacuum_enabled = off)").execute(&mut connection).await?;
    let mut bench = Bench { connection, url: postgres.api_url(), folder };

    let levels = if quick { &TASKS[..3] } else { &TASKS };
    let growth = bench.growth(levels).await?;
    let many_tasks = bench.user_with_many_tasks().await?;
    let pages = bench.page_sizes(postgres.port()).await?;
    let pooler = PgBouncer::start(&data.join("pgbouncer"), &postgres, POOLING).await?;
    let port = |port: u16| format!("127.0.0.1:{port}");
    bench.url = bench.url.replace(&port(postgres.port()), &port(pooler.port()));
    let processes = if quick { &PROCESSES[..4] } else { &PROCESSES };
    let cold = bench.cold_starts(processes).await?;

    let file = bench.folder.join("scale.json");
    let all = json!({"growth": growth, "of_one": many_tasks, "items": pages, "cold": cold});
    fs::write(&file, serde_json::to_vec_pretty(&all)?)?;
    println!("\nWritten: {}", file.display());
    Ok(())
}

/// Averages and percentiles per call.
struct Cost {
    p50_ms: f64,
    p99_ms: f64,
    cpu_ms: f64,
    /// Buffers read from tables and indexes, per call.
    buffers: f64,
    answer_bytes: f64,
}

struct Bench {
    connection: PgConnection,
    url: String,
    folder: PathBuf,
}

impl Bench {
    /// Measures list, get and create in tables of increasing size.
    async fn growth(&mut self, levels: &[i64]) -> Result<Value> {
        let (mut rows, mut results, mut lists) = (Vec::new(), Vec::new(), Vec::new());
        let mut users = 0;
        for tasks in levels {
            step(format!("Growing to {tasks} tasks"));
            self.grow(users + 1, tasks / TASKS_EACH).await?;
            users = tasks / TASKS_EACH;
            let some: Vec<(String, i32)> = sqlx::query_as(
                "select session.token, tasks.id from session join tasks using (user_id)
                where tasks.id in (select 1 + (random() * ($1 - 1))::int from generate_series(1, $2))",
            )
            .bind(tasks)
            .bind(i32::try_from(CALLS * 2)?)
            .fetch_all(&mut self.connection)
            .await?;
            let calls = |name: &str| -> Vec<String> {
                let some = some.iter().cycle().take(CALLS);
                some.map(|(token, task)| call(name, token, i64::from(*task), "limit=50").event()).collect()
            };
            for name in ["list-tasks", "get-task", "create-task"] {
                let cost = self.cost(name, calls(name)).await?;
                if name == "list-tasks" {
                    lists.push(cost.buffers);
                }
                rows.push(cells(&[tasks.to_string(), name.to_owned()], &cost));
                results.push(json!({"tasks": tasks, "function": name, "p50_ms": cost.p50_ms, "p99_ms": cost.p99_ms, "buffers": cost.buffers}));
            }
        }
        println!(
            "\nBy the number of tasks in the table\n\n{}",
            table(&["tasks", "function", "p50 ms", "p99 ms", "buffers"], &rows)
        );
        let growth = lists.last().zip(lists.first()).map(|(last, first)| last / first).context("levels")?;
        let verdict = if growth <= FLAT { "holds" } else { "DOES NOT HOLD" };
        println!("\nA list's buffers, at the most tasks to the fewest: {} (at most {FLAT}: {verdict})", number(growth));
        Ok(json!({"calls": results, "list_buffers_ratio": growth}))
    }

    /// Adds the users numbered `first` to `last`, each with a session and tasks.
    async fn grow(&mut self, first: i64, last: i64) -> Result<()> {
        // Rebuilding the indexes takes a fraction of the time that updating them for each row takes.
        let indexes: Vec<(String, String)> = sqlx::query_as(
            "select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index
            where indrelid = 'tasks'::regclass and not indisprimary and not indisunique",
        )
        .fetch_all(&mut self.connection)
        .await?;
        for (name, _) in &indexes {
            sqlx::raw_sql(AssertSqlSafe(format!("drop index {name}"))).execute(&mut self.connection).await?;
        }
        for statement in [
            "insert into \"user\" (id, email) select 'user-' || n, n || '@example.com' from generate_series($1::int, $2::int) n",
            "insert into session (id, token, user_id, expires_at)
            select 'session-' || n, 'token-' || md5(n::text), 'user-' || n, now() at time zone 'UTC' + interval '7 days'
            from generate_series($1::int, $2::int) n",
            "insert into tasks (user_id, title, description, completed, created_at, updated_at)
            select 'user-' || u, 'Task ' || k || ' of user ' || u, repeat('Details follow here. ', (u * 7 + k) % 8), (u + k) % 4 = 0, at, at
            from generate_series(1, 100) k, generate_series($1::int, $2::int) u,
                lateral (select '2026-01-01'::timestamp + (k * 100000 + u) * interval '1 second' as at) times",
        ] {
            let run = sqlx::query(statement).bind(i32::try_from(first)?).bind(i32::try_from(last)?);
            run.execute(&mut self.connection).await?;
        }
        for (_, definition) in indexes {
            sqlx::raw_sql(AssertSqlSafe(definition)).execute(&mut self.connection).await?;
        }
        self.settle().await
    }

    async fn settle(&mut self) -> Result<()> {
        for statement in ["vacuum analyze tasks, session, \"user\"", "checkpoint"] {
            // Errors are ignored: a checkpoint needs a superuser (since PostgreSQL 15, the role pg_checkpoint).
            let _ = sqlx::raw_sql(statement).execute(&mut self.connection).await;
        }
        Ok(())
    }

    /// Measures lists of one user with many tasks.
    async fn user_with_many_tasks(&mut self) -> Result<Value> {
        step(format!("Adding a user with {TASKS_OF_ONE} tasks"));
        let statement = format!(
            "insert into \"user\" (id, email) values ('one', 'one@example.com');
            insert into session (id, token, user_id, expires_at) values ('one', 'one', 'one', now() at time zone 'UTC' + interval '7 days');
            insert into tasks (user_id, title, completed, created_at, updated_at)
            select 'one', 'Task ' || n, n % 4 = 0, at, at
            from generate_series(1, {TASKS_OF_ONE}) n, lateral (select '2026-03-01'::timestamp + n * interval '1 second' as at) times"
        );
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut self.connection).await?;
        self.settle().await?;
        let (micros, id): (i64, i32) = sqlx::query_as(
            "select (extract(epoch from created_at) * 1000000)::bigint, id from tasks where user_id = 'one'
            order by created_at desc, id desc limit 1 offset 49949",
        )
        .fetch_one(&mut self.connection)
        .await?;
        let cursor = format!("limit=50&cursor={}", URL_SAFE_NO_PAD.encode(format!("-created_at all {micros} {id}")));
        let (mut rows, mut results) = (Vec::new(), Vec::new());
        for (what, query) in [
            ("first page", "limit=50"),
            ("page 1,000, by cursor", &cursor),
            ("by last change", "limit=50&sort=-updated_at"),
            ("status=completed", "limit=50&status=completed"),
            ("offset=1000", "limit=50&offset=1000"),
        ] {
            let calls = vec![call("list-tasks", "one", 0, query).event(); CALLS / 3];
            let cost = self.cost("list-tasks", calls).await?;
            results.push(json!({"list": what, "p50_ms": cost.p50_ms, "buffers": cost.buffers}));
            rows.push(cells(&[what.to_owned()], &cost));
        }
        println!(
            "\nLists of a user with {TASKS_OF_ONE} tasks\n\n{}",
            table(&["list", "p50 ms", "p99 ms", "buffers"], &rows)
        );
        Ok(json!(results))
    }

    /// Measures pages of increasing size.
    async fn page_sizes(&mut self, postgres_port: u16) -> Result<Value> {
        let relay = Relay::start(postgres_port, Duration::ZERO)?;
        let direct = std::mem::take(&mut self.url);
        self.url = direct.replace(&format!("127.0.0.1:{postgres_port}"), &format!("127.0.0.1:{}", relay.port()));
        let token: String = sqlx::query_scalar("select token from session where user_id = 'user-7'")
            .fetch_one(&mut self.connection)
            .await?;
        let mut points = Vec::new();
        for limit in LIMITS {
            let query = format!("limit={limit}");
            let calls = vec![call("list-tasks", &token, 0, &query).event(); CALLS];
            let before = relay.bytes_to_client();
            let cost = self.cost("list-tasks", calls).await?;
            let database_bytes = (relay.bytes_to_client() - before) as f64 / CALLS as f64;
            points.push((limit as f64, cost, database_bytes));
        }
        self.url = direct;
        let rows: Vec<_> = points
            .iter()
            .map(|(limit, cost, database_bytes)| {
                vec![number(*limit), number(cost.cpu_ms), number(cost.answer_bytes), number(*database_bytes)]
            })
            .collect();
        println!(
            "\nBy the size of the page\n\n{}",
            table(&["tasks", "CPU ms", "bytes answered", "bytes from the database"], &rows)
        );
        let results: Vec<_> = points
            .iter()
            .map(|(limit, cost, bytes)| json!({"limit": limit, "cpu_ms": cost.cpu_ms, "answer_bytes": cost.answer_bytes, "database_bytes": bytes}))
            .collect();
        Ok(json!(results))
    }

    /// Measures the first answers of processes that start at once, through PgBouncer.
    async fn cold_starts(&mut self, counts: &[usize]) -> Result<Value> {
        let (mut rows, mut results) = (Vec::new(), Vec::new());
        for count in counts {
            step(format!("Starting {count} processes at once"));
            let (url, folder, count) = (self.url.clone(), self.folder.clone(), *count);
            let event = call("list-tasks", "one", 0, "limit=50").event();
            let totals = tokio::task::spawn_blocking(move || {
                let environment = our_environment(url)?;
                let outcomes: Vec<Result<f64>> = std::thread::scope(|scope| {
                    let begin = || {
                        let mut function = start("list-tasks", &environment, &folder)?;
                        let invocation = function.invoke(&event)?;
                        check(&invocation.answer, 200)?;
                        Ok(function.init_ms + invocation.latency_ms)
                    };
                    let threads: Vec<_> = (0..count).map(|_| scope.spawn(begin)).collect();
                    let join = |thread: std::thread::ScopedJoinHandle<'_, Result<f64>>| {
                        thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the thread panicked")))
                    };
                    threads.into_iter().map(join).collect()
                });
                outcomes.into_iter().collect::<Result<Vec<f64>>>()
            })
            .await??;
            let total_at = |share| quantile(totals.iter().copied(), share).unwrap_or_default();
            rows.push(vec![count.to_string(), totals.len().to_string(), number(total_at(0.5)), number(total_at(1.0))]);
            results.push(json!({"processes": count, "answered": totals.len(), "p50_ms": total_at(0.5), "most_ms": total_at(1.0)}));
        }
        println!(
            "\nProcesses that begin at once, through PgBouncer with {} server connections: start to first answer\n\n{}",
            POOLING.server_connections,
            table(&["processes", "answered with 200", "p50 ms", "most ms"], &rows)
        );
        Ok(json!(results))
    }

    /// Measures calls of one function. The first call is not timed.
    async fn cost(&mut self, function: &'static str, calls: Vec<String>) -> Result<Cost> {
        let before = self.buffers().await?;
        let count = calls.len();
        let (url, folder) = (self.url.clone(), self.folder.clone());
        let (latencies, cpu, bytes) = tokio::task::spawn_blocking(move || {
            let (mut latencies, mut cpu, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
            let mut process = start(function, &our_environment(url)?, &folder)?;
            for event in calls {
                let invocation = process.invoke(&event)?;
                bytes.push(check(&invocation.answer, if function == "create-task" { 201 } else { 200 })? as f64);
                latencies.push(invocation.latency_ms);
                cpu.push(invocation.cpu_ms);
            }
            anyhow::Ok((latencies.split_off(1), cpu.split_off(1), bytes))
        })
        .await??;
        // A PostgreSQL backend reports its last statistics when it exits.
        while sqlx::query_scalar("select exists (select from pg_stat_activity where usename = $1)")
            .bind(migrations::API_ROLE)
            .fetch_one(&mut self.connection)
            .await?
        {
            sleep(Duration::from_millis(20)).await;
        }
        let buffers = (self.buffers().await? - before) as f64 / count as f64;
        let latency_at = |share| quantile(latencies.iter().copied(), share);
        Ok(Cost {
            p50_ms: median(latencies.iter().copied()).context("calls")?,
            p99_ms: latency_at(0.99).context("calls")?,
            cpu_ms: mean(&cpu).context("calls")?,
            buffers,
            answer_bytes: mean(&bytes).context("calls")?,
        })
    }

    /// Number of buffers read so far from the tables in `public` and their indexes.
    async fn buffers(&mut self) -> Result<i64> {
        // Flush this connection's own reads now. PostgreSQL could add them later, among the calls' reads.
        sqlx::raw_sql("select pg_stat_force_next_flush()").execute(&mut self.connection).await?;
        let sql = "select sum(coalesce(heap_blks_read, 0) + coalesce(heap_blks_hit, 0) + coalesce(idx_blks_read, 0)
            + coalesce(idx_blks_hit, 0) + coalesce(toast_blks_read, 0) + coalesce(toast_blks_hit, 0))::bigint
            from pg_statio_user_tables where schemaname = 'public'";
        Ok(sqlx::query_scalar(sql).fetch_one(&mut self.connection).await?)
    }
}

fn start(function: &str, environment: &[(&'static str, String)], folder: &Path) -> Result<Function> {
    ours::start(&target().join("release").join(function), environment, folder, "scale.log")
}

fn call<'c>(function: &str, token: &'c str, task: i64, query: &'c str) -> Call<'c> {
    let tasks = "/api/tasks".to_owned();
    match function {
        "get-task" => {
            Call { method: "GET", path: format!("{tasks}/{task}"), query: "", task: Some(task), token, body: None }
        }
        "create-task" => {
            let body = json!({"title": "A task of the benchmark", "description": "Made by the benchmark"});
            Call { method: "POST", path: tasks, query: "", task: None, token, body: Some(body) }
        }
        _ => Call { method: "GET", path: tasks, query, task: None, token, body: None },
    }
}

/// Returns the length of the answer's body, or fails if the status is not the expected one.
fn check(answer: &[u8], status: u16) -> Result<usize> {
    let answer: Value = serde_json::from_slice(answer)?;
    let body = answer["body"].as_str().unwrap_or_default();
    ensure!(answer["statusCode"] == status, "answered with {}: {body}", answer["statusCode"]);
    Ok(body.len())
}

fn cells(names: &[String], cost: &Cost) -> Vec<String> {
    let numbers = [cost.p50_ms, cost.p99_ms, cost.buffers].map(number);
    names.iter().cloned().chain(numbers).collect()
}
