//! One database per test, on the PostgreSQL server that `cargo xtask test` has started. The API reaches it through
//! PgBouncer.
use crate::{
    logs::remember_secret,
    services::{RunningApi, SERVICES, Services},
};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio_postgres::{Client, NoTls, Row, types::ToSql};

/// A user with a session.
#[derive(Clone)]
pub struct User {
    /// `user.id`.
    pub id: String,
    /// `session.token`.
    pub token: String,
}

/// One test's own database.
pub struct Database {
    pub name: String,
    services: &'static Services,
    admin: Client,
}

impl Database {
    /// Creates a copy of the migrated template.
    pub async fn create() -> Self {
        Self::create_in(&SERVICES).await
    }

    /// Like [`Database::create`], on servers other than those that most tests share.
    pub async fn create_in(services: &'static Services) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self::create_as(services, name).await
    }

    async fn create_as(services: &'static Services, name: String) -> Self {
        let maintenance = connect(services, "postgres").await;
        let statement = format!("create database {name} template {}", services.template);
        // Concurrent copies of one template can conflict, so they take turns.
        let lock = "select pg_advisory_lock(1)";
        maintenance.batch_execute(lock).await.expect("the lock");
        maintenance.batch_execute(&statement).await.expect("a copy of the template");
        // A copy lacks the settings that a migration made for the API's role in the template.
        let settings = "select format('alter role tasks_api in database %I set %I = %L', $1::text, split_part(setting, '=', 1), split_part(setting, '=', 2))
            from pg_db_role_setting join pg_database on setdatabase = pg_database.oid, unnest(setconfig) as setting
            where datname = $2::text and setrole = 'tasks_api'::regrole";
        for row in maintenance.query(settings, &[&name, &services.template]).await.expect("the settings") {
            maintenance.batch_execute(row.get(0)).await.expect("the setting");
        }
        // It also lacks the rights on the database itself.
        let rights = "select has_database_privilege('public', $1::text, 'temporary')";
        if !maintenance.query_one(rights, &[&services.template]).await.expect("a right").get::<_, bool>(0) {
            let revoke = format!("revoke temporary on database {name} from public");
            maintenance.batch_execute(&revoke).await.expect("the right is revoked");
        }
        Self { admin: connect(services, &name).await, services, name }
    }

    /// Connects to a database that exists.
    pub async fn open(services: &'static Services, name: &str) -> Self {
        Self { admin: connect(services, name).await, services, name: name.to_owned() }
    }

    /// Replaces the database of an API that runs already by a copy of the migrated template. The pooler connects the
    /// API's functions to the new one.
    pub async fn of_running_api(api: &RunningApi) -> Self {
        let services = &*SERVICES;
        let statement = format!("drop database if exists {} with (force)", api.database);
        connect(services, "postgres").await.batch_execute(&statement).await.expect("the old database is dropped");
        Self::create_as(services, api.database.clone()).await
    }

    /// Creates an empty database that belongs to the owner role.
    pub async fn create_empty() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("empty_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let services = &*SERVICES;
        let maintenance = connect(services, "postgres").await;
        maintenance.batch_execute("select pg_advisory_lock(1)").await.expect("the lock");
        // template0 is as in a new server; other databases may have changed by now.
        let statement = format!("create database {name} owner tasks_owner template template0");
        maintenance.batch_execute(&statement).await.expect("an empty database");
        Self { admin: connect(services, &name).await, services, name }
    }

    /// Connects again after a restart of the server.
    pub async fn reconnect(&mut self) {
        self.admin = connect(self.services, &self.name).await;
    }

    /// Adds a user with a session of one hour.
    pub async fn sign_up(&self, name: &str) -> User {
        let id = format!("{name}-{}", self.random_hex().await);
        let email = format!("{name}@example.com");
        self.sql("insert into \"user\" (id, email, name) values ($1, $2, $2)", &[&id, &email]).await;
        let token = self.sign_in(&id, "1 hour").await;
        User { id, token }
    }

    /// Adds a session that expires `interval` from now, and returns its token. A negative interval adds an expired
    /// session.
    pub async fn sign_in(&self, user_id: &str, interval: &str) -> String {
        let token = self.random_hex().await;
        remember_secret(&token);
        self.sql(
            "insert into session (id, user_id, token, created_at, expires_at)
            values (gen_random_uuid()::text, $1, $2, now() at time zone 'utc', now() at time zone 'utc' + $3::text::interval)",
            &[&user_id, &token, &interval],
        )
        .await;
        token
    }

    /// Runs a statement as the superuser.
    pub async fn sql(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        self.admin.query(statement, parameters).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"))
    }

    /// Runs several statements as the superuser.
    pub async fn batch(&self, statements: &str) {
        self.admin.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// Runs a statement that must fail, as the superuser, and returns the server's error.
    pub async fn expect_error(&self, statement: &str) -> String {
        match self.admin.query(statement, &[]).await {
            Ok(_) => panic!("PostgreSQL accepted what it must refuse: {statement}"),
            Err(error) => error.as_db_error().map(ToString::to_string).unwrap_or_else(|| error.to_string()),
        }
    }

    /// Runs a query for one number, as the superuser.
    pub async fn number(&self, statement: &str) -> i64 {
        self.sql(statement, &[]).await[0].get(0)
    }

    /// Runs a query for one number, as the API's role.
    pub async fn number_as_api(&self, statement: &str) -> i64 {
        let client = self.connect_as_api(self.services.postgres_port).await.expect("the API's role can connect");
        client.query_one(statement, &[]).await.unwrap_or_else(|error| panic!("{statement}: {error:?}")).get(0)
    }

    /// Connects as the superuser once more, for what has to happen between the statements of another connection.
    pub async fn connect(&self) -> Client {
        connect(self.services, &self.name).await
    }

    /// Connects as the API's role, without TLS. The port is that of PostgreSQL, PgBouncer or a proxy.
    pub async fn connect_as_api(&self, port: u16) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.plain_api_url(port), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn random_hex(&self) -> String {
        self.sql("select replace(gen_random_uuid()::text, '-', '')", &[]).await[0].get(0)
    }

    /// The owner role's URL of this database, which bypasses PgBouncer.
    pub fn owner_url(&self) -> String {
        self.services.owner_url.replace(&format!("/{}?", self.services.template), &format!("/{}?", self.name))
    }

    /// The API role's URL of this database: through PgBouncer, with TLS.
    pub fn api_url(&self) -> String {
        let Services { api_password, pooler_port, certificate, .. } = self.services;
        let name = &self.name;
        format!(
            "postgresql://tasks_api:{api_password}@127.0.0.1:{pooler_port}/{name}?sslmode=verify-full&sslrootcert={certificate}"
        )
    }

    /// The API role's URL of this database: through this port, without TLS.
    pub fn plain_api_url(&self, port: u16) -> String {
        format!("postgresql://tasks_api:{}@127.0.0.1:{port}/{}?sslmode=disable", self.services.api_password, self.name)
    }
}

async fn connect(services: &Services, database: &str) -> Client {
    let Services { superuser_password, postgres_port, .. } = services;
    let url =
        format!("postgresql://postgres:{superuser_password}@127.0.0.1:{postgres_port}/{database}?sslmode=disable");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("the test server");
    tokio::spawn(connection);
    client
}
