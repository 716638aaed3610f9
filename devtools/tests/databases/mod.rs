//! Every kind of database that users have: made by the real Better Auth, in use before the first migration, and migrated up,
//! down and up again. `cargo xtask test databases` runs these tests.
mod orm;

use crate::{
    Database, PASSWORD, SECRET, Servers, Session, better_auth_alone, better_auth_folder, execute, free_port, harness,
};
use migrations::{AuthOptions, AuthTables};
use reqwest::{Client, StatusCode};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::{fs, process::Command, time::Duration};

/// The user that signs up before the first migration.
const EARLY: &str = "early@example.com";
/// The user that signs up after it.
const LATE: &str = "late@example.com";

/// The schema specification's tables.
const SPECIFICATION_TABLES: &str = include_str!("../../../migrations/tests/document.sql");

/// Users, sessions and tasks of the specification's tables, with nulls where it allows them.
const SPECIFICATION_ROWS: &str = r#"
    insert into "user" (id, email) values ('grace', 'grace@navy.example.com');
    insert into session (id, user_id, expires_at) values ('s1', 'grace', now() + interval '1 day');
    insert into account (id, user_id, provider, provider_account_id) values ('a1', 'grace', 'github', '1');
    insert into tasks (user_id, title, completed, created_at) values ('grace', 'a null', null, null), ('grace', 'done', true, '2025-01-01');
"#;

/// What Better Auth 1.7 needs in addition to the specification, as added by hand.
const MAPPED_COLUMNS: &str = r#"
    alter table session add token text not null unique, add updated_at timestamp not null default now();
    alter table account add id_token text, add refresh_token_expires_at timestamp, add scope text, add password text,
        add created_at timestamp not null default now(), add updated_at timestamp not null default now();
    create table verification (id varchar(36) primary key, identifier text not null, value text not null,
        expires_at timestamp not null, created_at timestamp not null default now(), updated_at timestamp not null default now());
    create index session_user_id_idx on session (user_id);
    create index account_user_id_idx on account (user_id);
"#;

/// Drizzle's column names, as options of Better Auth.
const SNAKE_CASE: &str = r#"
    const times = { createdAt: "created_at", updatedAt: "updated_at" };
    const fields = {
      user: { emailVerified: "email_verified", ...times },
      session: { userId: "user_id", expiresAt: "expires_at", ipAddress: "ip_address", userAgent: "user_agent", ...times },
      account: {
        userId: "user_id", accountId: "account_id", providerId: "provider_id", accessToken: "access_token",
        refreshToken: "refresh_token", idToken: "id_token", accessTokenExpiresAt: "access_token_expires_at",
        refreshTokenExpiresAt: "refresh_token_expires_at", ...times,
      },
      verification: { expiresAt: "expires_at", ...times },
    };
"#;

/// The tables that are not ours.
const TABLES: &str = "select oid::regclass from pg_class
    where relkind = 'r' and relnamespace = any (array[to_regnamespace('public'), to_regnamespace('neon_auth')])
        and relname not in ('tasks', 'idempotency_keys', 'removed_tasks', '_sqlx_migrations')";

/// A front end's database, and its configuration of Better Auth.
struct FrontEnd {
    name: &'static str,
    database: Database,
    /// Variables of devtools/better-auth/server.mjs.
    settings: Vec<(&'static str, String)>,
    /// Whether the API has Better Auth's secret.
    secret_is_known: bool,
    /// The options of `up`.
    auth: AuthOptions,
    /// Whether `down` leaves its tables as they were before `up`: our migrations neither made nor completed them.
    comes_back: bool,
    /// What identifies a row: all of it, unless migrations fill its columns.
    row: &'static str,
}

impl FrontEnd {
    /// Better Auth with its default names, or the specification's if `session` has these.
    async fn create(name: &'static str) -> Self {
        let database = Database::create(&format!("kind_{name}")).await;
        let settings = vec![("BETTER_AUTH_SECRET", SECRET.to_owned())];
        let auth = AuthOptions::default();
        Self { name, database, settings, secret_is_known: true, auth, comes_back: true, row: "to_jsonb(it)::text" }
    }

    /// Better Auth with the options of `module`, which exports them as `tables`.
    async fn configured(name: &'static str, module: &str) -> Self {
        let mut front_end = Self::create(name).await;
        let file = better_auth_folder().join(format!("{name}.mjs"));
        fs::write(&file, format!("import * as plugins from \"better-auth/plugins\";\n{module}")).unwrap();
        front_end.settings.push(("BETTER_AUTH_TABLES", file.to_str().unwrap().to_owned()));
        front_end
    }

    /// Lets Better Auth connect as another role than the owner.
    async fn connect_as(&mut self, role: &str, options: &str) {
        let statements = format!(
            "do $$ begin create role {role}; exception when duplicate_object then null; end $$;
            alter role {role} login password '{role}'"
        );
        execute(&self.database.superuser_url, &statements).await;
        let (_, server) = self.database.owner_url.split_once('@').unwrap();
        self.settings
            .push(("BETTER_AUTH_DATABASE_URL", format!("postgresql://{role}:{role}@{server}&options={options}")));
    }

    fn settings(&self) -> Vec<(&str, &str)> {
        self.settings.iter().map(|(name, value)| (*name, &**value)).collect()
    }

    /// Better Auth's server, before the API runs.
    fn better_auth(&self, url: &str) -> Command {
        let mut command = better_auth_alone(&self.database, url);
        command.envs(self.settings());
        command
    }

    /// Runs Better Auth's own migration.
    fn migrate_better_auth(&self) {
        assert!(self.better_auth("http://127.0.0.1").arg("migrate").status().unwrap().success());
    }

    /// The statements that Better Auth's own migration would run.
    fn planned_by_better_auth(&self) -> String {
        let output = self.better_auth("http://127.0.0.1").arg("plan").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8(output.stdout).unwrap();
        stdout.trim().trim_end_matches(';').to_owned()
    }

    /// Signs a user up with Better Auth alone, before our migrations.
    async fn sign_up_early(&self) -> Session {
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let mut server = self.better_auth(&url).env("PORT", port.to_string()).spawn().unwrap();
        let http = Client::new();
        let body = json!({"email": EARLY, "password": PASSWORD, "name": "Early"});
        let sign_up = || http.post(format!("{url}/api/auth/sign-up/email")).header("Origin", &url).json(&body).send();
        let mut answer = sign_up().await;
        for _ in 0..600 {
            if answer.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            answer = sign_up().await;
        }
        server.kill().unwrap();
        server.wait().unwrap();
        let answer = answer.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{}", self.name);
        self.session(Session::from_response(&answer))
    }

    fn session(&self, session: Session) -> Session {
        Session { secret_is_known: self.secret_is_known, ..session }
    }

    async fn owner(&self) -> PgConnection {
        PgConnection::connect(&self.database.owner_url).await.unwrap()
    }

    /// Runs `up`, and fails if it changes a row, or if `check` finds a difference.
    async fn up(&self) {
        let before = self.rows().await;
        migrations::up(&mut self.owner().await, self.auth.clone()).await.unwrap();
        assert_same(&before, &self.rows().await, "by up");
        assert_eq!(migrations::check(&mut self.owner().await).await.unwrap(), [""; 0]);
    }

    /// Runs `down` to the start, and fails if it changes a row, or if it leaves something of what `up` did to `tables`.
    async fn down(&self, tables: &[String]) {
        let before = self.rows().await;
        migrations::down(&mut self.owner().await, Some(0), |_| {}).await.unwrap();
        assert_same(&before, &self.rows().await, "by down");
        if self.comes_back {
            assert_same(tables, &self.tables().await, "by up and down");
        }
    }

    /// Signs a user up before our migrations, who is still signed in after them.
    async fn in_use_lives_with_our_migrations(&self) {
        let early = self.sign_up_early().await;
        self.lives_with_our_migrations(Some(&early)).await;
    }

    /// Runs `up`, everything that users do, `down`, and both again. `early` is a session of before.
    async fn lives_with_our_migrations(&self, early: Option<&Session>) {
        let tables = self.tables().await;
        self.up().await;
        let servers = Servers::start(&format!("kind-{}", self.name), &self.database, &self.settings());
        let session = self.session(servers.sign_up(LATE).await);
        for round in ["first", "second"] {
            if let Some(early) = early {
                servers.assert_both(early, StatusCode::OK, "a session from before the migrations").await;
            }
            servers.assert_both(&session, StatusCode::OK, "a session from after the migrations").await;
            servers.call_every_route(&session).await;
            let elsewhere = self.session(servers.sign_in(LATE).await);
            servers.auth("sign-out", json!({}), Some(&elsewhere.cookie())).await;
            servers.assert_both(&elsewhere, StatusCode::UNAUTHORIZED, "after the sign-out").await;
            if round == "second" {
                servers.delete_user_with_a_task(&self.database, &session).await;
            }
            self.down(&tables).await;
            self.up().await;
        }
        servers.dev.stop();
        assert_eq!(self.planned_by_better_auth(), "");
    }

    async fn query(&self, query: &str) -> Vec<String> {
        let mut superuser = PgConnection::connect(&self.database.superuser_url).await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut superuser).await.unwrap()
    }

    /// The rows of all tables, and the tasks without the columns that migrations fill.
    async fn rows(&self) -> Vec<String> {
        let mut all = Vec::new();
        for table in self.query(&format!("select it::text from ({TABLES}) as tables (it)")).await {
            all.extend(self.query(&format!("select '{table} ' || {} from {table} it order by 1", self.row)).await);
        }
        let tasks = "select from pg_class where oid = to_regclass('public.tasks')";
        if self.database.count(&format!("({tasks}) as tasks")).await == 1 {
            all.extend(self.query("select id || user_id::text || title from public.tasks order by 1").await);
        }
        all
    }

    /// The columns and constraints of Better Auth's tables.
    async fn columns(&self) -> Vec<String> {
        let lines = self.tables().await.into_iter();
        let lines = lines.filter(|line| line.contains(": column ") || line.contains(": constraint "));
        lines.map(|line| line.replace("CURRENT_TIMESTAMP", "now()")).collect()
    }

    /// Better Auth's tables: columns, constraints, indexes, triggers, owner, rights and comments.
    async fn tables(&self) -> Vec<String> {
        self.query(&include_str!("catalog.sql").replace(":tables", TABLES)).await
    }
}

/// Fails with the lines that are missing and the ones that were added.
fn assert_same(before: &[String], after: &[String], what: &str) {
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|line| !those.contains(line)).cloned().collect()
    };
    let (missing, added) = (only(before, after), only(after, before));
    assert!(missing.is_empty() && added.is_empty(), "changed {what}: {missing:#?} became {added:#?}");
}

#[tokio::test]
async fn an_empty_database_gets_the_specifications_tables() {
    let mut front_end = FrontEnd::create("empty").await;
    front_end.comes_back = false;
    front_end.up().await;
    front_end.lives_with_our_migrations(None).await;
}

#[tokio::test]
async fn the_specifications_tables_are_completed() {
    let mut front_end = FrontEnd::create("specification").await;
    front_end.comes_back = false;
    front_end.row = "id";
    front_end.database.execute(&format!("{SPECIFICATION_TABLES} {SPECIFICATION_ROWS}")).await;
    front_end.lives_with_our_migrations(None).await;
}

#[tokio::test]
async fn the_specifications_tables_with_better_auths_columns_are_adopted() {
    let mut front_end = FrontEnd::create("mapped").await;
    // Its keys do not cascade.
    front_end.comes_back = false;
    front_end.database.execute(&format!("{SPECIFICATION_TABLES} {MAPPED_COLUMNS}")).await;
    front_end.in_use_lives_with_our_migrations().await;
}

#[tokio::test]
async fn better_auths_default_tables_are_adopted() {
    let front_end = FrontEnd::create("default").await;
    front_end.migrate_better_auth();
    front_end.in_use_lives_with_our_migrations().await;
}

#[tokio::test]
async fn neon_auths_tables_are_adopted_and_stay_as_they_are() {
    let mut front_end = FrontEnd::configured(
        "neon_auth",
        "export const tables = {
          secret: \"a secret of Neon's that the API does not have\",
          advanced: { database: { generateId: \"uuid\" } },
          plugins: [plugins.admin(), plugins.organization(), plugins.jwt()],
        };",
    )
    .await;
    front_end.secret_is_known = false;
    front_end.connect_as("neon_auth", "-c%20search_path%3Dneon_auth").await;
    execute(&front_end.database.superuser_url, "create schema neon_auth authorization neon_auth").await;
    front_end.migrate_better_auth();
    let rights = "grant usage on schema neon_auth to tasks_owner;
        grant all on all tables in schema neon_auth to tasks_owner with grant option";
    execute(&front_end.database.superuser_url, rights).await;
    let ids = "select distinct format_type(atttypid, null) from pg_attribute
        where attrelid in ('neon_auth.\"user\"'::regclass, 'neon_auth.jwks'::regclass) and attname = 'id'";
    assert_eq!(front_end.query(ids).await, ["uuid"]);
    let early = front_end.sign_up_early().await;

    let before = front_end.tables().await;
    front_end.lives_with_our_migrations(Some(&early)).await;
    assert_same(&before, &front_end.tables().await, "by up");
}

#[tokio::test]
async fn plural_tables_in_snake_case_are_adopted() {
    let tables = "export const tables = {
      user: { modelName: \"users\", fields: fields.user },
      session: { modelName: \"sessions\", fields: fields.session },
      account: { modelName: \"accounts\", fields: fields.account },
      verification: { modelName: \"verifications\", fields: fields.verification },
    };";
    let front_end = FrontEnd::configured("plural", &format!("{SNAKE_CASE}{tables}")).await;
    front_end.migrate_better_auth();
    front_end.in_use_lives_with_our_migrations().await;
}

#[tokio::test]
async fn users_under_another_name_are_adopted() {
    let tables = "export const tables = { user: { modelName: \"users\" } };";
    let front_end = FrontEnd::configured("users", tables).await;
    front_end.migrate_better_auth();
    front_end.in_use_lives_with_our_migrations().await;
}

#[tokio::test]
async fn two_spellings_in_one_table_are_refused_until_one_is_left() {
    let front_end = FrontEnd::configured("both", "export const tables = {};").await;
    front_end.database.execute(SPECIFICATION_TABLES).await;
    front_end.migrate_better_auth();
    let before = front_end.tables().await;
    let (succeeded, error) = migrate_by_command(&front_end.database, &["up"]);
    assert!(!succeeded);
    let sentence = "the table public.session has both columns user_id and userId, expires_at and expiresAt";
    assert_eq!(error.matches(sentence).count(), 1, "{error}");
    assert_same(&before, &front_end.tables().await, "by the refused up");

    // `down` drops tables of ours that are empty.
    let front_end = FrontEnd::configured("both_ours", "export const tables = {};").await;
    let mut owner = front_end.owner().await;
    migrations::up(&mut owner, AuthOptions::default()).await.unwrap();
    front_end.migrate_better_auth();
    let error = migrations::up(&mut owner, AuthOptions::default()).await.unwrap_err().to_string();
    assert_eq!(migrations::check(&mut owner).await.unwrap(), [&*error]);
    assert!(error.contains(sentence), "{error}");
    migrations::down(&mut owner, Some(0), |_| {}).await.unwrap();
    front_end.migrate_better_auth();
    front_end.up().await;
}

/// Runs `cargo xtask migrate`, and returns whether it succeeded, and what it printed.
fn migrate_by_command(database: &Database, arguments: &[&str]) -> (bool, String) {
    let mut command = harness::command();
    command.arg("migrate").args(arguments).env("DATABASE_URL_UNPOOLED", &database.owner_url);
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[tokio::test]
async fn better_auth_may_connect_as_a_role_with_rights_on_its_tables_alone() {
    let mut front_end = FrontEnd::create("role").await;
    front_end.migrate_better_auth();
    front_end.connect_as("front_end", "").await;
    let rights = "grant select, insert, update, delete on \"user\", session, account, verification to front_end;
        alter default privileges revoke execute on functions from public";
    front_end.database.execute(rights).await;
    front_end.in_use_lives_with_our_migrations().await;

    // It is warned of, until somebody takes its rights.
    let database = &front_end.database;
    let (_, up) = migrate_by_command(database, &["up"]);
    assert!(
        up.contains("row-level security stays off for public.session, on which other roles have rights: front_end"),
        "{up}"
    );
    let (succeeded, check) = migrate_by_command(database, &["check"]);
    assert!(succeeded && check.contains("note: the role front_end may read account.accessToken"), "{check}");
    let (_, up) = migrate_by_command(database, &["up", "--rls"]);
    assert!(!up.contains("row-level security"), "{up}");
    let (succeeded, check) = migrate_by_command(database, &["check", "--json"]);
    assert!(succeeded && check.contains(r#"{"differences":[],"notes":[]}"#), "{check}");
}

#[tokio::test]
async fn better_auth_may_connect_as_a_role_with_policies_on_tables_of_ours() {
    let mut front_end = FrontEnd::configured("policies", "export const tables = {};").await;
    front_end.auth.tables = AuthTables::BetterAuth;
    front_end.comes_back = false;
    front_end.up().await;
    front_end.connect_as("front_end", "").await;
    for table in ["\"user\"", "session", "account", "verification"] {
        let let_in = format!(
            "grant select, insert, update, delete on {table} to front_end;
            create policy front_end on {table} to front_end using (true) with check (true)"
        );
        front_end.database.execute(&let_in).await;
    }
    front_end.in_use_lives_with_our_migrations().await;
    let secured =
        "select relname::text from pg_class where relnamespace = 'public'::regnamespace and relrowsecurity order by 1";
    assert_eq!(front_end.query(secured).await.len(), 8);
}

#[tokio::test]
async fn better_auth_may_make_its_tables_after_up() {
    let front_end = FrontEnd::configured("none", "export const tables = {};").await;
    let mut owner = front_end.owner().await;
    migrations::up(&mut owner, AuthOptions { tables: AuthTables::None, ..AuthOptions::default() }).await.unwrap();
    let differences = migrations::check(&mut owner).await.unwrap();
    assert!(differences[0].contains("run its own migration"), "{differences:?}");
    front_end.migrate_better_auth();
    front_end.in_use_lives_with_our_migrations().await;
}

#[tokio::test]
async fn up_makes_the_tables_that_better_auth_would_make() {
    let mut front_end = FrontEnd::configured("better_auth", "export const tables = {};").await;
    front_end.auth.tables = AuthTables::BetterAuth;
    front_end.comes_back = false;
    front_end.up().await;
    assert_eq!(front_end.planned_by_better_auth(), "");
    let ours = front_end.columns().await;
    front_end.lives_with_our_migrations(None).await;

    let theirs = FrontEnd::configured("better_auth_own", "export const tables = {};").await;
    theirs.migrate_better_auth();
    assert_same(&theirs.columns().await, &ours, "as up makes them");
}
