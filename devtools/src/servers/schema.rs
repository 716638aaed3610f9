//! Migrates a database as its owner.
use anyhow::{Context as _, Result, anyhow, bail};
use migrations::AuthOptions;
use shared::DatabaseUrl;
use sqlx::PgConnection;
use xtask::{cli::AuthTables, place::variable};

/// Connects to a database as its owner.
pub async fn connect(owner_url: &str) -> Result<PgConnection> {
    let url = parse("DATABASE_URL_UNPOOLED", owner_url)?;
    if url.user() == migrations::API_ROLE {
        bail!(
            "DATABASE_URL_UNPOOLED names {}, the API's role, where it has to name the owner: is it swapped with DATABASE_URL?",
            migrations::API_ROLE
        );
    }
    migrations::connect(&url).await.map_err(|error| match error {
        migrations::Error::Pooled => anyhow!("DATABASE_URL_UNPOOLED {error}"),
        error => anyhow!("DATABASE_URL_UNPOOLED: {error}"),
    })
}

/// Applies pending migrations. If `api_url` has the API's role, sets the role's password to the URL's.
pub async fn up(connection: &mut PgConnection, api_url: Option<&DatabaseUrl>, auth: AuthOptions) -> Result<()> {
    let applied = migrations::up(connection, auth).await?;
    for migration in &applied {
        println!("applied {migration}");
    }
    if applied.is_empty() {
        println!("nothing is pending");
    }
    match &*migrations::auth_tables(connection).await? {
        [] => println!("Better Auth has no tables yet: run its own migration, and then this command again"),
        tables => {
            let tables: Vec<_> = tables.iter().map(|(kind, name)| format!("{kind}s in {name}")).collect();
            println!("found Better Auth's {}", tables.join(", "));
        }
    }
    let api_password = api_url.filter(|url| url.user() == migrations::API_ROLE).and_then(DatabaseUrl::password);
    if let Some(password) = api_password {
        migrations::set_api_password(connection, &password)
            .await
            .with_context(|| format!("the password of {} cannot be set", migrations::API_ROLE))?;
    }
    Ok(())
}

/// Whether Better Auth's sessions have the names of the schema specification, so that Better Auth needs a mapping.
pub async fn has_specification_names(connection: &mut PgConnection) -> Result<bool> {
    let column = "select exists (select from pg_attribute
        where attrelid = to_regclass('public.session') and attname = 'user_id' and not attisdropped)";
    Ok(sqlx::query_scalar(column).fetch_one(connection).await?)
}

/// Reads `AUTH_TABLES` and `AUTH_SCHEMA`. The option `--auth-tables` takes precedence.
pub fn auth_options(arguments: &AuthTables) -> Result<AuthOptions> {
    let get = |name: &str| match name {
        "AUTH_TABLES" => arguments.auth_tables.clone().or_else(|| variable(name)),
        _ => variable(name),
    };
    AuthOptions::from_settings(get).map_err(|error| anyhow!("{error}"))
}

/// Parses a URL. Errors name the variable `name`.
pub fn parse(name: &str, url: &str) -> Result<DatabaseUrl> {
    DatabaseUrl::parse(url).map_err(|error| anyhow!("{name} {error}"))
}
