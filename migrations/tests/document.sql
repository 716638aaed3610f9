-- The tables and indexes of the schema specification, as its Alembic migration and SQLModel create them.
create table "user" (id varchar(36) primary key, email varchar(255) unique not null, name varchar(255),
    email_verified boolean default false, image text, created_at timestamp default now(), updated_at timestamp default now());
create table session (id varchar(36) primary key, user_id varchar(36) references "user" (id), expires_at timestamp not null,
    created_at timestamp default now(), ip_address varchar(45), user_agent text);
create table account (id varchar(36) primary key, user_id varchar(36) references "user" (id), provider varchar(50) not null,
    provider_account_id varchar(255) not null, access_token text, refresh_token text, expires_at timestamp);
create table tasks (id serial primary key, user_id varchar(36) not null references "user" (id), title varchar(200) not null,
    description text, completed boolean, created_at timestamp, updated_at timestamp);
create index idx_tasks_user_id on tasks (user_id);
create index idx_tasks_completed on tasks (completed);
create index idx_session_user_id on session (user_id);
create index idx_session_expires on session (expires_at);
