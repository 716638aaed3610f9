drop trigger if exists note_insert on public.tasks;
drop trigger if exists note_update on public.tasks;
drop trigger if exists note_delete on public.tasks;
drop trigger if exists note_truncate on public.tasks;
delete from migration_tools.secured_tables where tab = 'public.removed_tasks'::regclass;
delete from migration_tools.taken_rights
where kind = 'table' and object = 'public.removed_tasks'::regclass
  or kind = 'function' and object in ('public.sync_history()'::regprocedure, 'public.purge_removed(integer)'::regprocedure);
-- With its rows: they only say which ids are gone, and after the way up again every reader starts over.
drop table public.removed_tasks;
drop function public.sync_history();
drop function public.purge_removed(integer);
drop function migration_tools.settle_sync();
drop function migration_tools.missing_sync_triggers();
drop function migration_tools.sync_triggers();
drop function migration_tools.new_epoch();
drop function migration_tools.note_truncation();
drop function migration_tools.begin_history();
drop function migration_tools.note_removals();
drop function migration_tools.visible_users();
drop function migration_tools.note_change();
drop table migration_tools.sync_state;
alter table public.tasks drop column changed;

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
      union all values (to_regclass('public.tasks'), false), (to_regclass('public.idempotency_keys'), false), (keys, true)
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
    and proname in ('caller', 'jwt_keys', 'purge_expired', 'session_lookup')
$$;
