-- Better Auth's tables as the schema document has them, where there are none.
do $$
begin
  if to_regclass('public."user"') is null then
    create table public."user" (
      id             varchar(36) primary key,
      email          varchar(255) unique not null,
      name           varchar(255),
      email_verified boolean default false,
      image          text,
      created_at     timestamp default now(),
      updated_at     timestamp default now()
    );
    comment on table public."user" is 'Made by migration 0002.';
  end if;
  perform migration_tools.required_column('public."user"', '{id}');

  if to_regclass('public.session') is null then
    create table public.session (
      id         varchar(36) primary key,
      user_id    varchar(36) references public."user" (id) on delete cascade,
      expires_at timestamp not null,
      created_at timestamp default now(),
      ip_address varchar(45),
      user_agent text
    );
    comment on table public.session is 'Made by migration 0002.';
  end if;

  if to_regclass('public.account') is null then
    create table public.account (
      id                  varchar(36) primary key,
      user_id             varchar(36) references public."user" (id) on delete cascade,
      provider            varchar(50) not null,
      provider_account_id varchar(255) not null,
      access_token        text,
      refresh_token       text,
      expires_at          timestamp
    );
    comment on table public.account is 'Made by migration 0002.';
  end if;

  perform migration_tools.make_index('0002', 'idx_session_user_id', 'public.session',
    array[migration_tools.required_column('public.session', '{user_id,userId}')]);
  perform migration_tools.make_index('0002', 'idx_session_expires', 'public.session',
    array[migration_tools.required_column('public.session', '{expires_at,expiresAt}')]);
  perform migration_tools.cascade_from_user('public.session');
  perform migration_tools.cascade_from_user('public.account');
end
$$;
