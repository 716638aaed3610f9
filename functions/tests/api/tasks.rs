//! What the routes do with tasks.
use crate::api::{Answer, Api, delete, get, patch, post, put};
use serde_json::{Value, json};

/// A body without what differs from run to run.
fn redacted(answer: &Answer) -> Value {
    let mut body = answer.body.clone();
    for task in body.as_array_mut().map_or_else(Vec::new, |list| list.iter_mut().collect()).into_iter() {
        redact(task);
    }
    if body.is_object() {
        redact(&mut body);
    }
    body
}

fn redact(body: &mut Value) {
    for field in ["user_id", "created_at", "updated_at", "expires_at"] {
        if body.get(field).is_some() {
            body[field] = json!(format!("[{field}]"));
        }
    }
}

#[tokio::test]
async fn a_task_lives_from_its_creation_to_its_removal() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let created = api
        .call(
            post("/api/tasks")
                .bearer(&ada.token)
                .json(json!({"title": " Buy milk ", "description": " two\n", "completed": true, "x": 1})),
        )
        .await;
    assert_eq!((created.status, created.header("location")), (201, Some("/api/tasks/1")));
    insta::assert_json_snapshot!(redacted(&created), @r#"
    {
      "completed": false,
      "created_at": "[created_at]",
      "description": " two\n",
      "id": 1,
      "title": "Buy milk",
      "updated_at": "[updated_at]",
      "user_id": "[user_id]"
    }
    "#);
    assert_eq!(created.body["user_id"], ada.id);
    assert_eq!(created.body["created_at"], created.body["updated_at"]);

    let read = api.call(get("/api/tasks/1").bearer(&ada.token)).await;
    assert_eq!((read.status, &read.body, read.header("etag")), (200, &created.body, created.header("etag")));

    let changed = api.call(put("/api/tasks/1").bearer(&ada.token).json(json!({"title": "Buy bread"}))).await;
    assert_eq!(changed.body["title"], "Buy bread");
    assert_eq!(changed.body["description"], " two\n", "what is absent stays");
    assert_eq!(changed.body["created_at"], created.body["created_at"]);
    assert!(changed.body["updated_at"].as_str() > created.body["updated_at"].as_str());
    assert_ne!(changed.header("etag"), created.header("etag"));

    let removed = api.call(delete("/api/tasks/1").bearer(&ada.token)).await;
    assert_eq!((removed.status, &removed.body), (204, &Value::Null));
    assert_eq!(api.call(delete("/api/tasks/1").bearer(&ada.token)).await.status, 404);
    assert_eq!(api.call(get("/api/tasks/1").bearer(&ada.token)).await.status, 404);
}

#[tokio::test]
async fn the_other_family_of_paths_behaves_alike() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let base = format!("/api/{}/tasks", ada.id);
    let created = api.call(post(&base).bearer(&ada.token).json(json!({"title": "Buy milk"}))).await;
    assert_eq!((created.status, created.header("location")), (201, Some(&*format!("{base}/1"))));
    let listed = api.call(get(&base).bearer(&ada.token)).await;
    assert_eq!(listed.body, json!([created.body]));
    let changed = api.call(put(&format!("{base}/1")).bearer(&ada.token).json(json!({"completed": true}))).await;
    assert_eq!((changed.status, &changed.body["completed"]), (200, &json!(true)));
    let turned = api.call(patch(&format!("{base}/1/complete")).bearer(&ada.token)).await;
    assert_eq!((turned.status, &turned.body["completed"]), (200, &json!(false)));
    let read = api.call(get(&format!("{base}/1")).bearer(&ada.token)).await;
    assert_eq!(read.body, turned.body);
    assert_eq!(api.call(delete(&format!("{base}/1")).bearer(&ada.token)).await.status, 204);
    assert_eq!(api.call(get(&base).bearer(&ada.token)).await.body, json!([]));
}

#[tokio::test]
async fn an_update_leaves_what_is_absent_or_null() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let id = api.make_task(&ada, "Buy milk").await;
    let path = format!("/api/tasks/{id}");
    let mut last = api.call(get(&path).bearer(&ada.token)).await.body;
    for (change, field, value) in [
        (json!({"description": "two"}), "description", json!("two")),
        (json!({"completed": true}), "completed", json!(true)),
        (json!({"title": null, "description": null, "completed": null}), "description", json!("two")),
        (json!({}), "completed", json!(true)),
        (json!({"description": ""}), "description", json!("")),
        (json!({"completed": false, "unknown": [1]}), "completed", json!(false)),
    ] {
        let answer = api.call(put(&path).bearer(&ada.token).json(change.clone())).await;
        assert_eq!((answer.status, &answer.body[field]), (200, &value), "{change}");
        assert_eq!(answer.body["title"], "Buy milk", "{change}");
        assert!(answer.body["updated_at"].as_str() > last["updated_at"].as_str(), "{change}");
        last = answer.body;
    }
}

#[tokio::test]
async fn completing_sets_or_turns_over() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let id = api.make_task(&ada, "Buy milk").await;
    let path = format!("/api/tasks/{id}/complete");
    let complete = || patch(&path).bearer(&ada.token);
    for (request, completed) in [
        (complete(), true),
        (complete(), false),
        (complete().json(json!({})), true),
        (complete().json(json!({"unknown": 1})), false),
        (complete().json(json!({"completed": false})), false),
        (complete().json(json!({"completed": true})), true),
        (complete().json(json!({"completed": true})), true),
        (complete().text("").header("content-type", "text/plain"), false),
        (complete().base64(""), true),
    ] {
        let answer = api.call(request).await;
        assert_eq!((answer.status, &answer.body["completed"]), (200, &json!(completed)));
    }
}

#[tokio::test]
async fn a_task_changed_by_two_at_once_has_both_changes_and_a_growing_time() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let id = api.make_task(&ada, "Buy milk").await;
    // A time that is ahead, as another server's clock could have written it.
    api.database.sql("update tasks set updated_at = now() at time zone 'utc' + interval '1 hour'", &[]).await;
    let before = api.call(get(&format!("/api/tasks/{id}")).bearer(&ada.token)).await.body;
    let after = api.call(put(&format!("/api/tasks/{id}")).bearer(&ada.token).json(json!({"title": "x"}))).await.body;
    assert!(after["updated_at"].as_str() > before["updated_at"].as_str());
    let completed = api.call(patch(&format!("/api/tasks/{id}/complete")).bearer(&ada.token)).await.body;
    assert!(completed["updated_at"].as_str() > after["updated_at"].as_str());
    assert_eq!((&completed["title"], &completed["completed"]), (&json!("x"), &json!(true)));
}

#[tokio::test]
async fn the_session_says_who_and_until_when() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let answer = api.call(get("/api/session").cookie(&ada.token)).await;
    assert_eq!((answer.status, &answer.body["user_id"]), (200, &json!(ada.id)));
    insta::assert_json_snapshot!(redacted(&answer), @r#"
    {
      "expires_at": "[expires_at]",
      "user_id": "[user_id]"
    }
    "#);
}

#[tokio::test]
async fn problems_are_told_in_their_standard_form() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let invalid = api.call(post("/api/tasks").bearer(&ada.token).json(json!({"description": 1}))).await;
    insta::assert_json_snapshot!(invalid.body, @r#"
    {
      "detail": "title is required. description must be a string.",
      "errors": [
        {
          "field": "title",
          "message": "is required"
        },
        {
          "field": "description",
          "message": "must be a string"
        }
      ],
      "instance": "/api/tasks",
      "status": 422,
      "title": "Unprocessable Entity",
      "type": "about:blank"
    }
    "#);
    insta::assert_json_snapshot!(api.call(get("/api/tasks")).await.body, @r#"
    {
      "detail": "This needs a live session: sign in.",
      "instance": "/api/tasks",
      "status": 401,
      "title": "Unauthorized",
      "type": "about:blank"
    }
    "#);
    insta::assert_json_snapshot!(api.call(get("/api/tasks/7").bearer(&ada.token)).await.body, @r#"
    {
      "detail": "There is no such task.",
      "instance": "/api/tasks/7",
      "status": 404,
      "title": "Not Found",
      "type": "about:blank"
    }
    "#);
}
