-- The order of the list by last change, so that its pages too are read from an index without a sort.
select migration_tools.make_index('0009', 'idx_tasks_user_updated', 'public.tasks',
  '{user_id,updated_at,id}', 'user_id, updated_at desc, id desc');
