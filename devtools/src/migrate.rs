//! `cargo xtask migrate up|down|status|check`.
use anyhow::{Context as _, Result, anyhow};
use migrations::State;
use shared::DatabaseUrl;
use sqlx::{Connection as _, PgConnection};

/// What to do with the migrations. The database is the one that `DATABASE_URL_UNPOOLED` names, as its owner.
#[derive(clap::Subcommand)]
pub enum Action {
    /// Apply what is pending; then, when DATABASE_URL names the API's role (tasks_api), set its password to that URL's.
    Up,
    /// Revert the last migration. Tables with rows in them are kept.
    Down {
        /// Revert all migrations after this one; 0 reverts them all.
        #[arg(long, value_name = "VERSION")]
        to: Option<i64>,
    },
    /// Show what is applied, what is pending, and what was changed after it was applied.
    Status,
    /// Say whether columns, indexes, constraints and rights are still what the migrations made of them.
    Check,
}

/// Carries out `action` on the database of the environment.
pub async fn migrate(action: &Action) -> Result<()> {
    let url = std::env::var("DATABASE_URL_UNPOOLED").ok().filter(|url| !url.trim().is_empty());
    let url = url.ok_or_else(|| {
        anyhow!("DATABASE_URL_UNPOOLED is not set: it is the owner's URL of the database, without a pooler")
    })?;
    let mut connection = connect(&url).await?;
    match action {
        Action::Up => {
            let api_url = std::env::var("DATABASE_URL").ok().filter(|url| !url.trim().is_empty());
            let api_url = api_url.map(|url| parse("DATABASE_URL", &url)).transpose()?;
            up(&mut connection, api_url.as_ref()).await?;
        }
        Action::Down { to } => {
            migrations::down(&mut connection, *to, |it| println!("reverted {it}")).await?;
        }
        Action::Check => {
            let differences = migrations::check(&mut connection).await?;
            for difference in &differences {
                println!("{difference}");
            }
            if !differences.is_empty() {
                return Err(anyhow!("the database is not what the migrations made of it"));
            }
            println!("the database is what the migrations made of it");
        }
        Action::Status => {
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

/// Connects to a database as its owner.
pub async fn connect(owner_url: &str) -> Result<PgConnection> {
    let url = parse("DATABASE_URL_UNPOOLED", owner_url)?;
    migrations::connect(&url).await.map_err(|error| match error {
        migrations::Error::Pooled => anyhow!("DATABASE_URL_UNPOOLED {error}"),
        error => anyhow!("DATABASE_URL_UNPOOLED: {error}"),
    })
}

/// Applies what is pending, and lets the API's role in when `api_url` is that role's.
pub async fn up(connection: &mut PgConnection, api_url: Option<&DatabaseUrl>) -> Result<()> {
    let applied = migrations::up(connection).await?;
    for migration in &applied {
        println!("applied {migration}");
    }
    if applied.is_empty() {
        println!("nothing is pending");
    }
    let api_password = api_url.filter(|url| url.user() == migrations::API_ROLE).and_then(DatabaseUrl::password);
    if let Some(password) = api_password {
        migrations::set_api_password(connection, &password)
            .await
            .with_context(|| format!("the password of {} cannot be set", migrations::API_ROLE))?;
    }
    Ok(())
}

fn parse(name: &str, url: &str) -> Result<DatabaseUrl> {
    DatabaseUrl::parse(url).map_err(|error| anyhow!("{name} {error}"))
}
