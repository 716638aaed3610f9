"""The task API in FastAPI + SQLModel + psycopg2, in the style of SQLModel's own guide
(sync endpoints, a session dependency, separate models per direction), behind Mangum."""

import json
import os
from datetime import datetime, timezone
from enum import Enum
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query, status
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from mangum import Mangum
from pydantic import NaiveDatetime
from sqlmodel import Field, Session, SQLModel, create_engine, select


# The columns are timestamp without time zone, in UTC. SQLModel expects the type NaiveDatetime for such fields.
def utcnow() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


class User(SQLModel, table=True):
    __tablename__ = "user"
    id: str = Field(primary_key=True, max_length=36)
    email: str = Field(max_length=255, unique=True)
    name: str | None = Field(default=None, max_length=255)
    email_verified: bool = False
    image: str | None = None
    created_at: NaiveDatetime = Field(default_factory=utcnow)
    updated_at: NaiveDatetime = Field(default_factory=utcnow)


class UserSession(SQLModel, table=True):
    __tablename__ = "session"
    id: str = Field(primary_key=True, max_length=36)
    token: str = Field(max_length=255, unique=True)
    user_id: str = Field(foreign_key="user.id", max_length=36, index=True)
    expires_at: NaiveDatetime
    created_at: NaiveDatetime = Field(default_factory=utcnow)
    updated_at: NaiveDatetime | None = None
    ip_address: str | None = Field(default=None, max_length=45)
    user_agent: str | None = None


class TaskBase(SQLModel):
    title: str = Field(min_length=1, max_length=200)
    description: str | None = None


class Task(TaskBase, table=True):
    __tablename__ = "tasks"
    id: int | None = Field(default=None, primary_key=True)
    user_id: str = Field(foreign_key="user.id", max_length=36, index=True)
    completed: bool = False
    created_at: NaiveDatetime = Field(default_factory=utcnow)
    updated_at: NaiveDatetime = Field(default_factory=utcnow)


class TaskCreate(TaskBase):
    pass


class TaskUpdate(TaskBase):
    pass


class TaskPublic(TaskBase):
    id: int
    user_id: str
    completed: bool
    created_at: NaiveDatetime
    updated_at: NaiveDatetime


class TaskStatus(str, Enum):
    all = "all"
    pending = "pending"
    completed = "completed"


def database_url() -> str:
    """The URL from the environment or, if SECRET_ID is set, from that secret in AWS Secrets Manager."""
    if "SECRET_ID" not in os.environ:
        return os.environ["DATABASE_URL"]
    import boto3

    secret = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["SECRET_ID"])
    return json.loads(secret["SecretString"])["DATABASE_URL"]


# Since SQLAlchemy 2.1, a bare postgresql:// selects psycopg 3, so Neon's connection string must name psycopg2.
DATABASE_URL = database_url().replace("postgresql://", "postgresql+psycopg2://", 1)
engine = create_engine(DATABASE_URL, pool_pre_ping=True)


def get_session():
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]
bearer = HTTPBearer(auto_error=False)


def get_current_user_id(
    session: SessionDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> str:
    found = None
    if credentials is not None:
        found = session.exec(
            select(UserSession).where(
                UserSession.token == credentials.credentials, UserSession.expires_at > utcnow()
            )
        ).first()
    if found is None:
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "Invalid or expired session")
    return found.user_id


UserId = Annotated[str, Depends(get_current_user_id)]


def get_own_task(task_id: int, session: SessionDep, user_id: UserId) -> Task:
    task = session.exec(select(Task).where(Task.id == task_id, Task.user_id == user_id)).first()
    if task is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "Task not found")
    return task


OwnTask = Annotated[Task, Depends(get_own_task)]

app = FastAPI(title="Tasks")


@app.get("/api/tasks", response_model=list[TaskPublic])
def list_tasks(
    session: SessionDep,
    user_id: UserId,
    status: TaskStatus = TaskStatus.all,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    offset: Annotated[int, Query(ge=0)] = 0,
):
    query = select(Task).where(Task.user_id == user_id)
    if status is not TaskStatus.all:
        query = query.where(Task.completed == (status is TaskStatus.completed))
    query = query.order_by(Task.created_at.desc(), Task.id.desc()).offset(offset).limit(limit)
    return session.exec(query).all()


@app.post("/api/tasks", response_model=TaskPublic, status_code=201)
def create_task(body: TaskCreate, session: SessionDep, user_id: UserId):
    task = Task.model_validate(body, update={"user_id": user_id})
    session.add(task)
    session.commit()
    session.refresh(task)
    return task


@app.get("/api/tasks/{task_id}", response_model=TaskPublic)
def read_task(task: OwnTask):
    return task


@app.put("/api/tasks/{task_id}", response_model=TaskPublic)
def update_task(body: TaskUpdate, task: OwnTask, session: SessionDep):
    task.sqlmodel_update(body.model_dump())
    task.updated_at = utcnow()
    session.add(task)
    session.commit()
    session.refresh(task)
    return task


@app.patch("/api/tasks/{task_id}/complete", response_model=TaskPublic)
def toggle_task(task: OwnTask, session: SessionDep):
    task.completed = not task.completed
    task.updated_at = utcnow()
    session.add(task)
    session.commit()
    session.refresh(task)
    return task


@app.delete("/api/tasks/{task_id}", status_code=204)
def delete_task(task: OwnTask, session: SessionDep):
    session.delete(task)
    session.commit()


handler = Mangum(app, lifespan="off")
