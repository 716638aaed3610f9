-- Closes the other doors to the tables: what other roles may do with them, and row-level security for whoever gets a right later.
--
-- With default privileges, as Supabase's and Neon's Data API have them, every new table can be read and truncated by roles that the
-- internet uses. Row-level security does not stop TRUNCATE, so the rights are taken too.
--
-- What our migrations made is closed to everybody but its owner and tasks_api. Two exceptions, for front ends that connect as a
-- role of their own: on Better Auth's tables, only the rights of everybody are taken, and those that a role without a login has by
-- default; and a role for which somebody has made a policy keeps its rights. Tables that were there before are closed only if
-- nobody else uses them.

-- The tables for which migrations switched row-level security on, and the rights that they took: for the way down.
create table migration_tools.secured_tables (tab regclass primary key);
create table migration_tools.taken_rights (
  kind text, object oid, col name, role_id oid, privilege text, is_grantable boolean,
  primary key (kind, object, col, role_id, privilege)
);

-- The rights that others have on an object by grants: all but its owner, who acts for the owner, tasks_api and superusers.
create function migration_tools.rights_of_others(kind text, object oid)
returns table (col name, role_id oid, privilege text, is_grantable boolean, is_default boolean)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select acls.col, acl.grantee, acl.privilege_type, acl.is_grantable, acl.grantee = 0 or not rolcanlogin and exists (
    select from pg_default_acl, aclexplode(defaclacl) as by_default
    where rights_of_others.kind = 'table' and defaclobjtype = 'r' and defaclrole = acls.owner
      and defaclnamespace in (0, acls.schema) and by_default.grantee = acl.grantee and by_default.privilege_type = acl.privilege_type
  )
  from (
    select ''::name, relowner, relnamespace, relacl from pg_class
    where rights_of_others.kind in ('table', 'sequence') and oid = object
    union all
    select attname, relowner, relnamespace, attacl from pg_class join pg_attribute on attrelid = pg_class.oid
    where rights_of_others.kind = 'table' and pg_class.oid = object and attacl is not null
    union all
    select '', proowner, pronamespace, proacl from pg_proc where rights_of_others.kind = 'function' and oid = object
    union all
    select '', nspowner, oid, nspacl from pg_namespace where rights_of_others.kind = 'schema' and oid = object
  ) as acls (col, owner, schema, rights)
  cross join aclexplode(acls.rights) as acl
  left join pg_roles on pg_roles.oid = acl.grantee
  where rolsuper is not true and rolname is distinct from 'tasks_api'
    and (acl.grantee = 0 or not pg_has_role(acl.grantee, acls.owner, 'usage'))
    and not exists (
      select from pg_policy
      where rights_of_others.kind = 'table' and polrelid = object and acl.grantee <> 0 and acl.grantee = any (polroles)
    )
$$;

-- The roles that row-level security would lock out of a table, by whatever way they have a right on it; 'everybody' for public.
create function migration_tools.roles_to_lock_out(tab regclass)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with
  role_is as (
    select pg_roles.*, pg_has_role(pg_roles.oid, relowner, 'usage') as is_owner, exists (
      select from pg_policy, unnest(polroles) as named
      where polrelid = tab and named <> 0 and pg_has_role(pg_roles.oid, named, 'usage')
    ) as has_policy
    from pg_roles, pg_class
    where pg_class.oid = tab and rolname !~ '^pg_'
  ),
  may as (
    select rolname from role_is
    where not rolsuper and not rolbypassrls and not is_owner and not has_policy and rolname <> 'tasks_api' and (
      has_table_privilege(role_is.oid, tab, 'select, insert, update, delete, truncate, references, trigger')
      or has_any_column_privilege(role_is.oid, tab, 'select, insert, update, references')
    )
  )
  select case
    when has_table_privilege('public', tab, 'select, insert, update, delete, truncate, references, trigger')
      or has_any_column_privilege('public', tab, 'select, insert, update, references') then 'everybody'
    else (select string_agg(rolname, ', ' order by rolname) from may)
  end
$$;

-- An object's name in a statement.
create function migration_tools.object_name(kind text, object oid)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select kind || ' ' || case kind
    when 'function' then object::regprocedure::text
    when 'schema' then object::regnamespace::text
    else object::regclass::text
  end
$$;

-- Takes the rights of others on an object, or those alone that they have by default.
create function migration_tools.take_rights(kind text, object oid, only_defaults boolean default false)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  taken record;
begin
  for taken in
    select * from migration_tools.rights_of_others(take_rights.kind, take_rights.object) as rights
    where rights.is_default or not only_defaults
  loop
    insert into migration_tools.taken_rights
    values (take_rights.kind, take_rights.object, taken.col, taken.role_id, taken.privilege, taken.is_grantable)
    on conflict do nothing;
    execute format('revoke %s %s on %s from %s cascade',
      taken.privilege, '(' || quote_ident(nullif(taken.col, '')) || ')', migration_tools.object_name(take_rights.kind, take_rights.object),
      case taken.role_id when 0 then 'public' else taken.role_id::regrole::text end);
  end loop;
end
$$;

-- The tables to close, and how: 'closed' to everybody else, 'shared' with the front end, or 'adopted' as they were found.
create function migration_tools.tables_to_close()
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

-- The functions of ours that run with their owner's rights.
create function migration_tools.own_functions()
returns setof regprocedure
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select oid::regprocedure from pg_proc
  where pronamespace = 'public'::regnamespace and prosecdef and pg_has_role(proowner, 'usage')
    and proname in ('caller', 'jwt_keys', 'purge_expired', 'session_lookup')
$$;

-- Closes what is open: with each up, because tables come and go, and default privileges give rights on the new ones.
--
-- The setting migration_tools.row_security is 'force' (--rls) to close the tables that others use, too.
create function migration_tools.settle_rights()
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  is_forced boolean := current_setting('migration_tools.row_security', true) is not distinct from 'force';
  found record;
  others text;
begin
  perform migration_tools.take_rights('schema', 'migration_tools'::regnamespace);
  perform migration_tools.take_rights('function', own_functions) from migration_tools.own_functions();
  for found in
    select tab, rule, relrowsecurity as is_secured
    from migration_tools.tables_to_close() join pg_class on pg_class.oid = tab
  loop
    if found.rule <> 'adopted' or is_forced then
      perform migration_tools.take_rights('table', found.tab, found.rule = 'shared' and not is_forced);
    end if;
    if found.rule = 'closed' then
      perform migration_tools.take_rights('sequence', objid)
      from pg_depend
      where refclassid = 'pg_class'::regclass and refobjid = found.tab and classid = 'pg_class'::regclass and deptype in ('a', 'i')
        and exists (select from pg_class where pg_class.oid = objid and relkind = 'S');
    end if;
    others := migration_tools.roles_to_lock_out(found.tab);
    if not found.is_secured and (found.rule = 'closed' or is_forced or others is null) then
      execute format('alter table %s enable row level security', found.tab);
      insert into migration_tools.secured_tables values (found.tab) on conflict do nothing;
    elsif not found.is_secured then
      raise warning 'row-level security stays off for %, on which other roles have rights: %. Take these rights, or let "migrate up --rls" do it',
        found.tab, others;
    elsif found.rule <> 'closed' and others is not null and found.tab in (select tab from migration_tools.secured_tables) then
      raise warning 'row-level security hides the rows of % from roles that have rights on it: %. Give each a policy, or take its rights',
        found.tab, others;
    end if;
    if found.tab in ('public.tasks'::regclass, 'public.idempotency_keys'::regclass)
      and (select relrowsecurity from pg_class where oid = found.tab)
      and not exists (select from pg_policy where polrelid = found.tab and polname = 'tasks_api')
    then
      execute format('create policy tasks_api on %s to tasks_api using (true) with check (true)', found.tab);
      execute format('comment on policy tasks_api on %s is %L', found.tab, 'Made by migration 0017.');
    end if;
  end loop;
end
$$;
