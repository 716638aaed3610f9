//! Compatibility with front ends that were written for other back ends of the same specification, and headers for
//! browsers.
use crate::{
    api::{Api, delete, get, patch, post},
    contract::OPENAPI,
};
use serde_json::json;

#[tokio::test]
async fn a_fastapi_front_end_finds_its_parameters() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let mut ids = Vec::new();
    for number in 0..45 {
        ids.push(api.make_task(&ada, &format!("task {number}")).await);
    }
    ids.reverse();
    let mut seen = Vec::new();
    for offset in [0, 20, 40] {
        let path = format!("/api/{}/tasks?status=all&sort=created&limit=20&offset={offset}", ada.id);
        let answer = api.call(get(&path).bearer(&ada.token)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        seen.extend(answer.body.as_array().expect("a bare array").iter().map(|task| task["id"].clone()));
    }
    assert_eq!(json!(seen), json!(ids));
    api.call(patch(&format!("/api/tasks/{}/complete", ids[30])).bearer(&ada.token).json(json!({}))).await;
    let by_change = api.call(get("/api/tasks?sort=updated&limit=1").bearer(&ada.token)).await;
    assert_eq!(by_change.body[0]["id"], ids[30]);
}

#[tokio::test]
async fn completing_accepts_an_empty_object_and_toggles() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let path = format!("/api/{}/tasks/{}/complete", ada.id, api.make_task(&ada, "a").await);
    for expected in [true, false] {
        let answer = api.call(patch(&path).cookie(&ada.token).json(json!({}))).await;
        assert_eq!((answer.status, &answer.body["completed"]), (200, &json!(expected)));
    }
}

#[tokio::test]
async fn a_collection_may_end_with_a_slash() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    for base in ["/api/tasks/".to_owned(), format!("/api/{}/tasks/", ada.id)] {
        let added = api.call(post(&base).cookie(&ada.token).json(json!({"title": "Buy milk"}))).await;
        assert_eq!(added.status, 201, "{added:?}");
        let id = &added.body["id"];
        assert_eq!(added.header("location"), Some(&*format!("{base}{id}")));
        api.call(patch(&format!("{base}{id}/complete")).bearer(&ada.token)).await;
        api.make_task(&ada, "Buy bread").await;
        let page = api.call(get(&format!("{base}?status=all&limit=1")).bearer(&ada.token)).await;
        assert_eq!((page.status, &page.body[0]["title"]), (200, &json!("Buy bread")));
        let next = page.next_page().expect("a next page").to_owned();
        assert_eq!(api.call(get(&next).bearer(&ada.token)).await.body[0]["id"], *id);
        let cleared = api.call(delete(&format!("{base}?status=completed")).bearer(&ada.token)).await;
        assert_eq!((cleared.status, &cleared.body["deleted"]), (200, &json!(1)));

        assert_eq!(api.call(get(&base)).await.status, 401);
        let invalid = api.call(get(&format!("{base}?limit=0")).bearer(&ada.token)).await;
        assert_eq!((invalid.status, &invalid.body["instance"]), (422, &json!(base)));
        let untrusted = post(&base).cookie(&ada.token).header("origin", "https://evil.example.com");
        assert_eq!(api.call(untrusted.json(json!({"title": "x"}))).await.status, 403);
        let of_bob = api.call(get(&base).bearer(&bob.token)).await;
        assert_eq!(of_bob.status, if base.contains(&*ada.id) { 403 } else { 200 }, "{of_bob:?}");
    }
}

#[tokio::test]
async fn a_path_below_a_collection_is_not_the_collection() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let id = api.make_task(&ada, "done").await;
    api.call(patch(&format!("/api/tasks/{id}/complete")).bearer(&ada.token)).await;
    for base in ["/api/tasks".to_owned(), format!("/api/{}/tasks", ada.id)] {
        for below in [&*format!("{id}/"), "7/more", "7/complete", "a-token/x", "../x"] {
            for request in [
                get(&format!("{base}/{below}")),
                post(&format!("{base}/{below}")).json(json!({"title": "x"})),
                delete(&format!("{base}/{below}?status=completed")),
            ] {
                let stranger = api.call_undeclared(request.clone()).await;
                assert_eq!(stranger.status, 401, "{below}: {stranger:?}");
                let answer = api.call_undeclared(request.clone().bearer(&ada.token)).await;
                assert_eq!(answer.status, 404, "{} {}: {answer:?}", request.method, request.path);
                assert_eq!(answer.body["detail"], "There is nothing at this path.");
            }
        }
    }
    assert_eq!(api.database.number("select count(*) from tasks where title = 'done'").await, 1);
    assert_eq!(api.database.number("select count(*) from tasks").await, 1);
}

#[test]
fn a_slash_leads_to_the_collection_and_nowhere_else() {
    for (method, path, route) in [
        ("GET", "/api/tasks/", Some("GET /api/tasks")),
        ("POST", "/api/ada/tasks/", Some("POST /api/{user_id}/tasks")),
        ("GET", "/api/tasks/7", Some("GET /api/tasks/{id}")),
        ("DELETE", "/api/ada/tasks/7", Some("DELETE /api/{user_id}/tasks/{id}")),
        ("PUT", "/api/tasks/", None),
        ("PATCH", "/api/tasks/7/complete/", None),
        ("GET", "/api/session/", None),
        ("GET", "/api//tasks/", None),
        ("GET", "/docs/", None),
    ] {
        let found = OPENAPI.route(method, path).map(|(route, _)| route.to_string());
        assert_eq!(found.as_deref(), route, "{method} {path}");
    }
}

#[tokio::test]
async fn the_detail_of_every_error_is_a_sentence_for_a_person() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    for (request, detail) in [
        (get("/api/tasks"), "This needs a live session: sign in."),
        (get("/api/tasks/1").bearer(&ada.token), "There is no such task."),
        (post("/api/tasks").bearer(&ada.token).json(json!({"title": ""})), "title must not be empty."),
        (post("/api/tasks").bearer(&ada.token).text("{"), "The body is not valid JSON."),
        (
            get("/api/tasks?status=x&limit=0").bearer(&ada.token),
            "status must be one of all, pending, completed. limit must be a whole number from 1 to 1000.",
        ),
    ] {
        assert_eq!(api.call(request).await.body["detail"], detail);
    }
}

#[tokio::test]
async fn browsers_and_caches_must_not_store_private_responses() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let id = api.make_task(&ada, "a").await;
    for (request, cache_control) in [
        (get("/api/tasks").bearer(&ada.token), "private, no-cache"),
        (get(&format!("/api/tasks/{id}")).bearer(&ada.token), "private, no-cache"),
        (get("/api/session").bearer(&ada.token), "private, no-cache"),
        (post("/api/tasks").bearer(&ada.token).json(json!({"title": "a"})), "no-store"),
        (get("/api/tasks"), "no-store"),
        (get("/api/tasks/2147483647").bearer(&ada.token), "no-store"),
        (get("/health"), "no-store"),
        (get("/docs"), "public, max-age=3600"),
    ] {
        let path = request.path.clone();
        let answer = api.call(request).await;
        assert_eq!(answer.header("cache-control"), Some(cache_control), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert!(
            answer.header("content-security-policy").is_some_and(|it| it.starts_with("default-src 'none'")),
            "{path}"
        );
        assert!(answer.header("strict-transport-security").is_some(), "{path}");
    }
}

#[tokio::test]
async fn the_contract_and_its_page_are_served_to_anybody_without_a_database() {
    let mut api = Api::with_settings(&[("DATABASE_URL", ""), ("BETTER_AUTH_SECRET", "")]).await;
    let contract = api.call(get("/openapi.json")).await;
    assert_eq!(contract.body["openapi"], "3.1.0");
    assert_eq!(contract.body, crate::contract::OPENAPI.document);
    let page = api.call(get("/docs")).await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    // Every file that the page loads is served from here.
    let loaded: Vec<_> = page.text.split('"').filter(|text| text.starts_with("docs/")).map(str::to_owned).collect();
    assert_eq!(loaded.len(), 4, "{}", page.text);
    for file in loaded {
        let answer = api.call(get(&format!("/{file}"))).await;
        assert!(answer.status == 200 && !answer.text.is_empty(), "{file}");
        let is_compressed = answer.header("content-encoding") == Some("gzip");
        // gzip's first bytes, 1f 8b, in base64.
        assert_eq!(answer.text.starts_with("H4sI"), is_compressed, "{file}");
    }
    for file in ["other.js", "..", "%2e%2e%2fopenapi.json", "docs", "openapi.json", "index.html"] {
        assert_eq!(api.call(get(&format!("/docs/{file}"))).await.status, 404, "{file}");
    }
}
