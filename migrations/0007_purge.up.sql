-- What the scheduled purge calls: removes expired rows of Better Auth's, at most max_rows, and gives how many.
--
-- With its owner's rights: the API's role can remove what is over, and still see or touch nothing else in these tables. The
-- column is looked up with each call, because Better Auth may rename it.
create function public.purge_expired(kind text, max_rows integer)
returns bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  tab regclass := case kind when 'session' then 'public.session' when 'verification' then 'public.verification' end;
  expires_at name;
  has_zone boolean;
  removed bigint;
begin
  if tab is null then
    raise exception 'nothing expires in %', kind;
  end if;
  expires_at := migration_tools.required_column(tab, '{expires_at,expiresAt}');
  has_zone := (select atttypid = 'timestamptz'::regtype from pg_attribute where attrelid = tab and attname = expires_at);
  -- The column stands alone, so that its index serves; rows that are being used are left for the next time.
  execute format(
    'delete from %1$s where ctid = any (array(
      select ctid from %1$s where %2$I < now() %3$s order by %2$I limit $1 for update skip locked
    ))',
    tab, expires_at, case when not has_zone then 'at time zone ''utc''' end
  ) using max_rows;
  get diagnostics removed = row_count;
  return removed;
end
$$;

revoke execute on function public.purge_expired(text, integer) from public;
grant execute on function public.purge_expired(text, integer) to tasks_api;
