//! The "lambdalith": one axum router with every route behind lambda_http, and an sqlx pool that `main` opens. All
//! libraries use their defaults.

use axum::{
    extract::{FromRequestParts, Path, Query, State},
    http::{header, request::Parts, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, patch},
    Json, Router,
};
use chrono::NaiveDateTime;
use lambda_http::{run, tracing, Error};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{postgres::PgPoolOptions, FromRow, PgPool};

#[derive(Serialize, FromRow)]
struct Task {
    id: i32,
    user_id: String,
    title: String,
    description: Option<String>,
    completed: bool,
    created_at: NaiveDateTime,
    updated_at: NaiveDateTime,
}

enum ApiError {
    Unauthorized,
    NotFound,
    Invalid(&'static str),
    Database(sqlx::Error),
}

impl From<sqlx::Error> for ApiError {
    fn from(e: sqlx::Error) -> Self {
        match e {
            sqlx::Error::RowNotFound => ApiError::NotFound,
            e => ApiError::Database(e),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, detail) = match self {
            ApiError::Unauthorized => (StatusCode::UNAUTHORIZED, "Invalid or expired session"),
            ApiError::NotFound => (StatusCode::NOT_FOUND, "Task not found"),
            ApiError::Invalid(why) => (StatusCode::UNPROCESSABLE_ENTITY, why),
            ApiError::Database(e) => {
                tracing::error!("database: {e}");
                (StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
            }
        };
        (status, Json(json!({ "detail": detail }))).into_response()
    }
}

/// The caller, from `Authorization: Bearer <session token>`.
struct User(String);

impl FromRequestParts<PgPool> for User {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, pool: &PgPool) -> Result<Self, ApiError> {
        let token = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.strip_prefix("Bearer "))
            .ok_or(ApiError::Unauthorized)?;
        sqlx::query_scalar(
            "SELECT user_id FROM session WHERE token = $1 AND expires_at > now() AT TIME ZONE 'UTC'",
        )
        .bind(token)
        .fetch_optional(pool)
        .await?
        .map(User)
        .ok_or(ApiError::Unauthorized)
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Status {
    #[default]
    All,
    Pending,
    Completed,
}

#[derive(Deserialize)]
struct ListParams {
    #[serde(default)]
    status: Status,
    limit: Option<i64>,
    offset: Option<i64>,
}

#[derive(Deserialize)]
struct TaskIn {
    title: String,
    description: Option<String>,
}

impl TaskIn {
    fn check(&self) -> Result<(), ApiError> {
        match self.title.chars().count() {
            1..=200 => Ok(()),
            _ => Err(ApiError::Invalid("title must have 1 to 200 characters")),
        }
    }
}

async fn list(
    State(pool): State<PgPool>,
    User(user): User,
    Query(params): Query<ListParams>,
) -> Result<Json<Vec<Task>>, ApiError> {
    let completed = match params.status {
        Status::All => None,
        Status::Pending => Some(false),
        Status::Completed => Some(true),
    };
    let tasks = sqlx::query_as(
        "SELECT id, user_id, title, description, completed, created_at, updated_at FROM tasks
         WHERE user_id = $1 AND ($2::boolean IS NULL OR completed = $2)
         ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $4",
    )
    .bind(user)
    .bind(completed)
    .bind(params.limit.unwrap_or(50).clamp(1, 100))
    .bind(params.offset.unwrap_or(0).max(0))
    .fetch_all(&pool)
    .await?;
    Ok(Json(tasks))
}

async fn create(
    State(pool): State<PgPool>,
    User(user): User,
    Json(body): Json<TaskIn>,
) -> Result<(StatusCode, Json<Task>), ApiError> {
    body.check()?;
    let task = sqlx::query_as(
        "INSERT INTO tasks (user_id, title, description) VALUES ($1, $2, $3)
         RETURNING id, user_id, title, description, completed, created_at, updated_at",
    )
    .bind(user)
    .bind(body.title)
    .bind(body.description)
    .fetch_one(&pool)
    .await?;
    Ok((StatusCode::CREATED, Json(task)))
}

async fn read(
    State(pool): State<PgPool>,
    User(user): User,
    Path(id): Path<i32>,
) -> Result<Json<Task>, ApiError> {
    let task = sqlx::query_as(
        "SELECT id, user_id, title, description, completed, created_at, updated_at FROM tasks
         WHERE id = $1 AND user_id = $2",
    )
    .bind(id)
    .bind(user)
    .fetch_one(&pool)
    .await?;
    Ok(Json(task))
}

async fn update(
    State(pool): State<PgPool>,
    User(user): User,
    Path(id): Path<i32>,
    Json(body): Json<TaskIn>,
) -> Result<Json<Task>, ApiError> {
    body.check()?;
    let task = sqlx::query_as(
        "UPDATE tasks SET title = $3, description = $4, updated_at = now() WHERE id = $1 AND user_id = $2
         RETURNING id, user_id, title, description, completed, created_at, updated_at",
    )
    .bind(id)
    .bind(user)
    .bind(body.title)
    .bind(body.description)
    .fetch_one(&pool)
    .await?;
    Ok(Json(task))
}

async fn toggle(
    State(pool): State<PgPool>,
    User(user): User,
    Path(id): Path<i32>,
) -> Result<Json<Task>, ApiError> {
    let task = sqlx::query_as(
        "UPDATE tasks SET completed = NOT completed, updated_at = now() WHERE id = $1 AND user_id = $2
         RETURNING id, user_id, title, description, completed, created_at, updated_at",
    )
    .bind(id)
    .bind(user)
    .fetch_one(&pool)
    .await?;
    Ok(Json(task))
}

async fn delete(
    State(pool): State<PgPool>,
    User(user): User,
    Path(id): Path<i32>,
) -> Result<StatusCode, ApiError> {
    let done = sqlx::query("DELETE FROM tasks WHERE id = $1 AND user_id = $2")
        .bind(id)
        .bind(user)
        .execute(&pool)
        .await?;
    match done.rows_affected() {
        0 => Err(ApiError::NotFound),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// Connects to the database and serves the API.
pub async fn serve(database_url: &str) -> Result<(), Error> {
    let pool = PgPoolOptions::new().max_connections(1).connect(database_url).await?;
    let app = Router::new()
        .route("/api/tasks", get(list).post(create))
        .route("/api/tasks/{id}", get(read).put(update).delete(delete))
        .route("/api/tasks/{id}/complete", patch(toggle))
        .with_state(pool);
    run(app).await
}
