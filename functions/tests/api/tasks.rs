//! The routes on tasks and on the session: what each one does.
use crate::api::{Answer, Person, delete, get, patch, post, put};
use serde_json::{Value, json};

/// Returns the body, with placeholders for values that differ between runs.
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
    let mut ada = Person::sign_up().await;
    let created = ada
        .call(
            post("/api/tasks").json(json!({"title": " Buy milk ", "description": " two\n", "completed": true, "x": 1})),
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
    assert_eq!(created.body["user_id"], ada.user.id);
    assert_eq!(created.body["created_at"], created.body["updated_at"]);

    let read = ada.get("/api/tasks/1").await;
    assert_eq!((read.status, &read.body, read.header("etag")), (200, &created.body, created.header("etag")));

    let changed = ada.call(put("/api/tasks/1").json(json!({"title": "Buy bread"}))).await;
    assert_eq!(changed.body["title"], "Buy bread");
    assert_eq!(changed.body["description"], " two\n", "an absent field keeps its value");
    assert_eq!(changed.body["created_at"], created.body["created_at"]);
    assert!(changed.body["updated_at"].as_str() > created.body["updated_at"].as_str());
    assert_ne!(changed.header("etag"), created.header("etag"));

    let removed = ada.call(delete("/api/tasks/1")).await;
    assert_eq!((removed.status, &removed.body), (204, &Value::Null));
    assert_eq!(ada.call(delete("/api/tasks/1")).await.status, 404);
    assert_eq!(ada.get("/api/tasks/1").await.status, 404);
}

#[tokio::test]
async fn paths_with_the_user_id_behave_alike() {
    let mut ada = Person::sign_up().await;
    let base = format!("/api/{}/tasks", ada.user.id);
    let created = ada.post(&base, json!({"title": "Buy milk"})).await;
    assert_eq!((created.status, created.header("location")), (201, Some(&*format!("{base}/1"))));
    let listed = ada.get(&base).await;
    assert_eq!(listed.body, json!([created.body]));
    let changed = ada.call(put(&format!("{base}/1")).json(json!({"completed": true}))).await;
    assert_eq!((changed.status, &changed.body["completed"]), (200, &json!(true)));
    let toggled = ada.call(patch(&format!("{base}/1/complete"))).await;
    assert_eq!((toggled.status, &toggled.body["completed"]), (200, &json!(false)));
    let read = ada.get(&format!("{base}/1")).await;
    assert_eq!(read.body, toggled.body);
    assert_eq!(ada.call(delete(&format!("{base}/1"))).await.status, 204);
    assert_eq!(ada.get(&base).await.body, json!([]));
}

#[tokio::test]
async fn an_update_keeps_fields_that_are_absent_or_null() {
    let mut ada = Person::sign_up().await;
    let id = ada.api.make_task(&ada.user, "Buy milk").await;
    let path = format!("/api/tasks/{id}");
    let mut last = ada.get(&path).await.body;
    for (change, field, value) in [
        (json!({"description": "two"}), "description", json!("two")),
        (json!({"completed": true}), "completed", json!(true)),
        (json!({"title": null, "description": null, "completed": null}), "description", json!("two")),
        (json!({}), "completed", json!(true)),
        (json!({"description": ""}), "description", json!("")),
        (json!({"completed": false, "unknown": [1]}), "completed", json!(false)),
    ] {
        let answer = ada.call(put(&path).json(change.clone())).await;
        assert_eq!((answer.status, &answer.body[field]), (200, &value), "{change}");
        assert_eq!(answer.body["title"], "Buy milk", "{change}");
        assert!(answer.body["updated_at"].as_str() > last["updated_at"].as_str(), "{change}");
        last = answer.body;
    }
}

#[tokio::test]
async fn completing_sets_or_toggles() {
    let mut ada = Person::sign_up().await;
    let id = ada.api.make_task(&ada.user, "Buy milk").await;
    let path = format!("/api/tasks/{id}/complete");
    let complete = || patch(&path);
    for (request, completed) in [
        (complete(), true),
        (complete(), false),
        (complete().json(json!({})), true),
        (complete().json(json!({"completed": false, "unknown": 1})), false),
        (complete().json(json!({"completed": false})), false),
        (complete().json(json!({"completed": true})), true),
        (complete().json(json!({"completed": true})), true),
        (complete().text("").header("content-type", "text/plain"), false),
        (complete().base64(""), true),
    ] {
        let answer = ada.call(request).await;
        assert_eq!((answer.status, &answer.body["completed"]), (200, &json!(completed)));
    }
}

#[tokio::test]
async fn updated_at_always_grows_even_if_a_clock_was_ahead() {
    let mut ada = Person::sign_up().await;
    let id = ada.api.make_task(&ada.user, "Buy milk").await;
    // A timestamp in the future, as a server with a fast clock could have written it.
    ada.api.database.sql("update tasks set updated_at = now() at time zone 'utc' + interval '1 hour'", &[]).await;
    let before = ada.get(&format!("/api/tasks/{id}")).await.body;
    let after = ada.call(put(&format!("/api/tasks/{id}")).json(json!({"title": "x"}))).await.body;
    assert!(after["updated_at"].as_str() > before["updated_at"].as_str());
    let completed = ada.call(patch(&format!("/api/tasks/{id}/complete"))).await.body;
    assert!(completed["updated_at"].as_str() > after["updated_at"].as_str());
    assert_eq!((&completed["title"], &completed["completed"]), (&json!("x"), &json!(true)));
}

#[tokio::test]
async fn the_session_has_the_user_and_its_expiry() {
    let mut ada = Person::sign_up().await;
    let answer = ada.api.call(get("/api/session").cookie(&ada.user.token)).await;
    assert_eq!((answer.status, &answer.body["user_id"]), (200, &json!(ada.user.id)));
    insta::assert_json_snapshot!(redacted(&answer), @r#"
    {
      "expires_at": "[expires_at]",
      "user_id": "[user_id]"
    }
    "#);
}

#[tokio::test]
async fn errors_are_problem_details() {
    let mut ada = Person::sign_up().await;
    let invalid = ada.post("/api/tasks", json!({"description": 1})).await;
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
    insta::assert_json_snapshot!(ada.api.call(get("/api/tasks")).await.body, @r#"
    {
      "detail": "This needs a live session: sign in.",
      "instance": "/api/tasks",
      "status": 401,
      "title": "Unauthorized",
      "type": "about:blank"
    }
    "#);
    insta::assert_json_snapshot!(ada.get("/api/tasks/7").await.body, @r#"
    {
      "detail": "There is no such task.",
      "instance": "/api/tasks/7",
      "status": 404,
      "title": "Not Found",
      "type": "about:blank"
    }
    "#);
}
