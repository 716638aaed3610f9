-- What Better Auth 1.7 (core, e-mail and password) needs beyond the schema document.
do $$
declare
  needed record;
begin
  for needed in
    select * from (values
      ('public.session'::regclass, 'token', 'token', 'text'),
      ('public.session', 'updated_at', 'updatedAt', 'timestamp not null default now()'),
      ('public.account', 'id_token', 'idToken', 'text'),
      ('public.account', 'refresh_token_expires_at', 'refreshTokenExpiresAt', 'timestamp'),
      ('public.account', 'scope', 'scope', 'text'),
      ('public.account', 'password', 'password', 'text'),
      ('public.account', 'created_at', 'createdAt', 'timestamp not null default now()'),
      ('public.account', 'updated_at', 'updatedAt', 'timestamp not null default now()')
    ) as needed (tab, col, library_col, definition)
  loop
    if migration_tools.column_name(needed.tab, array[needed.col, needed.library_col]) is null then
      execute format('alter table %s add column %I %s', needed.tab, needed.col, needed.definition);
      execute format('comment on column %s.%I is %L', needed.tab, needed.col, 'Made by migration 0004.');
    end if;
  end loop;

  -- The credential. A session from before it existed gets one that nobody knows, and is over.
  if exists (select from public.session where token is null) then
    execute format(
      'update public.session
      set token = gen_random_uuid()::text || gen_random_uuid()::text,
          %1$I = least(%1$I, now() - interval ''2 days'')
      where token is null',
      migration_tools.required_column('public.session', '{expires_at,expiresAt}')
    );
  end if;
  alter table public.session alter column token set not null;
  if not exists (
    select from pg_index
    join pg_attribute on attrelid = indrelid and attnum = indkey[0]
    where indrelid = 'public.session'::regclass and indisunique and indnkeyatts = 1 and attname = 'token'
  ) then
    alter table public.session add constraint session_token_key unique (token);
  end if;

  if to_regclass('public.verification') is null then
    create table public.verification (
      id         varchar(36) primary key,
      identifier text not null,
      value      text not null,
      expires_at timestamp not null,
      created_at timestamp not null default now(),
      updated_at timestamp not null default now()
    );
    comment on table public.verification is 'Made by migration 0004.';
  end if;

  perform migration_tools.make_index('0004', 'verification_identifier_idx', 'public.verification', '{identifier}');
  perform migration_tools.make_index('0004', 'account_user_id_idx', 'public.account',
    array[migration_tools.required_column('public.account', '{user_id,userId}')]);
end
$$;
