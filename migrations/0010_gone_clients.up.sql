-- A statement whose client has gone, as when the pooler was restarted or the function has given it up, ends within half a second:
-- what was answered with an error must not be written later.
do $$
begin
  execute format('alter role tasks_api in database %I set client_connection_check_interval = ''500ms''', current_database());
end
$$;
