-- The order of the lists by status, newest first, so that their pages are read from an index without a sort. The schema
-- specification's idx_tasks_user_completed has no order: PostgreSQL reads and sorts all tasks with the status.
--
-- Two partial indexes would cost a write a little less, but a plan for any values, as of a prepared statement, cannot use them.
select migration_tools.make_index('0019', 'idx_tasks_user_status', 'public.tasks',
  '{user_id,completed,created_at,id}', 'user_id, completed, created_at desc, id desc');
