//! Servers that can be broken, for the fault bench and the soak: a PostgreSQL, a PgBouncer, and the network before them.
use crate::{servers::cluster::Cluster, servers::gateway, servers::pgbouncer::Pooling, servers::postgres::Purpose};
use anyhow::{Context as _, Result};
use axum::{body::Bytes, http};
use serde_json::Value;
use std::{
    path::Path,
    time::{Duration, Instant},
};
use testing::{Client, Database, OpenApi, Proxy, Services};
use tokio::time::{sleep, timeout};

/// How long the database may take to be there again after a fault, in seconds.
const REACHABLE_TIMEOUT_S: u64 = 30;

/// The servers. Dropping them stops them.
pub struct Rig {
    pub proxy: Proxy,
    pub cluster: Cluster,
    services: &'static Services,
}

impl Rig {
    /// Starts them in `folder`, which is made anew; the network leads to PgBouncer, with `pool_size` connections to each
    /// database, or past it to PostgreSQL.
    pub async fn start(folder: &Path, pool_size: u32, has_pooler: bool) -> Result<Self> {
        let pooling = Pooling { server_connections: pool_size, ..Pooling::TRANSACTION };
        let cluster = Cluster::start(folder, Purpose::Test, None, pooling).await?;
        let behind = if has_pooler { cluster.pooler.port() } else { cluster.postgres.port() };
        let proxy = Proxy::start(behind).await?;
        let services = cluster.described(folder, proxy.port());
        // There are a dozen of them in a run at most, each as good as static.
        Ok(Self { proxy, cluster, services: Box::leak(Box::new(services)) })
    }

    /// A new database, whose URLs lead through the network.
    pub async fn database(&self) -> Database {
        Database::create_in(self.services).await
    }

    /// Waits until new clients of a database are served.
    pub async fn wait_until_reachable(&self, database: &Database) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(REACHABLE_TIMEOUT_S);
        loop {
            let attempt = async { self.client(database).await?.simple_query("select").await.context("a statement") };
            match timeout(Duration::from_secs(2), attempt).await {
                Ok(Ok(_)) => return Ok(()),
                result if Instant::now() > until => {
                    result.context("the database does not come back")?.context("the database does not come back")?;
                }
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// A database client that is not one of the functions.
    pub async fn client(&self, database: &Database) -> Result<Client> {
        database.connect_as_api(self.proxy.port()).await.context("connecting")
    }
}

/// A request of the API's, as a client makes it.
#[derive(Clone, Default)]
pub struct Call {
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// The key of a request that is to be carried out once, however often it is sent.
    pub idempotency_key: Option<String>,
    /// The entity tag of the version that it is about.
    pub if_match: Option<String>,
    /// Its body.
    pub body: Option<Value>,
}

impl Call {
    /// Its own headers.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &String)> {
        [("idempotency-key", &self.idempotency_key), ("if-match", &self.if_match)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }

    /// The function that it is for, and the event that API Gateway makes of it.
    pub fn event(&self, openapi: &OpenApi, token: &str) -> Result<(String, Value)> {
        let mut request = http::Request::builder().method(&*self.method).uri(&self.path);
        request = request.header("authorization", format!("Bearer {token}")).header("content-type", "application/json");
        for (name, value) in self.headers() {
            request = request.header(name, value);
        }
        let (parts, ()) = request.body(())?.into_parts();
        let body = Bytes::from(self.body.as_ref().map(Value::to_string).unwrap_or_default());
        gateway::event(openapi, &parts, &body).with_context(|| format!("{} is no route", self.path))
    }
}
