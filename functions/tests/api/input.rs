//! Input validation: both sides of every limit, and invalid input.
use crate::api::{Api, delete, get, patch, post, put};
use serde_json::json;

#[tokio::test]
async fn a_title_has_1_to_200_characters_in_every_script() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let id = api.make_task(&ada, "x").await;
    for character in ["a", "é", "ß", "漢", "ع", "👍", "\u{10FFFF}", "\u{301}", "'", "\\"] {
        for (length, status) in [(1, 201), (200, 201), (201, 422), (1000, 422)] {
            let title = character.repeat(length);
            let created = api.call(post("/api/tasks").bearer(&ada.token).json(json!({"title": title}))).await;
            assert_eq!(created.status, status, "{length} of {character:?}: {created:?}");
            let changed =
                api.call(put(&format!("/api/tasks/{id}")).bearer(&ada.token).json(json!({"title": title}))).await;
            assert_eq!(changed.status, if status == 201 { 200 } else { 422 });
            if status == 201 {
                assert_eq!((&created.body["title"], &changed.body["title"]), (&json!(title), &json!(title)));
            } else {
                assert_eq!(created.body["errors"][0]["field"], "title");
            }
        }
    }
    for (title, kept) in [
        ("  x\t\n", "x"),
        ("\u{3000}x\u{a0}", "x"),
        ("x y", "x y"),
        ("x\u{1}\u{7f}", "x\u{1}\u{7f}"),
        ("\u{200B}👩\u{200D}🚀", "\u{200B}👩\u{200D}🚀"),
    ] {
        let created = api.call(post("/api/tasks").bearer(&ada.token).json(json!({"title": title}))).await;
        assert_eq!(created.body["title"], kept);
    }
    let padded = format!(" {} ", "x".repeat(200));
    assert_eq!(api.call(post("/api/tasks").bearer(&ada.token).json(json!({"title": padded}))).await.status, 201);
}

#[tokio::test]
async fn a_description_has_at_most_10000_characters() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    for character in ["a", "漢", "👍", "\""] {
        for (length, status) in [(0, 201), (10_000, 201), (10_001, 422)] {
            let body = json!({"title": "x", "description": character.repeat(length)});
            let created = api.call(post("/api/tasks").bearer(&ada.token).json(body.clone())).await;
            assert_eq!(created.status, status, "{length} of {character}");
            if status == 201 {
                assert_eq!(created.body["description"], body["description"]);
            } else {
                assert_eq!(created.body["errors"][0]["field"], "description");
            }
        }
    }
}

#[tokio::test]
async fn a_body_cannot_choose_the_owner_the_id_or_the_times() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    let long_ago = "2000-01-01T00:00:00.000000Z";
    let body = json!({"title": "x", "id": 7, "user_id": bob.id, "created_at": long_ago, "updated_at": long_ago});
    let created = api.call(post("/api/tasks").bearer(&ada.token).json(body.clone())).await;
    assert_eq!(created.status, 201);
    let path = format!("/api/tasks/{}", created.body["id"]);
    let changed = api.call(put(&path).bearer(&ada.token).json(body.clone())).await;
    let patched = api.call(patch(&path).bearer(&ada.token).json(body)).await;
    for answer in [&created, &changed, &patched] {
        assert_eq!(answer.body["user_id"], ada.id, "{answer:?}");
        assert_ne!(answer.body["id"], 7);
        assert!(answer.body["created_at"].as_str() > Some("2020") && answer.body["updated_at"].as_str() > Some("2020"));
    }
    assert_eq!((&created.body["id"], &created.body["created_at"]), (&patched.body["id"], &patched.body["created_at"]));
}

#[tokio::test]
async fn an_invalid_field_is_rejected_by_name() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let id = api.make_task(&ada, "kept").await;
    for (body, field) in [
        (json!({}), "title"),
        (json!({"title": null}), "title"),
        (json!({"title": ""}), "title"),
        (json!({"title": " \t\n\u{3000}"}), "title"),
        (json!({"title": "\u{200B}"}), "title"),
        (json!({"title": " \u{2060}\u{FE0F}\u{1}\u{E0020} "}), "title"),
        (json!({"title": 1}), "title"),
        (json!({"title": ["x"]}), "title"),
        (json!({"title": "a\0b"}), "title"),
        (json!({"title": "x", "description": "a\0b"}), "description"),
        (json!({"title": "x", "description": false}), "description"),
        (json!("title"), "body"),
        (json!(null), "body"),
        (json!([]), "body"),
    ] {
        let answer = api.call(post("/api/tasks").bearer(&ada.token).json(body.clone())).await;
        assert_eq!((answer.status, &answer.body["errors"][0]["field"]), (422, &json!(field)), "{body}");
    }
    for (body, field) in [
        (json!({"title": ""}), "title"),
        (json!({"title": true}), "title"),
        (json!({"title": "\0"}), "title"),
        (json!({"description": {}}), "description"),
        (json!({"description": "\0"}), "description"),
        (json!({"completed": "true"}), "completed"),
        (json!({"completed": 1}), "completed"),
        (json!([]), "body"),
    ] {
        let answer = api.call(put(&format!("/api/tasks/{id}")).bearer(&ada.token).json(body.clone())).await;
        assert_eq!((answer.status, &answer.body["errors"][0]["field"]), (422, &json!(field)), "{body}");
    }
    for body in
        [json!({"completed": "true"}), json!({"completed": null}), json!({"completed": 0}), json!([]), json!(true)]
    {
        let answer = api.call(patch(&format!("/api/tasks/{id}/complete")).bearer(&ada.token).json(body.clone())).await;
        assert_eq!(answer.status, 422, "{body}");
    }
    let task = api.call(get(&format!("/api/tasks/{id}")).bearer(&ada.token)).await.body;
    assert_eq!(
        (&task["title"], &task["completed"], &task["updated_at"]),
        (&json!("kept"), &json!(false), &task["created_at"])
    );
    assert_eq!(api.database.number("select count(*) from tasks").await, 1);
}

#[tokio::test]
async fn a_change_that_names_only_unknown_fields_is_rejected_and_changes_nothing() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let path = format!("/api/tasks/{}", api.make_task(&ada, "kept").await);
    let completion = format!("{path}/complete");
    let before = api.call(get(&path).bearer(&ada.token)).await.body;
    for (request, known) in [
        (put(&path), "title, description, completed"),
        (patch(&path), "title, description, completed"),
        (patch(&completion), "completed"),
    ] {
        for body in [
            json!({"is_completed": true}),
            json!({"is_completed": null}),
            json!({"done": true, "status": "completed"}),
            json!({"Completed": true}),
            json!({"": {}}),
        ] {
            let answer = api.call(request.clone().bearer(&ada.token).json(body.clone())).await;
            let message = format!("has only unknown fields; known here: {known}");
            assert_eq!(answer.status, 422, "{} {body}: {answer:?}", request.path);
            assert_eq!(answer.body["detail"], format!("body {message}."), "{body}");
            assert_eq!(answer.body["errors"], json!([{"field": "body", "message": message}]), "{body}");
        }
    }
    let title_only = api.call(patch(&completion).bearer(&ada.token).json(json!({"title": "x"}))).await;
    assert_eq!(title_only.status, 422, "the title is no field of a completion");
    assert_eq!(api.call(get(&path).bearer(&ada.token)).await.body, before, "nothing changed, updated_at included");
    for body in [json!({}), json!({"title": "kept", "is_completed": true}), json!({"completed": false, "": 1})] {
        for request in [put(&path), patch(&path)] {
            assert_eq!(api.call(request.bearer(&ada.token).json(body.clone())).await.status, 200, "{body}");
        }
    }
    assert_eq!(api.call(put(&path).bearer(&ada.token).json(json!({"title": null}))).await.status, 200);
}

#[tokio::test]
async fn an_id_that_no_task_can_have_is_not_found() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let ids = [
        "0",
        "-1",
        "-0",
        "2147483647",
        "2147483648",
        "-2147483648",
        "-2147483649",
        "4294967297",
        "9223372036854775808",
        "99999999999999999999999999",
        "abc",
        "1.0",
        "1e0",
        "+1",
        "%201",
        "1%00",
        "0x1",
        "١",
        "null",
        "1;drop%20table%20tasks",
        "%ff",
        "%",
        "1'--",
    ];
    api.make_task(&ada, "number 1").await;
    for id in ids {
        let path = format!("/api/tasks/{id}");
        for request in
            [get(&path), put(&path).json(json!({"title": "x"})), delete(&path), patch(&format!("{path}/complete"))]
        {
            let answer = api.call(request.clone().bearer(&ada.token)).await;
            assert_eq!(answer.status, 404, "{} {id}: {answer:?}", request.method);
        }
    }
    // A client may percent-encode the id.
    assert_eq!(api.call(get("/api/tasks/%31").bearer(&ada.token)).await.body["title"], "number 1");
    api.database.sql("select setval('tasks_id_seq', 2147483646)", &[]).await;
    assert_eq!(api.make_task(&ada, "the last").await, 2_147_483_647);
    assert_eq!(api.call(get("/api/tasks/2147483647").bearer(&ada.token)).await.status, 200);
}

#[tokio::test]
async fn each_kind_of_body_has_its_own_status() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let send = || post("/api/tasks").bearer(&ada.token);
    let padded = |length: usize| format!("{{\"title\":\"x\"}}{}", " ".repeat(length - 13));
    for (kind, request, status) in [
        ("UTF-8 as base64", send().bytes("{\"title\":\"Zoë\"}".as_bytes()), 201),
        ("no media type", send().text("{\"title\":\"x\"}"), 201),
        (
            "a media type with parameters",
            send().text("{\"title\":\"x\"}").header("Content-Type", "application/json; charset=UTF-8"),
            201,
        ),
        ("the largest body", send().text(&padded(256 * 1024)), 201),
        ("one too large", send().text(&padded(256 * 1024 + 1)), 413),
        ("one too large in base64", send().bytes(padded(256 * 1024 + 1).as_bytes()), 413),
        ("one of 5 MB", send().text(&padded(5_000_000)), 413),
        ("no body", send(), 400),
        ("truncated JSON", send().text("{\"title\":"), 400),
        ("text", send().text("title"), 400),
        ("two values", send().text("{\"title\":\"x\"} {}"), 400),
        ("a byte order mark", send().text("\u{FEFF}{\"title\":\"x\"}"), 400),
        ("a lone surrogate", send().text(r#"{"title":"\ud800"}"#), 400),
        ("a control character", send().text("{\"title\":\"a\nb\"}"), 400),
        ("a number out of range", send().text("{\"title\":\"x\",\"n\":1e999999}"), 400),
        ("deep nesting", send().text(&"[".repeat(100_000)), 400),
        ("invalid UTF-8", send().bytes(b"{\"title\":\"\xff\xfe\"}"), 400),
        ("a truncated character", send().bytes(b"{\"title\":\"\xc3"), 400),
        ("an encoded surrogate", send().bytes(b"{\"title\":\"\xed\xa0\x80\"}"), 400),
        ("invalid base64", send().base64("{\"title\":\"x\"}"), 400),
        ("base64 without its padding", send().base64("eyJ0aXRsZSI6IngifQ"), 400),
        ("a form", send().text("title=x").header("content-type", "application/x-www-form-urlencoded"), 415),
        ("an invalid media type", send().text("{\"title\":\"x\"}").header("content-type", "json"), 415),
    ] {
        if !api.can_send(&request) {
            continue;
        }
        let answer = api.call(request).await;
        assert_eq!(answer.status, status, "{kind}: {answer:?}");
    }
}
