//! The scheduled purge: expired rows go, all others stay.
use crate::api::{Api, get};
use serde_json::{Value, json};

/// A scheduled event of EventBridge.
pub fn scheduled_event() -> Value {
    json!({"version": "0", "source": "aws.events", "detail-type": "Scheduled Event", "detail": {}, "resources": []})
}

#[tokio::test]
async fn expired_sessions_and_verifications_go_and_live_ones_stay() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    api.database.sign_in(&ada.id, "-1 second").await;
    api.database.sign_in(&ada.id, "-90 days").await;
    api.database
        .sql(
            "insert into verification (id, identifier, value, expires_at) values
            ('expired', 'reset', 'x', now() at time zone 'utc' - interval '1 minute'),
            ('live', 'reset', 'x', now() at time zone 'utc' + interval '1 minute')",
            &[],
        )
        .await;
    api.database
        .sql(
            "insert into idempotency_keys (user_id, key, request_hash, task_id, created_at) values
            ($1, 'expired', '', 1, now() at time zone 'utc' - interval '25 hours'),
            ($1, 'live', '', 2, now() at time zone 'utc' - interval '23 hours')",
            &[&ada.id],
        )
        .await;
    let purged = api.function("purge").await.invoke(scheduled_event()).await;
    assert_eq!(
        purged,
        json!({"sessions": 2, "verifications": 1, "idempotency_keys": 1, "removals": 0, "is_complete": true})
    );
    assert_eq!(api.call(get("/api/tasks").bearer(&ada.token)).await.status, 200);
    assert_eq!(api.database.number("select count(*) from session").await, 1);
    assert_eq!(api.database.number("select count(*) from idempotency_keys where key = 'live'").await, 1);
    assert_eq!(api.database.number("select count(*) from verification where id = 'live'").await, 1);

    let purged = api.function("purge").await.invoke(scheduled_event()).await;
    assert_eq!(
        purged,
        json!({"sessions": 0, "verifications": 0, "idempotency_keys": 0, "removals": 0, "is_complete": true})
    );
    let lines = api.function("purge").await.log_lines(3).await;
    // A slow machine may log a failed Init before it.
    let line = lines.iter().find(|line| line.contains("PurgedSessions")).expect("a line of the first purge");
    let line: Value = serde_json::from_str(line).expect("a JSON line");
    assert_eq!((&line["PurgedSessions"], &line["PurgedVerifications"]), (&json!(2), &json!(1)), "{line}");
}

#[tokio::test]
async fn many_rows_are_removed_in_batches_that_skip_locked_rows() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    api.database
        .sql(
            "insert into session (id, user_id, token, expires_at)
            select 's' || n, $1, 't' || n, now() at time zone 'utc' - interval '1 hour' from generate_series(1, 2500) n",
            &[&ada.id],
        )
        .await;
    api.database.sql("begin", &[]).await;
    api.database.sql("select from session where id = 's1' for update", &[]).await;
    let purged = api.function("purge").await.invoke(scheduled_event()).await;
    assert_eq!(
        purged,
        json!({"sessions": 2499, "verifications": 0, "idempotency_keys": 0, "removals": 0, "is_complete": true})
    );
    api.database.sql("commit", &[]).await;
    assert_eq!(api.function("purge").await.invoke(scheduled_event()).await["sessions"], 1);
}

#[tokio::test]
async fn a_purge_without_a_database_is_a_failed_invocation() {
    let mut api = Api::start().await;
    let url = api.database.plain_api_url(1);
    api.set("DATABASE_URL", &url);
    let failure = api.function("purge").await.try_invoke(scheduled_event()).await.expect_err("no database");
    let text = failure.to_string();
    assert!(text.contains("onnection refused") && !text.contains(&testing::SERVICES.api_password), "{text}");
}

#[tokio::test]
async fn the_apis_role_can_purge_only_expired_rows() {
    let api = Api::start().await;
    api.database.sql("set role tasks_api", &[]).await;
    assert_eq!(api.database.number("select purge_expired('session', 10)").await, 0);
    for kind in ["user", "account", "tasks", "pg_class", "session where true; --"] {
        let error = api.database.expect_error(&format!("select purge_expired('{kind}', 10)")).await;
        assert!(error.contains("nothing expires in"), "{error}");
    }
}
