revoke all on public.idempotency_keys from tasks_api;
select migration_tools.drop_made_by('0008');
