do $$
begin
  execute format('alter role tasks_api in database %I reset all', current_database());
  execute format('revoke all on sequence %s from tasks_api', pg_get_serial_sequence('public.tasks', 'id'));
end
$$;

revoke all on function public.caller(text) from tasks_api;
revoke all on public.tasks from tasks_api;
revoke all on schema public from tasks_api;

do $$
begin
  if shobj_description('tasks_api'::regrole, 'pg_authid') = 'Made by migration 0006.' then
    drop role tasks_api;
  end if;
exception
  when dependent_objects_still_exist then
    raise warning 'kept the role tasks_api: another database of this server uses it';
end
$$;
