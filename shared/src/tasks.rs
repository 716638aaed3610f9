//! The task queries. Each is a single statement in one round trip, run as the caller.
pub(crate) mod batch;
pub(crate) mod changes;
pub(crate) mod input;
pub(crate) mod page;
pub(crate) mod precondition;
pub(crate) mod response;
pub(crate) mod task;

use crate::{
    caller::Caller,
    error::{Error, Limit},
    statement::{Statement, Values, authorised, authorised_read, caller_columns},
    tasks::{
        batch::{BatchResults, Columns},
        changes::Changes,
        input::{Completed, key_lifetime},
        page::{MAX_PAGE_BYTES, Page, Sort, SortKey, many_tasks, search_window},
        task::{NO_SUCH_TASK, TASK_HAS_CHANGED, columns},
    },
};
use chrono::NaiveDateTime;
use tokio_postgres::{Row, types::ToSql};

pub use crate::tasks::{
    batch::Batch,
    changes::ChangesQuery,
    input::{IdempotencyKey, NewTask, TaskChanges},
    page::{ListQuery, Status},
    precondition::IfMatch,
    task::{Task, TaskId},
};

/// Returns a page of the caller's tasks, filtered and sorted as `query` asks.
///
/// # Errors
/// [`Error::LimitReached`] if another search of this user is running and they have many tasks, [`Error::Unauthenticated`]
/// without a live session, [`Error::Forbidden`] on another user's path.
pub async fn list(caller: &Caller, query: &ListQuery) -> Result<Page, Error> {
    let rows = if query.is_usual_first_page() {
        fetch_first_page(caller, query).await?
    } else {
        fetch_page(caller, query).await?
    };
    Page::new(&rows, query)
}

/// A small first page in the default order. With `$condition`, only the tasks that fulfil it.
macro_rules! small_first_page {
    ([$($kind:ident),+], $condition:literal) => {
        authorised_read!(
            [$($kind),+],
            columns!("t"),
            "left join lateral (
            select ",
            columns!(),
            " from public.tasks t
            where t.user_id = s.user_id",
            $condition,
            "
            order by created_at desc, id desc
            limit $3
        ) t on true"
        )
    };
}

/// A first page in the default order that is cut off as [`list_statement`] does. With `$condition`, only the tasks that fulfil
/// it.
macro_rules! first_page {
    ([$($kind:ident),+], $condition:literal) => {
        authorised_read!(
            [$($kind),+],
            columns!("t"),
            "left join lateral (
            select p.*, sum(octet_length(p.title) + coalesce(octet_length(p.description), 0)) over (order by p.created_at desc, p.id desc
                rows between unbounded preceding and 1 preceding) as bytes_before
            from (
                select ",
            columns!(),
            " from public.tasks own
                where own.user_id = s.user_id",
            $condition,
            "
                order by created_at desc, id desc
                limit $3
            ) p
        ) t on coalesce(t.bytes_before, 0) <= $4"
        )
    };
}

const FIRST_PAGE: Statement = first_page!([INT8, INT8], "");
const FIRST_PAGE_BY_STATUS: Statement = first_page!([INT8, INT8, BOOL], " and completed = $5");

const SMALL_FIRST_PAGE: Statement = small_first_page!([INT8], "");
const SMALL_FIRST_PAGE_BY_STATUS: Statement = small_first_page!([INT8, BOOL], " and completed = $4");

/// The statements of [`list`] for first pages in the default order. The others are planned for their values, such as a cursor.
pub const LIST: &[Statement] = &[SMALL_FIRST_PAGE, FIRST_PAGE, SMALL_FIRST_PAGE_BY_STATUS, FIRST_PAGE_BY_STATUS];
/// The statements of [`create`] and [`create_once`].
pub const CREATE: &[Statement] = &[CREATE_TASK, CREATE_ONCE];
/// The statements of [`changes()`] to prepare: none. They are planned for their values.
pub const CHANGES: &[Statement] = &[];
/// The statement of [`get`].
pub const GET: &[Statement] = &[GET_TASK];
/// The statement of [`update`].
pub const UPDATE: &[Statement] = &[UPDATE_TASK];
/// The statement of [`delete`].
pub const DELETE: &[Statement] = &[DELETE_TASK];
/// The statement of [`batch()`].
pub const BATCH: &[Statement] = &[RUN_BATCH];
/// The statement of [`clear_completed`].
pub const CLEAR_COMPLETED: &[Statement] = &[CLEAR_COMPLETED_TASKS];

/// Fetches the rows of a first page in the default order, the list that front ends request most. PostgreSQL plans a small one
/// in half the time of the general statement.
async fn fetch_first_page(caller: &Caller, query: &ListQuery) -> Result<Vec<Row>, Error> {
    let (limit, bytes) = (query.limit() + 1, i64::from(MAX_PAGE_BYTES));
    match (query.has_small_limit(), query.status().completed()) {
        (true, None) => caller.query(SMALL_FIRST_PAGE, &[&limit]).await,
        (true, Some(completed)) => caller.query(SMALL_FIRST_PAGE_BY_STATUS, &[&limit, &completed]).await,
        (false, None) => caller.query(FIRST_PAGE, &[&limit, &bytes]).await,
        (false, Some(completed)) => caller.query(FIRST_PAGE_BY_STATUS, &[&limit, &bytes, &completed]).await,
    }
}

/// The type of a cursor's key, the key of each order and what it is compared with after a cursor, for [`list_statement`] and [`search_statement`].
macro_rules! for_order {
    ($sort:expr, $statement:ident) => {{
        const NEWEST: Statement = $statement!(TIMESTAMP, "created_at", "$4", "desc", "<");
        const OLDEST: Statement = $statement!(TIMESTAMP, "created_at", "$4", "asc", ">");
        const LATEST_CHANGE: Statement = $statement!(TIMESTAMP, "updated_at", "$4", "desc", "<");
        const EARLIEST_CHANGE: Statement = $statement!(TIMESTAMP, "updated_at", "$4", "asc", ">");
        // No index has this order: PostgreSQL reads and sorts all of the user's tasks. The collation is the same in every
        // database, and an upgrade of the server's locales does not change it.
        const TITLE: Statement =
            $statement!(TEXT, "lower(title) collate \"C\"", "lower($4) collate \"C\"", "asc", ">");
        const TITLE_DESCENDING: Statement =
            $statement!(TEXT, "lower(title) collate \"C\"", "lower($4) collate \"C\"", "desc", "<");
        match $sort {
            Sort::Newest => NEWEST,
            Sort::Oldest => OLDEST,
            Sort::LatestChange => LATEST_CHANGE,
            Sort::EarliestChange => EARLIEST_CHANGE,
            Sort::Title => TITLE,
            Sort::TitleDescending => TITLE_DESCENDING,
        }
    }};
}

/// Returns the statement that lists tasks in the given order.
///
/// Never prepared: a plan for any values could not begin at the cursor.
fn list_statement(sort: Sort) -> Statement {
    // `bytes_before`, a running sum over the preceding rows, cuts the result off once those rows alone fill a response:
    // see `Page`. The one caller's rows keep the order of the lateral query, which is the order of an index, except for
    // titles.
    macro_rules! list {
        ($after_type:ident, $key:expr, $after_key:expr, $direction:literal, $after:literal) => {
            authorised_read!(
                [BOOL, $after_type, INT4, INT8, INT8, INT8],
                columns!("t"),
                "left join lateral (
                    select p.*, sum(octet_length(p.title) + coalesce(octet_length(p.description), 0)) over (order by p.sort_key ",
                $direction, ", p.id ", $direction, "
                        rows between unbounded preceding and 1 preceding) as bytes_before
                    from (
                        select ", columns!(), ", ", $key, " as sort_key
                        from public.tasks own
                        where own.user_id = s.user_id
                            and ($3 is null or completed = $3)
                            and ($4 is null or (", $key, ", id) ", $after, " (", $after_key, ", $5))
                        order by ", $key, " ", $direction, ", id ", $direction, "
                        limit $6 offset $7
                    ) p
                ) t on coalesce(t.bytes_before, 0) <= $8"
            )
        };
    }
    for_order!(sort, list).never_prepared()
}

/// Returns the statement that searches tasks in the given order.
///
/// Never prepared, as [`list_statement`]. It looks at the first [`search_window!`] tasks after the cursor. `is_result` marks those to return, and `is_end` the last
/// task that it looked at if there may be more; `found` counts the matches up to this row. Where somebody has more than
/// [`many_tasks!`] tasks, only one of their searches runs at a time: for the others, `has_turn` is false.
fn search_statement(sort: Sort) -> Statement {
    // A page looks at no more tasks than the innermost query returns. Its limit is a query, so that PostgreSQL does not know
    // it: otherwise it expects most users to have fewer tasks, and reads and sorts all of them. `offset 0` keeps PostgreSQL
    // from computing `is_match`, which costs the most, twice. The windows have the order of the rows below them, so that
    // nothing is sorted again and the search ends as soon as the page is full.
    macro_rules! search {
        ($after_type:ident, $key:expr, $after_key:expr, $direction:literal, $after:literal) => {
            authorised_read!(
                [BOOL, $after_type, INT4, INT8, INT8, INT8, TEXT],
                concat!(columns!("t"), ", turn.has_turn, t.is_result, t.is_end, t.found"),
                "cross join lateral (
                    select not exists (
                            select from public.tasks own where own.user_id = s.user_id offset ", many_tasks!(), " limit 1)
                        or pg_try_advisory_xact_lock(hashtextextended(s.user_id::text, 7)) as has_turn
                ) turn
                left join lateral (
                    select p.*, sum(octet_length(p.title) + coalesce(octet_length(p.description), 0)) over (order by p.sort_key ",
                $direction, ", p.id ", $direction, "
                        rows between unbounded preceding and 1 preceding) as bytes_before
                    from (
                        select n.*, n.is_match and n.found > $7 as is_result, n.place = ", search_window!(), " as is_end
                        from (
                            select m.*, row_number() over so_far as place,
                                count(*) filter (where m.is_match) over so_far as found
                            from (
                                select w.*, ($3 is null or w.completed = $3)
                                    and (strpos(lower(w.title), lower($9)) > 0
                                        or coalesce(strpos(lower(w.description), lower($9)) > 0, false)) as is_match
                                from (
                                    select ", columns!(), ", ", $key, " as sort_key
                                    from public.tasks own
                                    where own.user_id = s.user_id
                                        and turn.has_turn
                                        and ($4 is null or (", $key, ", id) ", $after, " (", $after_key, ", $5))
                                    order by ", $key, " ", $direction, ", id ", $direction, "
                                    limit (select ", search_window!(), ")
                                ) w
                                order by w.sort_key ", $direction, ", w.id ", $direction, "
                                offset 0
                            ) m
                            window so_far as (order by m.sort_key ", $direction, ", m.id ", $direction, " rows unbounded preceding)
                        ) n
                        where n.is_match and n.found > $7 or n.place = ", search_window!(), "
                        order by n.sort_key ", $direction, ", n.id ", $direction, "
                        limit $6
                    ) p
                ) t on coalesce(t.bytes_before, 0) <= $8"
            )
        };
    }
    for_order!(sort, search).never_prepared()
}

/// Fetches the rows of any page: as many as fit into a response, plus one if there are more.
async fn fetch_page(caller: &Caller, query: &ListQuery) -> Result<Vec<Row>, Error> {
    let (key, id) = query.after().unzip();
    let after: &(dyn ToSql + Sync) = match key {
        Some(SortKey::Title(title)) => title,
        Some(SortKey::Time(time)) => time,
        None if query.sort().is_by_title() => &None::<&str>,
        None => &None::<NaiveDateTime>,
    };
    let status = query.status().completed();
    let (limit, offset, bytes) = (query.limit() + 1, query.offset(), i64::from(MAX_PAGE_BYTES));
    let Some(text) = query.search() else {
        let values: Values<'_> = &[&status, after, &id, &limit, &offset, &bytes];
        return caller.query(list_statement(query.sort()), values).await;
    };
    let values: Values<'_> = &[&status, after, &id, &limit, &offset, &bytes, &text];
    let rows = caller.query(search_statement(query.sort()), values).await?;
    match rows.first().map(|row| row.try_get("has_turn")).transpose()? {
        Some(false) => Err(Error::LimitReached(Limit::Searches)),
        _ => Ok(rows),
    }
}

/// Returns a page of changes.
///
/// Both halves come from an index in their order, and at most one page of each is read. A task that is there is not removed,
/// whatever happened to its id before. The snapshot is that of the whole statement. `sync_history` comes last: a database
/// from before it lacks the column too, and an error about that is not taken for one about `caller`.
///
/// Never prepared: a plan for any values could not know that a page begins near the end of the index.
const CHANGES_SINCE: Statement = authorised_read!(
    [TEXT, INT4, INT8, BOOL, INT8],
    concat!(
        columns!("t"),
        ", t.is_removed, t.changed::text as changed, h.history, h.purged_to::text as purged_to,
        pg_snapshot_xmin(pg_current_snapshot())::text as oldest_running,
        pg_snapshot_xmax(pg_current_snapshot())::text as next_xid,
        extract(epoch from now())::bigint as now_s"
    ),
    "left join lateral (
        select p.*, sum(octet_length(p.title) + coalesce(octet_length(p.description), 0)) over (order by p.changed, p.id
                rows between unbounded preceding and 1 preceding) as bytes_before
        from (
            (select own.id, own.title, own.description, own.completed, own.created_at, own.updated_at, own.changed,
                false as is_removed
            from public.tasks own
            where own.user_id = s.user_id and (own.changed, own.id) > ($3::xid8, $4)
            order by own.changed, own.id
            limit $5)
            union all
            (select r.task_id, null, null, null, null, null, r.changed, true
            from public.removed_tasks r
            where r.user_id = s.user_id::text and $6 and (r.changed, r.task_id) > ($3::xid8, $4)
                and not exists (select from public.tasks own where own.user_id = s.user_id and own.id = r.task_id)
            order by r.changed, r.task_id
            limit $5)
            order by changed, id
            limit $5
        ) p
    ) t on coalesce(t.bytes_before, 0) <= $7
    cross join public.sync_history() h"
)
.never_prepared();

/// Returns a page of what changed since the query's cursor, or of all the caller's tasks if it has none.
///
/// # Errors
/// [`Error::HistoryGone`] for a cursor that is too old or from before a restore, [`Error::Invalid`] for another user's,
/// [`Error::Unauthenticated`] without a live session, [`Error::Forbidden`] on another user's path.
pub async fn changes(caller: &Caller, query: &ChangesQuery) -> Result<Changes, Error> {
    let (changed, id) = query.after();
    let values: Values<'_> = &[&changed, &id, &(query.limit() + 1), &query.wants_removed(), &i64::from(MAX_PAGE_BYTES)];
    Changes::new(&caller.query(CHANGES_SINCE, values).await?, query)
}

const CREATE_TASK: Statement = authorised!(
    [TEXT, TEXT, INT8],
    ", made as (
        insert into public.tasks (user_id, title, description, completed, created_at, updated_at)
        select s.user_id, $3, $4, false, now() at time zone 'utc', now() at time zone 'utc'
        from s
        where s.mine and not exists (select from public.tasks own where own.user_id = s.user_id offset $5 limit 1)
        returning *)
    select ",
    caller_columns!(),
    ", ",
    columns!("made"),
    "
    from s left join made on true"
)
.never_repeated();

/// Creates a task for the caller, unless they have as many as one user may have.
///
/// Creations that run at the same moment do not see each other's task: of n at the limit, n may succeed.
///
/// # Errors
/// [`Error::LimitReached`] at the limit, [`Error::Unauthenticated`] without a live session, [`Error::Forbidden`] on another
/// user's path.
pub async fn create(caller: &Caller, new: &NewTask) -> Result<Task, Error> {
    let max_tasks = caller.max_tasks();
    let values: Values<'_> = &[&new.title.0, &new.description.as_ref().map(|it| &it.0), &(max_tasks - 1)];
    let row = caller.query_one(CREATE_TASK, values).await?;
    let task = Task::from_row(&row)?.ok_or(Error::LimitReached(Limit::Tasks(max_tasks)))?;
    caller.log_task(task.id);
    Ok(task)
}

/// Whether `k`, a row of idempotency_keys, has not expired.
macro_rules! key_is_valid {
    () => {
        concat!("k.created_at > now() at time zone 'utc' - interval '", key_lifetime!(), "'")
    };
}

/// The end of an insert of idempotency keys as `k`: a key that is still valid stays as it is, an expired one is replaced.
/// Either way the row is returned, and `made_by` tells which it was.
macro_rules! keep_valid_keys {
    ($first:literal $(, $column:literal)*) => {
        concat!(
            "on conflict (user_id, key) do update set (", $first $(, ", ", $column)*, ") = (
            select old.* from (select k.", $first $(, ", k.", $column)*, ") old where ", key_is_valid!(), "
            union all
            select new.* from (select excluded.", $first $(, ", excluded.", $column)*, ") new where not ", key_is_valid!(), ")"
        )
    };
}

/// Of two simultaneous requests, the second waits until the first has committed, and then conflicts with its row. A
/// key that has expired is treated as absent. The row holds no copy of the task: a replay must send the same body,
/// so the first response can be rebuilt from it. A request that is replayed or refused takes no id from the sequence.
const CREATE_ONCE: Statement = authorised!(
    [TEXT, BYTEA, TEXT, TEXT, INT8],
    ", known as (
        select k.request_hash, k.task_id, k.created_at, true as is_replay
        from s join public.idempotency_keys k on k.user_id = s.user_id and k.key = $3
        where s.mine and ", key_is_valid!(), "),
    room as (
        select s.user_id,
            not exists (select from public.tasks own where own.user_id = s.user_id offset $7 limit 1) as for_task,
            not exists (select from public.idempotency_keys k where k.user_id = s.user_id offset $7 limit 1) as for_key
        from s
        where s.mine and not exists (select from known)),
    key as (
        insert into public.idempotency_keys as k (user_id, key, request_hash, task_id, created_at)
        select room.user_id, $3, $4, nextval(pg_get_serial_sequence('public.tasks', 'id')), clock_timestamp() at time zone 'utc'
        from room
        where room.for_task and room.for_key
        ", keep_valid_keys!("request_hash", "task_id", "created_at", "made_by"), "
        returning *),
    made as (
        insert into public.tasks (", columns!(), ")
        select task_id, user_id, $5, $6, false, created_at, created_at from key where made_by = pg_current_xact_id())
    select ", caller_columns!(), ", room.for_task, used.request_hash = $4 as is_same, used.is_replay, used.task_id as id,
        used.created_at
    from s left join room on true left join (
        select * from known
        union all
        select request_hash, task_id, created_at, made_by <> pg_current_xact_id() from key
    ) used on true"
);

/// Creates a task for the caller, or returns the one that was created earlier with the same key. The second value is
/// true if it was created earlier.
///
/// # Errors
/// [`Error::Invalid`] if the key was used for a different task, [`Error::LimitReached`] if the user has as many keys as tasks
/// are allowed; otherwise as [`create`].
pub async fn create_once(caller: &Caller, new: &NewTask, key: &IdempotencyKey) -> Result<(Task, bool), Error> {
    let description = new.description.as_ref().map(|it| &it.0);
    let max_tasks = caller.max_tasks();
    let values: Values<'_> = &[&key.0, &new.hash(), &new.title.0, &description, &(max_tasks - 1)];
    let row = caller.query_one(CREATE_ONCE, values).await?;
    let Some(id) = row.try_get("id")? else {
        let has_room_for_task = row.try_get::<_, Option<bool>>("for_task")?.unwrap_or_default();
        let limit = if has_room_for_task { Limit::Keys(max_tasks) } else { Limit::Tasks(max_tasks) };
        return Err(Error::LimitReached(limit));
    };
    if !row.try_get::<_, bool>("is_same")? {
        return Err(Error::invalid(
            "Idempotency-Key",
            concat!("was used for another task within the last ", key_lifetime!()),
        ));
    }
    let created_at = row.try_get("created_at")?;
    let task = Task {
        id,
        user_id: row.try_get("user_id")?,
        title: new.title.0.clone(),
        description: description.cloned(),
        completed: false,
        created_at,
        updated_at: created_at,
    };
    caller.log_task(task.id);
    Ok((task, row.try_get("is_replay")?))
}

const GET_TASK: Statement =
    authorised_read!([INT4], columns!("t"), "left join public.tasks t on t.user_id = s.user_id and t.id = $3");

/// Returns one of the caller's tasks.
///
/// # Errors
/// [`Error::NotFound`] if no task has this id, or it belongs to another user; [`Error::Unauthenticated`] without a live
/// session, [`Error::Forbidden`] on another user's path.
pub async fn get(caller: &Caller, id: TaskId) -> Result<Task, Error> {
    caller.log_task(id.0);
    let row = caller.query_one(GET_TASK, &[&id.0]).await?;
    Task::from_row(&row)?.ok_or(NO_SUCH_TASK)
}

/// A writer that waited for another one's lock can have an older clock reading. `greatest` makes updated_at grow all
/// the same.
///
/// Never repeated: a second run could undo the toggle, fail on the tag that the first run changed, or overwrite
/// another client's change.
const UPDATE_TASK: Statement = authorised!(
    [INT4, INT8_ARRAY, TEXT, BOOL, TEXT, BOOL, BOOL],
    ", updated as (
        update public.tasks t
        set title = coalesce($5, t.title),
            description = case when $6 then $7 else t.description end,
            completed = case when $8 then not t.completed else coalesce($9, t.completed) end,
            updated_at = greatest(clock_timestamp() at time zone 'utc', t.updated_at + interval '1 microsecond')
        from s
        where s.mine and t.user_id = s.user_id and t.id = $3
            and ($4 is null or (extract(epoch from t.updated_at) * 1000000)::bigint = any ($4))
        returning t.*)
    select ",
    caller_columns!(),
    ", ",
    columns!("u"),
    ",
        $4 is not null and u.id is null
            and exists (select from public.tasks t where t.user_id = s.user_id and t.id = $3) as is_stale
    from s left join updated u on true"
)
.never_repeated();

/// Changes the fields that `changes` names and leaves the others as they are.
///
/// # Errors
/// As [`get`]; [`Error::PreconditionFailed`] if the task has changed since the client read it.
pub async fn update(caller: &Caller, id: TaskId, changes: &TaskChanges, if_match: &IfMatch) -> Result<Task, Error> {
    let description = changes.description.as_ref().map(|it| it.as_ref().map(|it| &it.0));
    let completed = if let Completed::Set(completed) = changes.completed { Some(completed) } else { None };
    let toggles = changes.completed == Completed::Toggle;
    let tags = if_match.tags();
    let title = changes.title.as_ref().map(|it| &it.0);
    let (sets_description, description) = (description.is_some(), description.flatten());
    let values: Values<'_> = &[&id.0, &tags, &title, &sets_description, &description, &toggles, &completed];
    caller.log_task(id.0);
    let row = caller.query_one(UPDATE_TASK, values).await?;
    if row.try_get("is_stale")? {
        return Err(TASK_HAS_CHANGED);
    }
    Task::from_row(&row)?.ok_or(NO_SUCH_TASK)
}

/// Never repeated: a second run would not find the task that the first one deleted.
const DELETE_TASK: Statement = authorised!(
    [INT4, INT8_ARRAY],
    ", deleted as (
        delete from public.tasks t using s
        where s.mine and t.user_id = s.user_id and t.id = $3
            and ($4 is null or (extract(epoch from t.updated_at) * 1000000)::bigint = any ($4))
        returning t.id)
    select ",
    caller_columns!(),
    ", d.id,
        $4 is not null and d.id is null
            and exists (select from public.tasks t where t.user_id = s.user_id and t.id = $3) as is_stale
    from s left join deleted d on true"
)
.never_repeated();

/// Deletes one of the caller's tasks.
///
/// # Errors
/// As [`update`].
pub async fn delete(caller: &Caller, id: TaskId, if_match: &IfMatch) -> Result<(), Error> {
    caller.log_task(id.0);
    let row = caller.query_one(DELETE_TASK, &[&id.0, &if_match.tags()]).await?;
    if row.try_get("is_stale")? {
        return Err(TASK_HAS_CHANGED);
    }
    row.try_get::<_, Option<i32>>("id")?.map(drop).ok_or(NO_SUCH_TASK)
}

/// Never repeated: a second run would count only the tasks that the first one left.
const CLEAR_COMPLETED_TASKS: Statement = authorised!(
    ", deleted as (
        delete from public.tasks t using s
        where s.mine and t.user_id = s.user_id and t.completed
        returning t.id)
    select ",
    caller_columns!(),
    ", (select count(*) from deleted) as deleted from s"
)
.never_repeated();

/// Deletes all completed tasks of the caller and returns how many there were.
///
/// # Errors
/// [`Error::Unauthenticated`] without a live session, [`Error::Forbidden`] on another user's path.
pub async fn clear_completed(caller: &Caller) -> Result<i64, Error> {
    let row = caller.query_one(CLEAR_COMPLETED_TASKS, &[]).await?;
    Ok(row.try_get("deleted")?)
}

/// Each operation is judged by the rows as they are once they are locked, and all are locked in the order of their ids, so
/// that no two batches wait for each other. The judgement is stored with the batch's key, if it has one, before anything is
/// done: of two simultaneous requests, the second waits there, does nothing, and has the first one's results. Keys of single
/// operations work as in [`CREATE_ONCE`]. The number of tasks is that from before the batch.
///
/// Outcomes: see `Outcome` in batch.rs. `results` has all of them, and then the ids of created tasks.
const RUN_BATCH: Statement = authorised!(
    [
        TEXT_ARRAY, INT4_ARRAY, INT8_ARRAY, TEXT_ARRAY, BOOL_ARRAY, TEXT_ARRAY, BOOL_ARRAY, BOOL_ARRAY, TEXT_ARRAY,
        BYTEA_ARRAY, INT8, TEXT, BYTEA
    ],
    ", op as (
        select * from unnest($3, $4, $5, $6, $7, $8, $9, $10, $11, $12) with ordinality as op
            (kind, id, tag, title, sets_description, description, toggles, completed, key, hash, place)),
    used as (
        select k.request_hash, k.results, k.created_at
        from s join public.idempotency_keys k on k.user_id = s.user_id and k.key = $14
        where s.mine and ", key_is_valid!(), "),
    known as (
        select k.key, k.request_hash, k.task_id, k.created_at
        from s join public.idempotency_keys k on k.user_id = s.user_id and k.key = any ($11)
        where s.mine and ", key_is_valid!(), "),
    locked as (
        select t.* from s cross join op join public.tasks t on t.user_id = s.user_id and t.id = op.id
        where s.mine
        order by t.id
        for update of t),
    room as (
        select
            case when exists (select from op where kind = 'create') then $13 - (
                select count(*) from (select from public.tasks own where own.user_id = s.user_id limit $13) own) end as for_creation,
            case when $14 is not null or exists (select from op where key is not null) then $13 - (
                select count(*) from (select from public.idempotency_keys k where k.user_id = s.user_id limit $13) k) end as for_key
        from s
        where s.mine),
    judged as (
        select op.*, known.task_id as known_id, known.created_at as known_at, room.for_key,
            case
                when op.kind <> 'create' then case
                    when locked.id is null then 404
                    when op.tag <> (extract(epoch from locked.updated_at) * 1000000)::bigint then 412
                    when op.kind = 'delete' then 204
                    else 200 end
                when known.key is not null then case when known.request_hash = op.hash then 201 else 409 end
                when count(*) filter (where op.kind = 'create' and known.key is null) over so_far > room.for_creation then 422
                when op.key is not null and count(*) filter (where op.key is not null and known.key is null) over so_far > room.for_key
                    then 429
                else 201 end as outcome
        from room cross join op left join locked on locked.id = op.id left join known on known.key = op.key
        window so_far as (order by op.place)),
    decided as (
        select judged.*, case when outcome = 201 and known_id is null and not exists (select from used) and ($14 is null or for_key > 0)
            then nextval(pg_get_serial_sequence('public.tasks', 'id'))::integer end as new_id
        from judged
        order by place),
    whole as (
        insert into public.idempotency_keys as k (user_id, key, request_hash, task_id, created_at, results)
        select s.user_id, $14, $15, 0, clock_timestamp() at time zone 'utc', (
            select array_agg(outcome order by place) || array_agg(coalesce(new_id, 0) order by place) from decided)
        from s cross join room
        where $14 is not null and room.for_key > 0 and not exists (select from used)
        ", keep_valid_keys!("request_hash", "task_id", "created_at", "made_by", "results"), "
        returning *),
    go as (
        select coalesce(whole.created_at, now() at time zone 'utc') as at
        from s left join whole on true
        where s.mine and ($14 is null or whole.made_by = pg_current_xact_id())),
    keys as (
        insert into public.idempotency_keys as k (user_id, key, request_hash, task_id, created_at)
        select s.user_id, d.key, d.hash, d.new_id, go.at
        from s cross join go cross join decided d
        where d.new_id is not null and d.key is not null
        order by d.key
        ", keep_valid_keys!("request_hash", "task_id", "created_at", "made_by"), "
        returning *),
    made as (
        insert into public.tasks (", columns!(), ")
        select d.new_id, s.user_id, d.title, d.description, false, go.at, go.at
        from s cross join go cross join decided d left join keys on keys.key = d.key
        where d.new_id is not null and (d.key is null or keys.made_by = pg_current_xact_id())
        order by d.place),
    changed as (
        update public.tasks t
        set title = coalesce(d.title, t.title),
            description = case when d.sets_description then d.description else t.description end,
            completed = case when d.toggles then not t.completed else coalesce(d.completed, t.completed) end,
            updated_at = greatest(clock_timestamp() at time zone 'utc', t.updated_at + interval '1 microsecond')
        from s cross join go cross join decided d
        where t.user_id = s.user_id and t.id = d.id and d.outcome = 200
        returning t.*),
    deleted as (
        delete from public.tasks t using s cross join go cross join decided d
        where t.user_id = s.user_id and t.id = d.id and d.outcome = 204),
    earlier as (
        select request_hash, results, created_at from used
        union all
        select request_hash, results, created_at from whole where made_by <> pg_current_xact_id())
    select ", caller_columns!(), ", ", columns!("now"), ",
        $14 is null or exists (select from used) or exists (select from whole) as has_key_or_needs_none,
        earlier.request_hash = $15 as is_same,
        case
            when earlier.results is not null then earlier.results[d.place]
            when keys.made_by <> pg_current_xact_id() and keys.request_hash <> d.hash then 409
            else d.outcome end as outcome,
        coalesce(d.known_id is not null or keys.made_by <> pg_current_xact_id(), false) as is_replay,
        coalesce(earlier.results[cardinality($3) + d.place], keys.task_id, d.known_id, d.new_id) as made_id,
        coalesce(earlier.created_at, keys.created_at, d.known_at, go.at) as made_at
    from s left join decided d on true
        left join earlier on true
        left join go on true
        left join keys on keys.key = d.key
        left join (
            select * from changed
            union all
            select * from locked where locked.id not in (select id from changed)
        ) now on now.id = d.id and coalesce(earlier.results[d.place], d.outcome) in (200, 412)
    order by d.place"
);

/// Does what the operations of a batch ask for, each by itself: what is refused does not keep the others from being done.
///
/// # Errors
/// [`Error::Invalid`] if the key of the batch was used for something else, [`Error::LimitReached`] if the user has too many
/// keys for another one, [`Error::Unauthenticated`] without a live session, [`Error::Forbidden`] on another user's path.
pub async fn batch(caller: &Caller, batch: &Batch) -> Result<BatchResults, Error> {
    let Columns {
        kinds,
        ids,
        tags,
        titles,
        sets_description,
        descriptions,
        toggles,
        completed,
        keys,
        hashes,
        key,
        hash,
    } = &batch.columns();
    let max_tasks = caller.max_tasks();
    let values: Values<'_> = &[
        kinds,
        ids,
        tags,
        titles,
        sets_description,
        descriptions,
        toggles,
        completed,
        keys,
        hashes,
        &max_tasks,
        key,
        hash,
    ];
    let statement = if batch.has_key() { RUN_BATCH } else { RUN_BATCH.never_repeated() };
    BatchResults::new(&caller.query(statement, values).await?, batch, max_tasks)
}
