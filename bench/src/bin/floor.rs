//! The floor: the minimum that a function must do. It connects in Init and answers every event with the first 50 tasks
//! of the session's user, in one round trip. It has no other routes, checks nothing else, and logs nothing.
//!
//! The database is that of `DATABASE_URL` or, if `SECRET_ID` is set, of that secret in Secrets Manager. With
//! `PREPARE=true`, the statement is prepared in Init.
//!
//! It verifies certificates with the file in `ROOTS`, as the functions do. Start it with `SSL_CERT_FILE=/dev/null`, so
//! that OpenSSL does not read root certificates that are not needed.
use bench::floor::{List, Runtime, SecretSource, answer, connect, tls};
use serde_json::Value;
use std::{env, error::Error, fs, sync::Arc};

fn main() -> Result<(), Box<dyn Error>> {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tls = tls(&fs::read(env::var("ROOTS")?)?)?;
    let url = match env::var("SECRET_ID") {
        Ok(id) => SecretSource::from_environment()?.database_url(&id, &tls)?,
        Err(_) => env::var("DATABASE_URL")?,
    };
    let client = Arc::new(tokio.block_on(connect(&url, tls))?);
    let mut list = match env::var("PREPARE").as_deref() {
        Ok("true") => tokio.block_on(List::prepare(client.clone())),
        _ => List::Text,
    };
    let mut runtime = Runtime::connect()?;
    loop {
        let (request_id, event) = runtime.next_event()?;
        let event: Value = serde_json::from_slice(&event)?;
        let token = event["headers"]["authorization"].as_str().and_then(|value| value.strip_prefix("Bearer "));
        let (status, body) = tokio.block_on(list.call(&client, token.unwrap_or_default()))?;
        runtime.respond(&request_id, &answer(status, &body))?;
    }
}
