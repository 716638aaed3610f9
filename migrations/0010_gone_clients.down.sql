do $$
begin
  execute format('alter role tasks_api in database %I reset client_connection_check_interval', current_database());
end
$$;
