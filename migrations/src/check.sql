-- Compares a database with what the migrations create: one row for each difference.
with
auth as (select kind, tab, migration_tools.is_ours(tab) as is_ours from migration_tools.auth_tables where kind <> 'none'),
own (tab) as (values ('public.tasks'::regclass), ('public.idempotency_keys'), ('public.removed_tasks')),
-- The names without the schema that they are expected in.
known as (select tab, regexp_replace(tab::text, '^public\.', '') as name from auth union select tab, regexp_replace(tab::text, '^public\.', '') from own),
column_is as (
  select attrelid::regclass as tab, attname::text as col, format_type(atttypid, null) as type, attnotnull as is_required
  from pg_attribute
  where attrelid in (select tab from known) and attnum > 0 and not attisdropped
),
auth_column_should_be (kind, variants, types, is_required) as (values
  ('user', '{id}'::text[], null::text[], true),
  ('user', '{email}', null, true),
  ('user', '{email_verified,emailVerified}', '{boolean}', null),
  ('session', '{token}', '{text,character varying}', true),
  ('session', '{user_id,userId}', null, null),
  ('session', '{expires_at,expiresAt}', '{timestamp without time zone,timestamp with time zone}', true),
  ('session', '{created_at,createdAt}', '{timestamp without time zone,timestamp with time zone}', null),
  ('session', '{updated_at,updatedAt}', '{timestamp without time zone,timestamp with time zone}', null),
  ('account', '{user_id,userId}', null, null),
  ('account', '{provider,provider_id,providerId}', null, true),
  ('account', '{provider_account_id,account_id,accountId}', null, true),
  ('account', '{password}', '{text,character varying}', null),
  ('verification', '{identifier}', null, true)
),
column_should_be (tab, variants, types, is_required) as (
  select tab, variants, types, is_required from auth_column_should_be join auth using (kind)
  union all
  values
    ('public.tasks'::regclass, '{id}'::text[], '{integer}'::text[], true),
    ('public.tasks', '{user_id}', (
      -- Text of any kind can refer to text of any kind.
      select case when type in ('text', 'character varying') then '{text,character varying}' else array[type] end
      from column_is join auth using (tab) where kind = 'user' and col = 'id'), true),
    ('public.tasks', '{title}', '{character varying,text}', true),
    ('public.tasks', '{description}', '{text,character varying}', false),
    ('public.tasks', '{completed}', '{boolean}', true),
    ('public.tasks', '{created_at}', '{timestamp without time zone}', true),
    ('public.tasks', '{updated_at}', '{timestamp without time zone}', true),
    ('public.tasks', '{changed}', '{xid8}', true),
    ('public.removed_tasks', '{changed}', '{xid8}', true)
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
index_should_be (tab, cols) as (
  select tab, array[migration_tools.column_name(tab, variants)::text]
  from auth join (values
    ('session', '{user_id,userId}'::text[]), ('session', '{expires_at,expiresAt}'), ('session', '{token}'),
    ('account', '{user_id,userId}'), ('verification', '{identifier}')
  ) as wanted (kind, variants) using (kind)
  -- Better Auth's own migration of a renamed table makes none, and nothing here asks for them but the purge.
  where is_ours and (tab::text in ('public.session', 'public.account', 'public.verification') or kind = 'session')
  union all
  values
    ('public.tasks'::regclass, '{user_id}'::text[]),
    ('public.tasks', '{completed}'),
    ('public.tasks', '{user_id,completed}'),
    ('public.tasks', '{created_at}'),
    ('public.tasks', '{user_id,created_at,id}'),
    ('public.tasks', '{user_id,updated_at,id}'),
    ('public.tasks', '{user_id,completed,created_at,id}'),
    ('public.tasks', '{user_id,changed,id}'),
    ('public.removed_tasks', '{user_id,changed,task_id}'),
    ('public.removed_tasks', '{removed_at}'),
    ('public.idempotency_keys', '{user_id,key}'),
    ('public.idempotency_keys', '{created_at}')
),
-- Also those that are not used.
keys_table (tab, name, owner, sessions_owner) as (
  select jwks.oid::regclass, regexp_replace(jwks.oid::regclass::text, '^public\.', ''), jwks.relowner, session.relowner
  from auth
  join pg_class session on session.oid = tab
  join pg_class jwks on jwks.relnamespace = session.relnamespace
  where kind = 'session' and jwks.relname in ('jwks', 'jwkss', 'Jwks') and jwks.relkind in ('r', 'p', 'v', 'm', 'f')
),
function_should_be (signature) as (
  values ('caller(text)'), ('caller(text[])'), ('jwt_keys()'), ('purge_expired(text, integer)'), ('purge_removed(integer)'),
    ('session_lookup()'), ('sync_history()')
  union all
  -- Where the sessions cannot be indexed, the token is looked up itself.
  select 'caller(bytea)' where exists (select from auth where kind = 'session' and is_ours)
),
right_is as (
  select relname || ' ' || privilege as allowed
  from pg_class, unnest('{select,insert,update,delete,truncate,references,trigger}'::text[]) as privilege
  where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm')
    and to_regrole('tasks_api') is not null and has_table_privilege(to_regrole('tasks_api'), pg_class.oid, privilege)
),
right_should_be (allowed) as (values
  ('tasks select'), ('tasks insert'), ('tasks update'), ('tasks delete'), ('removed_tasks select'),
  ('idempotency_keys select'), ('idempotency_keys insert'), ('idempotency_keys update'), ('idempotency_keys delete')
)

select format('the column %s.%s is missing', name, array_to_string(variants, ' or ')) as difference
from column_should_be join known using (tab)
where migration_tools.column_name(tab, variants) is null
union all
select format('the column %s.%s is of type %s, and should be %s', name, col, type, array_to_string(types, ' or '))
from column_should_be join column_is using (tab) join known using (tab)
where col = migration_tools.column_name(tab, variants) and type <> all (types)
union all
select format('the column %s.%s may %s null', name, col, case when should.is_required then 'be' else 'not be' end)
from column_should_be should join column_is using (tab) join known using (tab)
where col = migration_tools.column_name(tab, variants) and should.is_required <> column_is.is_required
union all
select format('an index on %s (%s) is missing', name, array_to_string(cols, ', '))
from index_should_be join known using (tab)
where cols[1] is not null and not exists (select from index_is where index_is.tab = index_should_be.tab and index_is.cols = index_should_be.cols)
union all
select 'tasks.title has no CHECK of its length'
where not exists (
  select from pg_constraint where conrelid = 'public.tasks'::regclass and contype = 'c' and pg_get_constraintdef(oid) like '%title%'
)
union all
select format('the rows of %s are not deleted with their user', name)
from (select tab from own where tab <> 'public.removed_tasks'::regclass union all select tab from auth where kind in ('session', 'account') and is_ours) as tabs join known using (tab)
where exists (select from auth where kind = 'user') and not exists (
  select from pg_constraint
  where conrelid = tab and contype = 'f' and confrelid = (select tab from auth where kind = 'user') and confdeltype = 'c'
)
union all
select format('the unique index session_token_hash on %s is missing, so each call reads every session: ''up'' makes it again', name)
from auth join known using (tab)
where kind = 'session' and is_ours and migration_tools.token_index(tab) is null
union all
select 'the function token_hash(text) may not be called by everybody, as whoever inserts a session has to'
where not has_function_privilege('public', 'public.token_hash(text)', 'execute')
union all
select format('the function %s is missing', signature)
from function_should_be
where to_regprocedure('public.' || signature) is null
union all
select format('row-level security was switched off for %s, and ''up'' switches it on', regexp_replace(tab::text, '^public\.', ''))
from migration_tools.secured_tables join pg_class on pg_class.oid = tab
where not relrowsecurity
union all
select format('row-level security hides %s from the role tasks_api, and ''up'' makes its policy', name)
from own join known using (tab) join pg_class on pg_class.oid = tab
where relrowsecurity and not exists (
  select from pg_policy where polrelid = tab and polpermissive and polroles && array[0::oid, to_regrole('tasks_api')]
)
union all
select format('row-level security hides %s from %s, whose rights the session check has', name, current_user)
from auth join known using (tab) join pg_class on pg_class.oid = tab
where kind in ('session', 'user') and relrowsecurity and (relforcerowsecurity or not pg_has_role(relowner, 'usage'))
  and not exists (select from pg_roles where rolname = current_user and (rolsuper or rolbypassrls))
union all
select format('%s should not have the rights %s on %s, and ''up'' takes them', case role_id when 0 then 'everybody' else 'the role ' || role_id::regrole end,
  string_agg(distinct lower(privilege), ', '), regexp_replace(tab::text, '^public\.', ''))
from migration_tools.tables_to_close() cross join lateral migration_tools.rights_of_others('table', tab)
where rule = 'closed' or rule = 'shared' and is_default
group by role_id, tab
union all
select format('the role %s may call %s, and ''up'' takes that right', role_id::regrole, signature)
from function_should_be cross join lateral migration_tools.rights_of_others('function', to_regprocedure('public.' || signature))
where role_id <> 0
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
select format('the keys of JWTs in %s are not used, because it belongs to %s and the sessions to %s', name, owner::regrole, sessions_owner::regrole)
from keys_table
where owner <> sessions_owner
union all
select format('the role %s may not select from %s, so no JWT is accepted', current_user, name)
from (
  select tab, name from keys_table where tab = migration_tools.jwks_table()
  union all select tab, name from auth join known using (tab) where kind = 'user'
) as tabs
where exists (select from keys_table) and not has_table_privilege(tab, 'select')
union all
select format('the function caller(text[]) does not read the column %s.banned: ''up'' recreates it', name)
from auth
join known using (tab)
join column_is using (tab)
join pg_proc on pg_proc.oid = to_regprocedure('public.caller(text[])')
where kind = 'user' and col = 'banned' and column_is.type = 'boolean' and prosrc !~ 'banned' and prosrc !~ '^\s*begin\s+return;'
union all
select format('the trigger %s on %s is missing or switched off, so changes are not synced: ''up'' makes it again, and readers start over', name,
  regexp_replace(tab::text, '^public\.', ''))
from migration_tools.missing_sync_triggers()
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
select format('the role tasks_api should not have rights on columns of %s', name)
from auth join known using (tab)
where kind = 'user' and to_regrole('tasks_api') is not null
  and has_any_column_privilege(to_regrole('tasks_api'), tab, 'select, insert, update, references')
  and not has_table_privilege(to_regrole('tasks_api'), tab, 'select, insert, update, references')
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
