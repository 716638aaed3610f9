//! PostgreSQL with the API's tables, behind PgBouncer.
use super::{
    pgbouncer::{PgBouncer, Pooling},
    postgres::{Postgres, Purpose},
    schema,
};
use anyhow::Result;
use migrations::AuthOptions;
use shared::DatabaseUrl;
use sqlx::PgConnection;
use std::path::Path;
use testing::Services;
use xtask::step;

/// The running servers. Dropping them stops them.
pub struct Cluster {
    pub pooler: PgBouncer,
    pub postgres: Postgres,
}

impl Cluster {
    /// Starts the servers in `folder`, with PostgreSQL of the version `major`, if given.
    pub async fn start(folder: &Path, purpose: Purpose, major: Option<u32>, pooling: Pooling) -> Result<Self> {
        let (postgres, _) = start_migrated(folder, purpose, major).await?;
        let pooler = PgBouncer::start(&folder.join("pgbouncer"), &postgres, pooling).await?;
        Ok(Self { pooler, postgres })
    }

    /// Describes the servers for the tests, without moto and a folder for logs. `pooler_port` leads to the pooler.
    pub fn services(&self, folder: &Path, pooler_port: u16) -> Services {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Services {
            postgres_port: self.postgres.port(),
            superuser_password: self.postgres.superuser_password().to_owned(),
            owner_url: self.postgres.owner_url(),
            pooler_port,
            api_password: self.postgres.api_password().to_owned(),
            template: self.postgres.database().to_owned(),
            certificate: text(self.postgres.certificate()),
            certificate_key: text(&self.postgres.key()),
            moto_url: String::new(),
            moto_server: String::new(),
            postgres_log: text(&folder.join("postgres/postgres.log")),
            logs: String::new(),
            running_api: None,
        }
    }

    /// Passwords that no log may contain.
    pub fn secrets(&self) -> [&str; 2] {
        [self.postgres.superuser_password(), self.postgres.api_password()]
    }
}

/// Starts PostgreSQL in `folder` and migrates it. Returns it with a connection as the owner.
pub async fn start_migrated(folder: &Path, purpose: Purpose, major: Option<u32>) -> Result<(Postgres, PgConnection)> {
    step("Starting PostgreSQL");
    let postgres = Postgres::start(&folder.join("postgres"), purpose, major).await?;
    step(format!("PostgreSQL {} runs on 127.0.0.1:{}", postgres.version(), postgres.port()));
    let mut connection = schema::connect(&postgres.owner_url()).await?;
    schema::up(&mut connection, Some(&DatabaseUrl::parse(&postgres.api_url())?), AuthOptions::default()).await?;
    Ok((postgres, connection))
}
