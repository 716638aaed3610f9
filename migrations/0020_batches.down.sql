-- Without its results, a batch's key would be taken for one of a single creation.
delete from public.idempotency_keys where results is not null;
alter table public.idempotency_keys drop column results;
