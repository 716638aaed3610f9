-- Puts back the definition of migration 0005, search_path included.
create or replace function migration_tools.install_caller()
returns void
language plpgsql
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
      set search_path = pg_catalog, public, pg_temp
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

select migration_tools.install_caller();
