//! Isolation between users, checked against a model: people use each other's ids, cursors, tags and keys at random, and
//! a simple model in Rust predicts each response. `PROPTEST_CASES` sets the number of request series.
use crate::api::{
    Answer, Api, ORIGIN, Request, SECRET, delete, get, patch, post, put, request, session_cookie, signed,
};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use testing::User;
use tokio::sync::Mutex;

/// The number of request series, unless `PROPTEST_CASES` is set.
const CASES: u32 = 128;
/// Every series has fewer requests than this.
const MAX_REQUESTS: usize = 40;
/// The number of users.
const PEOPLE: usize = 3;

/// One request.
#[derive(Debug, Clone)]
struct Step {
    /// The user who sends it.
    person: usize,
    credential: Credential,
    /// The user in the path `/api/{user_id}/tasks`; `None` is `/api/tasks`.
    path_owner: Option<usize>,
    action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Credential {
    Bearer,
    SignedBearer,
    Cookie,
    CookieWithoutOrigin,
    Expired,
    Forged,
    Nothing,
}

#[derive(Debug, Clone)]
enum Action {
    Session,
    Create {
        title: &'static str,
        key: Option<&'static str>,
    },
    /// `cursor` is one that any user has received. With `true` it is sent with its own status and order, else with
    /// those of this request.
    List {
        status: &'static str,
        sort: &'static str,
        /// The text to search for; empty is no search.
        q: &'static str,
        limit: Option<usize>,
        cursor: Option<(Index, bool)>,
    },
    Get {
        task: Index,
        if_none_match: Tag,
    },
    Put {
        task: Index,
        title: Option<&'static str>,
        completed: Option<bool>,
        if_match: Tag,
    },
    Patch {
        task: Index,
        description: Option<&'static str>,
        if_match: Tag,
    },
    Complete {
        task: Index,
        set: Option<bool>,
        if_match: Tag,
    },
    Delete {
        task: Index,
        if_match: Tag,
    },
    Clear,
    /// `cursor` is one of changes that any user has received. With `true` the tag of its response is sent too.
    Changes {
        limit: Option<usize>,
        cursor: Option<(Index, bool)>,
    },
    Batch {
        operations: Vec<Operation>,
        key: Option<&'static str>,
    },
}

/// An operation of a batch.
#[derive(Debug, Clone)]
enum Operation {
    Create { title: &'static str },
    Update { task: Index, title: &'static str, if_match: Tag },
    Complete { task: Index, set: Option<bool>, if_match: Tag },
    Delete { task: Index, if_match: Tag },
}

/// The entity tag in a conditional request.
#[derive(Debug, Clone)]
enum Tag {
    None,
    Any,
    /// The task's current tag.
    Current,
    /// A current or former tag of any user's task.
    Seen(Index),
}

fn step() -> impl Strategy<Value = Step> {
    let credential = prop_oneof![
        4 => Just(Credential::Bearer),
        2 => Just(Credential::SignedBearer),
        4 => Just(Credential::Cookie),
        1 => Just(Credential::CookieWithoutOrigin),
        1 => Just(Credential::Expired),
        1 => Just(Credential::Forged),
        1 => Just(Credential::Nothing),
    ];
    (0..PEOPLE, credential, option::weighted(0.4, 0..PEOPLE), action())
        .prop_map(|(person, credential, path_owner, action)| Step { person, credential, path_owner, action })
}

fn action() -> impl Strategy<Value = Action> {
    let task = any::<Index>;
    prop_oneof![
        1 => Just(Action::Session),
        5 => (title(), option::of(select(&["k1", "k2"][..]))).prop_map(|(title, key)| Action::Create { title, key }),
        5 => (
            select(&["all", "pending", "completed"][..]),
            select(&["-created_at", "created_at", "-updated_at", "updated_at", "title", "-title"][..]),
            prop_oneof![3 => Just(""), 2 => select(&["EA", "a", "bread", "%"][..])],
            option::of(1..4_usize),
            option::of((any::<Index>(), prop::bool::weighted(0.8))),
        )
            .prop_map(|(status, sort, q, limit, cursor)| Action::List { status, sort, q, limit, cursor }),
        3 => (task(), tag()).prop_map(|(task, if_none_match)| Action::Get { task, if_none_match }),
        3 => (task(), option::of(title()), option::of(any::<bool>()), tag())
            .prop_map(|(task, title, completed, if_match)| Action::Put { task, title, completed, if_match }),
        2 => (task(), option::of(title()), tag())
            .prop_map(|(task, description, if_match)| Action::Patch { task, description, if_match }),
        3 => (task(), option::of(any::<bool>()), tag())
            .prop_map(|(task, set, if_match)| Action::Complete { task, set, if_match }),
        2 => (task(), tag()).prop_map(|(task, if_match)| Action::Delete { task, if_match }),
        1 => Just(Action::Clear),
        4 => (option::of(1..4_usize), option::weighted(0.8, (any::<Index>(), any::<bool>())))
            .prop_map(|(limit, cursor)| Action::Changes { limit, cursor }),
        3 => (vec(operation(), 1..4), option::of(select(&["b1", "b2"][..])))
            .prop_map(|(operations, key)| Action::Batch { operations, key }),
    ]
}

fn title() -> impl Strategy<Value = &'static str> {
    select(&["milk", "bread", "tea"][..])
}

fn tag() -> impl Strategy<Value = Tag> {
    prop_oneof![
        4 => Just(Tag::None),
        1 => Just(Tag::Any),
        2 => Just(Tag::Current),
        2 => any::<Index>().prop_map(Tag::Seen),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let task = any::<Index>;
    prop_oneof![
        2 => title().prop_map(|title| Operation::Create { title }),
        2 => (task(), title(), tag()).prop_map(|(task, title, if_match)| Operation::Update { task, title, if_match }),
        2 => (task(), option::of(any::<bool>()), tag())
            .prop_map(|(task, set, if_match)| Operation::Complete { task, set, if_match }),
        1 => (task(), tag()).prop_map(|(task, if_match)| Operation::Delete { task, if_match }),
    ]
}

/// A task as its owner last saw it.
#[derive(Debug, Clone)]
struct Task {
    owner: usize,
    json: Value,
    tag: String,
    exists: bool,
}

impl Task {
    fn id(&self) -> i64 {
        self.json["id"].as_i64().expect("an id")
    }

    fn is_completed(&self) -> bool {
        self.json["completed"] == true
    }

    /// The key that a list in this order sorts by.
    fn sort_key(&self, sort: &str) -> (String, i64) {
        (self.json[sort.trim_start_matches('-')].as_str().expect("a time or a title").to_owned(), self.id())
    }
}

/// The parameters that choose a list and its order.
#[derive(Debug, Clone, Copy, PartialEq)]
struct List {
    status: &'static str,
    sort: &'static str,
    q: &'static str,
}

impl List {
    fn query(&self) -> String {
        let Self { status, sort, q } = self;
        format!("status={status}&sort={sort}&q={}", q.replace('%', "%25"))
    }

    fn has(&self, task: &Task) -> bool {
        let has_status = match self.status {
            "pending" => !task.is_completed(),
            "completed" => task.is_completed(),
            _ => true,
        };
        let texts = [&task.json["title"], &task.json["description"]];
        let wanted = self.q.to_lowercase();
        has_status && texts.iter().any(|text| text.as_str().unwrap_or_default().to_lowercase().contains(&wanted))
    }
}

/// A cursor that some user has received, with the list it belongs to and its position.
#[derive(Debug, Clone)]
struct Cursor {
    text: String,
    list: List,
    after: (String, i64),
}

/// A cursor of changes that some user has received, with the copy that they have then.
#[derive(Debug, Clone, Default)]
struct Copy {
    owner: usize,
    cursor: String,
    tag: Option<String>,
    tasks: BTreeMap<i64, Value>,
    /// Whether all pages so far were of the round that makes the copy: tasks removed meanwhile are still in it.
    is_first_round: bool,
}

/// The expected state, and every tag and cursor that any user has received.
#[derive(Default)]
struct Model {
    /// In order of creation, including deleted ones.
    tasks: Vec<Task>,
    tags: Vec<String>,
    cursors: Vec<Cursor>,
    copies: Vec<Copy>,
    /// The title and the response text of each creation, by user and key.
    keys: HashMap<(usize, &'static str), (&'static str, String)>,
    /// The operations and the results of each batch, by user and key.
    batches: HashMap<(usize, &'static str), (Value, Value)>,
}

impl Model {
    /// Picks a task of any user; `None` before the first task.
    fn pick(&self, index: &Index) -> Option<usize> {
        (!self.tasks.is_empty()).then(|| index.index(self.tasks.len()))
    }

    fn tag(&self, tag: &Tag, task: Option<usize>) -> Option<String> {
        match tag {
            Tag::None => None,
            Tag::Any => Some("*".to_owned()),
            Tag::Current => task.map(|task| self.tasks[task].tag.clone()),
            Tag::Seen(index) => (!self.tags.is_empty()).then(|| index.get(&self.tags).clone()),
        }
    }

    /// Returns a user's list, in order.
    fn list(&self, person: usize, list: List) -> Vec<&Task> {
        let is_listed = |task: &&Task| task.owner == person && task.exists && list.has(task);
        let mut listed: Vec<_> = self.tasks.iter().filter(is_listed).collect();
        listed.sort_by_key(|task| task.sort_key(list.sort));
        if list.sort.starts_with('-') {
            listed.reverse();
        }
        listed
    }

    fn record(&mut self, owner: usize, answer: &Answer) {
        let tag = answer.header("etag").expect("a tag").to_owned();
        self.record_task(Task { owner, json: answer.body.clone(), tag, exists: true });
    }

    fn record_task(&mut self, task: Task) {
        self.tags.push(task.tag.clone());
        match self.tasks.iter_mut().find(|known| known.json["id"] == task.json["id"]) {
            Some(known) => *known = task,
            None => self.tasks.push(task),
        }
    }
}

fn results_of(body: &Value) -> &Vec<Value> {
    body["results"].as_array().expect("results")
}

/// A running series of requests.
struct Series<'a> {
    api: &'a mut Api,
    people: Vec<User>,
    expired: Vec<String>,
    model: Model,
}

impl Series<'_> {
    async fn run(&mut self, step: &Step) {
        let person = step.person;
        let base = match step.path_owner {
            Some(owner) => format!("/api/{}/tasks", self.people[owner].id),
            None => "/api/tasks".to_owned(),
        };
        let target = |task: Option<usize>| {
            let id = task.map_or(2_000_000_000, |task| self.model.tasks[task].id());
            format!("{base}/{id}")
        };
        let conditional = |request: Request, name: &str, tag: &Option<String>| match tag {
            Some(tag) => request.header(name, tag),
            None => request,
        };
        let (task, tag) = match &step.action {
            Action::Get { task, if_none_match: tag }
            | Action::Put { task, if_match: tag, .. }
            | Action::Patch { task, if_match: tag, .. }
            | Action::Complete { task, if_match: tag, .. }
            | Action::Delete { task, if_match: tag } => {
                let task = self.model.pick(task);
                (task, self.model.tag(tag, task))
            }
            _ => (None, None),
        };
        let mut cursor = None;
        let mut copy = None;
        let mut batch = Vec::new();
        let sent = match &step.action {
            Action::Session => get("/api/session"),
            Action::Create { title, key } => {
                let request = post(&base).json(json!({"title": title}));
                match key {
                    Some(key) => request.header("idempotency-key", key),
                    None => request,
                }
            }
            Action::List { status, sort, q, limit, cursor: wanted } => {
                let mut path = format!("{base}?{}", List { status, sort, q }.query());
                if let Some(limit) = limit {
                    path += &format!("&limit={limit}");
                }
                if let Some((index, _)) = wanted
                    && !self.model.cursors.is_empty()
                {
                    cursor = Some(index.get(&self.model.cursors).clone());
                }
                match (&cursor, wanted) {
                    // Append the parameters of the cursor's own list: the last value of a parameter counts.
                    (Some(Cursor { list, text, .. }), Some((_, true))) => {
                        get(&format!("{path}&{}&cursor={text}", list.query()))
                    }
                    (Some(cursor), _) => get(&format!("{path}&cursor={}", cursor.text)),
                    (None, _) => get(&path),
                }
            }
            Action::Get { .. } => conditional(get(&target(task)), "if-none-match", &tag),
            Action::Put { title, completed, .. } => {
                let request = put(&target(task)).json(json!({"title": title, "completed": completed}));
                conditional(request, "if-match", &tag)
            }
            Action::Patch { description, .. } => {
                conditional(patch(&target(task)).json(json!({"description": description})), "if-match", &tag)
            }
            Action::Complete { set, .. } => {
                let request = request("PATCH", &format!("{}/complete", target(task)));
                let request = match set {
                    Some(set) => request.json(json!({"completed": set})),
                    None => request,
                };
                conditional(request, "if-match", &tag)
            }
            Action::Delete { .. } => conditional(delete(&target(task)), "if-match", &tag),
            Action::Clear => delete(&format!("{base}?status=completed")),
            Action::Changes { limit, cursor } => {
                let mut path = format!("{base}/changes?limit={}", limit.unwrap_or(1000));
                let mut tag = None;
                if let Some((index, with_tag)) = cursor
                    && !self.model.copies.is_empty()
                {
                    let known = index.get(&self.model.copies).clone();
                    path += &format!("&cursor={}", known.cursor);
                    tag = known.tag.clone().filter(|_| *with_tag);
                    copy = Some(known);
                }
                conditional(get(&path), "if-none-match", &tag)
            }
            Action::Batch { operations, key } => {
                batch = operations.iter().map(|operation| self.operation(operation)).collect();
                let operations: Vec<_> = batch.iter().map(|(json, _)| json).collect();
                let request = post(&format!("{base}/batch")).json(json!({"operations": operations}));
                match key {
                    Some(key) => request.header("idempotency-key", key),
                    None => request,
                }
            }
        };
        let is_write = sent.method != "GET";
        let is_session = matches!(step.action, Action::Session);
        let sent = self.with_credential(sent, step);
        let answer = self.api.call(sent).await;

        // A refused request reveals nothing and changes nothing.
        let refused = match step.credential {
            Credential::Expired | Credential::Forged | Credential::Nothing => Some(401),
            Credential::CookieWithoutOrigin if is_write => Some(403),
            _ if !is_session && step.path_owner.is_some_and(|owner| owner != person) => Some(403),
            _ => None,
        };
        if let Some(status) = refused {
            assert_eq!(answer.status, status, "{answer:?}");
            return;
        }
        match &step.action {
            Action::Session => {
                assert_eq!((answer.status, &answer.body["user_id"]), (200, &json!(self.people[person].id)))
            }
            Action::Create { title, key } => self.check_creation(person, title, *key, &answer),
            Action::List { status, sort, q, limit, cursor: wanted } => {
                let asked = List { status, sort, q };
                let (list, after) = match (&cursor, wanted) {
                    (Some(cursor), Some((_, true))) => (cursor.list, Some(cursor)),
                    (Some(cursor), _) if cursor.list != asked => {
                        assert_eq!(answer.status, 422, "{answer:?}");
                        return;
                    }
                    (cursor, _) => (asked, cursor.as_ref()),
                };
                self.check_page(person, list, limit.unwrap_or(1000), after, &answer);
            }
            Action::Get { .. } => {
                let Some(known) = self.own_task(person, task, &answer) else { return };
                let is_known = tag.is_some_and(|tag| tag == "*" || tag == known.tag);
                assert_eq!(answer.status, if is_known { 304 } else { 200 }, "{answer:?}");
                assert_eq!(answer.header("etag"), Some(&*known.tag));
                if !is_known {
                    assert_eq!(answer.body, known.json);
                }
            }
            Action::Put { title, completed, .. } => {
                self.check_change(person, task, tag, &answer, |json| {
                    if let Some(title) = title {
                        json["title"] = json!(title);
                    }
                    if let Some(completed) = completed {
                        json["completed"] = json!(completed);
                    }
                });
            }
            Action::Patch { description, .. } => {
                self.check_change(person, task, tag, &answer, |json| json["description"] = json!(description));
            }
            Action::Complete { set, .. } => {
                self.check_change(person, task, tag, &answer, |json| {
                    json["completed"] = json!(set.unwrap_or(json["completed"] == false));
                });
            }
            Action::Delete { .. } => {
                let Some(known) = self.own_task(person, task, &answer) else { return };
                let may = tag.is_none_or(|tag| tag == "*" || tag == known.tag);
                assert_eq!(answer.status, if may { 204 } else { 412 }, "{answer:?}");
                if may {
                    self.model.tasks[task.expect("own_task found it")].exists = false;
                }
            }
            Action::Clear => {
                let mut deleted = 0;
                for task in self.model.tasks.iter_mut() {
                    if task.owner == person && task.exists && task.is_completed() {
                        task.exists = false;
                        deleted += 1;
                    }
                }
                assert_eq!((answer.status, &answer.body), (200, &json!({"deleted": deleted})));
            }
            Action::Changes { .. } => self.check_changes(person, copy, &answer),
            Action::Batch { key, .. } => self.check_batch(person, batch, *key, &answer),
        }
    }

    /// An operation as it is sent, and the task that it is for.
    fn operation(&self, operation: &Operation) -> (Value, Option<usize>) {
        let (task, if_match, mut json) = match operation {
            Operation::Create { title } => return (json!({"op": "create", "title": title}), None),
            Operation::Update { task, title, if_match } => (task, if_match, json!({"op": "update", "title": title})),
            Operation::Complete { task, set: Some(set), if_match } => {
                (task, if_match, json!({"op": "complete", "completed": set}))
            }
            Operation::Complete { task, set: None, if_match } => (task, if_match, json!({"op": "complete"})),
            Operation::Delete { task, if_match } => (task, if_match, json!({"op": "delete"})),
        };
        let task = self.model.pick(task);
        json["id"] = json!(task.map_or(2_000_000_000, |task| self.model.tasks[task].id()));
        if let Some(tag) = self.model.tag(if_match, task) {
            json["if_match"] = json!(tag);
        }
        (json, task)
    }

    fn with_credential(&self, request: Request, step: &Step) -> Request {
        let User { token, .. } = &self.people[step.person];
        let expired = &self.expired[step.person];
        let other_secret = "another-secret-of-the-tests-0123456789";
        match step.credential {
            Credential::Bearer => request.bearer(token),
            Credential::SignedBearer => request.bearer(&signed(token, SECRET)),
            Credential::Cookie => request.cookie(token),
            Credential::CookieWithoutOrigin => request.raw_cookie(&session_cookie(token, SECRET)),
            Credential::Expired => request.cookie(expired),
            Credential::Forged => request.raw_cookie(&session_cookie(token, other_secret)).header("origin", ORIGIN),
            Credential::Nothing => request,
        }
    }

    /// Returns the task if it exists and belongs to this user; otherwise asserts a 404.
    fn own_task(&self, person: usize, task: Option<usize>, answer: &Answer) -> Option<Task> {
        let known = task.map(|task| self.model.tasks[task].clone());
        let own = known.filter(|task| task.owner == person && task.exists);
        if own.is_none() {
            assert_eq!(answer.status, 404, "{answer:?}");
        }
        own
    }

    fn check_creation(&mut self, person: usize, title: &'static str, key: Option<&'static str>, answer: &Answer) {
        if let Some((first, text)) = key.and_then(|key| self.model.keys.get(&(person, key))) {
            if *first == title {
                assert_eq!((answer.status, &answer.text), (201, text));
                assert_eq!(answer.header("idempotent-replayed"), Some("true"));
            } else {
                assert_eq!(answer.status, 422, "{answer:?}");
            }
            return;
        }
        assert_eq!((answer.status, answer.header("idempotent-replayed")), (201, None), "{answer:?}");
        let body = &answer.body;
        assert_eq!(
            (&body["user_id"], &body["title"], &body["description"], &body["completed"]),
            (&json!(self.people[person].id), &json!(title), &Value::Null, &json!(false))
        );
        assert!(
            self.model.tasks.iter().all(|task| task.json["id"] != body["id"]),
            "the id belongs to another task: {body}"
        );
        self.model.record(person, answer);
        if let Some(key) = key {
            self.model.keys.insert((person, key), (title, answer.text.clone()));
        }
    }

    fn check_change(
        &mut self,
        person: usize,
        task: Option<usize>,
        tag: Option<String>,
        answer: &Answer,
        change: impl Fn(&mut Value),
    ) {
        let Some(known) = self.own_task(person, task, answer) else { return };
        if tag.is_some_and(|tag| tag != "*" && tag != known.tag) {
            assert_eq!(answer.status, 412, "{answer:?}");
            return;
        }
        let mut expected = known.json;
        change(&mut expected);
        assert!(answer.body["updated_at"].as_str() > expected["updated_at"].as_str(), "{answer:?}");
        expected["updated_at"] = answer.body["updated_at"].clone();
        assert_eq!((answer.status, &answer.body), (200, &expected));
        self.model.record(person, answer);
    }

    fn check_batch(
        &mut self,
        person: usize,
        batch: Vec<(Value, Option<usize>)>,
        key: Option<&'static str>,
        answer: &Answer,
    ) {
        let mut ids: Vec<_> = batch.iter().filter_map(|(json, _)| json["id"].as_i64()).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|two| two[0] == two[1]) {
            assert_eq!(answer.status, 422, "{answer:?}");
            return;
        }
        let operations: Value = batch.iter().map(|(json, _)| json.clone()).collect();
        let earlier = key.and_then(|key| self.model.batches.get(&(person, key))).cloned();
        if let Some((known, results)) = earlier {
            if known != operations {
                assert_eq!(answer.status, 422, "{answer:?}");
                return;
            }
            assert_eq!((answer.status, answer.header("idempotent-replayed")), (200, Some("true")), "{answer:?}");
            for (((_, task), result), before) in batch.iter().zip(results_of(&answer.body)).zip(results_of(&results)) {
                assert_eq!((&result["status"], &result["id"]), (&before["status"], &before["id"]), "{answer:?}");
                if result["status"] == 201 {
                    assert_eq!(result, before);
                } else if [json!(200), json!(412)].contains(&result["status"]) {
                    let task = &self.model.tasks[task.expect("its task")];
                    assert_eq!(result["task"], if task.exists { task.json.clone() } else { Value::Null }, "{answer:?}");
                }
            }
            return;
        }
        assert_eq!((answer.status, answer.header("idempotent-replayed")), (200, None), "{answer:?}");
        let results = results_of(&answer.body);
        assert_eq!(results.len(), batch.len(), "{answer:?}");
        let mut refused = 0;
        for ((operation, task), result) in batch.iter().zip(results) {
            refused += usize::from(result["problem"].is_object());
            self.check_operation(person, operation, *task, result);
        }
        assert_eq!(answer.body["refused"], json!(refused));
        if let Some(key) = key {
            self.model.batches.insert((person, key), (operations, answer.body.clone()));
        }
    }

    fn check_operation(&mut self, person: usize, operation: &Value, task: Option<usize>, result: &Value) {
        let tag = || result["etag"].as_str().expect("a tag").to_owned();
        if operation["op"] == "create" {
            let json = &result["task"];
            assert_eq!((&result["status"], &json["title"]), (&json!(201), &operation["title"]), "{result}");
            assert_eq!((&json["user_id"], &json["completed"]), (&json!(self.people[person].id), &json!(false)));
            assert!(self.model.tasks.iter().all(|task| task.json["id"] != json["id"]), "another task's id: {result}");
            self.model.record_task(Task { owner: person, json: json.clone(), tag: tag(), exists: true });
            return;
        }
        let known = task.map(|task| self.model.tasks[task].clone());
        let Some(known) = known.filter(|task| task.owner == person && task.exists) else {
            assert_eq!((&result["status"], &result["task"]), (&json!(404), &Value::Null), "{result}");
            return;
        };
        if operation["if_match"].as_str().is_some_and(|tag| tag != "*" && tag != known.tag) {
            assert_eq!((&result["status"], &result["task"]), (&json!(412), &known.json), "{result}");
            return;
        }
        if operation["op"] == "delete" {
            assert_eq!((&result["status"], &result["task"]), (&json!(204), &Value::Null), "{result}");
            self.model.tasks[task.expect("its task")].exists = false;
            return;
        }
        let mut expected = known.json;
        if let Some(title) = operation.get("title") {
            expected["title"] = title.clone();
        } else {
            let toggled = json!(expected["completed"] == false);
            expected["completed"] = operation.get("completed").cloned().unwrap_or(toggled);
        }
        assert!(result["task"]["updated_at"].as_str() > expected["updated_at"].as_str(), "{result}");
        expected["updated_at"] = result["task"]["updated_at"].clone();
        assert_eq!((&result["status"], &result["task"]), (&json!(200), &expected));
        self.model.record_task(Task { owner: person, json: expected, tag: tag(), exists: true });
    }

    fn check_page(&mut self, person: usize, list: List, limit: usize, after: Option<&Cursor>, answer: &Answer) {
        let sort = list.sort;
        let mut listed = self.model.list(person, list);
        if let Some(after) = after {
            let is_after =
                |key: (String, i64)| if sort.starts_with('-') { key < after.after } else { key > after.after };
            listed.retain(|task| is_after(task.sort_key(sort)));
        }
        let page: Vec<_> = listed.iter().take(limit).map(|task| task.json.clone()).collect();
        assert_eq!((answer.status, &answer.body), (200, &json!(page)));
        let last = listed.get(limit.min(listed.len()).wrapping_sub(1)).map(|task| task.sort_key(sort));
        let has_more = listed.len() > limit;
        let next = answer.next_page();
        assert_eq!(next.is_some(), has_more, "{answer:?}");
        if let (Some(next), Some(after)) = (next, last) {
            let (_, text) = next.rsplit_once("cursor=").expect("a cursor");
            self.model.cursors.push(Cursor { text: text.to_owned(), list, after });
        }
    }

    fn check_changes(&mut self, person: usize, copy: Option<Copy>, answer: &Answer) {
        let mut copy = copy.unwrap_or(Copy { owner: person, is_first_round: true, ..Copy::default() });
        if copy.owner != person {
            assert_eq!(answer.status, 422, "another user's cursor: {answer:?}");
            return;
        }
        let own = self.model.tasks.iter().filter(|task| task.owner == person && task.exists);
        let own: BTreeMap<_, _> = own.map(|task| (task.id(), task.json.clone())).collect();
        if answer.status == 304 {
            assert_eq!(copy.tasks, own, "{answer:?}");
            return;
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        for task in answer.body["tasks"].as_array().expect("tasks") {
            assert_eq!(own.get(&task["id"].as_i64().expect("an id")), Some(task), "it is as it is now");
            copy.tasks.insert(task["id"].as_i64().expect("an id"), task.clone());
        }
        for id in answer.body["removed"].as_array().expect("ids") {
            let is_known = |task: &Task| task.owner == person && !task.exists && task.json["id"] == *id;
            assert!(self.model.tasks.iter().any(is_known), "{id} was never this user's: {answer:?}");
            copy.tasks.remove(&id.as_i64().expect("an id"));
        }
        if answer.body["more"] == false {
            if copy.is_first_round {
                let mut kept = copy.tasks.clone();
                kept.retain(|id, _| own.contains_key(id));
                assert_eq!(kept, own, "{answer:?}");
            } else {
                assert_eq!(copy.tasks, own, "{answer:?}");
            }
            copy.is_first_round = false;
        }
        copy.cursor = answer.body["cursor"].as_str().expect("a cursor").to_owned();
        copy.tag = answer.header("etag").map(str::to_owned);
        self.model.copies.push(copy);
    }

    /// Asserts that the database holds exactly the model's tasks.
    async fn check_database(&self) {
        for (person, user) in self.people.iter().enumerate() {
            let rows = "select json_build_array(id, title, description, completed)::text from tasks where user_id = $1 order by id";
            let rows = self.api.database.sql(rows, &[&user.id]).await;
            let rows: Vec<Value> = rows.iter().map(|row| serde_json::from_str(row.get(0)).expect("JSON")).collect();
            let mut known = self.model.list(person, List { status: "all", sort: "created_at", q: "" });
            known.sort_by_key(|task| task.id());
            let known: Vec<_> = known
                .iter()
                .map(|task| {
                    json!([task.json["id"], task.json["title"], task.json["description"], task.json["completed"]])
                })
                .collect();
            assert_eq!(rows, known);
        }
    }
}

#[test]
fn everybody_sees_and_changes_their_own_and_nothing_else() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let api = Mutex::new(runtime.block_on(Api::start()));
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let config = Config {
        cases,
        source_file: Some(file!()),
        test_name: Some("everybody_sees_and_changes_their_own_and_nothing_else"),
        max_shrink_iters: 2000,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&vec(step(), 1..MAX_REQUESTS), |steps| {
        runtime.block_on(async {
            let api: &mut Api = &mut *api.lock().await;
            // Deleting users also deletes everything that belongs to them.
            api.database.sql("delete from \"user\"", &[]).await;
            let mut people = Vec::new();
            let mut expired = Vec::new();
            for name in ["ada", "bob", "eve"] {
                let user = api.database.sign_up(name).await;
                expired.push(api.database.sign_in(&user.id, "-1 minute").await);
                people.push(user);
            }
            let mut series = Series { api, people, expired, model: Model::default() };
            for step in &steps {
                series.run(step).await;
            }
            series.check_database().await;
        });
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
