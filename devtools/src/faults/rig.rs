//! Servers with injectable faults, for the fault matrix and the soak test: PostgreSQL, PgBouncer and a network proxy.
use crate::{
    servers::cluster::Cluster,
    servers::gateway,
    servers::pgbouncer::{Names, Pooling},
    servers::postgres::Purpose,
};
use anyhow::{Context as _, Result, bail};
use axum::{body::Bytes, http};
use serde_json::Value;
use std::{
    path::Path,
    time::{Duration, Instant},
};
use testing::{Client, Database, OpenApi, Proxy, Services, SimpleQueryMessage};
use tokio::time::{sleep, timeout};

/// Seconds within which the database must be reachable after a fault.
const REACHABLE_TIMEOUT_S: u64 = 30;

/// The running servers. Dropping them stops them.
pub struct Rig {
    pub proxy: Proxy,
    pub cluster: Cluster,
    services: &'static Services,
    /// The pooler's connections per database, if there is a pooler.
    pool_size: Option<u32>,
    prepares: bool,
}

impl Rig {
    /// Starts the servers in `folder`, which is recreated. The proxy leads to PgBouncer (with `pool_size` connections
    /// per database), or directly to PostgreSQL. If the functions prepare statements, PgBouncer tracks the names.
    pub async fn start(folder: &Path, pool_size: u32, has_pooler: bool, prepares: bool) -> Result<Self> {
        let names = if prepares { Names::Tracked } else { Names::Any };
        let pooling = Pooling { server_connections: pool_size, names, ..Pooling::TRANSACTION };
        let cluster = Cluster::start(folder, Purpose::Test, None, pooling).await?;
        let behind = if has_pooler { cluster.pooler.port() } else { cluster.postgres.port() };
        let proxy = Proxy::start(behind).await?;
        let services = cluster.services(folder, proxy.port());
        // Leaked, because `Database` needs a static reference. A run has at most a dozen.
        let pool_size = has_pooler.then_some(pool_size);
        Ok(Self { proxy, cluster, services: Box::leak(Box::new(services)), pool_size, prepares })
    }

    /// The settings of a function that connects to `url`.
    pub fn settings(&self, url: &str) -> Vec<(String, String)> {
        let mut settings = vec![("BETTER_AUTH_SECRET", testing::SECRET), ("DATABASE_URL", url)];
        if self.prepares {
            settings.push(("PREPARED_STATEMENTS", "true"));
        }
        settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// If the functions should prepare statements, fails unless one of the pooler's connections to the database has some. Without
    /// a pooler, nobody else sees what a connection has prepared.
    pub async fn check_prepared(&self, database: &Database) -> Result<()> {
        let Some(pool_size) = self.pool_size.filter(|_| self.prepares) else { return Ok(()) };
        // Each client keeps its connection to the server, so that the next one gets another.
        let mut clients = Vec::new();
        for _ in 0..pool_size {
            let client = self.client(database).await?;
            let named = "begin; select from pg_prepared_statements where name like 'PGBOUNCER%'";
            let found = client.simple_query(named).await?;
            if found.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_))) {
                return Ok(());
            }
            clients.push(client);
        }
        bail!("the functions have prepared nothing")
    }

    /// Creates a database whose URLs lead through the proxy.
    pub async fn database(&self) -> Database {
        Database::create_in(self.services).await
    }

    /// Waits until the database serves a new client.
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

    /// Connects to a database as the API's role, through the proxy.
    pub async fn client(&self, database: &Database) -> Result<Client> {
        database.connect_as_api(self.proxy.port()).await.context("connecting")
    }
}

/// A request to the API.
#[derive(Clone, Default)]
pub struct Call {
    pub method: String,
    pub path: String,
    /// The value of `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// The value of `If-Match`.
    pub if_match: Option<String>,
    pub body: Option<Value>,
}

impl Call {
    /// The headers that are specific to this call.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &String)> {
        [("idempotency-key", &self.idempotency_key), ("if-match", &self.if_match)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }

    /// Returns the function of the call's route, and the event from API Gateway.
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
