-- 10,000 users with a session and 100 tasks each: 1,000,000 tasks. Consecutive tasks belong to different users. Ids and
-- tokens are derived from the user's number. One more user has no tasks.
insert into "user" (id, email, name, email_verified)
select '00000000-0000-4000-8000-' || lpad(n::text, 12, '0'), 'user' || n || '@example.com', 'User ' || n, true
from generate_series(1, 10000) n
union all
select 'bench-nobody', 'nobody@example.com', 'Nobody', true;

insert into session (id, token, user_id, expires_at, updated_at, ip_address, user_agent)
select '10000000-0000-4000-8000-' || lpad(n::text, 12, '0'), 'bench-' || lpad(n::text, 8, '0') || '-' || md5(n::text),
    '00000000-0000-4000-8000-' || lpad(n::text, 12, '0'), now(), now() at time zone 'UTC', '127.0.0.1', 'bench'
from generate_series(1, 10000) n
union all
select 'bench-nobody', 'bench-nobody', 'bench-nobody', now(), now() at time zone 'UTC', '127.0.0.1', 'bench';

insert into tasks (user_id, title, description, completed, created_at, updated_at)
select '00000000-0000-4000-8000-' || lpad(u::text, 12, '0'),
    'Task ' || k || ' of user ' || u || ': ' || repeat('do the thing ', 1 + (u + k) % 4),
    case when (u + k) % 3 = 0 then null
        else 'A longer note about task ' || k || '. ' || repeat('Details follow here. ', (u * 7 + k) % 8) end,
    (u + k) % 4 = 0, at, at
from generate_series(1, 100) k, generate_series(1, 10000) u,
    lateral (select now() at time zone 'UTC' - interval '200 days' + (k * 10000 + u) * interval '15 seconds' as at) times;
