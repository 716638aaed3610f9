do $$
declare
  moved record;
begin
  for moved in select * from migration_tools.moved_privileges loop
    if moved.role_name = 'public' then
      execute format('grant %s %I to public', moved.privilege, moved.object);
    elsif to_regrole(quote_ident(moved.role_name)) is not null then
      execute format('revoke %s %I from %I', moved.privilege, moved.object, moved.role_name);
    end if;
  end loop;
end
$$;

drop table migration_tools.moved_privileges;
drop function migration_tools.may(name, text);
