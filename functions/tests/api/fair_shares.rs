//! What one user may take, so that the others get their share: tasks, idempotency keys, and searches at once.
use crate::api::{Answer, Api, Request, binary, delete, get, post};
use serde_json::{Value, json};
use testing::{Lambda, User};

fn create(user: &User, key: Option<&str>, title: &str) -> Request {
    create_at("/api/tasks", user, key, title)
}

fn create_at(path: &str, user: &User, key: Option<&str>, title: &str) -> Request {
    let request = post(path).bearer(&user.token).json(json!({"title": title}));
    match key {
        Some(key) => request.header("idempotency-key", key),
        None => request,
    }
}

/// The last id that the sequence of the tasks has given.
async fn last_id(api: &Api) -> i64 {
    api.database.number("select last_value from tasks_id_seq").await
}

/// Asserts the answer to a request for one task more than the limit.
fn assert_too_many_tasks(answer: &Answer, max: u32) {
    let message = format!("must not be more than {max} for one user: delete some, such as the completed ones");
    assert_eq!((answer.status, answer.header("retry-after")), (422, None), "{answer:?}");
    assert_eq!(answer.body["detail"], format!("tasks {message}."));
    assert_eq!(answer.body["errors"], json!([{"field": "tasks", "message": message}]));
}

#[tokio::test]
async fn a_task_beyond_the_limit_is_refused_and_takes_no_id() {
    let mut api = Api::with_settings(&[("MAX_TASKS_PER_USER", "3")]).await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    let first = api.make_task(&ada, "a").await;
    api.make_task(&ada, "b").await;
    assert_eq!(api.call(create(&ada, Some("k"), "c")).await.status, 201);
    let before = last_id(&api).await;
    for key in [None, Some("new")] {
        assert_too_many_tasks(&api.call(create(&ada, key, "d")).await, 3);
        let path = format!("/api/{}/tasks", ada.id);
        assert_too_many_tasks(&api.call(create_at(&path, &ada, key, "d")).await, 3);
    }
    assert_eq!(last_id(&api).await, before);
    assert_eq!(api.database.number("select count(*) from tasks").await, 3);
    assert_eq!(api.database.number("select count(*) from idempotency_keys").await, 1);

    // Each user has a limit of their own, and a deleted task makes room.
    api.make_task(&bob, "a").await;
    api.call(delete(&format!("/api/tasks/{first}")).bearer(&ada.token)).await;
    assert_eq!(api.call(create(&ada, Some("new"), "d")).await.status, 201);
    assert_too_many_tasks(&api.call(create(&ada, None, "e")).await, 3);
}

#[tokio::test]
async fn a_key_that_was_used_is_answered_at_the_limit_too_and_takes_no_id() {
    let mut api = Api::with_settings(&[("MAX_TASKS_PER_USER", "1")]).await;
    let ada = api.database.sign_up("ada").await;
    let first = api.call(create(&ada, Some("k"), "a")).await;
    let before = last_id(&api).await;
    let replay = api.call(create(&ada, Some("k"), "a")).await;
    assert_eq!((replay.status, replay.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(replay.text, first.text);
    let other = api.call(create(&ada, Some("k"), "b")).await;
    assert_eq!((other.status, &other.body["errors"][0]["field"]), (422, &json!("Idempotency-Key")));
    assert_eq!(last_id(&api).await, before);
}

#[tokio::test]
async fn a_key_beyond_the_limit_is_refused_until_another_one_is_forgotten() {
    let mut api = Api::with_settings(&[("MAX_TASKS_PER_USER", "2")]).await;
    let ada = api.database.sign_up("ada").await;
    for key in ["k1", "k2"] {
        let made = api.call(create(&ada, Some(key), "a")).await;
        let path = made.header("location").expect("a path").to_owned();
        api.call(delete(&path).bearer(&ada.token)).await;
    }
    let before = last_id(&api).await;
    let refused = api.call(create(&ada, Some("k3"), "a")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("3600")), "{refused:?}");
    let detail =
        "One user can have at most 2 idempotency keys, each for a day: try again later, or add the task without a key.";
    assert_eq!(refused.body["detail"], detail);
    assert_eq!(last_id(&api).await, before);
    assert_eq!(api.call(create(&ada, None, "a")).await.status, 201, "a task without a key");

    let statement = "update idempotency_keys set created_at = created_at - interval '25 hours' where key = 'k1'";
    api.database.sql(statement, &[]).await;
    api.function("purge").await.invoke(json!({})).await;
    assert_eq!(api.call(create(&ada, Some("k3"), "a")).await.status, 201);
}

#[tokio::test]
async fn creations_at_one_moment_exceed_the_limit_by_one_less_than_their_number_at_most() {
    const AT_ONCE: i64 = 4;
    let mut api = Api::with_settings(&[("MAX_TASKS_PER_USER", "2")]).await;
    let ada = api.database.sign_up("ada").await;
    let settings = api.settings().to_vec();
    let mut processes = Vec::new();
    for _ in 0..AT_ONCE {
        processes.push(Lambda::start(&binary("create-task"), &settings).await);
    }
    for _ in 0..10 {
        api.database.sql("delete from tasks", &[]).await;
        api.make_task(&ada, "first").await;
        for process in &processes {
            process.send(create(&ada, None, "second").routed_event()).await;
        }
        let mut made = 0;
        for process in &mut processes {
            let answer = process.receive().await;
            assert!(answer["statusCode"] == 201 || answer["statusCode"] == 422, "{answer}");
            made += i64::from(answer["statusCode"] == 201);
        }
        assert!((1..=AT_ONCE).contains(&made), "{made}");
        assert_eq!(api.database.number("select count(*) from tasks").await, 1 + made);
        // The overshoot does not grow.
        assert_too_many_tasks(&api.call(create(&ada, None, "third")).await, 2);
    }
}

/// Adds tasks of which every tenth has a title with "rare" in it, and every second a description with "Common".
async fn add_tasks(api: &Api, user: &User, count: i32) {
    api.database
        .sql(
            "insert into tasks (user_id, title, description, completed, created_at, updated_at)
            select $1, case when n % 10 = 3 then 'RARE ' else 'task ' end || n * 7919 % 5000,
                case when n % 2 = 0 then 'It is Common' end, n % 3 = 0,
                '2026-01-01'::timestamp + n / 4 * interval '1 second', '2026-02-01'::timestamp - n * 7919 % 5000 * interval '1 minute'
            from generate_series(1, $2::int) n",
            &[&user.id, &count],
        )
        .await;
}

#[tokio::test]
async fn somebody_with_more_than_500_tasks_searches_once_at_a_time() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    add_tasks(&api, &ada, 501).await;
    add_tasks(&api, &bob, 500).await;
    let search = |user: &User| get("/api/tasks?q=rare").bearer(&user.token);
    for user in [&ada, &bob] {
        // As if a search of this user were running.
        api.database.sql("select pg_advisory_lock(hashtextextended($1, 7))", &[&user.id]).await;
    }
    for sort in ["-created_at", "created_at", "-updated_at", "updated_at", "title", "-title"] {
        let refused = api.call(get(&format!("/api/tasks?sort={sort}&q=rare")).bearer(&ada.token)).await;
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{refused:?}");
        assert_eq!(refused.body["detail"], "Another search of yours is still running: try again.");
        let list = api.call(get(&format!("/api/tasks?sort={sort}&status=pending")).bearer(&ada.token)).await;
        assert_eq!(list.status, 200, "only a search has to wait");
    }
    assert_eq!(api.call(search(&bob)).await.status, 200, "500 tasks are not many");
    api.database.sql("select pg_advisory_unlock_all()", &[]).await;
    assert_eq!(api.call(search(&ada)).await.status, 200);

    let lines = api.function("list-tasks").await.log_lines(15).await;
    let refusals = lines.iter().filter(|line| line.contains("\"LimitSearches\":1")).count();
    assert_eq!(refusals, 6, "{lines:?}");
}

#[tokio::test]
async fn a_running_search_keeps_the_next_one_of_the_same_user_out() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let insert = "insert into tasks (user_id, title, description, created_at, updated_at)
        select $1, 'x', repeat('word ', 2000), now(), now() from generate_series(1, 2000)";
    api.database.sql(insert, &[&ada.id]).await;
    let settings = api.settings().to_vec();
    let mut first = Lambda::start(&binary("list-tasks"), &settings).await;
    // Starts the process of the second search.
    api.call(get("/api/tasks?limit=1").bearer(&ada.token)).await;
    let search = get("/api/tasks?q=nothing").bearer(&ada.token);
    first.send(search.routed_event()).await;
    let is_running = "select count(*) from pg_locks where locktype = 'advisory' and database =
        (select oid from pg_database where datname = current_database())";
    while api.database.number(is_running).await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(api.call(search.clone()).await.status, 429);
    assert_eq!(first.receive().await["statusCode"], 200);
    assert_eq!(api.call(search).await.status, 200);
}

/// Follows the `next` links to the last page, and returns the ids on each page.
async fn pages(api: &mut Api, user: &User, path: &str) -> Vec<Vec<i64>> {
    let mut pages = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let page = api.call(get(&path).bearer(&user.token)).await;
        assert_eq!(page.status, 200, "{path}: {page:?}");
        let tasks = page.body.as_array().expect("a list");
        pages.push(tasks.iter().map(|task: &Value| task["id"].as_i64().expect("an id")).collect());
        next = page.next_page().map(str::to_owned);
    }
    pages
}

#[tokio::test]
async fn all_pages_of_a_search_together_are_the_whole_result() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    add_tasks(&api, &ada, 4500).await;
    add_tasks(&api, &bob, 4500).await;
    for (sort, order) in [
        ("created_at", "created_at, id"),
        ("-created_at", "created_at desc, id desc"),
        ("updated_at", "updated_at, id"),
        ("-updated_at", "updated_at desc, id desc"),
        ("title", "lower(title) collate \"C\", id"),
        ("-title", "lower(title) collate \"C\" desc, id desc"),
    ] {
        for (filter, condition) in [
            ("q=rare", "title like 'RARE%'"),
            ("q=RARE&status=completed", "title like 'RARE%' and completed"),
            ("q=common", "description is not null"),
            ("q=%20442", "title like '% 442%'"),
            ("q=nothing", "false"),
        ] {
            let statement = format!("select id from tasks where user_id = $1 and {condition} order by {order}");
            let rows = api.database.sql(&statement, &[&ada.id]).await;
            let expected: Vec<i64> = rows.iter().map(|row| i64::from(row.get::<_, i32>(0))).collect();
            for (limit, offset) in [(1000, 0), (170, 0), (1000, 7), (300, 900), (1000, 1750), (1000, 10_000)] {
                let path = format!("/api/tasks?sort={sort}&{filter}&limit={limit}&offset={offset}");
                let pages = pages(&mut api, &ada, &path).await;
                let skipped = expected.len().min(offset);
                assert_eq!(pages.concat(), expected[skipped..], "{path}");
                // 4,500 tasks are three times the 2,000 that a page looks at, the last time not all of them.
                assert!(pages.len() >= 3, "{path}: {} pages", pages.len());
                assert!(pages.iter().all(|page| page.len() <= limit), "{path}");
            }
        }
    }
    let empty = api.call(get("/api/tasks?q=nothing").bearer(&ada.token)).await;
    assert_eq!((&empty.body, empty.next_page().is_some()), (&json!([]), true));
}
