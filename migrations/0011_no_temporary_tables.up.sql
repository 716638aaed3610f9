-- Takes from the API's role what everybody may by default: make temporary tables and functions and, in databases that began
-- before PostgreSQL 15, anything in the schema public.
--
-- A pooler gives a server's connection to one client after another. A temporary table "tasks" that somebody has left there
-- would take the place of the real one, because PostgreSQL looks for it first.
--
-- What everybody may can only be taken from everybody. So each role that can log in and would lose it gets it by its own
-- name; roles that are made later do not have it, unless somebody grants it to them.
create function migration_tools.may(role_name name, privilege text)
returns boolean
language sql
stable
as $$
  select case privilege
    when 'temporary on database' then has_database_privilege(role_name, current_database(), 'temporary')
    when 'create on schema' then has_schema_privilege(role_name, 'public', 'create')
  end
$$;

-- For the way down: what was taken (from 'public', which is everybody) and whom it was given to.
create table migration_tools.moved_privileges (privilege text, object name, role_name name);

do $$
declare
  had name[];
  wanted record;
  loser name;
begin
  for wanted in
    select * from (values ('temporary on database', current_database()), ('create on schema', 'public')) as wanted (privilege, object)
    where migration_tools.may('public', privilege)
  loop
    had := array(
      select rolname from pg_roles
      where migration_tools.may(rolname, wanted.privilege) and rolcanlogin and rolname <> 'tasks_api'
    );
    begin
      execute format('revoke %s %I from public', wanted.privilege, wanted.object);
    exception
      when insufficient_privilege then null;
    end;
    if migration_tools.may('public', wanted.privilege) then
      raise warning 'everybody may still % %: only its owner can take that', wanted.privilege, wanted.object;
      continue;
    end if;
    insert into migration_tools.moved_privileges values (wanted.privilege, wanted.object, 'public');
    foreach loser in array had loop
      if not migration_tools.may(loser, wanted.privilege) then
        execute format('grant %s %I to %I', wanted.privilege, wanted.object, loser);
        insert into migration_tools.moved_privileges values (wanted.privilege, wanted.object, loser);
      end if;
    end loop;
  end loop;
end
$$;
