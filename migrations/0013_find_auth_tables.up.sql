-- Finds Better Auth's tables, whoever made them.
--
-- Neon Auth keeps them in the schema neon_auth. Drizzle's configurations name them in the plural, Prisma's in upper case, and
-- Better Auth's modelName renames any of them. `up` runs this file before migration 0002 as well: hence "create or replace".

-- Whether an earlier migration made a table that nobody has used: it never competes with a table of somebody's own.
create or replace function migration_tools.is_unused(tab regclass)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  mark text := coalesce(obj_description(tab, 'pg_class'), '');
  has_rows boolean := true;
begin
  if mark ~ '^Made by migration \d+\.$' then
    execute format('select exists (select from %s)', tab) into has_rows;
  end if;
  return not has_rows or mark = 'Stand-in of migration 0013.';
end
$$;

-- Fails for a table in two spellings at once, as when Better Auth's own migration ran on top of another. The column that Better
-- Auth does not write stays empty, and a required one makes every sign-up fail.
create or replace function migration_tools.refuse_two_spellings(tab regclass)
returns void
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  twice text;
begin
  select string_agg(format('%s and %s', pairs.name, pairs.other_name), ', ' order by one.attnum) into twice
  from (values
    ('user_id', 'userId'), ('expires_at', 'expiresAt'), ('created_at', 'createdAt'), ('updated_at', 'updatedAt'),
    ('email_verified', 'emailVerified'), ('ip_address', 'ipAddress'), ('user_agent', 'userAgent'),
    ('provider', 'provider_id'), ('provider', 'providerId'), ('provider_id', 'providerId'),
    ('provider_account_id', 'account_id'), ('provider_account_id', 'accountId'), ('account_id', 'accountId')
  ) as pairs (name, other_name)
  join pg_attribute one on one.attrelid = tab and one.attname = pairs.name and not one.attisdropped
  join pg_attribute other on other.attrelid = tab and other.attname = pairs.other_name and not other.attisdropped
  where (pairs.name in ('user_id', 'expires_at') and pairs.other_name in ('userId', 'expiresAt'))
    or (one.attnotnull and not one.atthasdef) or (other.attnotnull and not other.atthasdef);
  if twice is not null then
    raise exception 'the table % has both columns %, and Better Auth writes one of each two: keep the one that your Better Auth configuration names, copy the other''s values into it, and drop the other',
      tab, twice;
  end if;
end
$$;

-- Better Auth's tables: 'session' and 'user', and 'account' and 'verification' where they are found. No row where there are
-- no sessions. An exception where it is not clear which table is meant.
--
-- The setting migration_tools.auth_schema (AUTH_SCHEMA) restricts the search to one schema.
create or replace function migration_tools.find_auth_tables()
returns table (kind text, tab regclass)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  auth_schema text := nullif(current_setting('migration_tools.auth_schema', true), '');
  candidates regclass[];
  recorded regclass;
  sessions regclass;
  users regclass;
  accounts regclass;
  verifications regclass;
begin
  candidates := array(
    select pg_class.oid::regclass
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where relkind in ('r', 'p') and relname in ('session', 'sessions', 'Session')
      and case when auth_schema is null then nspname in ('public', 'neon_auth') else nspname = auth_schema end
      and migration_tools.column_name(pg_class.oid, '{user_id,userId}') is not null
      and migration_tools.column_name(pg_class.oid, '{expires_at,expiresAt}') is not null
    order by nspname <> 'public', relname
  );
  if cardinality(candidates) > 1 then
    candidates := array(select it from unnest(candidates) as it where not migration_tools.is_unused(it));
  end if;
  if cardinality(candidates) > 1 then
    -- An earlier choice stays in force.
    if to_regclass('migration_tools.auth_tables') is not null then
      execute 'select auth_tables.tab from migration_tools.auth_tables where auth_tables.kind = ''session''' into recorded;
    end if;
    if recorded = any (candidates) then
      candidates := array[recorded];
    else
      raise exception 'several tables may hold Better Auth''s sessions: %. Name the schema of the right one in AUTH_SCHEMA, or rename the other tables',
        array_to_string(candidates, ', ');
    end if;
  end if;
  sessions := candidates[1];
  if sessions is null then
    if auth_schema is not null then
      raise exception 'AUTH_SCHEMA is %, and that schema has no table session, sessions or Session with the columns of Better Auth',
        auth_schema;
    end if;
    return;
  end if;

  -- The table that the sessions refer to is the users', whatever its name.
  select confrelid into users
  from pg_constraint
  join pg_attribute on attrelid = conrelid and attnum = conkey[1]
  where conrelid = sessions and contype = 'f' and cardinality(conkey) = 1
    and attname = migration_tools.column_name(sessions, '{user_id,userId}');
  if users is null then
    candidates := array(
      select named.oid::regclass
      from pg_class named join pg_class session on session.relnamespace = named.relnamespace
      where session.oid = sessions and named.relkind in ('r', 'p') and named.relname in ('user', 'users', 'User')
        and migration_tools.column_name(named.oid, '{id}') is not null
    );
    if cardinality(candidates) > 1 then
      candidates := array(select it from unnest(candidates) as it where not migration_tools.is_unused(it));
    end if;
    if cardinality(candidates) <> 1 then
      raise exception 'it is not clear which table the sessions in % belong to: %. Add the foreign key of Better Auth, from its user id to the id of the user',
        sessions, coalesce(nullif(array_to_string(candidates, ' or '), ''), 'there is no table user, users or User beside it');
    end if;
    users := candidates[1];
  end if;

  select pg_class.oid into accounts
  from pg_class
  left join pg_constraint on conrelid = pg_class.oid and contype = 'f' and confrelid = users
  where relkind in ('r', 'p') and migration_tools.column_name(pg_class.oid, '{provider_id,providerId,provider}') is not null
    and migration_tools.column_name(pg_class.oid, '{account_id,accountId,provider_account_id}') is not null
    and (conrelid is not null or (
      relname in ('account', 'accounts', 'Account')
      and relnamespace = (select session.relnamespace from pg_class session where session.oid = sessions)))
  order by conrelid is null, migration_tools.is_unused(pg_class.oid), pg_class.oid
  limit 1;

  select named.oid into verifications
  from pg_class named join pg_class session on session.relnamespace = named.relnamespace
  where session.oid = sessions and named.relkind in ('r', 'p')
    and named.relname in ('verification', 'verifications', 'Verification')
    and migration_tools.column_name(named.oid, '{expires_at,expiresAt}') is not null
  order by migration_tools.is_unused(named.oid), named.relname
  limit 1;

  perform migration_tools.refuse_two_spellings(it)
  from unnest(array[sessions, users, accounts, verifications]) as it
  where it is not null;
  return query
    select all_kinds.kind, all_kinds.tab
    from (values ('session', sessions), ('user', users), ('account', accounts), ('verification', verifications))
      as all_kinds (kind, tab)
    where all_kinds.tab is not null;
end
$$;

-- Makes what migrations 0002 to 0012 need of "user", session and account where these are elsewhere: empty, and for one transaction.
create or replace function migration_tools.make_stand_ins(id_type text, mark text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  stand_in record;
begin
  for stand_in in
    select * from (values
      ('user', 'id %1$s primary key'),
      ('session', 'user_id %1$s references public."user" (id) on delete cascade, expires_at timestamp, token text'),
      ('account', 'user_id %1$s references public."user" (id) on delete cascade')
    ) as stand_ins (name, columns)
    where to_regclass(format('public.%I', name)) is null
  loop
    execute format('create table public.%I (%s)', stand_in.name, format(stand_in.columns, id_type));
    execute format('comment on table public.%I is %L', stand_in.name, mark);
  end loop;
end
$$;

-- Makes those of Better Auth's tables that are missing, as Better Auth 1.7 makes them for a configuration that renames nothing.
create or replace function migration_tools.make_better_auth_tables(id_type text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  made record;
begin
  for made in
    select * from (values
      ('user', 'id %1$s primary key, name text not null, email text not null unique, "emailVerified" boolean not null, image text,
        "createdAt" timestamptz not null default now(), "updatedAt" timestamptz not null default now()'),
      ('session', 'id %1$s primary key, "expiresAt" timestamptz not null, token text not null unique,
        "createdAt" timestamptz not null default now(), "updatedAt" timestamptz not null, "ipAddress" text, "userAgent" text,
        "userId" %1$s not null references public."user" (id) on delete cascade'),
      ('account', 'id %1$s primary key, "accountId" text not null, "providerId" text not null,
        "userId" %1$s not null references public."user" (id) on delete cascade, "accessToken" text, "refreshToken" text,
        "idToken" text, "accessTokenExpiresAt" timestamptz, "refreshTokenExpiresAt" timestamptz, scope text, password text,
        "createdAt" timestamptz not null default now(), "updatedAt" timestamptz not null'),
      ('verification', 'id %1$s primary key, identifier text not null, value text not null, "expiresAt" timestamptz not null,
        "createdAt" timestamptz not null default now(), "updatedAt" timestamptz not null default now()')
    ) as tables (name, columns)
    where to_regclass(format('public.%I', name)) is null
  loop
    execute format('create table public.%I (%s)', made.name, format(made.columns, id_type));
    execute format('comment on table public.%I is %L', made.name, 'Made by migration 0002.');
  end loop;
end
$$;

-- What has to be there before migration 0002 looks for "user" and session in public.
--
-- Migrations 0002 to 0012 know Better Auth's tables by these names alone. Where the users are elsewhere, stand-ins take the names,
-- the one of "user" with the users' ids, until migration 0014 removes them in the same transaction.
--
-- The setting migration_tools.auth_tables (--auth-tables) says which tables are made where there are none.
create or replace function migration_tools.prepare_auth_tables()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $prepare$
declare
  choice text := coalesce(nullif(current_setting('migration_tools.auth_tables', true), ''), 'default');
  sessions regclass := (select tab from migration_tools.find_auth_tables() where kind = 'session');
  users regclass := (select tab from migration_tools.find_auth_tables() where kind = 'user');
  id_type text := 'text';
  lookalike regclass;
begin
  if sessions is not null then
    if sessions is distinct from to_regclass('public.session') and migration_tools.column_name(sessions, '{token}') is null then
      raise exception 'the table % cannot be used: it has no column token', sessions;
    end if;
    id_type := (select format_type(atttypid, atttypmod) from pg_attribute where attrelid = users and attname = 'id');
    if sessions = to_regclass('public.session') and users = to_regclass('public."user"') then
      -- The ones that down dropped because they held no row: migrations 0002 and 0004 know the other spelling alone.
      if migration_tools.column_name(sessions, '{userId}') is not null then
        perform migration_tools.make_better_auth_tables(id_type);
      end if;
      return;
    end if;
  elsif choice = 'better-auth' then
    perform migration_tools.make_better_auth_tables(id_type);
    return;
  elsif choice = 'default' then
    select pg_class.oid into lookalike
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where relkind in ('r', 'p', 'v') and nspname in ('public', 'neon_auth')
      and (relname in ('users', 'User', 'sessions', 'Session') or (nspname, relname) in (('neon_auth', 'user'), ('neon_auth', 'session')))
    order by nspname, relname
    limit 1;
    if found then
      raise exception 'the table % may be Better Auth''s, and there is no table of its sessions: run Better Auth''s own migration first, or choose with --auth-tables (AuthTables) which tables are made beside it: schema, better-auth or none',
        lookalike;
    end if;
    return;
  elsif choice <> 'none' then
    -- 'schema': migration 0002 makes the tables of the schema specification.
    return;
  end if;

  perform migration_tools.make_stand_ins(id_type, 'Stand-in of migration 0013.');
  if obj_description(to_regclass('public."user"'), 'pg_class') = 'Stand-in of migration 0013.' and users is not null then
    execute format('insert into public."user" select id from %s', users);
  end if;
end
$prepare$;
