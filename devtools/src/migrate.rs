//! `cargo xtask migrate up|down|status|check`.
use crate::servers::schema;
use anyhow::{Result, anyhow};
use migrations::State;
use sqlx::Connection as _;
use xtask::{cli::Migrate, place::variable};

/// Runs `action` on the database at `DATABASE_URL_UNPOOLED`.
pub async fn migrate(action: &Migrate) -> Result<()> {
    let url = variable("DATABASE_URL_UNPOOLED");
    let url = url.ok_or_else(|| {
        anyhow!("DATABASE_URL_UNPOOLED is not set: it is the owner's URL of the database, without a pooler")
    })?;
    let mut connection = schema::connect(&url).await?;
    match action {
        Migrate::Up { auth } => {
            let api_url = variable("DATABASE_URL");
            let api_url = api_url.map(|url| schema::parse("DATABASE_URL", &url)).transpose()?;
            schema::up(&mut connection, api_url.as_ref(), schema::auth_options(auth)?).await?;
        }
        Migrate::Down { to } => {
            migrations::down(&mut connection, *to, |it| println!("reverted {it}")).await?;
        }
        Migrate::Check => {
            let differences = migrations::check(&mut connection).await?;
            for difference in &differences {
                println!("{difference}");
            }
            if let Some((table, roles)) = migrations::key_writers(&mut connection).await? {
                println!("JWTs of the keys in {table} are accepted. Roles that may write to it: {}", roles.join(", "));
            }
            if !differences.is_empty() {
                return Err(anyhow!("the database is not what the migrations made of it"));
            }
            println!("the database is what the migrations made of it");
        }
        Migrate::Status => {
            let mut is_sound = true;
            for migration in migrations::status(&mut connection).await? {
                let state = match migration.state {
                    State::Applied => "applied",
                    State::Pending => "pending",
                    State::Changed => "CHANGED since it was applied",
                    State::Unknown => "applied, but UNKNOWN to this version",
                };
                is_sound &= matches!(migration.state, State::Applied | State::Pending);
                println!("{:04} {:24} {state}", migration.version, migration.description);
            }
            if !is_sound {
                return Err(anyhow!("the database is not what these migrations made of it"));
            }
        }
    }
    Ok(connection.close().await?)
}
