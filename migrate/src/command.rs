//! The commands that an operator sends by hand, and the one that a deployment runs.
use crate::{deadline::within, secrets::Secrets};
use anyhow::{Context as _, Result, anyhow};
use migrations::{API_ROLE, AuthOptions, Migration, State};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use std::time::Duration;

/// Seconds that a migration waits for a lock. While it waits, every later writer queues behind it.
const LOCK_TIMEOUT_S: u64 = 10;

/// A command, such as `{"command": "down", "to": 6}`.
#[derive(Debug, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// List the migrations that are applied and pending.
    Status,
    /// Check whether the database still matches the migrations, and who can reach sessions, passwords or signing keys.
    Check,
    /// Apply pending migrations, and set the API role's password to the one in the API's secret. With `rls`, close the
    /// tables that were there before to other roles, too.
    Up {
        #[serde(default)]
        rls: bool,
    },
    /// Revert the last migration, or all migrations after version `to`.
    Down { to: Option<i64> },
}

/// Runs a command and returns its result.
pub async fn run(command: &Command, time_left: Duration) -> Result<Value> {
    within(time_left, async {
        let secrets = Secrets::from_env(time_left).await?;
        let mut connection = connect(&secrets, time_left).await?;
        match command {
            Command::Status => {
                let migrations = migrations::status(&mut connection).await?;
                Ok(json!({"migrations": migrations.iter().map(describe).collect::<Vec<_>>()}))
            }
            Command::Check => Ok(json!({
                "differences": migrations::check(&mut connection).await?,
                "notes": migrations::notes(&mut connection).await?,
            })),
            Command::Up { rls } => Ok(json!({"applied": up(&mut connection, &secrets, *rls).await?})),
            Command::Down { to } => {
                let mut reverted = Vec::new();
                migrations::down(&mut connection, *to, |it| reverted.push(it.to_string())).await?;
                Ok(json!({"reverted": reverted}))
            }
        }
    })
    .await
}

/// Migrates the database to this version, as part of a deployment, and returns what was done.
pub async fn deploy(time_left: Duration) -> Result<String> {
    within(time_left, async {
        let secrets = Secrets::from_env(time_left).await?;
        let mut connection = connect(&secrets, time_left).await?;
        let migrations = migrations::status(&mut connection).await?;
        let is_any = |state: State| migrations.iter().any(|it| it.state == state);
        if is_any(State::Unknown) && !is_any(State::Pending) && !is_any(State::Changed) {
            // An older commit is being deployed, or the stack is rolling back and CloudFormation did not report it.
            // Migrations expand before they contract, so this version works with the later schema. Failing would leave
            // the stack with no way to roll back.
            return Ok("the database is ahead of this version, and stays as it is".to_owned());
        }
        let applied = up(&mut connection, &secrets, false).await?;
        Ok(if applied.is_empty() {
            "nothing was pending".to_owned()
        } else {
            format!("applied {}", applied.join(", "))
        })
    })
    .await
}

async fn up(connection: &mut PgConnection, secrets: &Secrets, rls: bool) -> Result<Vec<String>> {
    let auth = AuthOptions::from_settings(|name| std::env::var(name).ok()).map_err(|error| anyhow!("{error}"))?;
    let auth = AuthOptions { closes_adopted_tables: rls, ..auth };
    let applied: Vec<_> = migrations::up(connection, auth).await?.iter().map(Migration::to_string).collect();
    let api_url = secrets.api_url().await?;
    if api_url.user() != API_ROLE {
        return Err(anyhow!("DATABASE_URL in the secret of API_SECRET_ID has to name the role {API_ROLE}"));
    }
    let password = api_url.password().context("DATABASE_URL in the secret of API_SECRET_ID has no password")?;
    migrations::set_api_password(connection, &password)
        .await
        .with_context(|| format!("the password of {API_ROLE} cannot be set"))?;
    Ok(applied)
}

/// Connects as the owner role. `statement_timeout` is the function's time limit, so that no statement runs on after the
/// function has ended.
async fn connect(secrets: &Secrets, time_left: Duration) -> Result<PgConnection> {
    let url = secrets.owner_url().await?;
    let mut connection = migrations::connect(&url)
        .await
        .map_err(|error| anyhow!("DATABASE_URL_UNPOOLED in the secret of OWNER_SECRET_ID: {error}"))?;
    let limits =
        format!("set statement_timeout = {}; set lock_timeout = '{LOCK_TIMEOUT_S}s'", time_left.as_millis().max(1));
    sqlx::raw_sql(AssertSqlSafe(limits)).execute(&mut connection).await?;
    Ok(connection)
}

fn describe(migration: &Migration) -> Value {
    let state = match migration.state {
        State::Applied => "applied",
        State::Pending => "pending",
        State::Changed => "changed since it was applied",
        State::Unknown => "applied, but unknown to this version",
    };
    json!({"version": migration.version, "description": migration.description, "state": state})
}
