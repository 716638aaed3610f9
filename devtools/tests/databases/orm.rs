//! The real drizzle-kit and prisma: tables that they make are adopted, and their `push` leaves alone what `up` made, if their
//! schema has the lines from docs/.
use super::{FrontEnd, SNAKE_CASE, assert_same};
use crate::Database;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The mark of a line for what `up` adds to Better Auth's tables.
const MARK: &str = " // task-api";

/// Whether the schema has the lines from docs/ for what `up` makes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OurLines {
    With,
    Without,
}

/// Where `cargo xtask test databases` has installed the tools and copied the files from docs/.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tools/orm")
}

/// Runs a tool as the owner of the database, without a terminal, and returns its output.
fn run(tool: &str, database: &Database, arguments: &[&str], settings: &[(&str, &str)]) -> String {
    let output = Command::new(folder().join("node_modules/.bin").join(tool))
        .args(arguments)
        .current_dir(folder())
        .env("DATABASE_URL_UNPOOLED", &database.owner_url)
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {text}");
    text.into_owned()
}

/// Writes the documented schema as it is before our migrations: without marked lines and our tables.
fn write_schema_without_our_lines(documented: &str, name: &str) {
    let schema = fs::read_to_string(folder().join(documented)).unwrap();
    let (theirs, _ours) = schema.split_once("// The task API's tables.").unwrap_or((&schema, ""));
    let lines = theirs.lines().filter_map(|line| match line.strip_suffix(MARK) {
        None => Some(line.to_owned()),
        Some(line) => line.strip_suffix(".enableRLS();").map(|table| format!("{table};")),
    });
    let without: Vec<_> = lines.collect();
    fs::write(folder().join(name), without.join("\n") + "\n").unwrap();
}

/// `drizzle-kit push`, which drops tables that hold rows only with `--force` or after a question.
fn drizzle_kit_push(database: &Database, lines: OurLines) -> String {
    if lines == OurLines::With {
        return run("drizzle-kit", database, &["push"], &[]);
    }
    write_schema_without_our_lines("schema.ts", "without.ts");
    let url = format!("--url={}", database.owner_url);
    run("drizzle-kit", database, &["push", "--force", "--dialect=postgresql", "--schema=./without.ts", &url], &[])
}

/// `prisma db push`, with its engine from npm.
fn prisma_db_push(database: &Database, lines: OurLines) -> String {
    write_schema_without_our_lines("schema.prisma", "without.prisma");
    // The command looks for an engine that it does not use here.
    let unused = folder().join("unused-engine");
    fs::write(&unused, "").unwrap();
    let mut settings = vec![("PRISMA_QUERY_ENGINE_LIBRARY", unused.to_str().unwrap()), ("CHECKPOINT_DISABLE", "1")];
    if lines == OurLines::Without {
        settings.push(("OTHER_SCHEMA", "without.prisma"));
    }
    let arguments = ["db", "push", "--skip-generate", "--config=prisma.js-engine.config.ts"];
    let accepts_loss: &[&str] = if lines == OurLines::Without { &["--accept-data-loss"] } else { &[] };
    run("prisma", database, &[&arguments, accepts_loss].concat(), &settings)
}

impl FrontEnd {
    /// Fails unless `push` changes nothing with our lines, and drops the tasks without them, as docs/drizzle-and-prisma.md says.
    async fn push_needs_our_lines(&self, users: &str, push: fn(&Database, OurLines) -> String, unchanged: &str) {
        self.database
            .execute(&format!("insert into tasks (user_id, title) select id, 'kept' from {users} limit 1"))
            .await;
        let before = self.all_tables().await;
        let output = push(&self.database, OurLines::With);
        assert!(output.contains(unchanged), "{output}");
        assert_same(&before, &self.all_tables().await, "by push");
        assert_eq!(self.database.count("tasks").await, 1);
        let mut owner = self.owner().await;
        assert_eq!(migrations::check(&mut owner).await.unwrap(), [""; 0]);

        let output = push(&self.database, OurLines::Without);
        println!("{output}");
        let lost = "select name from unnest(array['tasks', 'idempotency_keys', 'removed_tasks', '_sqlx_migrations']) as name where to_regclass('public.' || name) is null";
        assert_eq!(self.query(lost).await.len(), 4, "{output}");
    }

    /// What [`FrontEnd::tables`] returns, of our tables too.
    async fn all_tables(&self) -> Vec<String> {
        let tables = "select oid::regclass from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace";
        self.query(&include_str!("catalog.sql").replace(":tables", tables)).await
    }
}

#[tokio::test]
async fn drizzles_tables_are_adopted_and_push_leaves_ours_alone() {
    let tables = "export const tables = {
      user: { fields: fields.user },
      session: { fields: fields.session },
      account: { fields: fields.account },
      verification: { fields: fields.verification },
    };";
    let front_end = FrontEnd::configured("drizzle", &format!("{SNAKE_CASE}{tables}")).await;
    drizzle_kit_push(&front_end.database, OurLines::Without);
    front_end.in_use_lives_with_our_migrations().await;
    front_end.push_needs_our_lines("\"user\"", drizzle_kit_push, "No changes detected").await;
}

#[tokio::test]
async fn prismas_tables_are_adopted_and_push_leaves_ours_alone() {
    let tables = "export const tables = {
      user: { modelName: \"User\" },
      session: { modelName: \"Session\" },
      account: { modelName: \"Account\" },
      verification: { modelName: \"Verification\" },
    };";
    let front_end = FrontEnd::configured("prisma", tables).await;
    prisma_db_push(&front_end.database, OurLines::Without);
    front_end.in_use_lives_with_our_migrations().await;
    front_end.push_needs_our_lines("\"User\"", prisma_db_push, "already in sync with the Prisma schema").await;
}
