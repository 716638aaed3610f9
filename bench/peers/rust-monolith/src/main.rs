//! The API with its settings in the environment.
use lambda_http::{tracing, Error};

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing::init_default_subscriber();
    rust_monolith::serve(&std::env::var("DATABASE_URL")?).await
}
