//! The SQL that may be run. A statement that does not ask for the caller does not compile.
use tokio_postgres::{
    error::{DbError, SqlState},
    types::{ToSql, Type},
};

/// All parameters of a statement with their types, which saves the round trip that would ask the server for them.
pub(crate) type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// The values of a statement's own parameters: `$3` and those after it.
pub(crate) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The type of a token's digest, the parameter of `caller(bytea)`.
pub(crate) const DIGEST_TYPE: Type = Type::BYTEA;
/// The type of a verified JWT's claims, the parameter of `caller(text[])`.
pub(crate) const JWT_TYPE: Type = Type::TEXT_ARRAY;
/// The type of the user id in the path.
pub(crate) const PATH_TYPE: Type = Type::TEXT;

/// Begins the value that a prepared statement fails to convert if it was executed in place of another one.
const MISMATCH: &str = "this prepared statement is not ";

/// SQL that may be run, and the types of its own parameters. `authorised!` and `authorised_read!` create statements that start from the caller, and
/// `without_caller!` those that need no user. Other text does not compile.
#[derive(Clone, Copy)]
pub struct Statement {
    sql: &'static str,
    types: &'static [Type],
    hash: u64,
    is_repeatable: bool,
    may_be_prepared: bool,
    is_write: bool,
}

impl Statement {
    /// Checks at compile time that the text asks for the caller, and that its last part reads from it.
    pub(crate) const fn new(types: &'static [Type], sql: &'static str) -> Self {
        assert!(
            contains(sql, "from public.caller($1)"),
            "the statement does not ask for the caller: make it with authorised! or authorised_read!"
        );
        // Each row of the statement comes from one call, which carries the guard of a prepared statement.
        assert!(
            matches!(split(sql, "caller("), Some((_, rest)) if !contains(rest, "caller(")),
            "the statement asks for the caller twice"
        );
        assert!(contains(sql, "mine"), "the statement does not say whether the path's user is the caller (mine)");
        assert!(
            contains(sql, " from s") || contains(sql, "from public.caller($1) s"),
            "the statement does not read from s, the caller"
        );
        assert!(contains(sql, "s.user_id::text as user_id"), "the statement does not return the caller's id (user_id)");
        assert!(
            tasks_are_qualified(sql),
            "the statement names tasks without their schema: a role's search_path could lead elsewhere. Write public.tasks, with an alias"
        );
        assert!(
            tasks_are_the_callers(sql),
            "the statement reads or changes tasks of anybody: each public.tasks needs 'user_id = s.user_id' after it, without an 'or'"
        );
        Self { sql, types, hash: hash(sql), is_repeatable: true, may_be_prepared: true, is_write: writes(sql) }
    }

    /// Checks at compile time that the text does not mention tasks, which always belong to a user.
    pub(crate) const fn without_caller(sql: &'static str) -> Self {
        assert!(
            !contains(sql, "tasks"),
            "the statement names tasks, which are always somebody's: make it with authorised! or authorised_read!"
        );
        // Never prepared: there is no call of caller() to carry the guard.
        Self { sql, types: &[], hash: 0, is_repeatable: true, may_be_prepared: false, is_write: writes(sql) }
    }

    /// Marks a statement that is planned anew each time, because its best plan depends on the values.
    pub(crate) const fn never_prepared(self) -> Self {
        Self { may_be_prepared: false, ..self }
    }

    /// Marks a statement that must not run twice, because the second run would have another effect.
    pub(crate) const fn never_repeated(self) -> Self {
        Self { is_repeatable: false, ..self }
    }

    pub(crate) fn sql(&self) -> &'static str {
        self.sql
    }

    /// The types of the statement's own parameters.
    pub(crate) fn types(&self) -> &'static [Type] {
        self.types
    }

    /// Identifies the statement with these types of all its parameters, in every version of every function. Other text or
    /// other types have another id.
    pub(crate) fn id<'t>(&self, types: impl IntoIterator<Item = &'t Type>) -> i64 {
        let oids = types.into_iter().flat_map(|kind| kind.oid().to_be_bytes());
        let hash = oids.fold(self.hash, hash_byte);
        (hash >> 1).cast_signed()
    }

    /// Returns the text to prepare: the statement's own, with a guard. Its last parameter, after `parameters` others, is the
    /// id of the statement that the client means. With another id it fails before `caller` is called, and so before anything
    /// is read or written: each row of each statement comes from `caller`.
    ///
    /// A connection's pooler may not track names, and tokio-postgres counts them: s0, s1, ... in each process. The server then
    /// finds another process's statement under the name.
    pub(crate) fn guarded_sql(&self, id: i64, parameters: usize) -> String {
        // `case` guarantees the order of evaluation. The inner one is constant in a plan for given values.
        let guard = parameters + 1;
        let argument = format!(
            "case when case when ${guard} = {id} then true else ('{MISMATCH}' || ${guard}::text)::boolean end then $1 end"
        );
        self.sql.replacen("public.caller($1)", &format!("public.caller({argument})"), 1)
    }

    pub(crate) fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }

    pub(crate) fn may_be_prepared(&self) -> bool {
        self.may_be_prepared
    }

    /// Whether it changes rows.
    pub(crate) fn is_write(&self) -> bool {
        self.is_write
    }
}

/// The types of all parameters of a statement of [`authorised!`]: for a token and, if they are accepted, for a JWT.
pub(crate) fn parameter_types(statement: &Statement, accepts_jwts: bool) -> impl Iterator<Item = Vec<Type>> {
    let own = statement.types();
    [Some(DIGEST_TYPE), accepts_jwts.then_some(JWT_TYPE)]
        .into_iter()
        .flatten()
        .map(move |credential| [&[credential, PATH_TYPE], own].concat())
}

/// Whether the server executed another statement than the one with this id, whose guard stopped it.
pub(crate) fn is_mismatch(error: &DbError, id: i64) -> bool {
    *error.code() == SqlState::INVALID_TEXT_REPRESENTATION && error.message().contains(&format!("{MISMATCH}{id}"))
}

/// FNV-1a, 64 bits (datatracker.ietf.org/doc/draft-eastlake-fnv).
const fn hash(text: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        hash = hash_byte(hash, *byte);
        rest = after;
    }
    hash
}

const fn hash_byte(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3)
}

/// Creates a statement that begins with `s`: the caller's row, or no row without a live session. `$1` is the token's digest
/// or, in other types, the token or a verified JWT's user, and `$2` the user id in the path or null. The statement's own
/// parameters begin at `$3`; their types come first: `authorised!([TEXT, INT8], "...")`.
///
/// It returns `mine` and `user_id`, the caller's: [`caller_columns`]. No row means 401, and `mine` = false means 403. The meaning
/// of other nulls is up to the statement.
macro_rules! authorised {
    ([$($kind:ident),*], $($sql:tt)+) => {
        const {
            const TYPES: &[tokio_postgres::types::Type] = &[$(tokio_postgres::types::Type::$kind),*];
            $crate::statement::Statement::new(TYPES, concat!(
                "with s as (\
                 select user_id, expires_at, ($2 is null or user_id::text = $2) as mine from public.caller($1)) ",
                $($sql)+
            ))
        }
    };
    ($($sql:tt)+) => {
        $crate::statement::authorised!([], $($sql)+)
    };
}
pub(crate) use authorised;

/// The columns that a statement of [`authorised!`] returns about the caller.
macro_rules! caller_columns {
    () => {
        "s.mine, s.user_id::text as user_id"
    };
}
pub(crate) use caller_columns;

/// Like [`authorised!`], for a statement that only reads: its columns, and what is joined to `s`. PostgreSQL plans
/// every statement anew, and this form faster than one with a `with` query in front.
///
/// The join must be on `s.user_id`, so that only the caller's own rows are read. They are read even if the path names
/// another user, but the 403 hides them.
macro_rules! authorised_read {
    ([$($kind:ident),*], $columns:expr, $($joined:tt)+) => {
        const {
            const TYPES: &[tokio_postgres::types::Type] = &[$(tokio_postgres::types::Type::$kind),*];
            $crate::statement::Statement::new(TYPES, concat!(
                "select ($2 is null or s.user_id::text = $2) as mine, s.user_id::text as user_id, ",
                $columns,
                " from public.caller($1) s ",
                $($joined)+
            ))
        }
    };
    ($columns:expr, $($joined:tt)+) => {
        $crate::statement::authorised_read!([], $columns, $($joined)+)
    };
}
pub(crate) use authorised_read;

/// Creates a statement that needs no session: it reads and writes nothing that belongs to a user.
macro_rules! without_caller {
    ($sql:expr) => {
        const { $crate::statement::Statement::without_caller($sql) }
    };
}
pub(crate) use without_caller;

/// Whether every `tasks` is `public.tasks` or `public.removed_tasks`.
const fn tasks_are_qualified(sql: &str) -> bool {
    let mut rest = sql;
    while let Some((before, after)) = split(rest, "tasks") {
        if !ends_with(before, "public.") && !ends_with(before, "public.removed_") {
            return false;
        }
        rest = after;
    }
    true
}

/// Whether every table of tasks is restricted to the caller's rows before the next one is named. A row is inserted for
/// `s.user_id`.
const fn tasks_are_the_callers(sql: &str) -> bool {
    let mut rest = sql;
    while let Some((before, after)) = split(rest, "tasks") {
        rest = after;
        let own_part = match split(after, "tasks") {
            Some((own_part, _)) => own_part,
            None => after,
        };
        let is_only_a_name = ends_with(before, "'public.");
        let is_restricted = if ends_with(before, "insert into public.") {
            contains(sql, "select s.user_id")
        } else {
            match split(own_part, "user_id = s.user_id") {
                Some((_, condition)) => !continues_with_or(without_cast(condition)),
                None => false,
            }
        };
        if !is_only_a_name && !is_restricted {
            return false;
        }
    }
    true
}

/// Whether the statement changes rows itself.
const fn writes(sql: &str) -> bool {
    contains(sql, "insert into ") || contains(sql, "update public.") || contains(sql, "delete from ")
}

/// The text after a cast to text, if it begins with one.
const fn without_cast(text: &str) -> &str {
    match split(text, "::text") {
        Some((before, rest)) if before.is_empty() => rest,
        _ => text,
    }
}

/// Whether the next word is `or`.
const fn continues_with_or(text: &str) -> bool {
    let word = text.trim_ascii_start().as_bytes();
    match word {
        [b'o' | b'O', b'r' | b'R', next, ..] => !next.is_ascii_alphanumeric(),
        _ => false,
    }
}

const fn contains(text: &str, part: &str) -> bool {
    split(text, part).is_some()
}

const fn ends_with(text: &str, end: &str) -> bool {
    text.len() >= end.len() && starts_with(text.as_bytes().split_at(text.len() - end.len()).1, end.as_bytes())
}

/// The texts before and after the first occurrence of `part`.
const fn split<'t>(text: &'t str, part: &str) -> Option<(&'t str, &'t str)> {
    let bytes = text.as_bytes();
    let mut index = 0;
    while index + part.len() <= bytes.len() {
        if starts_with(bytes.split_at(index).1, part.as_bytes()) {
            let (before, rest) = text.split_at(index);
            return Some((before, rest.split_at(part.len()).1));
        }
        index += 1;
    }
    None
}

const fn starts_with(text: &[u8], start: &[u8]) -> bool {
    let mut remaining = (text, start);
    while let ([a, text @ ..], [b, start @ ..]) = remaining {
        if *a != *b {
            return false;
        }
        remaining = (text, start);
    }
    remaining.1.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn every_text_and_every_types_have_their_own_id_and_the_guard_comes_before_the_caller() {
        let read = authorised_read!([INT4], "t.id", "left join public.tasks t on t.user_id = s.user_id and t.id = $3");
        let other =
            authorised_read!([INT4], "t.title", "left join public.tasks t on t.user_id = s.user_id and t.id = $3");
        let mut ids: Vec<_> = [read, other]
            .iter()
            .flat_map(|statement| parameter_types(statement, true).map(|types| statement.id(&types)))
            .chain([read.id(&[DIGEST_TYPE, PATH_TYPE, Type::INT8])])
            .collect();
        assert!(ids.iter().all(|id| *id > 0), "a negative number would need parentheses: {ids:?}");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 5);
        assert_eq!(parameter_types(&read, false).collect::<Vec<_>>(), [[DIGEST_TYPE, PATH_TYPE, Type::INT4]]);
        let guarded = read.guarded_sql(7, 3);
        let guard = "case when $4 = 7 then true else ('this prepared statement is not ' || $4::text)::boolean end";
        assert!(guarded.contains(&format!("from public.caller(case when {guard} then $1 end) s")), "{guarded}");
        assert!(!read.sql().contains("$4"));
    }

    #[test]
    fn a_statement_that_reaches_tasks_of_others_does_not_compile() {
        let compiles = |sql: &str| {
            let sql: &'static str =
                format!("select s.mine, s.user_id::text as user_id from public.caller($1) s {sql}").leak();
            catch_unwind(|| Statement::new(&[], sql)).is_ok()
        };
        for sql in [
            "",
            "left join public.tasks t on t.user_id = s.user_id and t.id = $3",
            "where exists (select from public.tasks t where t.user_id = s.user_id)",
            "join public.tasks t on t.user_id = s.user_id join public.tasks u on u.user_id = s.user_id",
            "where nextval(pg_get_serial_sequence('public.tasks', 'id')) > 0",
            "left join public.removed_tasks r on r.user_id = s.user_id::text and r.changed > $3",
            "order by s.user_id",
        ] {
            assert!(compiles(sql), "{sql}");
        }
        for sql in [
            ", public.tasks t",
            "left join public.tasks t on t.id = $3",
            "join public.tasks t on t.user_id = s.user_id or true",
            "join public.tasks t on t.user_id = s.user_id\n  OR (true)",
            "join public.tasks t on t.user_id = s.user_id join public.tasks u on u.id = t.id",
            "join public.tasks u on u.id = $3 join public.tasks t on t.user_id = s.user_id",
            "left join tasks t on t.user_id = s.user_id and t.id = $3",
            "left join public.removed_tasks r on r.changed > $3",
            "join public.tasks t on t.user_id = s.user_id join public.removed_tasks r on r.task_id = t.id",
            "join public.removed_tasks r on r.task_id = $3 join public.tasks t on t.user_id = s.user_id",
            "left join public.removed_tasks r on r.user_id = s.user_id::text or true",
            "left join removed_tasks r on r.user_id = s.user_id::text",
            "left join other.tasks t on t.user_id = s.user_id and t.id = $3",
            "where exists (insert into public.tasks (user_id, title) values ($3, $4))",
        ] {
            assert!(!compiles(sql), "{sql}");
        }
        assert!(catch_unwind(|| Statement::new(&[], "select mine from s")).is_err());
        assert!(catch_unwind(|| Statement::new(&[], "select s.mine from public.caller($1) s")).is_err(), "nobody's");
        assert!(catch_unwind(|| Statement::without_caller("select title from public.tasks")).is_err());
    }
}
