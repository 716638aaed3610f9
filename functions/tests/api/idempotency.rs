//! Creation with an Idempotency-Key: a repeated request creates one task.
use crate::api::{Answer, Api, Request, binary, delete, get, patch, post, put, request};
use serde_json::{Value, json};
use testing::{Lambda, Network, Proxy, SERVICES};

fn create(token: &str, key: &str, body: Value) -> Request {
    post("/api/tasks").bearer(token).header("idempotency-key", key).json(body)
}

fn assert_replayed(first: &Answer, second: &Answer) {
    assert_eq!((first.status, second.status), (201, 201), "{second:?}");
    assert_eq!(first.text, second.text);
    for header in ["location", "etag"] {
        assert_eq!(first.header(header), second.header(header));
    }
    assert_eq!((first.header("idempotent-replayed"), second.header("idempotent-replayed")), (None, Some("true")));
}

#[tokio::test]
async fn the_same_key_and_body_return_the_first_response_again() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let body = json!({"title": "Water the plants", "description": "all \"of\" them"});
    let first = api.call(create(&ada.token, "k", body.clone())).await;
    assert_replayed(&first, &api.call(create(&ada.token, "k", body.clone())).await);
    // The same content, with different white space and field order.
    let spaced =
        post("/api/tasks").bearer(&ada.token).header("idempotency-key", "k").header("content-type", "application/json");
    let spaced = spaced.text("{ \"description\": \"all \\\"of\\\" them\", \"title\": \"  Water the plants \" }");
    assert_replayed(&first, &api.call(spaced).await);

    // The first response is replayed, even after the task was changed or deleted.
    let path = first.header("location").expect("a place").to_owned();
    assert_eq!(api.call(get(&path).bearer(&ada.token)).await.text, first.text);
    api.call(delete(&path).bearer(&ada.token)).await;
    assert_replayed(&first, &api.call(create(&ada.token, "k", body.clone())).await);
    assert_eq!(api.database.number("select count(*) from tasks").await, 0);

    let other = api.call(create(&ada.token, "K", body)).await;
    assert_eq!((other.status, other.header("idempotent-replayed")), (201, None), "keys are case-sensitive");
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    api.call(create(&ada.token, "k", json!({"title": "a"}))).await;
    for other in
        [json!({"title": "b"}), json!({"title": "a", "description": ""}), json!({"title": "a", "description": "a"})]
    {
        let answer = api.call(create(&ada.token, "k", other.clone())).await;
        assert_eq!((answer.status, &answer.body["errors"][0]["field"]), (422, &json!("Idempotency-Key")), "{other}");
    }
    assert_eq!(api.database.number("select count(*) from tasks").await, 1);
    assert_replayed(
        &api.call(create(&ada.token, "k2", json!({"title": "a", "description": null}))).await,
        &api.call(create(&ada.token, "k2", json!({"title": "a"}))).await,
    );
}

#[tokio::test]
async fn keys_of_different_users_are_independent() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    let first = api.call(create(&ada.token, "k", json!({"title": "a"}))).await;
    let second = api.call(create(&bob.token, "k", json!({"title": "b"}))).await;
    assert_eq!((second.status, second.header("idempotent-replayed")), (201, None));
    assert_eq!((&first.body["user_id"], &second.body["user_id"]), (&json!(ada.id), &json!(bob.id)));
    // With another user's path, no task is created and no key is stored.
    let path = format!("/api/{}/tasks", ada.id);
    let request = post(&path).bearer(&bob.token).header("idempotency-key", "mine").json(json!({"title": "x"}));
    assert_eq!(api.call(request).await.status, 403);
    assert_eq!(api.call(create("unknown", "mine", json!({"title": "x"}))).await.status, 401);
    assert_eq!(api.database.number("select count(*) from idempotency_keys").await, 2);
}

#[tokio::test]
async fn a_key_has_1_to_255_characters() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    for (key, status) in
        [("", 422), (&*"k".repeat(256), 422), (&*"k".repeat(255), 201), (&*"\u{e9}".repeat(255), 201), ("'; drop", 201)]
    {
        let answer = api.call(create(&ada.token, key, json!({"title": "a"}))).await;
        assert_eq!(answer.status, status, "{key}");
    }
}

#[tokio::test]
async fn concurrent_processes_create_one_task() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let settings = api.settings().to_vec();
    let mut processes = Vec::new();
    for _ in 0..4 {
        processes.push(Lambda::start(&binary("create-task"), &settings).await);
    }
    for round in 0..10 {
        let event = create(&ada.token, &format!("round-{round}"), json!({"title": "a"})).routed_event();
        for process in &processes {
            process.send(event.clone()).await;
        }
        let mut bodies = Vec::new();
        let mut replays = 0;
        for process in &mut processes {
            let answer = process.receive().await;
            assert_eq!(answer["statusCode"], 201, "{answer}");
            replays += usize::from(!answer["headers"]["idempotent-replayed"].is_null());
            bodies.push(answer["body"].clone());
        }
        bodies.dedup();
        assert_eq!((bodies.len(), replays), (1, 3));
    }
    assert_eq!(api.database.number("select count(*) from tasks").await, 10);
    assert!(api.call(get("/api/tasks").bearer(&ada.token)).await.body.as_array().is_some_and(|it| it.len() == 10));
}

#[tokio::test]
async fn a_connection_lost_between_write_and_answer_makes_no_second_task() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let network = Proxy::start(SERVICES.pooler_port).await.expect("a free port");
    let url = api.database.plain_api_url(network.port());
    api.set("DATABASE_URL", &url);
    assert_eq!(api.call(create(&ada.token, "warm", json!({"title": "warm"}))).await.status, 201);
    // The statement runs, but its response is lost. With a key, the function repeats it and finds the task.
    network.set(Network::CutsAnswers);
    let answer = api.call(create(&ada.token, "k", json!({"title": "a"}))).await;
    assert_eq!((answer.status, answer.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(api.database.number("select count(*) from tasks where title = 'a'").await, 1);
    // Without a key, it cannot know the outcome and returns 503.
    network.set(Network::CutsAnswers);
    let answer = api.call(post("/api/tasks").bearer(&ada.token).json(json!({"title": "b"}))).await;
    assert_eq!(answer.status, 503);
    assert_eq!(api.database.number("select count(*) from tasks where title = 'b'").await, 1);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_not_sent_again_by_the_function() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let path = format!("/api/tasks/{}", api.make_task(&ada, "a").await);
    let network = Proxy::start(SERVICES.pooler_port).await.expect("a free port");
    let url = api.database.plain_api_url(network.port());
    api.set("DATABASE_URL", &url);
    api.database.sql("create table writes (operation text)", &[]).await;
    for statement in [
        "create function note() returns trigger language plpgsql security definer as
            $$ begin insert into public.writes values (tg_op); return null; end $$",
        "create trigger note after update or delete on tasks for each row execute function note()",
    ] {
        api.database.sql(statement, &[]).await;
    }
    for (number, write) in
        [put(&path).json(json!({"title": "b"})), patch(&path).json(json!({"title": "c"})), delete(&path)]
            .into_iter()
            .enumerate()
    {
        let warm = request(&write.method, "/api/tasks/0").json(json!({"title": "x"})).bearer(&ada.token);
        assert_eq!(api.call(warm).await.status, 404);
        network.set(Network::CutsAnswers);
        // A repeated delete would return 404, as if there had been nothing to remove.
        assert_eq!(api.call(write.bearer(&ada.token)).await.status, 503);
        assert_eq!(
            api.database.number("select count(*) from writes").await,
            i64::try_from(number).expect("a number") + 1
        );
    }
}

#[tokio::test]
async fn a_key_is_valid_for_a_day() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let first = api.call(create(&ada.token, "k", json!({"title": "a"}))).await;
    let age = |hours: u32| {
        format!("update idempotency_keys set created_at = now() at time zone 'utc' - interval '{hours} hours'")
    };
    api.database.sql(&age(23), &[]).await;
    let replay = api.call(create(&ada.token, "k", json!({"title": "a"}))).await;
    assert_eq!((replay.header("idempotent-replayed"), &replay.body["id"]), (Some("true"), &first.body["id"]));
    api.database.sql(&age(25), &[]).await;
    let second = api.call(create(&ada.token, "k", json!({"title": "b"}))).await;
    assert_eq!((second.status, second.header("idempotent-replayed")), (201, None));
    assert_ne!(second.body["id"], first.body["id"]);
    assert_replayed(&second, &api.call(create(&ada.token, "k", json!({"title": "b"}))).await);
    assert_eq!(api.database.number("select count(*) from tasks").await, 2);
}
