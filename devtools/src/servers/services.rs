//! All servers that the tests use.
use super::{
    cluster::Cluster,
    moto::Moto,
    pgbouncer::Pooling,
    postgres::{Purpose, write_private},
};
use crate::{checks::logs, system::tools::lock_folder};
use anyhow::Result;
use std::{fs::File, path::PathBuf};
use testing::RunningApi;
use tokio::process::Command;
use xtask::place::target;

/// The servers that the integration tests use, with a migrated database for them to copy.
pub struct Services {
    _lock: File,
    cluster: Cluster,
    moto: Moto,
    file: PathBuf,
    logs: PathBuf,
}

/// The folder of the servers' files.
pub fn folder() -> PathBuf {
    target().join("test")
}

impl Services {
    /// Starts the default servers: any version of PostgreSQL, and PgBouncer in Neon's mode.
    pub async fn start() -> Result<Self> {
        Self::start_with(None, Pooling::TRANSACTION).await
    }

    pub async fn start_with(postgres_major: Option<u32>, pooling: Pooling) -> Result<Self> {
        let folder = folder();
        let advice = "wait until it ends, or name another folder by CARGO_TARGET_DIR";
        let lock = lock_folder(&folder, advice)?;
        let cluster = Cluster::start(&folder, Purpose::Test, postgres_major, pooling).await?;
        let moto = Moto::start().await?;

        let logs = folder.join("logs");
        let _ = std::fs::remove_dir_all(&logs);
        std::fs::create_dir_all(&logs)?;
        let file = folder.join("services.json");
        let services = testing::Services {
            moto_url: moto.url(),
            moto_server: moto.program().to_string_lossy().into_owned(),
            logs: logs.to_string_lossy().into_owned(),
            ..cluster.services(&folder, cluster.pooler.port())
        };
        write_private(&file, &serde_json::to_vec(&services)?)?;
        Ok(Self { _lock: lock, cluster, moto, file, logs })
    }

    /// The URL of moto's Secrets Manager.
    pub fn moto_url(&self) -> String {
        self.moto.url()
    }

    /// Adds the environment variable by which tests find the servers.
    pub fn pass_to<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("TASKS_TEST_SERVICES", &self.file)
    }

    /// Describes the servers, as the tests get it.
    pub fn description(&self) -> Result<testing::Services> {
        Ok(serde_json::from_slice(&std::fs::read(&self.file)?)?)
    }

    /// Like [`Services::pass_to`], for tests of an API that runs already.
    pub fn pass_with_api<'c>(&self, api: RunningApi, command: &'c mut Command) -> Result<&'c mut Command> {
        let file = self.file.with_file_name("services-with-api.json");
        let services = testing::Services { running_api: Some(api), ..self.description()? };
        write_private(&file, &serde_json::to_vec(&services)?)?;
        Ok(command.env("TASKS_TEST_SERVICES", file))
    }

    /// Fails if the functions' logs contain a secret.
    pub fn check_logs(&self) -> Result<()> {
        logs::check(&self.logs, &self.cluster.secrets())
    }
}
