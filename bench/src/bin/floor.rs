//! The floor: the minimum that a function must do. It connects in Init and answers every event with the first 50 tasks
//! of the session's user, in one round trip. It has no other routes, checks nothing else, and logs nothing.
//!
//! It verifies the server's certificate with the file in `ROOTS`, as the functions do. Start it with
//! `SSL_CERT_FILE=/dev/null`, so that OpenSSL does not read root certificates that are not needed.
use bench::floor::{Runtime, answer, connect, list};
use serde_json::Value;
use std::{env, error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let roots = fs::read(env::var("ROOTS")?)?;
    let client = tokio.block_on(connect(&env::var("DATABASE_URL")?, &roots))?;
    let mut runtime = Runtime::connect()?;
    loop {
        let (request_id, event) = runtime.next_event()?;
        let event: Value = serde_json::from_slice(&event)?;
        let token = event["headers"]["authorization"].as_str().and_then(|value| value.strip_prefix("Bearer "));
        let (status, body) = tokio.block_on(list(&client, token.unwrap_or_default()))?;
        runtime.respond(&request_id, &answer(status, &body))?;
    }
}
