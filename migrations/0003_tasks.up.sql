-- The tasks, as the schema document has them: its columns, its four indexes, its CHECK and its cascade.
--
-- The times are UTC. The defaults are the document's, and right only for sessions on UTC: the API writes every time itself.
do $$
declare
  -- The document's varchar(36), or what else the users' ids are.
  user_id_type text := (
    select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'public."user"'::regclass and attname = 'id'
  );
  wrong text;
begin
  if to_regclass('public.tasks') is null then
    execute format('
      create table public.tasks (
        id          serial primary key,
        user_id     %s not null,
        title       varchar(200) not null,
        description text,
        completed   boolean not null default false,
        created_at  timestamp not null default now(),
        updated_at  timestamp not null default now(),
        constraint fk_tasks_user foreign key (user_id) references public."user" (id) on delete cascade,
        constraint tasks_title_length check (char_length(title) between 1 and 200)
      )', user_id_type);
    comment on table public.tasks is 'Made by migration 0003.';
  else
    select string_agg(format('%s (%s)', col, types), ', ') into wrong
    from (values
      ('id', 'integer'), ('user_id', null), ('title', 'character varying or text'), ('description', 'text or character varying'),
      ('completed', 'boolean'), ('created_at', 'timestamp without time zone'), ('updated_at', 'timestamp without time zone')
    ) as needed (col, types)
    where not exists (
      select from pg_attribute
      where attrelid = 'public.tasks'::regclass and attname = col and not attisdropped
        and (types is null or format_type(atttypid, null) = any (string_to_array(types, ' or ')))
    );
    if wrong is not null then
      raise exception 'the table tasks cannot be used: these columns are missing or of another type: %', wrong;
    end if;
    if exists (select from public.tasks where char_length(title) not between 1 and 200) then
      raise exception 'the table tasks cannot be used: a title has to have 1 to 200 characters, and some have not';
    end if;

    -- The document's own columns may be null; a task of this API always has all three.
    update public.tasks
    set completed = coalesce(completed, false),
        created_at = coalesce(created_at, updated_at, now() at time zone 'utc'),
        updated_at = coalesce(updated_at, created_at, now() at time zone 'utc')
    where completed is null or created_at is null or updated_at is null;
    alter table public.tasks
      alter completed set not null, alter completed set default false,
      alter created_at set not null, alter created_at set default now(),
      alter updated_at set not null, alter updated_at set default now();
    if not exists (select from pg_constraint where conrelid = 'public.tasks'::regclass and contype = 'c') then
      alter table public.tasks add constraint tasks_title_length check (char_length(title) between 1 and 200);
    end if;
    perform migration_tools.cascade_from_user('public.tasks');
    if not exists (
      select from pg_constraint where conrelid = 'public.tasks'::regclass and contype = 'f' and confrelid = 'public."user"'::regclass
    ) then
      alter table public.tasks
        add constraint fk_tasks_user foreign key (user_id) references public."user" (id) on delete cascade;
    end if;
  end if;

  perform migration_tools.make_index('0003', 'idx_tasks_user_id', 'public.tasks', '{user_id}');
  perform migration_tools.make_index('0003', 'idx_tasks_completed', 'public.tasks', '{completed}');
  perform migration_tools.make_index('0003', 'idx_tasks_user_completed', 'public.tasks',
    '{user_id,completed}', 'user_id, completed');
  perform migration_tools.make_index('0003', 'idx_tasks_created_at', 'public.tasks', '{created_at}', 'created_at desc');
  -- Beyond the document: the order of the list, so that a page is read from the index without a sort.
  perform migration_tools.make_index('0003', 'idx_tasks_user_list', 'public.tasks',
    '{user_id,created_at,id}', 'user_id, created_at desc, id desc');
end
$$;
