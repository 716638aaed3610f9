-- What the migrations share, in a schema of its own.
--
-- What a migration makes it marks with a comment, 'Made by migration NNNN.', so that its counterpart drops that and nothing
-- else. Tables that are there already are adopted as they are, in Better Auth's own spelling (userId) or the schema
-- document's (user_id).
create schema migration_tools;

-- The name that a column has in a table, of several that it may have; null when it has none of them.
create function migration_tools.column_name(tab regclass, variants text[])
returns name
language sql
stable
as $$
  select attname
  from pg_attribute
  where attrelid = tab and attnum > 0 and not attisdropped and attname = any (variants)
  order by array_position(variants, attname::text)
  limit 1
$$;

-- The same, where there has to be one.
create function migration_tools.required_column(tab regclass, variants text[])
returns name
language plpgsql
stable
as $$
declare
  found name := migration_tools.column_name(tab, variants);
begin
  if found is null then
    raise exception 'the table % cannot be used: it has no column %', tab, array_to_string(variants, ' or ');
  end if;
  return found;
end
$$;

-- Makes an index, unless there is one of that name, or one on the same columns under another.
create function migration_tools.make_index(
  migration text, index_name text, tab regclass, columns name[], definition text default null
)
returns void
language plpgsql
as $$
begin
  if to_regclass(format('public.%I', index_name)) is not null or exists (
    select
    from pg_index
    where indrelid = tab and indpred is null and columns = array(
      select attname
      from unnest(indkey) with ordinality as key (number, place)
      join pg_attribute on attrelid = tab and attnum = number
      where place <= indnkeyatts
      order by place
    )
  ) then
    return;
  end if;
  execute format('create index %I on %s (%s)', index_name, tab, coalesce(definition, format('%I', columns[1])));
  execute format('comment on index public.%I is %L', index_name, 'Made by migration ' || migration || '.');
end
$$;

-- Lets a table's rows go with their user, where its key to "user" does not say so.
create function migration_tools.cascade_from_user(tab regclass)
returns void
language plpgsql
as $$
declare
  plain record;
begin
  for plain in
    select conname, pg_get_constraintdef(oid) as definition
    from pg_constraint
    where conrelid = tab and contype = 'f' and confrelid = 'public."user"'::regclass and confdeltype = 'a'
  loop
    execute format('alter table %s drop constraint %I', tab, plain.conname);
    execute format('alter table %s add constraint %I %s on delete cascade', tab, plain.conname, plain.definition);
  end loop;
end
$$;

-- Drops what a migration made, but no row of anybody's: a table with rows keeps itself and its columns, and a later up
-- takes it over.
create function migration_tools.drop_made_by(migration text)
returns void
language plpgsql
as $$
declare
  made record;
  has_rows boolean;
begin
  for made in
    select
      objoid::regclass as rel,
      relkind = 'i' as is_index,
      (select attname from pg_attribute where attrelid = objoid and attnum = objsubid and objsubid > 0) as col
    from pg_description
    join pg_class on pg_class.oid = objoid
    where classoid = 'pg_class'::regclass and description = 'Made by migration ' || migration || '.'
    -- What refers to "user" goes before it.
    order by relkind = 'r', relname = 'user', objsubid desc
  loop
    if made.is_index then
      execute format('drop index %s', made.rel);
      continue;
    end if;
    execute format('select exists (select from %s)', made.rel) into has_rows;
    if has_rows then
      raise warning 'kept %: the table holds rows', concat_ws('.', made.rel, made.col);
    elsif made.col is not null then
      execute format('alter table %s drop column %I', made.rel, made.col);
    else
      execute format('drop table %s', made.rel);
    end if;
  end loop;
end
$$;
