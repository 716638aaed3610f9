-- What a client named a creation by (Idempotency-Key), and the task that came of it: asked for again, the same is answered.
do $$
declare
  user_id_type text := (
    select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'public.tasks'::regclass and attname = 'user_id'
  );
begin
  if to_regclass('public.idempotency_keys') is null then
    execute format('
      create table public.idempotency_keys (
        user_id      %s not null references public."user" (id) on delete cascade,
        key          varchar(255) not null,
        request_hash bytea not null,
        task_id      integer not null,
        created_at   timestamp not null,
        -- The transaction that the task was made in: any other only answers it again.
        made_by      xid8 not null default pg_current_xact_id(),
        primary key (user_id, key)
      )', user_id_type);
    comment on table public.idempotency_keys is 'Made by migration 0008.';
  end if;
  -- For the purge.
  perform migration_tools.make_index('0008', 'idx_idempotency_keys_created_at', 'public.idempotency_keys', '{created_at}');
end
$$;

grant select, insert, update, delete on public.idempotency_keys to tasks_api;
