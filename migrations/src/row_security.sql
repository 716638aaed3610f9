-- Tables that others use, and whose rows are therefore open or hidden: one row each.
select format('row-level security is %s, on which these have rights: %s',
  case when relrowsecurity then 'on, and hides the rows of ' else 'off for ' end || regexp_replace(tab::text, '^public\.', ''), others)
from migration_tools.tables_to_close()
join pg_class on pg_class.oid = tab
cross join lateral migration_tools.roles_to_lock_out(tab) as others
where rule <> 'closed' and others is not null
  and (not relrowsecurity or tab in (select secured.tab from migration_tools.secured_tables secured))
order by 1
