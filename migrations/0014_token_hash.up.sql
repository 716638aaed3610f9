-- The session check, on the tables that are found, by a digest of the token: the database never sees the token.
--
-- Whoever has the password of tasks_api can read what other clients of the pooler send, for example in a prepared statement. A
-- digest opens no session. caller(text) stays for one release, so that the functions before this one go on working.

-- Called by whoever inserts a session, because the index below uses it: it must be open to every role. Its body is parsed here,
-- so that no search_path changes its meaning. SHA-256 over UTF-8, as the functions compute it.
create function public.token_hash(token text)
returns bytea
language sql
immutable strict parallel safe
return pg_catalog.sha256(pg_catalog.convert_to(token, 'UTF8'));
-- The default, unless somebody changed it by "alter default privileges".
grant execute on function public.token_hash(text) to public;

-- Better Auth's tables as they were found the last time. A regclass follows a table that is renamed.
create table migration_tools.auth_tables (kind text primary key, tab regclass not null);

-- Whether the role that migrates may index and alter a table. Neon manages neon_auth: nothing there is changed.
create function migration_tools.is_ours(tab regclass)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select nspname <> 'neon_auth' and pg_has_role(relowner, 'usage')
  from pg_class join pg_namespace on pg_namespace.oid = relnamespace
  where pg_class.oid = tab
$$;

-- The index by which caller(bytea) finds a session, or null.
create function migration_tools.token_index(sessions regclass)
returns regclass
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select indexrelid::regclass
  from pg_index
  join pg_depend on classid = 'pg_class'::regclass and objid = indexrelid
    and refclassid = 'pg_proc'::regclass and refobjid = to_regprocedure('public.token_hash(text)')
  where indrelid = sessions and indisvalid and indpred is null and indkey[0] = 0
  limit 1
$$;

-- Ties a table of this API's to the users: the type of their ids, and a key by which its rows go with their user.
create function migration_tools.refer_to_users(tab regclass, users regclass)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  id_type text := (select format_type(atttypid, atttypmod) from pg_attribute where attrelid = users and attname = 'id');
  -- Text of any kind can refer to text of any kind.
  fits boolean := (
    select own.atttypid = other.atttypid
      or (own.atttypid in ('text'::regtype, 'varchar'::regtype) and other.atttypid in ('text'::regtype, 'varchar'::regtype))
    from pg_attribute own, pg_attribute other
    where own.attrelid = tab and own.attname = 'user_id' and other.attrelid = users and other.attname = 'id'
  );
  old_key record;
begin
  for old_key in
    select conname
    from pg_constraint
    join pg_attribute on attrelid = conrelid and attnum = conkey[1]
    where conrelid = tab and contype = 'f' and cardinality(conkey) = 1 and attname = 'user_id'
      and (confrelid <> users or confdeltype = 'a')
  loop
    execute format('alter table %s drop constraint %I', tab, old_key.conname);
  end loop;
  if not fits then
    execute format('alter table %s alter user_id type %s using user_id::text::%s', tab, id_type, id_type);
  end if;
  if not exists (select from pg_constraint where conrelid = tab and contype = 'f' and confrelid = users) then
    -- Named by PostgreSQL: on a table that is kept on the way down, migration 0003 makes fk_tasks_user again.
    execute format('alter table %s add foreign key (user_id) references %s (id) on delete cascade', tab, users);
  end if;
end
$$;

-- Finds Better Auth's tables, drops what earlier migrations made beside them, and ties the tasks to the users.
create function migration_tools.settle_auth_tables()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  waits_for_tables boolean := current_setting('migration_tools.auth_tables', true) is not distinct from 'none'
    or exists (select from migration_tools.auth_tables where auth_tables.kind = 'none');
  sessions regclass;
  users regclass;
  extra regclass;
begin
  insert into migration_tools.auth_tables
  select * from migration_tools.find_auth_tables()
  on conflict (kind) do update set tab = excluded.tab;
  delete from migration_tools.auth_tables where kind not in (select found.kind from migration_tools.find_auth_tables() as found);
  sessions := (select tab from migration_tools.auth_tables where kind = 'session');
  users := (select tab from migration_tools.auth_tables where kind = 'user');

  if waits_for_tables and (sessions is null or migration_tools.is_unused(sessions)) then
    -- Better Auth makes its tables after this: until the next up, nobody has a session.
    delete from migration_tools.auth_tables;
    insert into migration_tools.auth_tables values ('none', 'public.tasks'::regclass);
    sessions := null;
    users := null;
  elsif sessions is null then
    raise exception 'Better Auth''s tables are missing: there is no table session, sessions or Session in the schemas public and neon_auth. Run Better Auth''s own migration, or name another schema in AUTH_SCHEMA';
  elsif migration_tools.column_name(sessions, '{token}') is null then
    raise exception 'the table % cannot be used: it has no column token', sessions;
  elsif not has_table_privilege(sessions, 'select') or not has_table_privilege(users, 'references') then
    raise exception 'the role % may not select from % and refer to %: their owner has to grant both', current_user, sessions, users;
  end if;

  -- An own table with rows was somebody's choice, and stays.
  for extra in
    select to_regclass(format('public.%I', name)) from unnest('{account,verification,session,user}'::text[]) as name
  loop
    if extra is not null and not exists (select from migration_tools.auth_tables where tab = extra) and migration_tools.is_unused(extra) then
      execute format('drop table %s cascade', extra);
    end if;
  end loop;

  if users is not null then
    perform migration_tools.refer_to_users('public.tasks', users);
    perform migration_tools.refer_to_users('public.idempotency_keys', users);
  end if;

  if migration_tools.is_ours(sessions) then
    if migration_tools.token_index(sessions) is null then
      execute format('create unique index session_token_hash on %s (public.token_hash(token))', sessions);
      execute format('comment on index %I.session_token_hash is %L',
        (select nspname from pg_class join pg_namespace on pg_namespace.oid = relnamespace where pg_class.oid = sessions),
        'Made by migration 0014.');
    end if;
    if sessions::text like 'public.%' then
      perform migration_tools.make_index('0014', 'idx_session_user_id', sessions,
        array[migration_tools.required_column(sessions, '{user_id,userId}')]);
      perform migration_tools.make_index('0014', 'idx_session_expires', sessions,
        array[migration_tools.required_column(sessions, '{expires_at,expiresAt}')]);
    end if;
  end if;
end
$$;

-- Built from the tables and columns that are found, again by every up: Better Auth may have migrated since.
create or replace function migration_tools.install_caller()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $install$
declare
  sessions regclass;
  user_id name;
  expires_at name;
  has_zone boolean;
  -- Without the type's length: a cast to varchar(36) would cut a longer id to another's.
  id_type text;
  result text;
  form record;
begin
  -- Two runs at once do not replace it under each other's hands.
  perform pg_advisory_xact_lock(hashtext('migration_tools.install_caller'));
  perform migration_tools.settle_auth_tables();
  if to_regrole('tasks_api') is not null and has_schema_privilege('tasks_api', 'public', 'create') then
    raise exception 'the role tasks_api may create objects in the schema public, and could give the names in it another meaning: its owner has to run "revoke create on schema public from public"';
  end if;

  sessions := (select tab from migration_tools.auth_tables where kind = 'session');
  id_type := (
    select format_type(atttypid, null) from pg_attribute where attrelid = 'public.tasks'::regclass and attname = 'user_id'
  );
  result := format('TABLE(user_id %s, expires_at timestamp without time zone)', id_type);
  if pg_get_function_result(to_regprocedure('public.caller(text)')) <> result then
    drop function public.caller(text);
  end if;
  if pg_get_function_result(to_regprocedure('public.caller(bytea)')) <> result
    or migration_tools.token_index(sessions) is null and sessions is not null
  then
    drop function if exists public.caller(bytea);
  end if;
  if sessions is not null then
    user_id := migration_tools.required_column(sessions, '{user_id,userId}');
    expires_at := migration_tools.required_column(sessions, '{expires_at,expiresAt}');
    has_zone := (select atttypid = 'timestamptz'::regtype from pg_attribute where attrelid = sessions and attname = expires_at);
  end if;

  for form in
    select * from (values
      ('token text', 'session.token = caller.token', true),
      -- Without its index it would read every session.
      ('token_hash bytea', 'public.token_hash(session.token) = caller.token_hash',
        sessions is null or migration_tools.token_index(sessions) is not null)
    ) as forms (argument, condition, is_wanted)
    where is_wanted
  loop
    -- The ends are compared as epochs: right for timestamp (UTC) and timestamptz in every session's time zone, which a
    -- plain > now() is not.
    execute format(
      $sql$
        create or replace function public.caller(%1$s)
        returns table (user_id %2$s, expires_at timestamp)
        language plpgsql
        stable
        security definer
        rows 1
        set search_path = pg_catalog, pg_temp
        as $caller$
        begin
          %3$s
        end
        $caller$
      $sql$,
      form.argument, id_type,
      case
        when sessions is null then 'return;'
        else format(
          'return query
            select session.%1$I::%2$s, session.%3$I %4$s
            from %5$s session
            where %6$s
              and session.%1$I is not null
              and extract(epoch from session.%3$I) > extract(epoch from now());',
          user_id, id_type, expires_at, case when has_zone then 'at time zone ''utc''' end, sessions, form.condition)
      end
    );
    execute format('revoke execute on function public.caller(%s) from public', split_part(form.argument, ' ', 2));
    if to_regrole('tasks_api') is not null then
      execute format('grant execute on function public.caller(%s) to tasks_api', split_part(form.argument, ' ', 2));
    end if;
  end loop;
end
$install$;

-- How sessions are found, for the functions' start: 'hash', 'token' where the table cannot be indexed (Neon Auth), 'none' where
-- there is no table yet, or 'missing index' where somebody dropped it and each call reads every session.
create function public.session_lookup()
returns text
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select case
    when sessions.tab is null then 'none'
    when to_regprocedure('public.caller(bytea)') is null then 'token'
    when migration_tools.token_index(sessions.tab) is null then 'missing index'
    else 'hash'
  end
  from (select (select tab from migration_tools.auth_tables where kind = 'session') as tab) as sessions
$$;
revoke execute on function public.session_lookup() from public;
grant execute on function public.session_lookup() to tasks_api;

-- As in migration 0007, on the tables that were found. Neon purges its own.
create or replace function public.purge_expired(kind text, max_rows integer)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  tab regclass := (
    select auth_tables.tab from migration_tools.auth_tables
    where auth_tables.kind = purge_expired.kind and auth_tables.kind in ('session', 'verification')
  );
  expires_at name;
  has_zone boolean;
  removed bigint;
begin
  if purge_expired.kind not in ('session', 'verification') then
    raise exception 'nothing expires in %', purge_expired.kind;
  end if;
  if migration_tools.is_ours(tab) is not true then
    return 0;
  end if;
  expires_at := migration_tools.required_column(tab, '{expires_at,expiresAt}');
  has_zone := (select atttypid = 'timestamptz'::regtype from pg_attribute where attrelid = tab and attname = expires_at);
  -- The column stands alone, so that its index serves; rows that are being used are left for the next time.
  execute format(
    'delete from %1$s where ctid = any (array(
      select ctid from %1$s where %2$I < now() %3$s order by %2$I limit $1 for update skip locked
    ))',
    tab, expires_at, case when not has_zone then 'at time zone ''utc''' end
  ) using max_rows;
  get diagnostics removed = row_count;
  return removed;
end
$$;

select migration_tools.install_caller();
