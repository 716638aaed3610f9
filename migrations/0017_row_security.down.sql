do $$
declare
  made record;
begin
  for made in
    select polname, polrelid::regclass as tab
    from pg_policy join pg_description on classoid = 'pg_policy'::regclass and objoid = pg_policy.oid
    where description = 'Made by migration 0017.'
  loop
    execute format('drop policy %I on %s', made.polname, made.tab);
  end loop;
  for made in select tab from migration_tools.secured_tables join pg_class on pg_class.oid = tab loop
    execute format('alter table %s disable row level security', made.tab);
  end loop;
  for made in
    select taken_rights.*, coalesce(rolname::text, 'public') as role_name
    from migration_tools.taken_rights
    left join pg_roles on pg_roles.oid = role_id
    -- What was dropped since needs nothing.
    where (role_id = 0 or rolname is not null) and case kind
      when 'function' then exists (select from pg_proc where oid = object)
      when 'schema' then exists (select from pg_namespace where oid = object)
      else exists (select from pg_class where oid = object)
        and (col = '' or exists (select from pg_attribute where attrelid = object and attname = col and not attisdropped))
    end
  loop
    execute format('grant %s %s on %s to %s %s',
      made.privilege, '(' || quote_ident(nullif(made.col, '')) || ')', migration_tools.object_name(made.kind, made.object),
      case made.role_id when 0 then 'public' else quote_ident(made.role_name) end,
      case when made.is_grantable then 'with grant option' end);
  end loop;
end
$$;

drop function migration_tools.settle_rights();
drop function migration_tools.own_functions();
drop function migration_tools.tables_to_close();
drop function migration_tools.take_rights(text, oid, boolean);
drop function migration_tools.object_name(text, oid);
drop function migration_tools.roles_to_lock_out(regclass);
drop function migration_tools.rights_of_others(text, oid);
drop table migration_tools.taken_rights;
drop table migration_tools.secured_tables;
