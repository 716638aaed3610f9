-- Compares a database with what the migrations create: one row for each difference.
with
column_is as (
  select attrelid as tab, attname::text as col, format_type(atttypid, null) as type, attnotnull as is_required
  from pg_attribute
  where attrelid in ('public."user"'::regclass, 'public.session'::regclass, 'public.account'::regclass,
      'public.verification'::regclass, 'public.tasks'::regclass)
    and attnum > 0 and not attisdropped
),
column_should_be (tab, variants, types, is_required) as (values
  ('public."user"'::regclass, '{id}'::text[], null::text[], true),
  ('public."user"', '{email}', null, true),
  ('public."user"', '{email_verified,emailVerified}', '{boolean}', null),
  ('public.session', '{token}', '{text,character varying}', true),
  ('public.session', '{user_id,userId}', null, null),
  ('public.session', '{expires_at,expiresAt}', '{timestamp without time zone,timestamp with time zone}', true),
  ('public.session', '{updated_at,updatedAt}', '{timestamp without time zone,timestamp with time zone}', null),
  ('public.account', '{user_id,userId}', null, null),
  ('public.account', '{provider,providerId}', null, true),
  ('public.account', '{provider_account_id,accountId}', null, true),
  ('public.account', '{password}', '{text}', null),
  ('public.verification', '{identifier}', null, true),
  ('public.tasks', '{id}', '{integer}', true),
  ('public.tasks', '{user_id}', array[(select type from column_is where tab = 'public."user"'::regclass and col = 'id')], true),
  ('public.tasks', '{title}', '{character varying,text}', true),
  ('public.tasks', '{description}', '{text,character varying}', false),
  ('public.tasks', '{completed}', '{boolean}', true),
  ('public.tasks', '{created_at}', '{timestamp without time zone}', true),
  ('public.tasks', '{updated_at}', '{timestamp without time zone}', true)
),
index_is as (
  select indrelid as tab, array(
    select attname::text
    from unnest(indkey) with ordinality as key (number, place)
    join pg_attribute on attrelid = indrelid and attnum = number
    where place <= indnkeyatts
    order by place
  ) as cols
  from pg_index
  where indpred is null and indisvalid
),
index_should_be (tab, cols) as (values
  ('public.session'::regclass, array[migration_tools.column_name('public.session', '{user_id,userId}')::text]),
  ('public.session', array[migration_tools.column_name('public.session', '{expires_at,expiresAt}')::text]),
  ('public.session', '{token}'),
  ('public.account', array[migration_tools.column_name('public.account', '{user_id,userId}')::text]),
  ('public.verification', '{identifier}'),
  ('public.tasks', '{user_id}'),
  ('public.tasks', '{completed}'),
  ('public.tasks', '{user_id,completed}'),
  ('public.tasks', '{created_at}'),
  ('public.tasks', '{user_id,created_at,id}'),
  ('public.tasks', '{user_id,updated_at,id}'),
  ('public.idempotency_keys', '{user_id,key}'),
  ('public.idempotency_keys', '{created_at}')
),
function_should_be (signature) as (values ('caller(text)'), ('purge_expired(text, integer)')),
right_is as (
  select relname || ' ' || privilege as allowed
  from pg_class, unnest('{select,insert,update,delete,truncate,references,trigger}'::text[]) as privilege
  where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm')
    and to_regrole('tasks_api') is not null and has_table_privilege(to_regrole('tasks_api'), pg_class.oid, privilege)
),
right_should_be (allowed) as (values
  ('tasks select'), ('tasks insert'), ('tasks update'), ('tasks delete'),
  ('idempotency_keys select'), ('idempotency_keys insert'), ('idempotency_keys update'), ('idempotency_keys delete')
)

select format('the column %s.%s is missing', tab, array_to_string(variants, ' or ')) as difference
from column_should_be
where migration_tools.column_name(tab, variants) is null
union all
select format('the column %s.%s is of type %s, and should be %s', tab, col, type, array_to_string(types, ' or '))
from column_should_be join column_is using (tab)
where col = migration_tools.column_name(tab, variants) and type <> all (types)
union all
select format('the column %s.%s may %s null', tab, col, case when should.is_required then 'be' else 'not be' end)
from column_should_be should join column_is using (tab)
where col = migration_tools.column_name(tab, variants) and should.is_required <> column_is.is_required
union all
select format('an index on %s (%s) is missing', tab, array_to_string(cols, ', '))
from index_should_be
where not exists (select from index_is where index_is.tab = index_should_be.tab and index_is.cols = index_should_be.cols)
union all
select 'tasks.title has no CHECK of its length'
where not exists (
  select from pg_constraint where conrelid = 'public.tasks'::regclass and contype = 'c' and pg_get_constraintdef(oid) like '%title%'
)
union all
select format('the rows of %s are not deleted with their user', tab)
from unnest('{public.tasks,public.session,public.account,public.idempotency_keys}'::regclass[]) as tab
where not exists (
  select from pg_constraint
  where conrelid = tab and contype = 'f' and confrelid = 'public."user"'::regclass and confdeltype = 'c'
)
union all
select format('the function %s is missing', signature)
from function_should_be
where to_regprocedure('public.' || signature) is null
union all
select format('the function %s does not run with its owner''s rights, or may be called by everybody', signature)
from function_should_be
join pg_proc on pg_proc.oid = to_regprocedure('public.' || signature)
where not prosecdef or proacl is null or exists (select from aclexplode(proacl) where grantee = 0)
union all
select format('the function %s does not have the search_path pg_catalog, pg_temp, so others could choose what its names mean', signature)
from function_should_be
join pg_proc on pg_proc.oid = to_regprocedure('public.' || signature)
where 'search_path=pg_catalog, pg_temp' = any (proconfig) is not true
union all
select 'the role tasks_api is missing' where to_regrole('tasks_api') is null
union all
select 'the role tasks_api has more rights than an ordinary role'
from pg_roles
where rolname = 'tasks_api' and (rolsuper or rolcreaterole or rolcreatedb or rolbypassrls or rolreplication)
union all
select 'the role tasks_api may make temporary tables: only the owner of the database can take that right from everybody'
where to_regrole('tasks_api') is not null and has_database_privilege(to_regrole('tasks_api'), current_database(), 'temporary')
union all
select 'the role tasks_api may make objects in the schema public: only its owner can take that right from everybody'
where to_regrole('tasks_api') is not null and has_schema_privilege(to_regrole('tasks_api'), 'public', 'create')
union all
select format('the role tasks_api lacks the right: %s', allowed)
from (select allowed from right_should_be except select allowed from right_is) as lacking
where to_regrole('tasks_api') is not null
union all
select format('the role tasks_api should not have the right: %s', allowed)
from (select allowed from right_is except select allowed from right_should_be) as too_much
union all
select format('the role tasks_api may not call %s', signature)
from function_should_be
where to_regprocedure('public.' || signature) is not null and to_regrole('tasks_api') is not null
  and not has_function_privilege(to_regrole('tasks_api'), to_regprocedure('public.' || signature), 'execute')
union all
select 'the role tasks_api may not use the sequence of tasks.id'
where to_regrole('tasks_api') is not null and pg_get_serial_sequence('public.tasks', 'id') is not null
  and not has_sequence_privilege(to_regrole('tasks_api'), pg_get_serial_sequence('public.tasks', 'id'), 'usage')
union all
select 'the role tasks_api has no statement_timeout in this database'
where to_regrole('tasks_api') is not null and not exists (
  select from pg_db_role_setting
  where setrole = to_regrole('tasks_api') and setdatabase = (select oid from pg_database where datname = current_database())
    and array_to_string(setconfig, ' ') like '%statement_timeout=%'
)
order by 1
