-- Better Auth's JWTs: the keys that verify them, and the session check for a user whose JWT the function has verified.
--
-- A JWT lives on after the sign-out. So a statement begins with caller(text[]), which wants the user to have a session that is
-- as old as the JWT, and not to be banned: signing out, a ban or the user's deletion ends it at the next call.

-- The table of the keys' public and private halves, or null. It counts only beside the sessions and with their owner: whoever
-- may create tables there could otherwise plant a key, and sign in as anybody.
create function migration_tools.jwks_table()
returns regclass
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jwks.oid::regclass
  from migration_tools.auth_tables
  join pg_class session on session.oid = tab
  join pg_class jwks on jwks.relnamespace = session.relnamespace and jwks.relowner = session.relowner
  where kind = 'session' and jwks.relkind in ('r', 'p')
    -- jwkss is the plural that Better Auth's Drizzle adapter makes.
    and jwks.relname in ('jwks', 'jwkss', 'Jwks')
    and migration_tools.column_name(jwks.oid, '{id}') is not null
    and migration_tools.column_name(jwks.oid, '{public_key,publicKey}') is not null
  order by array_position('{jwks,jwkss,Jwks}'::text[], jwks.relname::text)
  limit 1
$$;

-- For the functions: the newest public halves. No row where there is no such table, or where this role may not read it.
create function public.jwt_keys()
returns table (id text, public_key text, algorithm text, expires_at bigint)
language plpgsql
stable
security definer
rows 10
set search_path = pg_catalog, pg_temp
as $$
declare
  jwks regclass := migration_tools.jwks_table();
  expiry name := migration_tools.column_name(jwks, '{expires_at,expiresAt}');
  creation name := migration_tools.column_name(jwks, '{created_at,createdAt}');
begin
  if jwks is null or not has_table_privilege(jwks, 'select') then
    return;
  end if;
  -- Expiries are in seconds since 1970, as in a JWT. Infinity is no bigint.
  return query execute format(
    'select id::text, %1$I::text, %2$s::text,
      case when %3$s is not null then least(greatest(extract(epoch from %3$s), -1e12), 1e12)::bigint end
    from %4$s order by %5$s desc limit 100',
    migration_tools.column_name(jwks, '{public_key,publicKey}'),
    coalesce(quote_ident(migration_tools.column_name(jwks, '{alg}')), 'null'),
    coalesce(quote_ident(expiry), 'null::timestamptz'),
    jwks,
    coalesce(quote_ident(creation), '1')
  );
end
$$;
revoke execute on function public.jwt_keys() from public;
grant execute on function public.jwt_keys() to tasks_api;

-- Makes caller(text[]), of a JWT's sub and iat. Without iat, for issuers that keep no sessions, the user alone counts.
create function migration_tools.install_jwt_caller()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $install$
declare
  sessions regclass := (select tab from migration_tools.auth_tables where kind = 'session');
  users regclass := (select tab from migration_tools.auth_tables where kind = 'user');
  user_id name := migration_tools.column_name(sessions, '{user_id,userId}');
  expires_at name := migration_tools.column_name(sessions, '{expires_at,expiresAt}');
  created_at name := migration_tools.column_name(sessions, '{created_at,createdAt}');
  banned name := (select attname from pg_attribute where attrelid = users and attname = 'banned' and atttypid = 'boolean'::regtype);
  ban_expires name := migration_tools.column_name(users, '{ban_expires,banExpires}');
  has_zone boolean := (select atttypid = 'timestamptz'::regtype from pg_attribute where attrelid = sessions and attname = expires_at);
  -- Without the types' lengths: a cast to varchar(36) would cut a longer id to another's.
  id_type text := (
    select format_type(atttypid, null) from pg_attribute where attrelid = 'public.tasks'::regclass and attname = 'user_id'
  );
  users_id_type text := (select format_type(atttypid, null) from pg_attribute where attrelid = users and attname = 'id');
  result text := format('TABLE(user_id %s, expires_at timestamp without time zone)', id_type);
begin
  if pg_get_function_result(to_regprocedure('public.caller(text[])')) <> result then
    drop function public.caller(text[]);
  end if;
  -- Times are compared as in caller(text). The 5 s: iat is in whole seconds, and the session can be a moment younger than the
  -- JWT that was asked for right after the sign-up.
  execute format(
    $sql$
      create or replace function public.caller(jwt text[])
      returns table (user_id %1$s, expires_at timestamp)
      language plpgsql
      stable
      security definer
      rows 1
      set search_path = pg_catalog, pg_temp
      as $caller$
      begin
        %2$s
      end
      $caller$
    $sql$,
    id_type,
    case
      when created_at is null or not has_table_privilege(users, 'select') then 'return;'
      else format(
        'return query
          select person.id::%1$s, live.ends %2$s
          from %3$s person
          cross join lateral (
            select max(session.%4$I) as ends
            from %5$s session
            where session.%6$I = person.id
              and extract(epoch from session.%4$I) > extract(epoch from now())
              and extract(epoch from session.%7$I) <= caller.jwt[2]::bigint + 5
          ) live
          where person.id = caller.jwt[1]::%8$s
            and person.id::text = caller.jwt[1]
            and (live.ends is not null or cardinality(caller.jwt) = 1)%9$s;
        %10$s',
        id_type, case when has_zone then 'at time zone ''utc''' end, users, expires_at, sessions, user_id, created_at,
        users_id_type,
        case when banned is not null then format(
          '
            and (person.banned is not true%s)',
          case when ban_expires is not null then
            format(' or extract(epoch from person.%I) <= extract(epoch from now())', ban_expires)
          end)
        end,
        -- A sub that is not of the ids' type is nobody's.
        case when users_id_type not in ('text', 'character varying') then
          'exception when data_exception or integrity_constraint_violation then
            return;'
        end)
    end
  );
  revoke execute on function public.caller(text[]) from public;
  if to_regrole('tasks_api') is not null then
    grant execute on function public.caller(text[]) to tasks_api;
  end if;
end
$install$;

-- Every up makes both forms again.
alter function migration_tools.install_caller() rename to install_session_caller;
create function migration_tools.install_caller()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  perform migration_tools.install_session_caller();
  perform migration_tools.install_jwt_caller();
end
$$;

select migration_tools.install_caller();
