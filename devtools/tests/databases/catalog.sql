-- Everything about some tables that a migration could change: one row each.
with tables (tab) as (:tables)
select format('%s: owner %s, rights %s, comment %s, row-level security %s, forced %s', tab, relowner::regrole, relacl,
  obj_description(tab, 'pg_class'), relrowsecurity, relforcerowsecurity)
from tables join pg_class on pg_class.oid = tab
union all
select format('%s: column %I %s %s %s %s', tab, attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid), attacl)
from tables join pg_attribute on attrelid = tab and attnum > 0 and not attisdropped
left join pg_attrdef on adrelid = attrelid and adnum = attnum
union all
select format('%s: constraint %I %s', tab, conname, pg_get_constraintdef(pg_constraint.oid))
from tables join pg_constraint on conrelid = tab
union all
select format('%s: %s', tab, pg_get_indexdef(indexrelid)) from tables join pg_index on indrelid = tab
union all
select format('%s: policy %I for %s to %s using %s with check %s', tab, polname, polcmd, polroles::regrole[],
  pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
from tables join pg_policy on polrelid = tab
union all
select format('%s: %s', tab, pg_get_triggerdef(pg_trigger.oid)) from tables join pg_trigger on tgrelid = tab and not tgisinternal
order by 1
