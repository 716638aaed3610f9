//! `cargo xtask migrate up|down|status|check|new-epoch`.
use crate::servers::schema;
use anyhow::{Result, anyhow};
use migrations::{AuthOptions, State};
use serde_json::json;
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
        Migrate::Up { auth, rls } => {
            let api_url = variable("DATABASE_URL");
            let api_url = api_url.map(|url| schema::parse("DATABASE_URL", &url)).transpose()?;
            let auth = AuthOptions { closes_adopted_tables: *rls, ..schema::auth_options(auth)? };
            schema::up(&mut connection, api_url.as_ref(), auth).await?;
        }
        Migrate::Down { to } => {
            migrations::down(&mut connection, *to, |it| println!("reverted {it}")).await?;
        }
        Migrate::Check { json } => {
            let differences = migrations::check(&mut connection).await?;
            let notes = migrations::notes(&mut connection).await?;
            if *json {
                println!("{}", json!({"differences": differences, "notes": notes}));
            } else {
                for difference in &differences {
                    println!("{difference}");
                }
                for note in &notes {
                    println!("note: {note}");
                }
            }
            if !differences.is_empty() {
                return Err(anyhow!("the database is not what the migrations made of it"));
            }
            if !json {
                println!("the database is what the migrations made of it");
            }
        }
        Migrate::NewEpoch => {
            migrations::new_epoch(&mut connection).await?;
            println!("a new history has begun: clients of GET /api/tasks/changes start over");
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
