//! The API with its settings in a secret of AWS Secrets Manager, fetched with AWS's SDK and its defaults.
use lambda_http::{tracing, Error};

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing::init_default_subscriber();
    let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let client = aws_sdk_secretsmanager::Client::new(&config);
    let secret = client.get_secret_value().secret_id(std::env::var("SECRET_ID")?).send().await?;
    let settings: serde_json::Value = serde_json::from_str(secret.secret_string().unwrap_or_default())?;
    let url = settings["DATABASE_URL"].as_str().ok_or("the secret has no DATABASE_URL")?;
    rust_monolith::serve(url).await
}
