-- What a client that keeps a copy of its tasks asks for: what has changed since, and what is gone.
--
-- Each row has the id of the transaction that changed it last. A reader remembers the oldest transaction that was still running
-- when it read: everything below has ended, so nothing below can appear later. A time of change cannot do that, because
-- transactions do not commit in the order of their times. Triggers do it, so that rows that others write are synced as well.
--
-- Adding the column rewrites no row: PostgreSQL computes this default once, and all rows that exist share one value. Building
-- the index reads the whole table. docs/sync.md has two statements to run before this on a large table.
alter table public.tasks add column if not exists changed xid8 not null default pg_current_xact_id();
select migration_tools.make_index('0018', 'idx_tasks_user_changed', 'public.tasks', '{user_id,changed,id}', 'user_id, changed, id');

-- The ids of tasks that were deleted, or given to somebody else. The user's id is text, whatever type it has elsewhere; there is
-- no key to the users, because a row is written while the user's own row is being deleted.
create table public.removed_tasks (
  user_id    text not null,
  changed    xid8 not null default pg_current_xact_id(),
  task_id    integer not null,
  removed_at timestamp not null default (clock_timestamp() at time zone 'utc'),
  primary key (user_id, changed, task_id)
);
comment on table public.removed_tasks is 'Made by migration 0018.';
create index idx_removed_tasks_removed_at on public.removed_tasks (removed_at);
grant select on public.removed_tasks to tasks_api;

-- Which history the transaction ids belong to, and the last removal that is forgotten.
create table migration_tools.sync_state (
  is_only   boolean primary key default true check (is_only),
  epoch     uuid not null default gen_random_uuid(),
  purged_to xid8 not null default '0'
);
insert into migration_tools.sync_state default values;

-- The name of the history, and the transaction up to which removals are forgotten. A dump that is restored into another cluster
-- has the same epoch, but the cluster's own transaction ids.
create function public.sync_history()
returns table (history text, purged_to xid8)
language plpgsql
stable
security definer
rows 1
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select left(encode(sha256(convert_to(control.system_identifier || ' ' || state.epoch, 'UTF8')), 'hex'), 16), state.purged_to
    from migration_tools.sync_state state, pg_control_system() control;
end
$$;
revoke execute on function public.sync_history() from public;
grant execute on function public.sync_history() to tasks_api;

-- For each row that is updated, or inserted with another value. A task that is given to another user, or gets another id, is gone
-- where it was. No trigger names these two columns, because PostgreSQL would then refuse to change their types.
create function migration_tools.note_change()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  new.changed := pg_current_xact_id();
  if tg_op = 'UPDATE' and (old.id <> new.id or old.user_id <> new.user_id) then
    insert into public.removed_tasks (user_id, task_id) values (old.user_id::text, old.id) on conflict do nothing;
  end if;
  return new;
end
$$;

-- The table of the users, if this role can see all of its rows.
create function migration_tools.visible_users()
returns regclass
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select tab from migration_tools.auth_tables
  where kind = 'user' and case when has_table_privilege(tab, 'select') then not row_security_active(tab) end
$$;

-- Once for each statement that deletes. A user who is deleted leaves nothing.
create function migration_tools.note_removals()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  users regclass;
begin
  if not exists (select from gone) then
    return null;
  end if;
  users := migration_tools.visible_users();
  if users is null then
    insert into public.removed_tasks (user_id, task_id) select user_id::text, id from gone on conflict do nothing;
  else
    execute format(
      'insert into public.removed_tasks (user_id, task_id)
      select user_id::text, id from gone where exists (select from %s owner where owner.id = gone.user_id)
      on conflict do nothing', users);
  end if;
  return null;
end
$$;

-- Begins another history, in which no cursor of before is valid.
create function migration_tools.begin_history()
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  update migration_tools.sync_state set epoch = gen_random_uuid(), purged_to = '0';
$$;

create function migration_tools.note_truncation()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform migration_tools.begin_history();
  return null;
end
$$;

-- After a restore: readers start over, and no row has a transaction id that this cluster has yet to assign.
create function migration_tools.new_epoch()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform migration_tools.begin_history();
  delete from public.removed_tasks;
  update public.tasks set changed = pg_current_xact_id() where changed > pg_current_xact_id();
end
$$;

-- What the scheduled purge calls: forgets removals older than 90 days, at most max_rows, and returns how many.
create function public.purge_removed(max_rows integer)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  purged bigint;
  last xid8;
begin
  with forgotten as (
    delete from public.removed_tasks
    where ctid = any (array(
      select ctid from public.removed_tasks
      where removed_at <= now() at time zone 'utc' - interval '90 days'
      order by removed_at limit max_rows
      for update skip locked))
    returning changed),
  own as (
    -- Not those of another cluster, whose dump this is. max(xid8) needs PostgreSQL 15.
    select changed from forgotten where changed <= pg_current_xact_id() order by changed desc limit 1)
  select (select count(*) from forgotten), (select changed from own) into purged, last;
  if last is not null then
    update migration_tools.sync_state
    set purged_to = case when purged_to <= pg_current_xact_id() then greatest(purged_to, last) else last end;
  end if;
  return purged;
end
$$;
revoke execute on function public.purge_removed(integer) from public;
grant execute on function public.purge_removed(integer) to tasks_api;

-- The triggers on tasks.
create function migration_tools.sync_triggers()
returns table (name text, tab regclass, timing text, function text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  values
    ('note_insert', 'public.tasks'::regclass,
      'before insert on %s for each row when (new.changed is distinct from pg_current_xact_id())', 'migration_tools.note_change'),
    ('note_update', 'public.tasks', 'before update on %s for each row', 'migration_tools.note_change'),
    ('note_delete', 'public.tasks', 'after delete on %s referencing old table as gone for each statement',
      'migration_tools.note_removals'),
    ('note_truncate', 'public.tasks', 'after truncate on %s for each statement', 'migration_tools.note_truncation'),
    ('note_truncate', 'public.removed_tasks', 'after truncate on %s for each statement', 'migration_tools.note_truncation')
$$;

-- Those that somebody dropped or switched off.
create function migration_tools.missing_sync_triggers()
returns table (name text, tab regclass, timing text, function text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select * from migration_tools.sync_triggers() as wanted
  where not exists (
    select from pg_trigger
    where tgrelid = wanted.tab and tgname = wanted.name and tgenabled in ('O', 'A') and tgfoid = to_regproc(wanted.function)
  )
$$;

-- Called by every up, after settle_rights. Where a trigger was missing, changes were missed: every reader starts over.
create function migration_tools.settle_sync()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  missing record;
begin
  for missing in select * from migration_tools.missing_sync_triggers() loop
    execute format('drop trigger if exists %I on %s', missing.name, missing.tab);
    execute format('create trigger %I ' || missing.timing || ' execute function %s()', missing.name, missing.tab, missing.function);
    perform migration_tools.begin_history();
  end loop;
  if (select relrowsecurity from pg_class where oid = 'public.removed_tasks'::regclass)
    and not exists (select from pg_policy where polrelid = 'public.removed_tasks'::regclass and polname = 'tasks_api')
  then
    create policy tasks_api on public.removed_tasks to tasks_api using (true) with check (true);
    comment on policy tasks_api on public.removed_tasks is 'Made by migration 0018.';
  end if;
end
$$;

-- As in migration 0017, with the table and the functions of this one.
create or replace function migration_tools.tables_to_close()
returns table (tab regclass, rule text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  keys regclass;
begin
  -- The table of the keys of JWTs, where a migration looks for it.
  if to_regprocedure('migration_tools.jwks_table()') is not null then
    execute 'select migration_tools.jwks_table()' into keys;
  end if;
  return query
    select tables.tab, case
      when tables.is_shared is null then 'closed'
      when coalesce(obj_description(tables.tab, 'pg_class'), '') !~ '^Made by migration \d+\.$' then 'adopted'
      when tables.is_shared then 'shared'
      else 'closed'
    end
    from (
      select pg_class.oid::regclass, null::boolean
      from pg_class join pg_namespace on pg_namespace.oid = relnamespace
      where relname = '_sqlx_migrations' and nspname in ('public', session_user)
      union all values (to_regclass('public.tasks'), false), (to_regclass('public.idempotency_keys'), false),
        (to_regclass('public.removed_tasks'), false), (keys, true)
      union all select auth_tables.tab, true from migration_tools.auth_tables where kind <> 'none'
    ) as tables (tab, is_shared)
    where migration_tools.is_ours(tables.tab);
end
$$;

create or replace function migration_tools.own_functions()
returns setof regprocedure
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select oid::regprocedure from pg_proc
  where pronamespace = 'public'::regnamespace and prosecdef and pg_has_role(proowner, 'usage')
    and proname in ('caller', 'jwt_keys', 'purge_expired', 'purge_removed', 'session_lookup', 'sync_history')
$$;
