//! `GET /api/tasks/changes`: a client that polls has the tasks that the database has, whoever writes and however slowly.
use crate::{
    api::{Answer, Api, Person, delete, get, patch, post},
    purge::scheduled_event,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use testing::{Client, User};

/// A client's copy of somebody's tasks.
#[derive(Default)]
struct Reader {
    copy: BTreeMap<i64, Value>,
    cursor: Option<String>,
    tag: Option<String>,
}

impl Reader {
    /// Fetches a page and applies it. Returns whether the round has another page.
    async fn poll(&mut self, api: &mut Api, user: &User, limit: Option<u32>) -> bool {
        let mut path = "/api/tasks/changes?".to_owned();
        if let Some(limit) = limit {
            path += &format!("limit={limit}&");
        }
        if let Some(cursor) = &self.cursor {
            path += &format!("cursor={cursor}");
        }
        let mut request = get(&path).bearer(&user.token);
        if let Some(tag) = &self.tag {
            request = request.header("if-none-match", tag);
        }
        let answer = api.call(request).await;
        match answer.status {
            304 => false,
            410 => {
                *self = Self::default();
                true
            }
            200 => self.apply(&answer),
            _ => panic!("{answer:?}"),
        }
    }

    fn apply(&mut self, answer: &Answer) -> bool {
        for task in answer.body["tasks"].as_array().expect("tasks") {
            self.copy.insert(task["id"].as_i64().expect("an id"), task.clone());
        }
        for id in ids(&answer.body["removed"]) {
            self.copy.remove(&id);
        }
        self.cursor = answer.body["cursor"].as_str().map(str::to_owned);
        self.tag = answer.header("etag").map(str::to_owned);
        answer.body["more"] == true
    }

    /// Polls until the round ends.
    async fn catch_up(&mut self, api: &mut Api, user: &User, limit: Option<u32>) {
        while self.poll(api, user, limit).await {}
    }
}

fn ids(list: &Value) -> Vec<i64> {
    list.as_array().expect("a list").iter().map(|id| id.as_i64().expect("an id")).collect()
}

/// The tasks as the list returns them, by id.
async fn listed(api: &mut Api, user: &User) -> BTreeMap<i64, Value> {
    let answer = api.call(get("/api/tasks").bearer(&user.token)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let tasks = answer.body.as_array().expect("tasks").iter();
    tasks.map(|task| (task["id"].as_i64().expect("an id"), task.clone())).collect()
}

fn changed(answer: &Answer) -> (Vec<i64>, Vec<i64>) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let tasks = answer.body["tasks"].as_array().expect("tasks").iter();
    (tasks.map(|task| task["id"].as_i64().expect("an id")).collect(), ids(&answer.body["removed"]))
}

fn after(answer: &Answer) -> String {
    format!("/api/tasks/changes?cursor={}", answer.body["cursor"].as_str().expect("a cursor"))
}

/// Waits until every transaction of the cluster that could hold back a mark has ended: other tests have some.
async fn quiet(api: &Api) {
    let next = "select pg_snapshot_xmax(pg_current_snapshot())::text";
    let next: String = api.database.sql(next, &[]).await[0].get(0);
    let has_ended = format!("select (pg_snapshot_xmin(pg_current_snapshot()) >= '{next}')::int::bigint");
    while api.database.number(&has_ended).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Polls once when no transaction of before is running, so that nothing comes twice.
async fn poll(ada: &mut Person, path: &str) -> Answer {
    quiet(&ada.api).await;
    ada.get(path).await
}

#[tokio::test]
async fn a_client_gets_everything_once_and_then_what_changed_or_is_gone() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    let mut tasks = Vec::new();
    for title in ["milk", "bread", "tea"] {
        tasks.push(ada.api.make_task(&user, title).await);
    }
    let first = poll(&mut ada, "/api/tasks/changes").await;
    assert_eq!((changed(&first), &first.body["more"]), ((tasks.clone(), vec![]), &json!(false)));
    assert_eq!(first.body["tasks"][0], ada.get(&format!("/api/tasks/{}", tasks[0])).await.body);

    let nothing = poll(&mut ada, &after(&first)).await;
    assert_eq!(changed(&nothing), (vec![], vec![]));

    ada.call(patch(&format!("/api/tasks/{}", tasks[2])).json(json!({"title": "green tea"}))).await;
    ada.call(delete(&format!("/api/tasks/{}", tasks[0]))).await;
    ada.call(patch(&format!("/api/tasks/{}", tasks[1])).json(json!({"completed": true}))).await;
    let made = ada.api.make_task(&user, "coffee").await;
    let second = poll(&mut ada, &after(&nothing)).await;
    assert_eq!(changed(&second), (vec![tasks[2], tasks[1], made], vec![tasks[0]]));
    assert_eq!(second.body["tasks"][0]["title"], "green tea");

    ada.call(delete("/api/tasks?status=completed")).await;
    let path = format!("/api/{}/tasks/changes?cursor={}", user.id, second.body["cursor"].as_str().expect("a cursor"));
    assert_eq!(changed(&poll(&mut ada, &path).await), (vec![], vec![tasks[1]]));
}

#[tokio::test]
async fn a_client_without_a_copy_begins_with_what_changes_from_now_on() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    let [removed, late] = [ada.api.make_task(&user, "old").await, ada.api.make_task(&user, "slow").await];
    quiet(&ada.api).await;
    let writer = ada.api.database.connect().await;
    writer
        .batch_execute(&format!("begin; update tasks set title = 'late' where id = {late}"))
        .await
        .expect("an update");
    let latest = ada.get("/api/tasks/changes?cursor=latest").await;
    assert_eq!((changed(&latest), &latest.body["more"]), ((vec![], vec![]), &json!(false)));
    writer.batch_execute("commit").await.expect("a commit");
    ada.call(delete(&format!("/api/tasks/{removed}"))).await;
    let made = ada.api.make_task(&user, "new").await;
    assert_eq!(changed(&ada.get(&after(&latest)).await), (vec![late, made], vec![removed]));
}

#[tokio::test]
async fn pages_of_any_size_add_up_and_the_next_round_has_what_changed_between_them() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    let mut tasks = Vec::new();
    for number in 0..7 {
        tasks.push(ada.api.make_task(&user, &number.to_string()).await);
    }
    // One transaction: all of these have one place in the order, apart from their ids.
    let more = "insert into tasks (user_id, title) select $1, n::text from generate_series(1, 10) n";
    ada.api.database.sql(more, &[&user.id]).await;
    for limit in [1, 2, 3, 16, 17, 18, 1000] {
        let mut reader = Reader::default();
        reader.poll(&mut ada.api, &user, Some(limit)).await;
        // What the reader has, and what it has not read yet.
        let has = reader.copy.keys().next().copied().expect("a task");
        let other = *tasks.iter().find(|id| **id != has).expect("another task");
        ada.call(patch(&format!("/api/tasks/{has}")).json(json!({"title": format!("changed {limit}")}))).await;
        ada.call(delete(&format!("/api/tasks/{other}"))).await;
        reader.catch_up(&mut ada.api, &user, Some(limit)).await;
        reader.catch_up(&mut ada.api, &user, Some(limit)).await;
        assert_eq!(reader.copy, listed(&mut ada.api, &user).await, "limit={limit}");
        tasks.retain(|id| *id != other);
        tasks.push(ada.api.make_task(&user, "another").await);
    }
}

#[tokio::test]
async fn a_page_ends_before_it_is_too_large_for_a_response() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    // A quote takes four bytes in Lambda's response.
    let fill = "insert into tasks (user_id, title, description) select $1, 'x', repeat('\"', 10000) from generate_series(1, 400)";
    ada.api.database.sql(fill, &[&user.id]).await;
    let (mut reader, mut pages) = (Reader::default(), 0);
    while reader.poll(&mut ada.api, &user, None).await {
        pages += 1;
    }
    assert!((2..5).contains(&pages), "{pages}");
    assert_eq!(reader.copy.len(), 400);
}

#[tokio::test]
async fn while_a_transaction_runs_anywhere_its_elders_come_again_and_nothing_is_lost() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    let slow = ada.api.make_task(&user, "slow").await;
    let first = poll(&mut ada, "/api/tasks/changes").await;
    let writer = ada.api.database.connect().await;
    writer
        .batch_execute(&format!("begin; update tasks set title = 'late' where id = {slow}"))
        .await
        .expect("an update");
    let quick = ada.api.make_task(&user, "quick").await;
    let second = ada.get(&after(&first)).await;
    assert_eq!(changed(&second), (vec![quick], vec![]));
    for _ in 0..3 {
        let again = ada.get(&after(&second)).await;
        assert_eq!(changed(&again), (vec![quick], vec![]), "it comes again");
        let tag = again.header("etag").expect("a tag").to_owned();
        let unchanged = ada.call(get(&after(&again)).header("if-none-match", &tag)).await;
        assert_eq!((unchanged.status, &*unchanged.text), (304, ""), "but costs no body");
    }
    writer.batch_execute("commit").await.expect("a commit");
    let third = ada.get(&after(&second)).await;
    assert_eq!(changed(&third), (vec![slow, quick], vec![]));
    assert_eq!(third.body["tasks"][0]["title"], "late");
    // A transaction in another database of the cluster counts as well.
    let elsewhere = Api::start().await;
    elsewhere.database.batch("begin; select pg_current_xact_id()").await;
    let fourth = ada.get(&after(&third)).await;
    let last = ada.api.make_task(&user, "last").await;
    let mut answer = fourth;
    for _ in 0..3 {
        answer = ada.get(&after(&answer)).await;
        assert!(changed(&answer).0.contains(&last), "{answer:?}");
    }
    elsewhere.database.batch("commit").await;
}

#[tokio::test]
async fn idle_polling_for_100_days_never_ends_in_410() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    let task = ada.api.make_task(&user, "milk").await;
    let mut answer = poll(&mut ada, "/api/tasks/changes").await;
    answer = poll(&mut ada, &after(&answer)).await;
    let tag = answer.header("etag").expect("a tag").to_owned();
    let (stale, mut fresh_cursors) = (after(&answer), 0);
    // The API cannot be told another time, so the cursors are: each is what a day later is left of it. Somebody else's tasks are
    // deleted and forgotten meanwhile.
    for day in 0..100 {
        let eve = ada.api.database.sign_up("eve").await;
        let gone = ada.api.make_task(&eve, "x").await;
        ada.api.call(delete(&format!("/api/tasks/{gone}")).bearer(&eve.token)).await;
        ada.api.database.sql("delete from \"user\" where id = $1", &[&eve.id]).await;
        ada.api.database.batch("update removed_tasks set removed_at = removed_at - interval '1 day'").await;
        if day >= 89 {
            let purged = ada.api.function("purge").await.invoke(scheduled_event()).await;
            assert_eq!(purged["removals"], 1, "day {day}");
        }
        let same = ada.call(get(&after(&answer)).header("if-none-match", &tag)).await;
        assert_eq!(same.status, 304, "day {day}: {same:?}");
        let old = age(&after(&answer), &user.id, 24 * 60 * 60);
        answer = ada.call(get(&old).header("if-none-match", &tag)).await;
        assert_eq!(changed(&answer), (vec![], vec![]), "day {day}");
        fresh_cursors += 1;
    }
    assert_eq!(fresh_cursors, 100);
    assert_eq!(ada.get(&stale).await.status, 410, "whoever did not poll starts over");
    assert_eq!(changed(&poll(&mut ada, "/api/tasks/changes").await), (vec![task], vec![]));
}

/// The path, with its cursor dated back by this many seconds.
fn age(path: &str, user_id: &str, by_s: i64) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use sha2::{Digest as _, Sha256};
    let (path, cursor) = path.split_once("cursor=").expect("a cursor");
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).expect("base64")).expect("text");
    let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
    words.pop();
    words[3] = (words[3].parse::<i64>().expect("seconds") - by_s).to_string();
    let content = words.join(" ");
    let digest: String =
        Sha256::digest(format!("{content}\0{user_id}")).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{path}cursor={}", URL_SAFE_NO_PAD.encode(format!("{content} {digest}")))
}

#[tokio::test]
async fn a_cursor_is_for_its_user_and_its_history() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    ada.api.make_task(&user, "milk").await;
    let bob = ada.api.database.sign_up("bob").await;
    let first = poll(&mut ada, "/api/tasks/changes").await;
    let answer = ada.api.call(get(&after(&first)).bearer(&bob.token)).await;
    assert_eq!(answer.status, 422, "{answer:?}");
    assert_eq!(answer.body["errors"][0]["field"], "cursor");
    for wrong in ["x", "-", "bm90IGEgY3Vyc29y"] {
        assert_eq!(ada.get(&format!("/api/tasks/changes?cursor={wrong}")).await.status, 422, "{wrong}");
    }
    let page = ada.get("/api/tasks?limit=1").await;
    assert_eq!(page.status, 200);
    for limit in ["0", "1001", "x"] {
        assert_eq!(ada.get(&format!("/api/tasks/changes?limit={limit}")).await.status, 422, "{limit}");
    }

    // After a restore.
    for event in ["select migration_tools.new_epoch()", "truncate tasks", "truncate removed_tasks"] {
        let before = poll(&mut ada, "/api/tasks/changes").await;
        assert_eq!(poll(&mut ada, &after(&before)).await.status, 200);
        ada.api.database.batch(event).await;
        let gone = poll(&mut ada, &after(&before)).await;
        assert_eq!((gone.status, &gone.body["title"]), (410, &json!("Gone")), "{event}");
        assert_eq!(poll(&mut ada, "/api/tasks/changes").await.status, 200);
    }
}

#[tokio::test]
async fn a_cursor_ahead_of_the_cluster_is_gone_and_a_purge_of_another_cluster_is_not() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    ada.api.make_task(&user, "milk").await;
    let first = poll(&mut ada, "/api/tasks/changes").await;
    let from_ahead = {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        let text = after(&first);
        let text = text.split_once('=').expect("a cursor").1;
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).expect("base64")).expect("text");
        let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        words[2] = "1000000000".to_owned();
        age(&format!("/api/tasks/changes?cursor={}", URL_SAFE_NO_PAD.encode(words.join(" "))), &user.id, 0)
    };
    assert_eq!(ada.get(&from_ahead).await.status, 410);
    // A dump brings the purges of its cluster along, and rows that this one has no transactions for yet.
    ada.api.database.batch("update migration_tools.sync_state set purged_to = '1000000000'").await;
    ada.api.database.batch("alter table tasks disable trigger note_update; update tasks set changed = '1000000000'; alter table tasks enable trigger note_update").await;
    let answer = poll(&mut ada, "/api/tasks/changes").await;
    let again = poll(&mut ada, &after(&answer)).await;
    assert_eq!(changed(&again), changed(&answer), "it comes again and again");
    ada.api.database.batch("select migration_tools.new_epoch()").await;
    let answer = poll(&mut ada, "/api/tasks/changes").await;
    assert_eq!(changed(&poll(&mut ada, &after(&answer)).await), (vec![], vec![]), "until the rows are renumbered");
}

#[tokio::test]
async fn a_tag_is_answered_with_304_only_where_nothing_can_be_missed() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    for title in ["milk", "bread", "tea"] {
        ada.api.make_task(&user, title).await;
    }
    let with = |path: &str, tag: &str| get(path).header("if-none-match", tag);
    assert_eq!(ada.call(with("/api/tasks/changes", "*")).await.status, 200, "it has no cursor to keep");
    let page = poll(&mut ada, "/api/tasks/changes?limit=2").await;
    assert_eq!((page.header("etag"), &page.body["more"]), (None, &json!(true)));
    assert_eq!(ada.call(with(&after(&page), "*")).await.status, 200, "a round's end has a newer cursor");
    let end = poll(&mut ada, &after(&page)).await;
    let nothing = poll(&mut ada, &after(&end)).await;
    let tag = nothing.header("etag").expect("a tag").to_owned();
    for (tag, status) in [(&*tag, 304), (tag.trim_start_matches("W/"), 304), ("*", 304), ("\"x\"", 200)] {
        assert_eq!(ada.call(with(&after(&nothing), tag)).await.status, status, "{tag}");
    }
    assert_eq!(ada.call(with(&age(&after(&nothing), &user.id, 86_400), &tag)).await.status, 200, "a day later");
    ada.api.make_task(&user, "coffee").await;
    assert_eq!(ada.call(with(&after(&nothing), &tag)).await.status, 200);
    assert_eq!(ada.call(with(&after(&nothing), &"x".repeat(8001))).await.status, 422);
}

#[tokio::test]
async fn latest_is_never_answered_with_304_because_its_cursor_is_what_the_client_wants() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    ada.api.make_task(&user, "milk").await;
    let latest = "/api/tasks/changes?cursor=latest";
    let with = |path: &str, tag: &str| get(path).header("if-none-match", tag);
    let first = poll(&mut ada, latest).await;
    let tag = first.header("etag").expect("a tag").to_owned();
    for known in [&*tag, "*"] {
        quiet(&ada.api).await;
        let again = ada.call(with(latest, known)).await;
        assert_eq!((changed(&again), again.header("etag")), ((vec![], vec![]), Some(&*tag)), "{known}");
        let next = ada.call(with(&after(&again), &tag)).await;
        assert_eq!((next.status, &*next.text), (304, ""), "its cursor begins a round: {known}");
    }
    let bread = ada.api.make_task(&user, "bread").await;
    let next = ada.call(with(&after(&first), &tag)).await;
    assert_eq!(changed(&next), (vec![bread], vec![]));
    assert_eq!(changed(&ada.call(with(latest, &tag)).await), (vec![], vec![]));
}

#[tokio::test]
async fn what_others_write_is_synced_too() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    let bob = ada.api.database.sign_up("bob").await;
    let (kept, moved) = (ada.api.make_task(&user, "kept").await, ada.api.make_task(&user, "moved").await);
    let mut answer = poll(&mut ada, "/api/tasks/changes").await;
    quiet(&ada.api).await;
    let mut bobs = ada.api.call(get("/api/tasks/changes").bearer(&bob.token)).await;
    // A value that a client writes, an old copy of a row, and other roles.
    ada.api.database.batch(&format!("update tasks set completed = true, changed = '3' where id = {kept}")).await;
    answer = poll(&mut ada, &after(&answer)).await;
    assert_eq!(changed(&answer), (vec![kept], vec![]));
    ada.api.database.sql("update tasks set user_id = $1 where title = 'moved'", &[&bob.id]).await;
    answer = poll(&mut ada, &after(&answer)).await;
    quiet(&ada.api).await;
    bobs = ada.api.call(get(&after(&bobs)).bearer(&bob.token)).await;
    assert_eq!((changed(&answer), changed(&bobs)), ((vec![], vec![moved]), (vec![moved], vec![])));
    ada.api.database.batch(&format!("create table copy as table tasks; delete from tasks where id = {kept}")).await;
    answer = poll(&mut ada, &after(&answer)).await;
    assert_eq!(changed(&answer), (vec![], vec![kept]));
    ada.api.database.batch("insert into tasks select * from copy on conflict do nothing").await;
    answer = poll(&mut ada, &after(&answer)).await;
    assert_eq!(changed(&answer), (vec![kept], vec![]), "a task that is back is not removed");
    ada.api
        .database
        .batch(&format!("update tasks set id = 66666 where id = {kept}; update tasks set id = 77777 where id = 66666"))
        .await;
    answer = poll(&mut ada, &after(&answer)).await;
    assert_eq!(changed(&answer).0, [77777]);
    assert!(changed(&answer).1.contains(&kept));
    // As a front end's role with rights on tasks alone.
    ada.api.database.batch("set role tasks_api; delete from tasks where id = 77777; reset role").await;
    answer = poll(&mut ada, &after(&answer)).await;
    assert_eq!(changed(&answer), (vec![], vec![77777]));
    ada.api.database.sql("delete from \"user\" where id = $1", &[&bob.id]).await;
    let left = format!("select count(*) from removed_tasks where user_id = '{}'", bob.id);
    assert_eq!(ada.api.database.number(&left).await, 0, "a deleted user leaves nothing");
}

#[tokio::test]
async fn removals_are_forgotten_after_90_days_and_older_cursors_are_gone() {
    let mut ada = Person::sign_up().await;
    let user = ada.user.clone();
    let (one, two) = (ada.api.make_task(&user, "one").await, ada.api.make_task(&user, "two").await);
    let old = poll(&mut ada, "/api/tasks/changes").await;
    ada.call(delete(&format!("/api/tasks/{one}"))).await;
    let new = poll(&mut ada, "/api/tasks/changes").await;
    ada.call(delete(&format!("/api/tasks/{two}"))).await;
    for (days, removed, old_status) in [(89, 0, 200), (91, 1, 410)] {
        let age = format!(
            "update removed_tasks set removed_at = now() at time zone 'utc' - interval '{days} days' where task_id = {one}"
        );
        ada.api.database.batch(&age).await;
        let purged = ada.api.function("purge").await.invoke(scheduled_event()).await;
        assert_eq!(purged["removals"], removed, "{days} days");
        assert_eq!(poll(&mut ada, &after(&old)).await.status, old_status, "{days} days");
        assert_eq!(changed(&poll(&mut ada, &after(&new)).await), (vec![], vec![two]), "{days} days");
    }
    let role = ada.api.database.expect_error("set role tasks_api; delete from removed_tasks").await;
    assert!(!role.is_empty());
}

/// Histories in the test, unless `SYNC_HISTORIES` is set.
const HISTORIES: usize = 60;

/// One user's tasks, which are written in random order through the API and beside it, and readers who poll now and then.
pub struct History {
    seed: u64,
    user: User,
    readers: Vec<Reader>,
    /// Whether each writer beside the API is in a transaction.
    is_open: Vec<bool>,
    random: StdRng,
}

impl History {
    async fn begin(api: &mut Api, seed: u64) -> Self {
        Self {
            seed,
            user: api.database.sign_up(&(seed % 1000).to_string()).await,
            readers: (0..2).map(|_| Reader::default()).collect(),
            is_open: vec![false; WRITERS],
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Ends all transactions, lets the readers catch up, and returns whether each has what the table has.
    async fn end(mut self, api: &mut Api, writers: &[Client]) -> bool {
        self.end_transactions(writers).await;
        for reader in &mut self.readers {
            let limit = Some(self.random.random_range(1..6));
            reader.catch_up(api, &self.user, limit).await;
            // What committed after the round's first page comes in the next.
            reader.catch_up(api, &self.user, limit).await;
        }
        let table = listed(api, &self.user).await;
        api.database.sql("delete from \"user\" where id = $1", &[&self.user.id]).await;
        self.readers.iter().all(|reader| reader.copy == table)
    }

    async fn end_transactions(&mut self, writers: &[Client]) {
        for (number, writer) in writers.iter().enumerate() {
            self.end_transaction(number, writer).await;
        }
    }

    async fn step(&mut self, api: &mut Api, writers: &[Client]) {
        let number = self.random.random_range(0..writers.len());
        match self.random.random_range(0..100) {
            0..40 => {
                let (reader, limit) = (self.random.random_range(0..self.readers.len()), self.random.random_range(1..6));
                self.readers[reader].poll(api, &self.user, Some(limit)).await;
            }
            40..65 => self.write(number, &writers[number]).await,
            65..75 => self.end_transaction(number, &writers[number]).await,
            75..97 => self.call(api).await,
            97..99 => {
                // As much later, for some of the removals.
                let age = "update removed_tasks set removed_at = removed_at - interval '91 days' where random() < 0.5";
                api.database.batch(age).await;
                api.function("purge").await.invoke(scheduled_event()).await;
            }
            _ if self.is_open.contains(&true) => {}
            _ => api.database.batch("select migration_tools.new_epoch()").await,
        }
    }

    /// Writes without the API, in a transaction that may stay open for long.
    async fn write(&mut self, number: usize, writer: &Client) {
        if !self.is_open[number] && self.random.random_bool(0.8) {
            writer.batch_execute("begin").await.expect("a transaction");
            self.is_open[number] = true;
        }
        let user = &self.user.id;
        // A row that somebody else has locked is left alone: this test runs one step at a time.
        let some =
            format!("(select id from tasks where user_id = '{user}' order by random() limit 1 for update skip locked)");
        let statement = match self.random.random_range(0..12) {
            0..3 => format!("insert into tasks (user_id, title) select '{user}', 'raw ' || n from generate_series(1, 3) n"),
            3..7 => format!("update tasks set title = 'raw ' || md5(random()::text), updated_at = clock_timestamp() at time zone 'utc' where id = {some}"),
            7..9 => format!("delete from tasks where id = {some}"),
            9 => format!("update tasks set completed = true, updated_at = clock_timestamp() at time zone 'utc' where id = {some}"),
            10 => format!(
                "with gone as (delete from tasks where id = {some} returning *)
                insert into tasks (id, user_id, title) select id + 1000000, user_id, 'again' from gone where id < 1000000"
            ),
            // Somebody who writes elsewhere.
            _ => "select pg_current_xact_id()".to_owned(),
        };
        writer.batch_execute(&statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }

    async fn end_transaction(&mut self, number: usize, writer: &Client) {
        if std::mem::replace(&mut self.is_open[number], false) {
            let end = if self.random.random_bool(0.8) { "commit" } else { "rollback" };
            writer.batch_execute(end).await.expect("the transaction's end");
        }
    }

    /// Writes through the API.
    async fn call(&mut self, api: &mut Api) {
        let free = "select id from tasks where user_id = $1 order by random() limit 1 for update skip locked";
        let free = api.database.sql(free, &[&self.user.id]).await;
        let task = free.first().map(|row| row.get::<_, i32>(0));
        let request = match (self.random.random_range(0..4), task) {
            (0, Some(task)) => patch(&format!("/api/tasks/{task}")).json(json!({"completed": true, "title": "api"})),
            (1, Some(task)) => delete(&format!("/api/tasks/{task}")),
            (2, Some(task)) => {
                let other = if self.random.random_bool(0.5) { "delete" } else { "complete" };
                let create = json!({"op": "create", "title": "batch"});
                post("/api/tasks/batch").json(json!({"operations": [create, {"op": other, "id": task}, create]}))
            }
            _ => post("/api/tasks").json(json!({"title": "api"})),
        };
        let answer = api.call(request.bearer(&self.user.token)).await;
        assert!((200..300).contains(&answer.status), "{answer:?}");
    }
}

/// Writers beside the API in each history.
const WRITERS: usize = 3;

async fn connect_writers(api: &Api) -> Vec<Client> {
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        writers.push(api.database.connect().await);
    }
    writers
}

/// Histories that go on side by side, such as over a restore.
pub struct Histories(Vec<History>);

impl Histories {
    pub async fn begin(api: &mut Api, count: usize, first_seed: u64) -> Self {
        let mut histories = Vec::new();
        for number in 0..count as u64 {
            histories.push(History::begin(api, first_seed + number).await);
        }
        Self(histories)
    }

    /// Takes steps of each, and ends their transactions.
    pub async fn steps(&mut self, api: &mut Api, count: usize) {
        let writers = connect_writers(api).await;
        for history in &mut self.0 {
            for _ in 0..count {
                history.step(api, &writers).await;
            }
            history.end_transactions(&writers).await;
        }
    }

    /// Ends each, and returns the seeds of those in which a reader's copy is not the table.
    pub async fn end(self, api: &mut Api) -> Vec<u64> {
        let writers = connect_writers(api).await;
        let mut lost = Vec::new();
        for history in self.0 {
            let seed = history.seed;
            if !history.end(api, &writers).await {
                lost.push(seed);
            }
        }
        lost
    }
}

/// Runs histories one after the other, and returns the seeds of those in which a reader's copy is not the table in the end.
async fn histories(api: &mut Api, count: usize) -> Vec<u64> {
    let writers = connect_writers(api).await;
    let mut lost = Vec::new();
    let first: u64 = std::env::var("SYNC_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_default();
    for seed in (0..count as u64).map(|number| first.wrapping_add(number)) {
        let mut history = History::begin(api, seed).await;
        for _ in 0..history.random.random_range(5..40) {
            history.step(api, &writers).await;
        }
        if !history.end(api, &writers).await {
            lost.push(seed);
        }
    }
    lost
}

#[tokio::test]
async fn in_random_histories_every_reader_ends_with_the_table() {
    let count = std::env::var("SYNC_HISTORIES").ok().and_then(|count| count.parse().ok()).unwrap_or(HISTORIES);
    let mut api = Api::start().await;
    let lost = histories(&mut api, count).await;
    assert!(lost.is_empty(), "of {count} histories, a reader lost changes in those of the seeds {lost:?}");
}

#[tokio::test]
async fn with_times_in_place_of_transactions_readers_lose_changes() {
    let mut api = Api::start().await;
    let now = "((extract(epoch from clock_timestamp()) * 1000000)::bigint)::text::xid8";
    api.database
        .batch(&format!(
            "create or replace function migration_tools.note_change() returns trigger language plpgsql as $$
                begin new.changed := {now}; return new; end $$;
            alter table tasks alter changed set default '0';
            alter table removed_tasks alter changed set default {now};
            create function public.pg_snapshot_xmin(pg_snapshot) returns xid8 language sql as $$ select {now} $$;
            create function public.pg_snapshot_xmax(pg_snapshot) returns xid8 language sql as $$ select '9000000000000000000'::xid8 $$;
            grant execute on function public.pg_snapshot_xmin(pg_snapshot), public.pg_snapshot_xmax(pg_snapshot) to tasks_api;
            alter role tasks_api in database {} set search_path = public, pg_catalog",
            api.database.name
        ))
        .await;
    let lost = histories(&mut api, HISTORIES).await;
    assert!(!lost.is_empty(), "{HISTORIES} histories do not show what xids are for");
    println!("{} of {HISTORIES} histories lost changes", lost.len());
}
