-- The role that the API connects as. It can work with tasks and check a session, and nothing else: it has no right on the
-- tables of sessions, accounts and users. Its password is not a migration's business: `cargo xtask migrate up` sets it.
do $$
begin
  create role tasks_api nologin;
  comment on role tasks_api is 'Made by migration 0006.';
exception
  -- Roles belong to all databases of a server, and another database may have it already.
  when duplicate_object then null;
end
$$;

grant usage on schema public to tasks_api;
grant select, insert, update, delete on public.tasks to tasks_api;
grant execute on function public.caller(text) to tasks_api;

do $$
begin
  execute format('grant usage on sequence %s to tasks_api', pg_get_serial_sequence('public.tasks', 'id'));
  -- A pooler takes no settings from a client, so they are the role's. A little under the functions' own limit.
  execute format('alter role tasks_api in database %I set statement_timeout = ''9s''', current_database());
  execute format('alter role tasks_api in database %I set idle_in_transaction_session_timeout = ''9s''', current_database());
end
$$;
