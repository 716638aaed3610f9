//! `POST /api/tasks/batch`: several operations in one request, each by itself.
use crate::api::{Answer, Api, Person, Request, binary, get, patch, post};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};
use testing::{Lambda, Network, Proxy, SERVICES, User};

fn batch(operations: Value) -> Request {
    post("/api/tasks/batch").json(json!({"operations": operations}))
}

fn with_key(key: &str, operations: Value) -> Request {
    batch(operations).header("idempotency-key", key)
}

fn statuses(answer: &Answer) -> Vec<u64> {
    assert_eq!(answer.status, 200, "{answer:?}");
    results(answer).iter().map(|result| result["status"].as_u64().expect("a status")).collect()
}

fn results(answer: &Answer) -> &Vec<Value> {
    answer.body["results"].as_array().expect("results")
}

/// The fields of a 422, with their messages.
fn errors(answer: &Answer) -> Vec<(String, String)> {
    assert_eq!(answer.status, 422, "{answer:?}");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let errors = answer.body["errors"].as_array().expect("errors").iter();
    errors.map(|error| (text(&error["field"]), text(&error["message"]))).collect()
}

async fn titles(api: &mut Api, user: &User) -> BTreeSet<String> {
    let list = api.call(get("/api/tasks").bearer(&user.token)).await;
    let tasks = list.body.as_array().expect("tasks").iter();
    tasks.map(|task| task["title"].as_str().expect("a title").to_owned()).collect()
}

#[tokio::test]
async fn each_operation_has_its_result_and_what_is_refused_does_not_stop_the_others() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    let bob = ada.api.database.sign_up("bob").await;
    let others = ada.api.make_task(&bob, "bob's").await;
    let mut ids = Vec::new();
    for title in ["milk", "bread", "tea", "rice", "salt"] {
        ids.push(ada.api.make_task(&user, title).await);
    }
    let [milk, bread, tea, rice, salt] = *ids else { unreachable!("five") };
    let old_tag = ada.get(&format!("/api/tasks/{tea}")).await.header("etag").expect("a tag").to_owned();
    let changed = ada.call(patch(&format!("/api/tasks/{tea}")).json(json!({"title": "green tea"}))).await;
    let rice_tag = ada.get(&format!("/api/tasks/{rice}")).await.header("etag").expect("a tag").to_owned();
    let answer = ada
        .call(batch(json!([
            {"op": "create", "title": "  eggs ", "description": "six"},
            {"op": "update", "id": milk, "title": "oat milk", "description": "one litre"},
            {"op": "complete", "id": bread},
            {"op": "update", "id": tea, "title": "lost", "if_match": old_tag},
            {"op": "delete", "id": others},
            {"op": "update", "id": 2_000_000_000, "completed": true},
            {"op": "delete", "id": rice, "if_match": rice_tag},
            {"op": "delete", "id": salt, "if_match": "\"no tag\""},
        ])))
        .await;
    assert_eq!(statuses(&answer), [201, 200, 200, 412, 404, 404, 204, 412]);
    assert_eq!((&answer.body["refused"], answer.header("idempotent-replayed")), (&json!(4), None));
    let results = results(&answer);
    let eggs = &results[0]["task"];
    assert_eq!(
        (&eggs["title"], &eggs["description"], &eggs["completed"]),
        (&json!("eggs"), &json!("six"), &json!(false))
    );
    for (place, id) in [(0, results[0]["id"].as_i64().expect("an id")), (1, milk), (2, bread), (3, tea), (7, salt)] {
        let now = ada.get(&format!("/api/tasks/{id}")).await;
        let result = &results[place];
        assert_eq!((&result["task"], result["etag"].as_str()), (&now.body, now.header("etag")), "{place}");
        assert_eq!(result["id"], id);
    }
    assert_eq!(results[3]["task"], changed.body, "a client whose change was refused has the new version");
    assert_eq!(results[2]["task"]["completed"], true);
    let problem = &results[4]["problem"];
    assert_eq!(problem["instance"], "/api/tasks/batch#/operations/4");
    assert_eq!(problem["detail"], "There is no such task.");
    let expected = ["bread", "eggs", "green tea", "oat milk", "salt"].map(str::to_owned);
    assert_eq!(titles(&mut ada.api, &user).await, expected.into());
    assert_eq!(titles(&mut ada.api, &bob).await, ["bob's".to_owned()].into());
}

#[tokio::test]
async fn two_operations_on_one_task_or_with_one_key_are_refused_and_nothing_is_done() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    let task = ada.api.make_task(&user, "milk").await;
    let answer = ada
        .call(batch(json!([
            {"op": "create", "title": "a", "key": "k"},
            {"op": "complete", "id": task},
            {"op": "create", "title": "b"},
            {"op": "create", "title": "c", "key": "k"},
            {"op": "delete", "id": task},
        ])))
        .await;
    let expected = [
        ("operations[3].key", "is the key of operations[0] too"),
        ("operations[4].id", "is the task of operations[1] too: a batch can have one operation for a task"),
    ];
    assert_eq!(errors(&answer), expected.map(|(field, message)| (field.to_owned(), message.to_owned())));
    let both = ada
        .call(with_key("whole", json!([{"op": "create", "title": "a"}, {"op": "create", "title": "b", "key": "k"}])));
    let message = "is for the whole batch, and operations[1].key for a part of it: send one";
    assert_eq!(errors(&both.await), [("Idempotency-Key".to_owned(), message.to_owned())]);
    assert_eq!(titles(&mut ada.api, &user).await, ["milk".to_owned()].into());
    assert_eq!(ada.api.database.number("select count(*) from idempotency_keys").await, 0);
}

#[tokio::test]
async fn an_invalid_batch_names_the_fields_of_its_operations_and_does_nothing() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    let task = ada.api.make_task(&user, "milk").await;
    let answer = ada
        .call(batch(json!([
            {"op": "delete", "id": task},
            {"op": "create", "title": " ", "description": 7, "key": ""},
            {"op": "rename", "id": task},
            {"id": task},
            {"op": "update", "id": "7", "title": "x"},
            {"op": "update", "id": 7},
            {"op": "update", "id": 7, "titel": "x"},
            {"op": "delete", "id": 2_147_483_648_i64},
            "delete",
        ])))
        .await;
    let fields: Vec<_> = errors(&answer).into_iter().map(|(field, _)| field).collect();
    let expected = [
        "operations[1].key",
        "operations[1].title",
        "operations[1].description",
        "operations[2].op",
        "operations[3].op",
        "operations[4].id",
        "operations[5]",
        "operations[6]",
        "operations[7].id",
        "operations[8]",
    ];
    assert_eq!(fields, expected);
    assert_eq!(errors(&answer)[6].1, "changes nothing: it needs title, description or completed");
    let all_wrong = vec![json!({"op": "create"}); 100];
    assert_eq!(errors(&ada.call(batch(json!(all_wrong))).await).len(), 10, "the first ten");
    for wrong in [json!(null), json!({}), json!([]), json!(vec![json!({"op": "create", "title": "x"}); 101])] {
        let fields: Vec<_> = errors(&ada.call(batch(wrong)).await).into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["operations"]);
    }
    assert_eq!(titles(&mut ada.api, &user).await, ["milk".to_owned()].into());
}

#[tokio::test]
async fn a_hundred_operations_are_one_batch_and_results_too_large_for_a_response_have_no_task() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    // Control characters take seven bytes in a response. The request would be too large with them.
    let made = "insert into tasks (user_id, title, description) select $1, n::text, repeat(e'\\x01', 10000)
        from generate_series(1, 100) n returning id";
    let made = ada.api.database.sql(made, &[&user.id]).await;
    let operations: Vec<_> = made.iter().map(|row| json!({"op": "complete", "id": row.get::<_, i32>(0)})).collect();
    let answer = ada.call(batch(json!(operations))).await;
    assert_eq!(statuses(&answer), [200; 100]);
    assert!(answer.encoded_bytes < 6_291_556, "Lambda's limit: {}", answer.encoded_bytes);
    let with_task = results(&answer).iter().filter(|result| result["task"].is_object()).count();
    assert!((50..100).contains(&with_task), "{with_task}");
    assert!(results(&answer).iter().all(|result| result["etag"].is_string() && result["id"].is_number()));
    assert_eq!(ada.api.database.number("select count(*) from tasks where completed").await, 100);
}

#[tokio::test]
async fn a_repeated_batch_does_nothing_and_has_the_same_results() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    let [milk, bread, tea] = [
        ada.api.make_task(&user, "milk").await,
        ada.api.make_task(&user, "bread").await,
        ada.api.make_task(&user, "tea").await,
    ];
    let operations = json!([
        {"op": "create", "title": "eggs"},
        {"op": "complete", "id": milk},
        {"op": "complete", "id": bread},
        {"op": "delete", "id": tea},
        {"op": "delete", "id": 2_000_000_000},
    ]);
    let first = ada.call(with_key("k", operations.clone())).await;
    assert_eq!(statuses(&first), [201, 200, 200, 204, 404]);
    let replay = ada.call(with_key("k", operations.clone())).await;
    assert_eq!((&replay.text, replay.header("idempotent-replayed")), (&first.text, Some("true")));
    // The same operations, with other white space and another order of the fields.
    let text = operations.to_string().replace(r#""op":"create","title":"eggs""#, r#""title": "eggs", "op" :"create""#);
    assert_ne!(text, operations.to_string());
    let text = format!(r#"{{ "operations": {text} }}"#);
    let spaced = post("/api/tasks/batch").header("idempotency-key", "k").header("content-type", "application/json");
    assert_eq!(ada.call(spaced.text(&text)).await.text, first.text);
    // What changed meanwhile is as it is now; what was created is as it was.
    let eggs = results(&first)[0]["id"].clone();
    ada.call(batch(json!([{"op": "delete", "id": eggs}, {"op": "update", "id": milk, "title": "oat milk"}, {"op": "delete", "id": bread}]))).await;
    let replay = ada.call(with_key("k", operations.clone())).await;
    assert_eq!(statuses(&replay), [201, 200, 200, 204, 404]);
    assert_eq!(results(&replay)[0], results(&first)[0]);
    assert_eq!(results(&replay)[1]["task"], ada.get(&format!("/api/tasks/{milk}")).await.body);
    assert_eq!(results(&replay)[2], json!({"status": 200, "id": bread}));
    assert_eq!(titles(&mut ada.api, &user).await, ["oat milk".to_owned()].into());

    let message = "was used for another request within the last 24 hours";
    for other in [json!([operations[0]]), json!([{"op": "create", "title": "Eggs"}])] {
        let answer = ada.call(with_key("k", other)).await;
        assert_eq!(errors(&answer), [("Idempotency-Key".to_owned(), message.to_owned())]);
    }
    // Keys of single creations are in the same place.
    let single = ada.call(post("/api/tasks").header("idempotency-key", "k").json(json!({"title": "eggs"}))).await;
    assert_eq!(errors(&single)[0].0, "Idempotency-Key");
    ada.call(post("/api/tasks").header("idempotency-key", "single").json(json!({"title": "eggs"}))).await;
    assert_eq!(errors(&ada.call(with_key("single", operations.clone())).await)[0].0, "Idempotency-Key");

    ada.api.database.batch("update idempotency_keys set created_at = created_at - interval '25 hours'").await;
    let again = ada.call(with_key("k", operations)).await;
    assert_eq!((statuses(&again), again.header("idempotent-replayed")), (vec![201, 200, 404, 404, 404], None));
    let own_key = ada.api.database.sign_up("bob").await;
    let answer = ada.api.call(with_key("k", json!([{"op": "create", "title": "x"}])).bearer(&own_key.token)).await;
    assert_eq!(statuses(&answer), [201], "another user's keys are their own");
}

#[tokio::test]
async fn a_creation_with_a_key_is_done_once_in_batches_and_alone() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    let create = |title: &str, key: &str| json!({"op": "create", "title": title, "key": key});
    let first = ada.call(batch(json!([create("a", "ka"), create("b", "kb")]))).await;
    assert_eq!(statuses(&first), [201, 201]);
    let second = ada.call(batch(json!([create("c", "kc"), create("b", "kb"), create("other", "ka")]))).await;
    assert_eq!(statuses(&second), [201, 201, 422]);
    let [c, b, other] = &results(&second)[..] else { panic!("{second:?}") };
    assert_eq!((c.get("replayed"), &b["replayed"], &b["task"]), (None, &json!(true), &results(&first)[1]["task"]));
    assert_eq!(other["problem"]["errors"][0]["field"], "key");
    let single =
        |title: &str, key: &str| post("/api/tasks").header("idempotency-key", key).json(json!({"title": title}));
    let replay = ada.call(single("c", "kc")).await;
    assert_eq!((replay.header("idempotent-replayed"), &replay.body), (Some("true"), &c["task"]));
    let made = ada.call(single("d", "kd")).await;
    let third = ada.call(batch(json!([create("d", "kd")]))).await;
    assert_eq!((&results(&third)[0]["replayed"], &results(&third)[0]["task"]), (&json!(true), &made.body));
    assert_eq!(titles(&mut ada.api, &user).await, ["a", "b", "c", "d"].map(str::to_owned).into());
}

#[tokio::test]
async fn a_batch_has_the_limits_of_single_requests_and_counts_before_it() {
    let mut api = Api::with_settings(&[("MAX_TASKS_PER_USER", "3")]).await;
    let ada = api.database.sign_up("ada").await;
    let full = api.make_task(&ada, "full").await;
    let create = |title: &str| json!({"op": "create", "title": title});
    let operations = json!([create("a"), {"op": "delete", "id": full}, create("b"), create("c"), create("d")]);
    let answer = api.call(with_key("k", operations.clone()).bearer(&ada.token)).await;
    assert_eq!(statuses(&answer), [201, 204, 201, 422, 422]);
    let problem = &results(&answer)[3]["problem"];
    assert_eq!(problem["errors"][0]["field"], "tasks");
    let single = api.call(post("/api/tasks/batch").json(json!({"operations": [create("c")]})).bearer(&ada.token)).await;
    assert_eq!(statuses(&single), [201], "the deleted one made room");
    assert_eq!(statuses(&api.call(with_key("k", operations).bearer(&ada.token)).await), [201, 204, 201, 422, 422]);

    // Keys: one is taken.
    let before = api.database.number("select last_value from tasks_id_seq").await;
    api.database.batch("delete from tasks").await;
    let keyed = |key: &str| json!({"op": "create", "title": "x", "key": key});
    let answer = api.call(batch(json!([keyed("1"), keyed("2"), keyed("3")])).bearer(&ada.token)).await;
    assert_eq!(statuses(&answer), [201, 201, 429]);
    let refused = api.call(with_key("4", json!([create("x")])).bearer(&ada.token)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("3600")), "{refused:?}");
    assert_eq!(api.database.number("select count(*) from tasks").await, 2);
    assert_eq!(api.database.number("select last_value from tasks_id_seq").await, before + 2);
}

/// Sends each function one event, all at the same time, and returns the responses.
async fn at_once(processes: &mut [Lambda], events: &[Value]) -> Vec<Answer> {
    for (process, event) in processes.iter().zip(events) {
        process.send(event.clone()).await;
    }
    let mut answers = Vec::new();
    for process in processes {
        answers.push(Answer::new(&process.receive().await));
    }
    answers
}

#[tokio::test]
async fn simultaneous_batches_lose_no_toggle_and_do_nothing_twice() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(api.make_task(&ada, &number.to_string()).await);
    }
    let settings = api.settings().to_vec();
    let mut processes = Vec::new();
    for _ in 0..4 {
        processes.push(Lambda::start(&binary("batch-tasks"), &settings).await);
    }
    for round in 0..8 {
        let events: Vec<_> = (0..4)
            .map(|process| {
                let mut own = ids.clone();
                own.rotate_left(process * 5);
                if process % 2 == 1 {
                    own.reverse();
                }
                let operations: Vec<_> = own.iter().map(|id| json!({"op": "complete", "id": id})).collect();
                batch(json!(operations)).bearer(&ada.token).routed_event()
            })
            .collect();
        for answer in at_once(&mut processes, &events).await {
            assert_eq!(statuses(&answer), [200; 20]);
        }
        let completed = api.database.number("select count(*) from tasks where completed").await;
        assert_eq!(completed, 0, "round {round}: four toggles of each task");
        // The same batch from all four: one does it.
        let mut operations: Vec<_> = ids.iter().map(|id| json!({"op": "complete", "id": id})).collect();
        operations.push(json!({"op": "create", "title": format!("round {round}")}));
        let event = with_key(&round.to_string(), json!(operations)).bearer(&ada.token).routed_event();
        let answers = at_once(&mut processes, &vec![event; 4]).await;
        let bodies: BTreeSet<_> = answers.iter().map(|answer| answer.text.clone()).collect();
        let replays = answers.iter().filter(|answer| answer.header("idempotent-replayed").is_some()).count();
        assert_eq!((bodies.len(), replays), (1, 3), "{bodies:?}");
        assert_eq!(api.database.number("select count(*) from tasks where completed").await, 20);
        // The same creation, with a key of its own, from all four.
        let create =
            json!([{"op": "create", "title": "once", "key": format!("own {round}")}, {"op": "complete", "id": ids[0]}]);
        let answers = at_once(&mut processes, &vec![batch(create).bearer(&ada.token).routed_event(); 4]).await;
        let tasks: BTreeSet<_> = answers.iter().map(|answer| results(answer)[0]["task"].to_string()).collect();
        let replays = answers.iter().filter(|answer| results(answer)[0]["replayed"] == true).count();
        assert_eq!((tasks.len(), replays), (1, 3), "{tasks:?}");
        api.database.batch("update tasks set completed = false").await;
    }
    assert_eq!(api.database.number("select count(*) from tasks where title like 'round%'").await, 8);
    assert_eq!(api.database.number("select count(*) from tasks where title = 'once'").await, 8);
}

#[tokio::test]
async fn batches_in_opposite_orders_do_not_wait_for_each_other() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let ids = [api.make_task(&ada, "1").await, api.make_task(&ada, "2").await, api.make_task(&ada, "3").await];
    // Among few tasks, PostgreSQL would read them all, in their own order.
    let bob = api.database.sign_up("bob").await;
    let many = "insert into tasks (user_id, title) select $1, 'x' from generate_series(1, 20000)";
    api.database.sql(many, &[&bob.id]).await;
    api.database.batch("analyze tasks").await;
    let settings = api.settings().to_vec();
    let mut processes = Vec::new();
    for _ in 0..2 {
        processes.push(Lambda::start(&binary("batch-tasks"), &settings).await);
    }
    // While somebody has the second task, each batch has locked what comes before it.
    let writer = api.database.connect().await;
    writer.batch_execute(&format!("begin; update tasks set title = '2' where id = {}", ids[1])).await.expect("a lock");
    let waiting =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let mut orders = [ids.to_vec(), ids.to_vec()];
    orders[1].reverse();
    for ((number, process), order) in (1..).zip(&processes).zip(&orders) {
        let operations: Vec<_> = order.iter().map(|id| json!({"op": "complete", "id": id})).collect();
        process.send(batch(json!(operations)).bearer(&ada.token).routed_event()).await;
        while api.database.number(waiting).await < number {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    writer.batch_execute("commit").await.expect("the transaction's end");
    for process in &mut processes {
        assert_eq!(statuses(&Answer::new(&process.receive().await)), [200; 3]);
    }
    assert_eq!(api.database.number("select count(*) from tasks where completed").await, 0, "toggled twice");
}

#[tokio::test]
async fn a_batch_whose_answer_is_lost_is_done_once() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let task = api.make_task(&ada, "milk").await;
    let network = Proxy::start(SERVICES.pooler_port).await.expect("a free port");
    let url = api.database.plain_api_url(network.port());
    api.set("DATABASE_URL", &url);
    let warm = batch(json!([{"op": "delete", "id": 2_000_000_000}])).bearer(&ada.token);
    assert_eq!(statuses(&api.call(warm.clone()).await), [404]);
    let operations = json!([{"op": "complete", "id": task}, {"op": "create", "title": "eggs"}]);
    // With a key, the function repeats the statement and finds what it has done.
    network.set(Network::CutsAnswers);
    let answer = api.call(with_key("k", operations.clone()).bearer(&ada.token)).await;
    assert_eq!((statuses(&answer), answer.header("idempotent-replayed")), (vec![200, 201], Some("true")));
    assert_eq!(results(&answer)[0]["task"]["completed"], true);
    // Without one, it cannot know what became of it.
    network.set(Network::CutsAnswers);
    assert_eq!(api.call(batch(operations).bearer(&ada.token)).await.status, 503);
    assert_eq!(api.database.number("select count(*) from tasks where completed").await, 0, "toggled twice");
    assert_eq!(api.database.number("select count(*) from tasks where title = 'eggs'").await, 2);
}
