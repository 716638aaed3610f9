-- What a batch with an Idempotency-Key answered, so that the same batch is answered again and not done again.
--
-- For each operation its outcome, and then for each the id of the task that it created, or 0. No content: a task in the
-- answer is read anew. The row's task_id is 0, which no task has, and its request_hash is never that of a single creation.
alter table public.idempotency_keys add column if not exists results integer[];
