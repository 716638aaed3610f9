//! Conditional requests: `If-None-Match` avoids sending an unchanged task again, `If-Match` prevents lost updates.
use crate::api::{Api, Request, delete, get, patch, put};
use serde_json::json;
use std::collections::BTreeSet;

/// Returns every kind of write to a task, with the name of its function.
fn writes(id: i64) -> [(&'static str, Request); 4] {
    let path = format!("/api/tasks/{id}");
    [
        ("update-task", put(&path).json(json!({"title": "written"}))),
        ("patch-task", patch(&path).json(json!({"title": "written"}))),
        ("complete-task", patch(&format!("{path}/complete"))),
        ("delete-task", delete(&path)),
    ]
}

#[tokio::test]
async fn a_task_that_the_client_has_is_not_sent_again() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let path = format!("/api/tasks/{}", api.make_task(&ada, "a").await);
    let first = api.call(get(&path).bearer(&ada.token)).await;
    let tag = first.header("etag").expect("a tag").to_owned();
    assert_eq!(first.header("cache-control"), Some("private, no-cache"));
    for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
        let answer = api.call(get(&path).bearer(&ada.token).header("if-none-match", &known)).await;
        assert_eq!((answer.status, answer.header("etag"), &*answer.text), (304, Some(&*tag), ""), "{known}");
        assert_eq!(answer.header("content-type"), None);
    }
    for other in ["\"5f\"", "", &tag.to_uppercase().replace('A', "a"), &tag.replace('"', ""), "\"\u{e9}\""] {
        if other == tag {
            continue;
        }
        let answer = api.call(get(&path).bearer(&ada.token).header("if-none-match", other)).await;
        assert_eq!(answer.status, 200, "{other}");
    }
    api.call(put(&path).bearer(&ada.token).json(json!({"title": "b"}))).await;
    assert_eq!(api.call(get(&path).bearer(&ada.token).header("if-none-match", &tag)).await.status, 200);
    let long = api.call(get(&path).bearer(&ada.token).header("if-none-match", &"x".repeat(8001))).await;
    assert_eq!((long.status, &long.body["errors"][0]["field"]), (422, &json!("If-None-Match")));
    assert_eq!(api.call(get(&path).bearer("unknown").header("if-none-match", "*")).await.status, 401);
    assert_eq!(
        api.call(get("/api/tasks/2147483647").bearer(&ada.token).header("if-none-match", "*")).await.status,
        404
    );
}

#[tokio::test]
async fn a_write_happens_only_to_the_version_that_it_names() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    for number in 0..4 {
        let id = api.make_task(&ada, "as it was").await;
        let path = format!("/api/tasks/{id}");
        let (name, write) = writes(id)[number].clone();
        let seen = api.call(get(&path).bearer(&ada.token)).await;
        let tag = seen.header("etag").expect("a tag").to_owned();
        let changed = api.call(put(&path).bearer(&ada.token).json(json!({"description": "changed since"}))).await;
        let now = changed.header("etag").expect("a tag").to_owned();

        for stale in [&*tag, &format!("W/{now}"), "\"5f\"", "", "x", &format!("\"5f\", {tag}")] {
            let answer = api.call(write.clone().bearer(&ada.token).header("if-match", stale)).await;
            assert_eq!(answer.status, 412, "{name} {stale}");
            assert_eq!(answer.body["detail"], "The task has been changed since: fetch it again.");
        }
        let long = api.call(write.clone().bearer(&ada.token).header("if-match", &"x".repeat(8001))).await;
        assert_eq!((long.status, &long.body["errors"][0]["field"]), (422, &json!("If-Match")), "{name}");
        let answer = api.call(write.clone().bearer(&bob.token).header("if-match", &now)).await;
        assert_eq!(answer.status, 404, "{name}: another user's tag does not reveal that the task exists");
        let still = api.call(get(&path).bearer(&ada.token)).await;
        assert_eq!(still.header("etag"), Some(&*now), "{name} must not have written");

        let written = api.call(write.clone().bearer(&ada.token).header("if-match", &format!("{tag}, {now}"))).await;
        assert!(written.status < 300, "{name}: {written:?}");
        if name != "delete-task" {
            assert_ne!(written.header("etag"), Some(&*now));
            let any = api.call(write.clone().bearer(&ada.token).header("if-match", "*")).await;
            assert_eq!(any.status, 200, "{name}");
            api.call(delete(&path).bearer(&ada.token)).await;
        }
        for gone in [&*now, "*"] {
            let answer = api.call(write.clone().bearer(&ada.token).header("if-match", gone)).await;
            assert_eq!(answer.status, 404, "{name}: the task is gone");
        }
    }
}

#[tokio::test]
async fn of_two_writers_with_one_tag_exactly_one_wins() {
    let mut api = Api::with_settings(&[("AWS_LAMBDA_MAX_CONCURRENCY", "2")]).await;
    let ada = api.database.sign_up("ada").await;
    for _ in 0..20 {
        let path = format!("/api/tasks/{}", api.make_task(&ada, "a").await);
        let tag = api.call(get(&path).bearer(&ada.token)).await.header("etag").expect("a tag").to_owned();
        let write = |title: &str| put(&path).bearer(&ada.token).header("if-match", &tag).json(json!({"title": title}));
        let function = api.function("update-task").await;
        function.send(write("one").routed_event()).await;
        function.send(write("other").routed_event()).await;
        let statuses = [function.receive().await["statusCode"].clone(), function.receive().await["statusCode"].clone()];
        let mut statuses = statuses.map(|status| status.as_u64().expect("a status"));
        statuses.sort();
        assert_eq!(statuses, [200, 412]);
    }
}

#[tokio::test]
async fn the_time_of_the_last_change_only_grows_under_many_writers() {
    let mut api = Api::with_settings(&[("AWS_LAMBDA_MAX_CONCURRENCY", "4")]).await;
    let ada = api.database.sign_up("ada").await;
    let path = format!("/api/tasks/{}", api.make_task(&ada, "a").await);
    let event = patch(&path).bearer(&ada.token).json(json!({"title": "b"})).routed_event();
    let function = api.function("patch-task").await;
    let mut times = Vec::new();
    for _ in 0..25 {
        for _ in 0..4 {
            function.send(event.clone()).await;
        }
        for _ in 0..4 {
            let body = function.receive().await["body"].as_str().expect("a body").to_owned();
            let task: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            times.push(task["updated_at"].as_str().expect("a time").to_owned());
        }
    }
    assert_eq!(
        times.iter().collect::<BTreeSet<_>>().len(),
        100,
        "two changes have the same updated_at, and so the same tag"
    );
    let last = api.call(get(&path).bearer(&ada.token)).await.body["updated_at"].clone();
    assert_eq!(Some(&*last.as_str().expect("a time").to_owned()), times.iter().max().map(|time| &**time));
}

#[tokio::test]
async fn a_merge_patch_changes_what_it_names_and_null_clears_only_the_description() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let path = format!("/api/tasks/{}", api.make_task(&ada, "title").await);
    let fields = |task: &serde_json::Value| json!([task["title"], task["description"], task["completed"]]);
    for (body, expected) in [
        (json!({}), json!(["title", null, false])),
        (json!({"description": "more"}), json!(["title", "more", false])),
        (json!({"completed": true}), json!(["title", "more", true])),
        (json!({"title": " other ", "unknown": null}), json!(["other", "more", true])),
        (json!({"description": null}), json!(["other", null, true])),
        (json!({"description": ""}), json!(["other", "", true])),
        (json!({"completed": false, "description": null}), json!(["other", null, false])),
    ] {
        for media_type in ["application/merge-patch+json", "application/json"] {
            let request = patch(&path).bearer(&ada.token).text(&body.to_string()).header("content-type", media_type);
            let answer = api.call(request).await;
            assert_eq!((answer.status, fields(&answer.body)), (200, expected.clone()), "{body}");
            assert_eq!(fields(&api.call(get(&path).bearer(&ada.token)).await.body), expected);
        }
    }
    for (body, field) in [
        (json!({"title": null}), "title"),
        (json!({"title": ""}), "title"),
        (json!({"completed": null}), "completed"),
        (json!({"completed": "true"}), "completed"),
        (json!({"description": 5}), "description"),
        (json!([]), "body"),
        (json!(null), "body"),
    ] {
        let answer = api.call(patch(&path).bearer(&ada.token).json(body.clone())).await;
        assert_eq!((answer.status, &answer.body["errors"][0]["field"]), (422, &json!(field)), "{body}");
    }
    let other = patch(&path).bearer(&ada.token).text("{}").header("content-type", "application/json-patch+xml");
    assert_eq!(api.call(other).await.status, 415);
}

#[tokio::test]
async fn clearing_removes_the_callers_completed_tasks_and_needs_the_exact_query() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    for user in [&ada, &bob] {
        for title in ["a", "b", "c"] {
            let id = api.make_task(user, title).await;
            if title != "c" {
                api.call(patch(&format!("/api/tasks/{id}/complete")).bearer(&user.token)).await;
            }
        }
    }
    for query in [
        "",
        "?status=all",
        "?status=pending",
        "?status=",
        "?status=Completed",
        "?status=completed&status=completed",
        "?status=completed&q=a",
        "?status=completed&unknown=1",
        "?completed=true",
    ] {
        let answer = api.call(delete(&format!("/api/tasks{query}")).bearer(&ada.token)).await;
        assert_eq!((answer.status, &answer.body["errors"][0]["field"]), (422, &json!("status")), "{query}");
    }
    assert_eq!(api.database.number("select count(*) from tasks").await, 6);
    let other = api.call(delete(&format!("/api/{}/tasks?status=completed", ada.id)).bearer(&bob.token)).await;
    assert_eq!(other.status, 403);
    assert_eq!(api.database.number("select count(*) from tasks").await, 6);
    let answer = api.call(delete("/api/tasks?status=completed").cookie(&ada.token)).await;
    assert_eq!((answer.status, &answer.body), (200, &json!({"deleted": 2})));
    let answer = api.call(delete(&format!("/api/{}/tasks?status=completed", ada.id)).bearer(&ada.token)).await;
    assert_eq!(answer.body, json!({"deleted": 0}));
    assert_eq!(api.database.number("select count(*) from tasks where not completed").await, 2);
    assert_eq!(api.database.number("select count(*) from tasks").await, 4, "Bob still has all of his");
}
