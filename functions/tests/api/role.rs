//! What an attacker can do with a stolen connection of the API: any SQL, as the role `tasks_api`.
use crate::api::{Api, get, put};
use serde_json::json;
use testing::{Client, SERVICES, SimpleQueryMessage, User};

/// Returns an API with one user's rows in its database, and a function that runs a statement as the API's role.
async fn connect() -> (Api, impl AsyncFn(&str) -> String) {
    let api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let account = "insert into account (id, user_id, provider, provider_account_id, password) values ('a', $1, 'credential', 'a', 'hash')";
    api.database.sql(account, &[&ada.id]).await;
    api.database.sql("insert into tasks (user_id, title) values ($1, 'Ada''s')", &[&ada.id]).await;
    let client = api.database.connect_as_api(SERVICES.postgres_port).await.expect("the API's role can connect");
    let name = api.database.name.clone();
    // Each statement is rolled back, so that it cannot affect the next one. Two kinds cannot run in a transaction.
    let run = async move |statement: &str| {
        let runs_outside_transaction =
            ["alter system", "drop database"].iter().any(|start| statement.starts_with(start));
        client.batch_execute(if runs_outside_transaction { "" } else { "begin" }).await.expect("a transaction");
        let verdict = match client.batch_execute(statement).await {
            Ok(()) => "done".to_owned(),
            Err(error) => {
                let refusal = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error}"));
                format!("{} {}", refusal.code().code(), refusal.message().replace(&name, "the_tests"))
            }
        };
        client.batch_execute("rollback").await.expect("the transaction's end");
        verdict
    };
    (api, run)
}

/// Fails unless PostgreSQL refuses each statement with this SQLSTATE and, if all versions word it alike, this message.
async fn assert_refused(statements: &[(&str, &str)]) {
    let (_api, run) = connect().await;
    let mut others = Vec::new();
    for (statement, refusal) in statements {
        let verdict = run(statement).await;
        println!("{statement}\n    {verdict}");
        if !verdict.starts_with(refusal) {
            others.push(format!("{statement}\n    {verdict}"));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
}

#[tokio::test]
async fn the_apis_role_sees_no_credential_and_no_person() {
    assert_refused(&[
        ("select token from session", "42501 permission denied for table session"),
        ("select count(*) from session", "42501 permission denied for table session"),
        ("select email from \"user\"", "42501 permission denied for table user"),
        ("select id from \"user\"", "42501 permission denied for table user"),
        ("select password from account", "42501 permission denied for table account"),
        ("select value from verification", "42501 permission denied for table verification"),
        ("table _sqlx_migrations", "42501 permission denied for table _sqlx_migrations"),
        ("copy session to stdout", "42501 permission denied for table session"),
        ("select row_to_json(session) from session", "42501 permission denied for table session"),
        ("select from tasks join session using (user_id)", "42501 permission denied for table session"),
        (
            "create view pg_temp.s as select * from session",
            "42501 permission denied to create temporary tables in database \"the_tests\"",
        ),
        ("select stavalues1 from pg_statistic", "42501 permission denied for table pg_statistic"),
        ("select rolpassword from pg_authid", "42501 permission denied for table pg_authid"),
        ("select passwd from pg_shadow", "42501 permission denied for view pg_shadow"),
        ("select * from pg_hba_file_rules", "42501 permission denied for view pg_hba_file_rules"),
        ("select * from pg_file_settings", "42501 permission denied for view pg_file_settings"),
        ("select umoptions from pg_user_mapping", "42501 permission denied for table pg_user_mapping"),
        ("select pg_read_file('PG_VERSION')", "42501 permission denied for function pg_read_file"),
        ("select pg_read_binary_file('/etc/passwd')", "42501 permission denied for function pg_read_binary_file"),
        ("select pg_ls_dir('.')", "42501 permission denied for function pg_ls_dir"),
        ("select pg_stat_file('PG_VERSION')", "42501 permission denied for function pg_stat_file"),
        ("copy tasks (title) from '/etc/passwd'", "42501"),
        ("copy tasks to '/tmp/tasks'", "42501"),
        ("copy tasks to program 'id'", "42501"),
        ("select lo_import('/etc/passwd')", "42501 permission denied for function lo_import"),
        (
            "select query_to_xml('select token from session', true, true, '')",
            "42501 permission denied for table session",
        ),
        (
            "select public.caller('x'), migration_tools.column_name('session', '{token}')",
            "42501 permission denied for schema migration_tools",
        ),
    ])
    .await;
}

#[tokio::test]
async fn the_apis_role_changes_nothing_but_tasks_and_idempotency_keys() {
    assert_refused(&[
        ("insert into \"user\" (id, email) values ('eve', 'eve@example.com')", "42501 permission denied for table user"),
        ("insert into session (id, user_id, token, expires_at) select 'x', user_id, 'x', '2100-01-01' from tasks", "42501 permission denied for table session"),
        ("update session set expires_at = '2100-01-01'", "42501 permission denied for table session"),
        ("update session set user_id = 'eve' where false", "42501 permission denied for table session"),
        ("update account set password = 'x'", "42501 permission denied for table account"),
        ("delete from session", "42501 permission denied for table session"),
        ("delete from verification", "42501 permission denied for table verification"),
        ("delete from \"user\"", "42501 permission denied for table user"),
        ("delete from _sqlx_migrations", "42501 permission denied for table _sqlx_migrations"),
        ("select * from session for update", "42501 permission denied for table session"),
        ("lock table session in access share mode", "42501 permission denied for table session"),
        ("truncate tasks", "42501 permission denied for table tasks"),
        ("insert into removed_tasks (user_id, task_id) values ('ada', 1)", "42501 permission denied for table removed_tasks"),
        ("delete from removed_tasks", "42501 permission denied for table removed_tasks"),
        ("truncate removed_tasks", "42501 permission denied for table removed_tasks"),
        ("select migration_tools.new_epoch()", "42501 permission denied for schema migration_tools"),
        ("truncate idempotency_keys", "42501 permission denied for table idempotency_keys"),
        ("drop table tasks", "42501 must be owner of table tasks"),
        ("alter table tasks disable trigger all", "42501 must be owner of table tasks"),
        ("alter table tasks drop constraint tasks_title_length", "42501 must be owner of table tasks"),
        ("alter table tasks owner to tasks_api", "42501 must be owner of table tasks"),
        ("alter table tasks enable row level security", "42501 must be owner of table tasks"),
        ("create index on tasks (title)", "42501 must be owner of table tasks"),
        ("create trigger spy before insert on tasks for each row execute function suppress_redundant_updates_trigger()", "42501 permission denied for table tasks"),
        ("create rule spy as on select to tasks do instead select * from session", "42501 must be owner of table tasks"),
        ("create policy spy on tasks using (true)", "42501 must be owner of table tasks"),
        ("alter policy tasks_api on tasks using (false)", "42501 must be owner of table tasks"),
        ("drop policy tasks_api on tasks", "42501 must be owner of relation tasks"),
        ("alter table tasks disable row level security", "42501 must be owner of table tasks"),
        ("alter table idempotency_keys force row level security", "42501 must be owner of table idempotency_keys"),
        ("comment on table tasks is 'x'", "42501 must be owner of table tasks"),
        ("create table public.x (id int)", "42501 permission denied for schema public"),
        ("create table pg_temp.tasks (id int)", "42501 permission denied to create temporary tables in database \"the_tests\""),
        ("create temporary table tasks as select * from tasks", "42501 permission denied to create temporary tables in database \"the_tests\""),
        ("create view public.x as select 1", "42501 permission denied for schema public"),
        ("create sequence public.x", "42501 permission denied for schema public"),
        ("create type public.x as (y int)", "42501 permission denied for schema public"),
        ("create function public.caller(x text) returns int language sql return 1", "42501 permission denied for schema public"),
        ("create function pg_temp.x() returns int language sql return 1", "42501 permission denied to create temporary tables in database \"the_tests\""),
        ("create or replace function public.caller(token text) returns table (user_id varchar, expires_at timestamp) language sql as $$ select 'ada', now()::timestamp $$", "42501 permission denied for schema public"),
        ("create or replace function public.caller(token_hash bytea) returns table (user_id varchar, expires_at timestamp) language sql as $$ select 'ada', now()::timestamp $$", "42501 permission denied for schema public"),
        ("create or replace function public.token_hash(token text) returns bytea language sql immutable strict return ''::bytea", "42501 permission denied for schema public"),
        ("drop index session_token_hash", "42501 must be owner of index session_token_hash"),
        ("alter function public.caller(text) security invoker", "42501 must be owner of function public.caller"),
        ("drop function public.purge_expired(text, integer)", "42501 must be owner of function public.purge_expired"),
        ("create schema x", "42501 permission denied for database the_tests"),
        ("create extension pgcrypto", "42501 permission denied to create extension \"pgcrypto\""),
        ("create event trigger x on ddl_command_end execute function suppress_redundant_updates_trigger()", "42501 permission denied to create event trigger \"x\""),
        ("create publication x for table tasks", "42501 permission denied for database the_tests"),
        ("create collation public.x from \"C\"", "42501 permission denied for schema public"),
        ("create operator public.= (leftarg = text, rightarg = text, function = pg_catalog.texteq)", "42501 permission denied for schema public"),
        ("create operator pg_temp.= (leftarg = text, rightarg = text, function = pg_catalog.texteq)", "42501 permission denied to create temporary tables in database \"the_tests\""),
        ("alter operator pg_catalog.= (text, text) owner to tasks_api", "42501 must be owner of operator ="),
        ("create cast (text as bytea) without function", "42501"),
        ("refresh materialized view tasks", "42501"),
        ("insert into tasks (user_id, title) values ('nobody', 'x')", "23503 insert or update on table \"tasks\" violates foreign key constraint \"fk_tasks_user\""),
        ("insert into tasks (user_id, title) select user_id, '' from tasks", "23514 new row for relation \"tasks\" violates check constraint \"tasks_title_length\""),
        ("select setval('tasks_id_seq', 1)", "42501 permission denied for sequence tasks_id_seq"),
        ("select public.purge_expired('user', 1000)", "P0001 nothing expires in user"),
    ]).await;
}

#[tokio::test]
async fn the_apis_role_cannot_become_another_or_rule_the_server() {
    assert_refused(&[
        ("set role tasks_owner", "42501 permission denied to set role \"tasks_owner\""),
        ("set role postgres", "42501 permission denied to set role \"postgres\""),
        ("set session authorization postgres", "42501 permission denied to set session authorization \"postgres\""),
        ("create role eve superuser", "42501"),
        ("alter role tasks_api superuser", "42501"),
        ("alter role tasks_api createrole", "42501 permission denied"),
        ("alter role tasks_api bypassrls", "42501"),
        ("alter role tasks_api valid until 'infinity'", "42501 permission denied"),
        ("alter role tasks_api rename to eve", "0A000 session user cannot be renamed"),
        ("alter role tasks_owner password 'x'", "42501 permission denied"),
        ("alter role tasks_owner set search_path = x", "42501 permission denied"),
        ("alter role all set search_path = x", "42501"),
        ("alter database postgres set search_path = x", "42501 must be owner of database postgres"),
        ("drop role tasks_owner", "42501 permission denied to drop role"),
        ("drop owned by tasks_owner", "42501 permission denied to drop objects"),
        ("reassign owned by tasks_owner to tasks_api", "42501 permission denied to reassign objects"),
        ("grant tasks_owner to tasks_api", "42501"),
        ("grant pg_read_all_data to tasks_api", "42501"),
        ("grant select on session to tasks_api", "42501 permission denied for table session"),
        ("grant select on tasks to public; do $$ begin assert has_table_privilege('public', 'tasks', 'select'), 'nothing was granted'; end $$", "P0004 nothing was granted"),
        ("alter default privileges for role tasks_owner grant select on tables to tasks_api", "42501"),
        ("alter system set work_mem = '1GB'", "42501 permission denied to set parameter"),
        ("set session_replication_role = replica", "42501 permission denied to set parameter \"session_replication_role\""),
        ("set log_statement = 'all'", "42501 permission denied to set parameter \"log_statement\""),
        ("set log_parameter_max_length = -1", "42501 permission denied to set parameter \"log_parameter_max_length\""),
        ("set log_min_duration_statement = 0", "42501 permission denied to set parameter \"log_min_duration_statement\""),
        ("set log_min_error_statement = 'panic'", "42501 permission denied to set parameter \"log_min_error_statement\""),
        ("set log_duration = on", "42501 permission denied to set parameter \"log_duration\""),
        ("set track_activities = off", "42501 permission denied to set parameter \"track_activities\""),
        ("alter role tasks_api set log_statement = 'all'", "42501 permission denied to set parameter \"log_statement\""),
        ("alter role tasks_api set session_replication_role = replica", "42501 permission denied to set parameter \"session_replication_role\""),
        ("set log_min_messages = 'debug5'", "42501 permission denied to set parameter \"log_min_messages\""),
        ("set temp_file_limit = -1", "42501 permission denied to set parameter \"temp_file_limit\""),
        ("set zero_damaged_pages = on", "42501 permission denied to set parameter \"zero_damaged_pages\""),
        ("load '/tmp/x.so'", "42501 access to library \"/tmp/x.so\" is not allowed"),
        ("select pg_reload_conf()", "42501 permission denied for function pg_reload_conf"),
        ("select pg_rotate_logfile()", "42501 permission denied for function pg_rotate_logfile"),
        ("select pg_switch_wal()", "42501 permission denied for function pg_switch_wal"),
        ("select pg_promote()", "42501 permission denied for function pg_promote"),
        ("select pg_stat_reset()", "42501 permission denied for function pg_stat_reset"),
        ("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'postgres'", "42501"),
        ("select pg_cancel_backend(pid) from pg_stat_activity where usename = 'postgres'", "42501"),
        ("select pg_create_physical_replication_slot('x')", "42501"),
        ("select pg_log_backend_memory_contexts(1)", "42501 permission denied for function pg_log_backend_memory_contexts"),
        ("select pg_logical_emit_message(false, 'x', 'x'), pg_export_snapshot(), pg_replication_origin_create('x')", "42501 permission denied for function pg_replication_origin_create"),
        ("drop database postgres", "42501 must be owner of database postgres"),
    ]).await;
}

/// An operator that matches a varchar token better than PostgreSQL's own `=`. It accepts every guess as the token, and
/// grants the API's role access to `session` if it runs with the owner's rights.
const OPERATOR: &str = "
    create function public.grants_the_sessions(token varchar, guess text) returns boolean language plpgsql as $$
    begin
        grant select on public.session to tasks_api;
        return true;
    end $$;
    create operator public.= (leftarg = varchar, rightarg = text, function = public.grants_the_sessions)";

#[tokio::test]
async fn an_operator_of_the_apis_role_is_not_run_with_the_owners_rights() {
    // The down migration restores the vulnerable function. With it the attack must work, or the test would prove
    // nothing.
    const VULNERABLE: &str = include_str!("../../../migrations/0012_caller_search_path.down.sql");
    for (definition, is_vulnerable) in [(VULNERABLE, true), ("", false)] {
        let api = Api::start().await;
        let ada = api.database.sign_up("ada").await;
        api.database.batch("alter table session alter token type varchar(255)").await;
        api.database.batch("grant create on schema public to tasks_api").await;
        api.database.batch(definition).await;
        let thief = api.database.connect_as_api(SERVICES.postgres_port).await.expect("the API's role can connect");
        thief.batch_execute(OPERATOR).await.expect("the role may create objects");
        let people = thief.query("select user_id from public.caller('a guess')", &[]).await.expect("an answer");
        assert_eq!(people.is_empty(), !is_vulnerable);
        assert_eq!(thief.query("select token from session", &[]).await.is_ok(), is_vulnerable);
        let known = thief.query(&format!("select user_id from public.caller('{}')", ada.token), &[]).await;
        assert_eq!(known.expect("an answer").len(), 1, "a valid token must still be found");
    }
}

/// What cannot be denied to the role that does the API's work. SECURITY.md lists it.
#[tokio::test]
async fn what_a_stolen_connection_can_do_is_known() {
    let (_api, run) = connect().await;
    for statement in [
        "select user_id, title from tasks",
        "insert into tasks (user_id, title) select user_id, 'x' from tasks",
        "update tasks set title = 'x'",
        "update tasks set user_id = user_id",
        "delete from tasks",
        "select * from idempotency_keys",
        "delete from idempotency_keys",
        "lock table tasks in access exclusive mode",
        "select nextval('tasks_id_seq')",
        "select * from public.caller('a token that is guessed')",
        "select * from public.caller(public.token_hash('a token that is guessed'))",
        "select * from public.caller(array['a user whose id is guessed', '1769862896'])",
        "select * from public.jwt_keys()",
        "select public.session_lookup()",
        "select public.purge_expired('session', 1000)",
        "set statement_timeout = 0",
        "set search_path = pg_catalog",
        "set log_parameter_max_length_on_error = -1",
        "set debug_print_plan = on",
        "prepare x as select 1",
        "deallocate all",
        "set default_transaction_read_only = on",
        "alter role tasks_api set statement_timeout = 0",
        "alter role tasks_api set search_path = pg_temp",
        "alter role tasks_api password 'x'",
        "select pg_advisory_lock(1), pg_advisory_unlock(1)",
        "select lo_create(0)",
        "listen x; notify x",
        "select rolname from pg_roles",
        "select attname from pg_attribute where attrelid = 'session'::regclass",
        "select prosrc from pg_proc where proname = 'caller'",
        "select pid, usename from pg_stat_activity",
    ] {
        assert_eq!(run(statement).await, "done", "{statement}");
    }
}

#[tokio::test]
async fn the_apis_role_does_not_see_what_others_are_doing() {
    let api = Api::start().await;
    api.database.sign_up("ada").await;
    let client = api.database.connect_as_api(SERVICES.postgres_port).await.expect("the API's role can connect");
    let seen =
        "select count(*) from pg_stat_activity where usename <> 'tasks_api' and query <> '<insufficient privilege>'";
    assert_eq!(client.query_one(seen, &[]).await.expect("a number").get::<_, i64>(0), 0);
    let statistics = "select count(*) from pg_stats where tablename in ('session', 'user', 'account', 'verification')";
    api.database.sql("analyze", &[]).await;
    assert_eq!(client.query_one(statistics, &[]).await.expect("a number").get::<_, i64>(0), 0);
}

/// What a thief can try to leave in a server connection for the pooler's next client. loot.rs tests what is prepared where
/// the functions prepare too.
const LEFT_BEHIND: [&str; 22] = [
    "prepare s0 (bytea, text) as select true as mine, 'eve' as user_id, now() as expires_at",
    "prepare \"PGBOUNCER_1\" (bytea, text) as select true as mine",
    "deallocate all",
    "discard plans",
    "listen x",
    "declare c cursor with hold for select 1",
    "set search_path = pg_catalog",
    "set search_path = pg_temp, information_schema, pg_catalog",
    "set search_path = ''",
    "set role tasks_api",
    "set session_replication_role = replica",
    "set log_statement = 'all'",
    "set log_parameter_max_length_on_error = -1",
    "set debug_print_plan = on",
    "set client_min_messages = debug5",
    "set timezone = 'Pacific/Kiritimati'",
    "set timezone = 'Etc/GMT+12'",
    "set datestyle = 'SQL, DMY'",
    "set bytea_output = 'escape'",
    "set transform_null_equals = on",
    "set plan_cache_mode = force_generic_plan",
    "create operator public.= (leftarg = text, rightarg = text, function = pg_catalog.textne)",
];

/// Runs a statement on every server connection that the pooler has for the role. Each client holds one while its
/// transaction is open.
async fn leave_behind(clients: &[Client; 2], statement: &str) {
    for client in clients {
        client.batch_execute("begin").await.expect("a transaction");
    }
    for client in clients {
        match client.batch_execute(statement).await {
            Ok(()) => println!("{statement}: done"),
            Err(error) => println!("{statement}: {}", error.as_db_error().expect("the server's refusal")),
        }
    }
    for client in clients {
        client.batch_execute("commit").await.expect("the transaction's end");
    }
}

/// Fails unless calls read and change what is the caller's, and nothing else.
async fn assert_served(api: &mut Api, ada: &User, task: i64, bob: &User, after: &str) {
    let list = api.call(get("/api/tasks").bearer(&ada.token)).await;
    assert_eq!((list.status, list.body[0]["id"].as_i64(), list.body[1].is_null()), (200, Some(task), true), "{after}");
    let list = api.call(get("/api/tasks").cookie(&bob.token)).await;
    assert_eq!((list.status, list.body), (200, json!([])), "{after}");
    let change = |who: &str| put(&format!("/api/tasks/{task}")).bearer(who).json(json!({"title": after}));
    let expired = api.database.sign_in(&ada.id, "-1 minute").await;
    for (who, status) in [(&*ada.token, 200), (&bob.token, 404), (&expired, 401), ("unknown", 401)] {
        assert_eq!(api.call(change(who)).await.status, status, "{after}");
    }
    assert_eq!(api.call(get(&format!("/api/{}/tasks", ada.id)).bearer(&bob.token)).await.status, 403, "{after}");
}

#[tokio::test]
async fn what_a_thief_leaves_in_the_poolers_connections_changes_nothing_for_the_callers() {
    let mut api = Api::start().await;
    let (ada, bob) = (api.database.sign_up("ada").await, api.database.sign_up("bob").await);
    let task = api.make_task(&ada, "Ada's").await;
    let connect = async || api.database.connect_as_api(SERVICES.pooler_port).await.expect("the API's role can connect");
    let thief = [connect().await, connect().await];
    for statement in LEFT_BEHIND {
        leave_behind(&thief, statement).await;
        assert_served(&mut api, &ada, task, &bob, statement).await;
    }
}

#[tokio::test]
async fn row_security_that_a_thief_switches_off_ends_calls_and_opens_nothing() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    api.make_task(&ada, "Ada's").await;
    let connect = async || api.database.connect_as_api(SERVICES.pooler_port).await.expect("the API's role can connect");
    let thief = [connect().await, connect().await];
    leave_behind(&thief, "set row_security = off").await;
    // A pooler in session mode takes back what a client has set.
    let seen = connect().await.simple_query("show row_security").await.expect("the next client's setting");
    let is_off = seen.iter().any(|it| matches!(it, SimpleQueryMessage::Row(row) if row.get(0) == Some("off")));
    let status = if is_off { 500 } else { 200 };
    let answer = api.call(get("/api/tasks").bearer(&ada.token)).await;
    assert_eq!((answer.status, answer.body.is_array()), (status, status == 200), "{answer:?}");
    leave_behind(&thief, "reset row_security").await;
    assert_eq!(api.call(get("/api/tasks").bearer(&ada.token)).await.status, 200);
}

#[tokio::test]
async fn defaults_that_a_thief_gives_the_apis_role_change_nothing_for_the_callers() {
    let mut api = Api::start().await;
    let (ada, bob) = (api.database.sign_up("ada").await, api.database.sign_up("bob").await);
    let task = api.make_task(&ada, "Ada's").await;
    let thief = api.database.connect_as_api(SERVICES.postgres_port).await.expect("the API's role can connect");
    thief.batch_execute("set application_name = 'thief'").await.expect("a name");
    for setting in ["search_path = pg_temp", "search_path = ''", "timezone = 'Pacific/Kiritimati'", "role = tasks_api"]
    {
        // For this database only: other tests use the role in theirs.
        let statement = format!("alter role tasks_api in database {} set {setting}", api.database.name);
        thief.batch_execute(&statement).await.expect("a role may change its own defaults");
        api.database.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tasks_api' and datname = current_database() and application_name <> 'thief'", &[]).await;
        assert_served(&mut api, &ada, task, &bob, setting).await;
    }
}
