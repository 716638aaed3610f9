//! The servers of the tests, all together.
use super::{
    moto::Moto,
    pgbouncer::{PgBouncer, Pooling},
    postgres::{Postgres, Purpose, write_private},
    schema,
};
use crate::{checks::logs, system::tools::hold_folder};
use anyhow::Result;
use serde_json::json;
use std::{fs::File, path::PathBuf};
use tokio::process::Command;
use xtask::{place::target, step};

/// The servers that the integration tests use, with a migrated database for them to copy.
pub struct Services {
    _lock: File,
    _pooler: PgBouncer,
    moto: Moto,
    postgres: Postgres,
    file: PathBuf,
    logs: PathBuf,
}

/// Where they are.
pub fn folder() -> PathBuf {
    target().join("test")
}

impl Services {
    /// Those that most tests use: any PostgreSQL, and PgBouncer as Neon runs it.
    pub async fn start() -> Result<Self> {
        Self::start_with(None, Pooling::TRANSACTION).await
    }

    pub async fn start_with(postgres_major: Option<u32>, pooling: Pooling) -> Result<Self> {
        let folder = folder();
        let way_out = "wait until it ends, or name another folder by CARGO_TARGET_DIR";
        let lock = hold_folder(&folder, way_out)?;
        step("Starting PostgreSQL");
        let postgres = Postgres::start(&folder.join("postgres"), Purpose::Test, postgres_major).await?;
        step(format!("PostgreSQL {} runs on 127.0.0.1:{}", postgres.version(), postgres.port()));
        let mut connection = schema::connect(&postgres.owner_url()).await?;
        let api_url = shared::DatabaseUrl::parse(&postgres.api_url())?;
        schema::up(&mut connection, Some(&api_url)).await?;
        drop(connection);
        let pooler = PgBouncer::start(&folder.join("pgbouncer"), &postgres, pooling).await?;

        let moto = Moto::start().await?;

        let logs = folder.join("logs");
        let _ = std::fs::remove_dir_all(&logs);
        std::fs::create_dir_all(&logs)?;
        let file = folder.join("services.json");
        let services = json!({
            "postgres_port": postgres.port(),
            "superuser_password": postgres.superuser_password(),
            "owner_url": postgres.owner_url(),
            "pooler_port": pooler.port(),
            "api_password": postgres.api_password(),
            "template": postgres.database(),
            "certificate": postgres.certificate(),
            "certificate_key": postgres.key(),
            "moto_url": moto.url(),
            "moto_server": moto.program(),
            "logs": &logs,
            "postgres_log": folder.join("postgres/postgres.log"),
        });
        write_private(&file, services.to_string().as_bytes())?;
        Ok(Self { _lock: lock, _pooler: pooler, moto, postgres, file, logs })
    }

    /// The URL of moto's Secrets Manager.
    pub fn moto_url(&self) -> String {
        self.moto.url()
    }

    /// Tells a command where they are.
    pub fn name_to<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("TASKS_TEST_SERVICES", &self.file)
    }

    /// Fails when what the functions have logged so far has a secret in it.
    pub fn check_logs(&self) -> Result<()> {
        logs::check(&self.logs, &[self.postgres.superuser_password(), self.postgres.api_password()])
    }
}
