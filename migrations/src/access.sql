-- Every way to the sessions, passwords and signing keys besides their owner's and superusers': one row each.
with recursive
top as (
  select kind, tab from migration_tools.auth_tables where kind in ('session', 'account', 'verification')
  union all
  -- The private halves of the keys of Better Auth's JWTs.
  select 'jwks', jwks.oid::regclass
  from migration_tools.auth_tables
  join pg_class session on session.oid = tab
  join pg_class jwks on jwks.relnamespace = session.relnamespace and jwks.relname in ('jwks', 'jwkss', 'Jwks') and jwks.relkind in ('r', 'p')
  where kind = 'session'
),
-- With partitions, which have rights of their own.
secret_table as (
  select kind, tab from top
  union
  select kind, inhrelid::regclass from secret_table join pg_inherits on inhparent = tab
),
secret as (
  select secret_table.kind, tab, relowner, relnamespace, attnum, relname,
    regexp_replace(tab::text, '^public\.', '') as name, regexp_replace(tab::text, '^public\.', '') || '.' || attname as full_name
  from secret_table
  join pg_class on pg_class.oid = tab
  join (values
    ('session', '{token}'::text[]), ('verification', '{value}'), ('jwks', '{private_key,privateKey}'),
    ('account', '{password,access_token,accessToken,refresh_token,refreshToken,id_token,idToken}')
  ) as columns (kind, names) using (kind)
  join pg_attribute on attrelid = tab and attname = any (names) and not attisdropped
),
who as (
  select oid, rolname as name, rolcreaterole, rolreplication from pg_roles
  where not rolsuper and rolname !~ '^pg_' and rolname <> current_user
),
-- Whoever does not inherit another role's rights may still set himself to it. Nobody inherits a superuser's.
can_be as (
  select who.oid as who_id, who.name, other.oid, other.rolname as other, other.rolsuper,
    other.rolsuper or not pg_has_role(who.oid, other.oid, 'usage') as has_to_set_role
  from who join pg_roles other on pg_has_role(who.oid, other.oid, 'member')
),
way as (
  select who_id, can_be.name, other, has_to_set_role, full_name, secret.name as table_name, tab, relnamespace,
    rolsuper or can_be.oid = relowner as is_owner,
    has_column_privilege(can_be.oid, tab, attnum, 'select') as reads,
    has_any_column_privilege(can_be.oid, tab, 'insert, update') or has_table_privilege(can_be.oid, tab, 'trigger') as writes
  from can_be cross join secret
  -- Whoever has the owner's rights without more is the owner.
  where not pg_has_role(who_id, relowner, 'usage') or can_be.name = 'tasks_api'
),
open_to_all as (
  select tab, full_name, name as table_name,
    has_column_privilege('public', tab, attnum, 'select') as reads,
    has_any_column_privilege('public', tab, 'insert, update') or has_table_privilege('public', tab, 'trigger') as writes
  from secret
),
table_way (who, verb, secret) as (
  select 'everybody', 'read', full_name from open_to_all where reads
  union all select 'everybody', 'write to', table_name from open_to_all where writes
  union all
  select 'the role ' || name, case when has_to_set_role then format('become %s, and then read', other) else 'read' end, full_name
  from way
  -- Inherited rights are the role's own.
  where reads and (has_to_set_role or way.other = way.name)
    and not (name <> 'tasks_api' and exists (select from open_to_all where open_to_all.full_name = way.full_name and open_to_all.reads))
    -- The check of rights reports these.
    and not (name = 'tasks_api' and not has_to_set_role and relnamespace = 'public'::regnamespace and has_table_privilege(who_id, tab, 'select'))
  union all
  select 'the role ' || name, case when has_to_set_role then format('become %s, and then write to', other) else 'write to' end, table_name
  from way
  where writes and not is_owner and (has_to_set_role or way.other = way.name)
    and not (name <> 'tasks_api' and exists (select from open_to_all where open_to_all.table_name = way.table_name and open_to_all.writes))
    and not (name = 'tasks_api' and not has_to_set_role and relnamespace = 'public'::regnamespace and has_table_privilege(who_id, tab, 'insert, update, trigger'))
),
-- Views on the tables, views on these, and materialized views. Of one with security_invoker, the reader needs the rights himself.
view_of (view, name) as (
  select rewrite.ev_class, secret.name
  from secret
  join pg_depend on refclassid = 'pg_class'::regclass and refobjid = tab and classid = 'pg_rewrite'::regclass
  join pg_rewrite rewrite on rewrite.oid = objid and rewrite.ev_class <> tab
  union
  select rewrite.ev_class, view_of.name
  from view_of
  join pg_depend on refclassid = 'pg_class'::regclass and refobjid = view and classid = 'pg_rewrite'::regclass
  join pg_rewrite rewrite on rewrite.oid = objid and rewrite.ev_class <> view
),
reader (role_id, role_name) as (
  select 0::oid, 'everybody'
  union all select oid, 'the role ' || name from who
),
view_way (who, verb, secret, owner) as (
  select role_name, 'read the view ' || view::regclass || ', which shows', view_of.name, relowner
  from view_of
  join pg_class on pg_class.oid = view and relkind in ('v', 'm')
  cross join reader
  where coalesce(reloptions::text, '') !~* 'security_invoker=(true|on|1|yes)'
    and case role_id
      when 0 then has_any_column_privilege('public', view, 'select') and has_schema_privilege('public', relnamespace, 'usage')
      else has_any_column_privilege(role_id, view, 'select') and has_schema_privilege(role_id, relnamespace, 'usage')
        and (role_name = 'the role tasks_api' or not has_any_column_privilege('public', view, 'select'))
        and not pg_has_role(role_id, relowner, 'usage')
    end
),
-- What a function does that runs with the rights of somebody who can read the secrets is not known. Those of extensions are left out.
function_way (who, verb, secret) as (
  select distinct role_name, format('call %s, which runs with the rights of %s, who can read', pg_proc.oid::regprocedure, proowner::regrole), secret.name
  from pg_proc
  join pg_roles owner on owner.oid = proowner
  cross join secret
  cross join reader
  where prosecdef and pg_proc.oid >= 16384 and prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
    and pg_proc.oid not in (select migration_tools.own_functions())
    and not exists (select from pg_depend where classid = 'pg_proc'::regclass and objid = pg_proc.oid and deptype = 'e')
    and (owner.rolsuper or has_column_privilege(proowner, tab, attnum, 'select'))
    and pronamespace <> 'migration_tools'::regnamespace
    and case role_id
      when 0 then has_function_privilege('public', pg_proc.oid, 'execute') and has_schema_privilege('public', pronamespace, 'usage')
      else has_function_privilege(role_id, pg_proc.oid, 'execute') and has_schema_privilege(role_id, pronamespace, 'usage')
        and (role_name = 'the role tasks_api' or not has_function_privilege('public', pg_proc.oid, 'execute'))
        and not pg_has_role(role_id, proowner, 'usage') and not has_column_privilege(role_id, tab, attnum, 'select')
    end
),
found (who, what) as (
  select who, format('may %s %s', verb, string_agg(distinct secret, ', ' order by secret))
  from (
    select who, verb, secret from table_way
    union all select who, verb, secret from view_way
    union all select who, verb, secret from function_way
  ) as ways
  group by who, verb
  union all
  select distinct 'the role ' || name, format('is a member of %s', other)
  from can_be
  where name = 'tasks_api' and other <> 'tasks_api'
  union all
  select 'the role ' || name, format('is a member of %s, and can read the files of the server', other)
  from can_be
  where other in ('pg_read_server_files', 'pg_execute_server_program') and name <> 'tasks_api'
  union all
  select 'the role ' || name, 'may copy the whole server as a replica' from who where rolreplication
  union all
  select 'the role ' || who.name, format('may make itself a member of %s, who owns %s', relowner::regrole, string_agg(distinct secret.name, ', '))
  from who cross join secret
  where rolcreaterole and current_setting('server_version_num')::integer < 160000 and not pg_has_role(who.oid, relowner, 'usage')
    and not (select rolsuper from pg_roles where oid = relowner)
  group by who.name, relowner
  union all
  select case grantee when 0 then 'everybody' else 'the role ' || grantee::regrole end,
    format('gets rights on each table that %s makes%s, as on %s if it is made again', defaclrole::regrole,
      case when defaclnamespace <> 0 then ' in ' || defaclnamespace::regnamespace end, string_agg(distinct secret.name, ', '))
  from pg_default_acl
  cross join aclexplode(defaclacl) as by_default
  join secret on relowner = defaclrole and defaclnamespace in (0, relnamespace)
  where defaclobjtype = 'r' and grantee <> defaclrole and privilege_type in ('SELECT', 'INSERT', 'UPDATE', 'TRIGGER')
    and (grantee = 0 or grantee in (select oid from who))
  group by grantee, defaclrole, defaclnamespace
  union all
  select distinct 'the role ' || proowner::regrole, format('owns the function %s, which sees each row written to %s', tgfoid::regprocedure, secret.name)
  from pg_trigger join secret on tgrelid = tab join pg_proc on pg_proc.oid = tgfoid join who on who.oid = proowner
  where not tgisinternal and not pg_has_role(proowner, relowner, 'usage')
  union all
  select distinct 'the publication ' || pubname, 'sends ' || secret.name || ' to its subscribers'
  from pg_publication_tables
  join secret on quote_ident(schemaname) = relnamespace::regnamespace::text and tablename = relname
)
select who = 'the role tasks_api' as is_error, who || ' ' || what as sentence
from found
order by 1 desc, 2
