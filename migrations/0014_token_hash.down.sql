-- Puts back the definitions of migrations 0012 and 0007. Where Better Auth's tables are elsewhere, the migrations before this one
-- get empty stand-ins again, and caller(text) stays as it is, on the right tables.
do $$
declare
  users regclass := (select tab from migration_tools.auth_tables where kind = 'user');
begin
  if to_regclass('public."user"') is null or to_regclass('public.session') is null then
    perform migration_tools.make_stand_ins(coalesce(
      (select format_type(atttypid, atttypmod) from pg_attribute where attrelid = users and attname = 'id'), 'text'), 'Made by migration 0002.');
  end if;
end
$$;

drop function public.session_lookup();
drop function if exists public.caller(bytea);
select migration_tools.drop_made_by('0014');
drop function public.token_hash(text);

create or replace function migration_tools.install_caller()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $install$
declare
  -- Without the type's length: a cast to varchar(36) would cut a longer id to another's.
  id_type text := (
    select format_type(atttypid, null) from pg_attribute where attrelid = 'public.tasks'::regclass and attname = 'user_id'
  );
  user_id name := migration_tools.required_column('public.session', '{user_id,userId}');
  expires_at name := migration_tools.required_column('public.session', '{expires_at,expiresAt}');
  has_zone boolean := (
    select atttypid = 'timestamptz'::regtype from pg_attribute where attrelid = 'public.session'::regclass and attname = expires_at
  );
  result text := format('TABLE(user_id %s, expires_at timestamp without time zone)', id_type);
begin
  perform migration_tools.required_column('public.session', '{token}');
  -- Two runs at once do not replace it under each other's hands.
  perform pg_advisory_xact_lock(hashtext('migration_tools.install_caller'));
  if pg_get_function_result(to_regprocedure('public.caller(text)')) <> result then
    drop function public.caller(text);
  end if;

  -- The ends are compared as epochs: right for timestamp (UTC) and timestamptz in every session's time zone, which a
  -- plain > now() is not.
  execute format(
    $sql$
      create or replace function public.caller(token text)
      returns table (user_id %1$s, expires_at timestamp)
      language plpgsql
      stable
      security definer
      rows 1
      set search_path = pg_catalog, pg_temp
      as $caller$
      begin
        return query
          select session.%2$I::%1$s, session.%3$I %4$s
          from public.session
          where session.token = caller.token
            and session.%2$I is not null
            and extract(epoch from session.%3$I) > extract(epoch from now());
      end
      $caller$
    $sql$,
    id_type, user_id, expires_at, case when has_zone then 'at time zone ''utc''' end
  );
  revoke execute on function public.caller(text) from public;
  if to_regrole('tasks_api') is not null then
    grant execute on function public.caller(text) to tasks_api;
  end if;
end
$install$;

create or replace function public.purge_expired(kind text, max_rows integer)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  tab regclass := case kind when 'session' then 'public.session' when 'verification' then 'public.verification' end;
  expires_at name;
  has_zone boolean;
  removed bigint;
begin
  if tab is null then
    raise exception 'nothing expires in %', kind;
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

do $$
begin
  if exists (select from migration_tools.auth_tables where kind = 'session' and tab = to_regclass('public.session')) then
    perform migration_tools.install_caller();
  end if;
end
$$;

drop function migration_tools.settle_auth_tables();
drop function migration_tools.refer_to_users(regclass, regclass);
drop function migration_tools.token_index(regclass);
drop function migration_tools.is_ours(regclass);
drop table migration_tools.auth_tables;
