//! Access control: every route, with every kind of credential.
use crate::{
    api::{Answer, Api, ORIGIN, SECRET, get, patch, post, put, session_cookie, signed, valid_request},
    contract::ROUTES,
};
use serde_json::{Value, json};
use testing::{Route, User};

fn needs_session(route: &&Route) -> bool {
    route.needs_session()
}

/// Returns all tasks of all users, to check that nothing has changed.
async fn all_tasks(api: &Api) -> Vec<String> {
    let rows = api.database.sql("select tasks::text from tasks order by id", &[]).await;
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn every_route_serves_its_owner_by_every_kind_of_credential() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    for route in ROUTES.iter().filter(needs_session) {
        for credential in ["bare bearer", "signed bearer", "encoded bearer", "cookie"] {
            let task = api.make_task(&ada, "Ada's").await;
            let request = valid_request(route, &ada, task);
            let request = match credential {
                "bare bearer" => request.bearer(&ada.token),
                "signed bearer" => request.bearer(&signed(&ada.token, SECRET)),
                "encoded bearer" => request.bearer(&signed(&ada.token, SECRET).replace('=', "%3D").replace('+', "%2B")),
                _ => request.cookie(&ada.token),
            };
            let answer = api.call(request).await;
            assert!((200..300).contains(&answer.status), "{credential} on {route:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn every_route_without_a_session_serves_anybody() {
    let mut api = Api::start().await;
    let nobody = User { id: String::new(), token: String::new() };
    for route in ROUTES.iter().filter(|route| !route.needs_session()) {
        let answer = api.call(valid_request(route, &nobody, 0)).await;
        assert_eq!(answer.status, u64::from(route.status), "{route:?}: {answer:?}");
    }
}

#[tokio::test]
async fn nobody_without_a_live_session_gets_anywhere() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let expired = api.database.sign_in(&ada.id, "-1 second").await;
    let task = api.make_task(&ada, "Ada's").await;
    let before = all_tasks(&api).await;
    let other_secret = "another-secret-of-the-tests-0123456789";

    for route in ROUTES.iter().filter(needs_session) {
        let request = || valid_request(route, &ada, task);
        let mut bodies = Vec::new();
        for (kind, request) in [
            ("nothing", request()),
            ("an expired bearer", request().bearer(&expired)),
            ("an expired signed bearer", request().bearer(&signed(&expired, SECRET))),
            ("an expired cookie", request().cookie(&expired)),
            ("an unknown bearer", request().bearer("unknown")),
            ("an unknown cookie", request().cookie("unknown")),
            ("a forged bearer", request().bearer(&signed(&ada.token, other_secret))),
            (
                "a forged cookie",
                request().raw_cookie(&session_cookie(&ada.token, other_secret)).header("origin", ORIGIN),
            ),
            ("an unsigned cookie", request().raw_cookie(&format!("better-auth.session_token={}", ada.token))),
            ("the cookie of https", request().raw_cookie(&format!("__Secure-{}", session_cookie(&ada.token, SECRET)))),
            (
                "the session's data",
                request().raw_cookie(&session_cookie(&ada.token, SECRET).replace("token=", "data=")),
            ),
            ("an empty bearer", request().header("authorization", "Bearer ")),
            ("another scheme", request().header("authorization", &format!("Basic {}", ada.token))),
            ("two bearers", request().header("authorization", &format!("Bearer {0},Bearer {0}", ada.token))),
            ("U+0000", request().bearer(&format!("{}\0", ada.token))),
            ("the session's id", request().bearer("session-id")),
        ] {
            if !api.can_send(&request) {
                continue;
            }
            let answer = api.call(request).await;
            assert_eq!(answer.status, 401, "{kind} on {route:?}: {answer:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            bodies.push(answer.body);
        }
        assert!(
            bodies.iter().all(|body| *body == bodies[0]),
            "the body must not reveal why the credential was rejected: {bodies:?}"
        );
    }
    assert_eq!(all_tasks(&api).await, before);
}

#[tokio::test]
async fn another_users_task_looks_like_a_missing_one() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    let task = api.make_task(&ada, "Ada's").await;
    let before = all_tasks(&api).await;
    for route in ROUTES.iter().filter(needs_session).filter(|route| route.path.contains("{id}")) {
        for path_user in [&ada, &bob] {
            let answer = api.call(valid_request(route, path_user, task).bearer(&bob.token)).await;
            let is_foreign_path = route.path.contains("{user_id}") && path_user.id == ada.id;
            assert_eq!(answer.status, if is_foreign_path { 403 } else { 404 }, "{route:?}: {answer:?}");
            let missing = api.call(valid_request(route, path_user, 2_000_000_000).bearer(&bob.token)).await;
            assert_eq!((answer.status, &answer.body["detail"]), (missing.status, &missing.body["detail"]));
        }
    }
    assert_eq!(all_tasks(&api).await, before);
    assert_eq!(api.call(get("/api/tasks").bearer(&bob.token)).await.body, json!([]));
}

#[tokio::test]
async fn the_path_of_another_user_is_forbidden_and_nothing_happens() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    let bobs_task = api.make_task(&bob, "Bob's").await;
    let before = all_tasks(&api).await;
    for route in ROUTES.iter().filter(|route| route.path.contains("{user_id}")) {
        // Even if the task itself is the caller's.
        let answer = api.call(valid_request(route, &ada, bobs_task).bearer(&bob.token)).await;
        assert_eq!(answer.status, 403, "{route:?}: {answer:?}");
        for strange in ["%00", "%", "..", "%2F", "Zo%C3%AB", &"x".repeat(1000)] {
            let user = User { id: strange.to_owned(), token: String::new() };
            let answer = api.call(valid_request(route, &user, bobs_task).bearer(&bob.token)).await;
            assert_eq!(answer.status, 403, "{strange} on {route:?}: {answer:?}");
            assert_eq!(api.call(valid_request(route, &user, bobs_task)).await.status, 401);
        }
    }
    assert_eq!(all_tasks(&api).await, before);
}

#[tokio::test]
async fn a_user_id_in_the_path_is_decoded_once() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let (first, rest) = ada.id.split_at(1);
    let encoded = format!("{:02x}{rest}", first.as_bytes()[0]);
    for (id, status) in [(format!("%{encoded}"), 200), (format!("%25{encoded}"), 403)] {
        let answer = api.call(get(&format!("/api/{id}/tasks")).bearer(&ada.token)).await;
        assert_eq!(answer.status, status, "{id}: {answer:?}");
    }
}

#[tokio::test]
async fn a_version_in_the_path_is_named_unless_it_is_the_callers_own_id() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let task = api.make_task(&ada, "Ada's").await;
    let another_user = "The path names another user.";
    let version = "The path names another user, because there is no version in the paths: use /api/tasks.";
    for (segment, detail) in [
        ("v1", version),
        ("V2", version),
        ("v10", version),
        ("%761", version),
        ("v", another_user),
        ("v1.0", another_user),
        ("v1a", another_user),
        ("1", another_user),
        ("v\u{661}", another_user),
    ] {
        let path_user = User { id: segment.to_owned(), token: String::new() };
        for route in ROUTES.iter().filter(|route| route.names_user()) {
            let answer = api.call(valid_request(route, &path_user, task).bearer(&ada.token)).await;
            assert_eq!((answer.status, &answer.body["detail"]), (403, &json!(detail)), "{segment} on {route:?}");
            assert_eq!(api.call(valid_request(route, &path_user, task)).await.status, 401);
        }
    }
    api.database.sql("insert into \"user\" (id, email) values ('v1', 'v1@example.com')", &[]).await;
    let token = api.database.sign_in("v1", "1 hour").await;
    let own = api.call(post("/api/v1/tasks").bearer(&token).json(json!({"title": "x"}))).await;
    assert_eq!((own.status, &own.body["user_id"]), (201, &json!("v1")), "a user may have such an id");
}

#[tokio::test]
async fn the_session_is_checked_before_anything_else() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    let wrong = |base: &str| {
        [
            get(&format!("{base}?limit=0")),
            get(&format!("{base}/not-a-number")),
            post(base).json(json!({"title": ""})),
            post(base).text("nonsense"),
            post(base).text("title=x").header("content-type", "application/x-www-form-urlencoded"),
            post(base).base64("not base64"),
            post(base).text(&" ".repeat(300_000)),
            put(&format!("{base}/1")).json(json!([])),
            patch(&format!("{base}/1/complete")).json(json!({"completed": 1})),
        ]
    };
    for request in wrong("/api/tasks") {
        if !api.can_send(&request) {
            continue;
        }
        assert_eq!(api.call(request.clone().bearer("unknown")).await.status, 401);
        assert!([400, 404, 413, 415, 422].contains(&api.call(request.bearer(&ada.token)).await.status));
    }
    for request in wrong(&format!("/api/{}/tasks", ada.id)) {
        if !api.can_send(&request) {
            continue;
        }
        assert_eq!(api.call(request.clone().bearer("unknown")).await.status, 401);
        assert_eq!(api.call(request.bearer(&bob.token)).await.status, 403);
    }
}

#[tokio::test]
async fn a_write_by_cookie_needs_a_trusted_origin() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    for route in ROUTES.iter().filter(needs_session) {
        for (origin, is_trusted) in [
            (Some(ORIGIN), true),
            // Better Auth's default address: it trusts its own origin.
            (Some("http://localhost:3000"), true),
            (None, false),
            (Some(""), false),
            (Some("null"), false),
            (Some("https://evil.example.com"), false),
            (Some("http://app.example.com"), false),
            (Some("https://app.example.com.evil.com"), false),
            (Some("https://app.example.com:8443"), false),
            (Some("https://APP.example.com"), false),
        ] {
            let task = api.make_task(&ada, "Ada's").await;
            let before = all_tasks(&api).await;
            let mut request = valid_request(route, &ada, task).raw_cookie(&session_cookie(&ada.token, SECRET));
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            let answer = api.call(request).await;
            let is_allowed = is_trusted || !route.is_write();
            assert_eq!((200..300).contains(&answer.status), is_allowed, "{origin:?} on {route:?}: {answer:?}");
            if !is_allowed {
                assert_eq!(answer.status, 403);
                assert_eq!(all_tasks(&api).await, before);
            }
        }
        // A bearer token needs no Origin: a page of another origin cannot make a browser send it.
        let task = api.make_task(&ada, "Ada's").await;
        let answer = api
            .call(valid_request(route, &ada, task).bearer(&ada.token).header("origin", "https://evil.example.com"))
            .await;
        assert!((200..300).contains(&answer.status), "{route:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_function_that_writes_needs_a_trusted_origin_whatever_method_the_event_names() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let task = api.make_task(&ada, "Ada's").await;
    let before = all_tasks(&api).await;
    for route in ROUTES.iter().filter(|route| needs_session(route) && route.is_write()) {
        let mut event = valid_request(route, &ada, task).raw_cookie(&session_cookie(&ada.token, SECRET)).routed_event();
        for method in ["HEAD", "GET", "OPTIONS", &route.method] {
            event["requestContext"]["http"]["method"] = json!(method);
            let answer = api.function(&route.function).await.invoke(event.clone()).await;
            assert_eq!(answer["statusCode"], 403, "{method} on {route:?}: {answer}");
        }
    }
    assert_eq!(all_tasks(&api).await, before);
}

#[tokio::test]
async fn credentials_have_the_same_order_as_in_better_auth() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    let who = |answer: Answer| (answer.status, answer.body["user_id"].clone());
    let ada_is = (200, Value::from(ada.id.clone()));
    let bob_is = (200, Value::from(bob.id.clone()));
    let session = || get("/api/session");

    assert_eq!(
        who(api.call(session().bearer(&ada.token).cookie(&bob.token)).await),
        ada_is,
        "a bearer token wins over a cookie"
    );
    assert_eq!(api.call(session().bearer("unknown").cookie(&bob.token)).await.status, 401, "even if it is unknown");
    let badly_signed = session().bearer(&format!("{}.bad", ada.token)).cookie(&bob.token);
    assert_eq!(who(api.call(badly_signed).await), bob_is, "a badly signed bearer token does not win");
    let twice = session().cookie(&ada.token).cookie(&bob.token);
    assert_eq!(who(api.call(twice).await), ada_is, "the first of two cookies counts");
    let strange = session().raw_cookie("name=Zoë").raw_cookie("=").raw_cookie("x").cookie(&ada.token);
    assert_eq!(who(api.call(strange).await), ada_is, "cookies of others do not matter");
    let header = session().header("Cookie", &format!("a=b; {}", session_cookie(&ada.token, SECRET)));
    assert_eq!(who(api.call(header).await), ada_is, "the Cookie header is read if the gateway lists no cookies");
    let quoted = session_cookie(&ada.token, SECRET).replace("token=", "token=\"") + "\"";
    assert_eq!(who(api.call(session().raw_cookie(&quoted)).await), ada_is, "quotes are stripped");
}

#[tokio::test]
async fn the_cookie_name_follows_the_settings() {
    let mut api = Api::with_settings(&[
        ("BETTER_AUTH_URL", "https://app.example.com/"),
        ("BETTER_AUTH_COOKIE_PREFIX", "acme"),
        ("REQUIRE_SIGNED_TOKENS", "true"),
        ("BETTER_AUTH_SECRETS", "2:the-new-secret-0123456789-0123456789,1:the-old-secret"),
        ("TRUSTED_ORIGINS", ""),
    ])
    .await;
    let ada = api.database.sign_up("ada").await;
    let cookie = |name: &str, secret: &str| {
        let cookie = session_cookie(&ada.token, secret).replace("better-auth.session_token", name);
        get("/api/session").raw_cookie(&cookie)
    };
    let secret = "the-new-secret-0123456789-0123456789";
    assert_eq!(api.call(cookie("__Secure-acme.session_token", secret)).await.status, 200);
    assert_eq!(api.call(cookie("acme.session_token", secret)).await.status, 401);
    assert_eq!(api.call(cookie("__Secure-better-auth.session_token", secret)).await.status, 401);
    assert_eq!(api.call(cookie("__Secure-acme.session_token", "the-old-secret")).await.status, 401);
    assert_eq!(api.call(cookie("__Secure-acme.session_token", SECRET)).await.status, 401);
    assert_eq!(api.call(get("/api/session").bearer(&ada.token)).await.status, 401, "bare tokens are refused");
    assert_eq!(api.call(get("/api/session").bearer(&signed(&ada.token, secret))).await.status, 200);
}

#[tokio::test]
async fn a_session_expires_on_time_in_every_time_zone() {
    for time_zone in ["UTC", "Pacific/Kiritimati", "Pacific/Niue", "Asia/Kolkata"] {
        let mut api = Api::with_settings(&[("TZ", "America/New_York")]).await;
        let statement = format!("alter database {} set timezone = '{time_zone}'", api.database.name);
        api.database.sql(&statement, &[]).await;
        let ada = api.database.sign_up("ada").await;
        let expired = api.database.sign_in(&ada.id, "-1 minute").await;
        let nearly_expired = api.database.sign_in(&ada.id, "1 minute").await;
        assert_eq!(api.call(get("/api/session").bearer(&expired)).await.status, 401, "{time_zone}");
        let answer = api.call(get("/api/session").bearer(&nearly_expired)).await;
        assert_eq!(answer.status, 200, "{time_zone}");
        let end = "select to_char(expires_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from session where token = $1";
        let end: String = api.database.sql(end, &[&nearly_expired]).await[0].get(0);
        assert_eq!(answer.body["expires_at"], end, "{time_zone}");

        let task = api.call(post("/api/tasks").bearer(&ada.token).json(json!({"title": "x"}))).await.body;
        let is_now =
            "select count(*) from tasks where abs(extract(epoch from created_at) - extract(epoch from now())) < 60";
        assert_eq!(api.database.number(is_now).await, 1, "{time_zone}: {task}");
    }
}

#[tokio::test]
async fn a_deleted_session_ends_immediately() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    assert_eq!(api.call(get("/api/tasks").bearer(&ada.token)).await.status, 200);
    api.database.sql("delete from session where token = $1", &[&ada.token]).await;
    assert_eq!(api.call(get("/api/tasks").bearer(&ada.token)).await.status, 401);

    let bob = api.database.sign_up("bob").await;
    api.make_task(&bob, "Bob's").await;
    api.database.sql("delete from \"user\" where id = $1", &[&bob.id]).await;
    assert_eq!(api.call(get("/api/tasks").bearer(&bob.token)).await.status, 401);
    assert_eq!(api.database.number("select count(*) from tasks").await, 0, "the tasks went with their owner");
}

#[tokio::test]
async fn better_auths_camel_case_columns_work_too() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let expired = api.database.sign_in(&ada.id, "-1 minute").await;
    let end = api.call(get("/api/session").bearer(&ada.token)).await.body["expires_at"].clone();
    for statement in [
        "alter table session rename user_id to \"userId\"",
        "alter table session rename expires_at to \"expiresAt\"",
        "alter table session alter \"expiresAt\" type timestamptz using \"expiresAt\" at time zone 'utc'",
        "select migration_tools.install_caller()",
    ] {
        api.database.sql(statement, &[]).await;
    }
    assert_eq!(api.call(get("/api/session").bearer(&ada.token)).await.body["expires_at"], end);
    assert_eq!(api.call(get("/api/tasks").bearer(&expired)).await.status, 401);
    let task = api.make_task(&ada, "Ada's").await;
    assert_eq!(api.call(get(&format!("/api/{}/tasks/{task}", ada.id)).cookie(&ada.token)).await.status, 200);
}

#[tokio::test]
async fn the_apis_role_has_no_right_on_better_auths_tables() {
    let api = Api::start().await;
    let allowed = api.database.sql(
        "select table_name || ' ' || privilege
        from information_schema.tables, unnest('{select,insert,update,delete,truncate,references,trigger}'::text[]) as privilege
        where table_schema = 'public' and has_table_privilege('tasks_api', format('public.%I', table_name), privilege)
        order by 1",
        &[],
    );
    let allowed: Vec<String> = allowed.await.iter().map(|row| row.get(0)).collect();
    assert_eq!(allowed.len(), 9);
    let allowed: Vec<_> = allowed.iter().filter(|it| !it.starts_with("idempotency_keys ")).collect();
    assert_eq!(allowed, ["removed_tasks select", "tasks delete", "tasks insert", "tasks select", "tasks update"]);
    let is_plain = "select count(*) from pg_roles where rolname = 'tasks_api'
        and not rolsuper and not rolcreaterole and not rolcreatedb and not rolbypassrls and not rolreplication";
    assert_eq!(api.database.number(is_plain).await, 1);
}
