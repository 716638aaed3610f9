//! Query plans of the list among a million tasks: which index it uses, and how many buffers. PostgreSQL's auto_explain
//! logs the plans of the functions' own statements. `cargo xtask test plans` runs it.
use crate::api::{Api, get};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use std::time::Duration;
use testing::{PostgresLog, SERVICES, User};

/// Users with `TASKS_EACH` tasks each. One more user has `TASKS_OF_ONE`.
const USERS: i64 = 10_000;
const TASKS_EACH: i64 = 100;
const TASKS_OF_ONE: i64 = 100_000;

/// The indexes and costs of a plan.
#[derive(Debug)]
struct Cost {
    indexes: Vec<String>,
    sorts: bool,
    buffers: u64,
    rows: u64,
    /// How long the server took to execute it, without planning.
    ms: f64,
}

#[tokio::test]
#[ignore = "loads 1,100,000 tasks: cargo xtask test plans"]
async fn every_list_uses_an_index_and_a_late_page_costs_what_the_first_does() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    println!("loading {} tasks of {} users", USERS * TASKS_EACH + TASKS_OF_ONE, USERS + 1);
    for (statement, user) in [
        ("insert into \"user\" (id, email) select 'user-' || n, n || '@example.com' from generate_series(1, $1) n", USERS),
        (
            "insert into tasks (user_id, title, description, completed, created_at, updated_at)
            select 'user-' || 1 + n % 10000, 'Task number ' || n, repeat('word ', 20), n % 4 = 0,
                '2026-01-01'::timestamp + n * interval '1 second', '2026-03-01'::timestamp + (n::bigint * 7919 % 1000000) * interval '1 second'
            from generate_series(1, $1) n",
            USERS * TASKS_EACH,
        ),
    ] {
        api.database.sql(statement, &[&i32::try_from(user).expect("a small number")]).await;
    }
    let of_one = "insert into tasks (user_id, title, description, completed, created_at, updated_at)
        select $1, 'Task number ' || n, repeat('word ', 20), n % 4 = 0,
            '2026-01-01'::timestamp + n * interval '1 second', '2026-03-01'::timestamp + (n::bigint * 7919 % 100000) * interval '1 second'
        from generate_series(1, 100000) n";
    api.database.sql(of_one, &[&ada.id]).await;
    api.database.sql("update tasks set user_id = $1 where user_id = 'user-77'", &[&bob.id]).await;
    api.database.sql("vacuum analyze tasks", &[]).await;
    for setting in [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_analyze = on",
        "auto_explain.log_buffers = on",
        "auto_explain.log_timing = off",
        "auto_explain.log_format = json",
    ] {
        let statement = format!("alter role tasks_api in database {} set {setting}", api.database.name);
        api.database.sql(&statement, &[]).await;
    }

    println!("\n| whose | list (limit=50) | index | sort | rows read | buffers |\n|---|---|---|---|---|---|");
    for (whose, user) in [("100 of 1,100,000", &bob), ("100,000 of 1,100,000", &ada)] {
        for (query, index) in [
            ("", "idx_tasks_user_list"),
            ("sort=created_at", "idx_tasks_user_list"),
            ("sort=-updated_at", "idx_tasks_user_updated"),
            ("sort=updated_at", "idx_tasks_user_updated"),
            ("status=pending", "idx_tasks_user_status"),
            ("status=completed", "idx_tasks_user_status"),
            ("q=number%201", ""),
            ("offset=1000", ""),
            ("sort=title", ""),
            ("sort=-title&status=pending", ""),
        ] {
            let cost = measure(&mut api, user, query).await;
            print_row(whose, query, &cost);
            assert!(!cost.indexes.is_empty(), "{whose} {query}: {cost:?}");
            if user.id == ada.id && !index.is_empty() {
                assert!(cost.indexes.iter().any(|it| it == index) && !cost.sorts, "{whose} {query}: {cost:?}");
                assert!(cost.buffers < 500, "{whose} {query}: {cost:?}");
            }
            assert!(cost.buffers < 10_000, "{whose} {query}: {cost:?}");
        }
    }

    compare_with_prepared(&mut api, &[("100 of 1,100,000", &bob), ("100,000 of 1,100,000", &ada)]).await;

    // A search reads the tasks that a page looks at, in the order of an index, and no more.
    for (sort, index) in [("-created_at", "idx_tasks_user_list"), ("updated_at", "idx_tasks_user_updated")] {
        let cost = measure(&mut api, &ada, &format!("sort={sort}&q=nothing")).await;
        print_row("100,000 of 1,100,000", &format!("sort={sort}&q=nothing"), &cost);
        // The other rows are those by which it sees that this is somebody with many tasks.
        assert_eq!(cost.rows, 2000 + 501);
        assert!(cost.indexes.iter().any(|it| it == index) && !cost.sorts, "{sort}: {cost:?}");
    }

    for sort in ["-created_at", "created_at", "-updated_at", "updated_at"] {
        let column = sort.trim_start_matches('-');
        let direction = if sort.starts_with('-') { "desc" } else { "asc" };
        let position = format!(
            "select (extract(epoch from {column}) * 1000000)::bigint, id from tasks where user_id = $1
            order by {column} {direction}, id {direction} limit 1 offset 49949"
        );
        let row = &api.database.sql(&position, &[&ada.id]).await[0];
        let (micros, id): (i64, i32) = (row.get(0), row.get(1));
        let cursor = URL_SAFE_NO_PAD.encode(format!("{sort} all {micros} {id}"));
        let first = measure(&mut api, &ada, &format!("sort={sort}")).await;
        let thousandth = measure(&mut api, &ada, &format!("sort={sort}&cursor={cursor}")).await;
        print_row("100,000 of 1,100,000", &format!("sort={sort}, page 1,000 by cursor"), &thousandth);
        assert_eq!(thousandth.rows, 51);
        assert!(thousandth.buffers <= first.buffers + 10, "{sort}: {first:?} {thousandth:?}");
    }
}

/// Compares each list with the same one in a function that prepares statements. For those that it prepares, PostgreSQL uses a
/// plan for any values, as it may after five executions. None may read more.
async fn compare_with_prepared(api: &mut Api, users: &[(&str, &User)]) {
    let usual = api.settings().to_vec();
    let name = api.database.name.clone();
    println!(
        "\n| whose | list (limit=50) | buffers | ms | prepared: buffers | ms | index |\n|---|---|---|---|---|---|---|"
    );
    for (whose, user) in users {
        for (query, is_prepared) in [
            ("", true),
            ("limit=1000", true),
            ("status=pending", true),
            ("limit=1000&status=completed", true),
            ("sort=-updated_at", false),
            ("sort=title", false),
            ("q=number%201", false),
        ] {
            let mut costs = Vec::new();
            for prepared in ["false", "true"] {
                // It applies to unnamed statements, too.
                let mode = if is_prepared && prepared == "true" { "force_generic_plan" } else { "auto" };
                let set_mode = format!("alter role tasks_api in database {name} set plan_cache_mode = {mode}");
                api.database.sql(&set_mode, &[]).await;
                api.set("DATABASE_URL", &api.database.plain_api_url(SERVICES.postgres_port));
                api.set("PREPARED_STATEMENTS", prepared);
                drop(api.function("list-tasks").await.log_lines(1).await);
                costs.push(measure(api, user, query).await);
                drop(api.take_function("list-tasks"));
            }
            let [usual, prepared] = &costs[..] else { panic!("two costs") };
            let indexes = prepared.indexes.join(", ");
            let query = if query.is_empty() { "no parameters" } else { query };
            println!(
                "| {whose} | {query} | {} | {:.2} | {} | {:.2} | {indexes} |",
                usual.buffers, usual.ms, prepared.buffers, prepared.ms
            );
            // The difference is what the planner itself reads.
            assert!(prepared.buffers <= usual.buffers + 10, "{whose} {query}: {costs:?}");
            assert!(prepared.rows <= usual.rows && prepared.sorts <= usual.sorts, "{whose} {query}: {costs:?}");
        }
    }
    let reset = format!("alter role tasks_api in database {name} reset plan_cache_mode");
    api.database.sql(&reset, &[]).await;
    for (name, value) in usual {
        api.set(&name, &value);
    }
    api.set("PREPARED_STATEMENTS", "auto");
}

fn print_row(whose: &str, query: &str, cost: &Cost) {
    let query = if query.is_empty() { "no parameters" } else { query };
    let sorts = if cost.sorts { "yes" } else { "no" };
    println!("| {whose} | {query} | {} | {sorts} | {} | {} |", cost.indexes.join(", "), cost.rows, cost.buffers);
}

/// Lists a page twice, so that everything is in memory, and returns the cost of the second run.
async fn measure(api: &mut Api, user: &User, query: &str) -> Cost {
    let mut last = None;
    for _ in 0..2 {
        let log = PostgresLog::from_now();
        let limit = if query.starts_with("limit=") { "" } else { "limit=50&" };
        let path = format!("/api/tasks?{limit}{query}");
        let answer = api.call(get(&path).bearer(&user.token)).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        last = Some(logged_plan(&log).await);
    }
    let plan = last.expect("two runs");
    let mut cost = Cost {
        indexes: Vec::new(),
        sorts: false,
        buffers: 0,
        rows: 0,
        ms: plan["duration"].as_f64().unwrap_or_default(),
    };
    let number = |name: &str| plan[name].as_u64().unwrap_or_default();
    cost.buffers = number("Shared Hit Blocks") + number("Shared Read Blocks");
    visit(&plan, &mut cost);
    cost
}

fn visit(node: &Value, cost: &mut Cost) {
    let is_on_tasks =
        node["Relation Name"] == "tasks" || node["Index Name"].as_str().is_some_and(|it| it.contains("tasks"));
    if let Some(index) = node["Index Name"].as_str().filter(|_| is_on_tasks) {
        cost.indexes.push(index.to_owned());
        cost.rows += node["Actual Rows"].as_f64().unwrap_or_default() as u64;
    }
    assert_ne!(node["Node Type"], "Seq Scan", "the tasks of all users were read");
    cost.sorts |= node["Node Type"].as_str().is_some_and(|kind| kind.contains("Sort"));
    for child in node["Plans"].as_array().into_iter().flatten() {
        visit(child, cost);
    }
}

/// Waits for a list's plan in PostgreSQL's log, and returns it. A function that starts leaves others.
async fn logged_plan(log: &PostgresLog) -> Value {
    for _ in 0..200 {
        let text = log.text();
        // "duration: 0.123 ms  plan:", and the plan.
        let pieces: Vec<_> = text.split(" ms  plan:\n").collect();
        let plans = pieces.windows(2).filter_map(|pair| {
            let duration = pair[0].rsplit("duration: ").next()?.parse::<f64>().ok()?;
            let mut plan = serde_json::Deserializer::from_str(pair[1]).into_iter::<Value>().next()?.ok()?;
            plan["Plan"]["duration"] = duration.into();
            Some(plan)
        });
        let is_list = |plan: &Value| plan["Query Text"].as_str().is_some_and(|text| text.contains("left join lateral"));
        if let Some(plan) = plans.into_iter().find(is_list) {
            return plan["Plan"].clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} has no plan: PostgreSQL needs its auto_explain module", SERVICES.postgres_log)
}
