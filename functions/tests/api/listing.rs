//! Lists: order, filters and paging.
use crate::api::{Api, delete, get, patch, put};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use testing::User;

fn ids(list: &Value) -> Vec<i64> {
    list.as_array().expect("a list").iter().map(|task| task["id"].as_i64().expect("an id")).collect()
}

/// Follows the `next` links from `path` to the last page, and returns the ids.
async fn all_pages(api: &mut Api, user: &User, path: &str) -> Vec<i64> {
    let mut found = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let page = api.call(get(&path).bearer(&user.token)).await;
        assert_eq!(page.status, 200, "{page:?}");
        found.extend(ids(&page.body));
        next = page.next_page().map(str::to_owned);
    }
    found
}

#[tokio::test]
async fn a_list_is_newest_first_and_filtered() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let made = [api.make_task(&ada, "a").await, api.make_task(&ada, "b").await, api.make_task(&ada, "c").await];
    api.call(patch(&format!("/api/tasks/{}/complete", made[1])).bearer(&ada.token)).await;
    for (path, expected) in [
        ("/api/tasks", vec![made[2], made[1], made[0]]),
        ("/api/tasks?status=all", vec![made[2], made[1], made[0]]),
        ("/api/tasks?status=pending", vec![made[2], made[0]]),
        ("/api/tasks?status=completed", vec![made[1]]),
        ("/api/tasks?limit=2", vec![made[2], made[1]]),
        ("/api/tasks?limit=1000&unknown=1&sort_by=x", vec![made[2], made[1], made[0]]),
        ("/api/tasks?status=pending&limit=1", vec![made[2]]),
        ("/api/tasks?%73tatus=%70ending", vec![made[2], made[0]]),
        ("/api/tasks?limit=x&limit=0&limit=1", vec![made[2]]),
    ] {
        let answer = api.call(get(path).bearer(&ada.token)).await;
        assert_eq!((answer.status, ids(&answer.body)), (200, expected.clone()), "{path}");
        let user_path = path.replace("/api/", &format!("/api/{}/", ada.id));
        assert_eq!(ids(&api.call(get(&user_path).bearer(&ada.token)).await.body), expected, "{user_path}");
    }
}

#[tokio::test]
async fn an_invalid_parameter_is_rejected_by_name() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    for (query, field) in [
        ("status=done", "status"),
        ("status=", "status"),
        ("status=Pending", "status"),
        ("status=%00", "status"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=1.5", "limit"),
        ("limit=", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("cursor=", "cursor"),
        ("cursor=x", "cursor"),
        ("cursor=%0d%0aSet-Cookie:a=b", "cursor"),
        ("cursor=LWNyZWF0ZWRfYXQgYWxsIDE", "cursor"),
        ("sort=Title", "sort"),
        ("sort=lower(title)", "sort"),
        ("sort=", "sort"),
        ("sort=-created", "sort"),
        ("sort=created_at;drop", "sort"),
        ("q=%00", "q"),
        (&format!("q={}", "x".repeat(201)), "q"),
        ("offset=-1", "offset"),
        ("offset=10001", "offset"),
        ("offset=+1", "offset"),
        ("offset=x", "offset"),
        ("limit=%2B5", "limit"),
    ] {
        let answer = api.call(get(&format!("/api/tasks?{query}")).bearer(&ada.token)).await;
        assert_eq!((answer.status, &answer.body["errors"][0]["field"]), (422, &json!(field)), "{query}");
    }
    let both = api.call(get("/api/tasks?status=x&limit=x").bearer(&ada.token)).await;
    assert_eq!(both.body["errors"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn another_apis_name_of_a_parameter_is_rejected_and_the_right_name_is_in_the_answer() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    for (query, details) in [
        ("order=desc", "order is not a parameter: use sort, such as sort=-created_at."),
        ("order=", "order is not a parameter: use sort, such as sort=-created_at."),
        ("search=milk", "search is not a parameter: use q."),
        (
            "sort=x&search=milk&order=asc",
            "sort must be one of -created_at, created_at, -updated_at, updated_at, title, -title. order is not a parameter: use sort, such as sort=-created_at. search is not a parameter: use q.",
        ),
    ] {
        for path in ["/api/tasks".to_owned(), format!("/api/{}/tasks", ada.id)] {
            let answer = api.call(get(&format!("{path}?{query}")).bearer(&ada.token)).await;
            assert_eq!((answer.status, &answer.body["detail"]), (422, &json!(details)), "{query}");
        }
    }
    assert_eq!(api.call(get("/api/tasks?Order=x&query=x&page=2").bearer(&ada.token)).await.status, 200);
}

#[tokio::test]
async fn a_thousand_tasks_of_one_moment_are_paged_without_gaps_or_repeats_while_others_are_added() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    for user in [&ada, &bob] {
        api.database
            .sql(
                "insert into tasks (user_id, title, created_at, updated_at)
                select $1, 'task ' || n, '2026-01-31 12:34:56.123456', '2026-01-31 12:34:56.123456' from generate_series(1, 1000) n",
                &[&user.id],
            )
            .await;
    }
    let original: Vec<i64> = api
        .database
        .sql("select id from tasks where user_id = $1 order by id desc", &[&ada.id])
        .await
        .iter()
        .map(|row| i64::from(row.get::<_, i32>(0)))
        .collect();

    let mut found = Vec::new();
    let mut next = Some("/api/tasks?limit=37".to_owned());
    while let Some(path) = next {
        let page = api.call(get(&path).bearer(&ada.token)).await;
        assert!(page.body.as_array().expect("a list").len() <= 37);
        found.extend(ids(&page.body));
        next = page.next_page().map(str::to_owned);
        // For each user, add a task that is newer than all, one of the same moment, and one that is older.
        for user in [&ada, &bob] {
            api.database
                .sql(
                    "insert into tasks (user_id, title, created_at, updated_at)
                    select $1, 'other', at, at from unnest('{2026-02-01,2026-01-31 12:34:56.123456,2026-01-01}'::timestamp[]) as at",
                    &[&user.id],
                )
                .await;
        }
    }
    let unique: BTreeSet<_> = found.iter().collect();
    assert_eq!(unique.len(), found.len(), "a task appeared twice");
    let found: Vec<_> = found.into_iter().filter(|id| original.contains(id)).collect();
    assert_eq!(found, original, "a task is missing or out of order");
}

#[tokio::test]
async fn pages_of_every_size_give_the_same_list() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    api.database
        .sql(
            "insert into tasks (user_id, title, completed, created_at, updated_at)
            select $1, 'x', n % 3 = 0, at, at from generate_series(1, 25) n, lateral (select timestamp '2026-01-01' + n / 4 * interval '1 us') t (at)",
            &[&ada.id],
        )
        .await;
    for filter in ["", "status=pending&", "status=completed&"] {
        let whole = all_pages(&mut api, &ada, &format!("/api/tasks?{filter}")).await;
        for limit in [1, 2, 5, 24, 25, 26] {
            assert_eq!(
                all_pages(&mut api, &ada, &format!("/api/tasks?{filter}limit={limit}")).await,
                whole,
                "{filter}{limit}"
            );
        }
    }
    let last = api.call(get("/api/tasks?limit=25").bearer(&ada.token)).await;
    assert_eq!(last.next_page(), None, "a list that ends with this page has no next page");
}

#[tokio::test]
async fn a_cursor_is_valid_only_for_its_own_list() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    for title in ["a", "b", "c"] {
        api.make_task(&ada, title).await;
    }
    let page = api.call(get("/api/tasks?status=pending&limit=1").bearer(&ada.token)).await;
    let next = page.next_page().expect("a next page").to_owned();
    assert!(next.starts_with("/api/tasks?status=pending&limit=1&cursor="), "{next}");
    assert_eq!(api.call(get(&next.replace("pending", "completed")).bearer(&ada.token)).await.status, 422);
    assert_eq!(api.call(get(&next.replace("status=pending&", "")).bearer(&ada.token)).await.status, 422);
    assert_eq!(api.call(get(&next.replace("limit=1", "limit=2")).bearer(&ada.token)).await.status, 200);
    assert_eq!(
        api.call(get(&next).bearer(&bob.token)).await.body,
        json!([]),
        "another user's cursor reveals none of their tasks"
    );

    let user_page = api.call(get(&format!("/api/{}/tasks?limit=1", ada.id)).bearer(&ada.token)).await;
    assert!(user_page.next_page().expect("a next page").starts_with(&format!("/api/{}/tasks?limit=1&cursor=", ada.id)));

    // Hand-made cursors with extreme numbers.
    for micros in ["-62135596800000000", "-200000000000000000", "253402300799999999", "0"] {
        for id in ["-2147483648", "0", "2147483647"] {
            let cursor = URL_SAFE_NO_PAD.encode(format!("-created_at all {micros} {id}"));
            let answer = api.call(get(&format!("/api/tasks?cursor={cursor}")).bearer(&ada.token)).await;
            assert_eq!(answer.status, 200, "{micros} {id}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_page_ends_before_lambdas_limit_whatever_it_holds() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    for (kind, character) in [("quotes", "\""), ("four bytes", "\u{10FFFF}"), ("controls", "\u{1}"), ("plain", "x")] {
        api.database.sql("delete from tasks", &[]).await;
        api.database
            .sql(
                "insert into tasks (user_id, title, description, created_at, updated_at)
                select $1, repeat($2, 200), repeat($2, 10000), now(), now() from generate_series(1, 700)",
                &[&ada.id, &character],
            )
            .await;
        let mut found = Vec::new();
        let mut pages = 0;
        let mut next = Some("/api/tasks".to_owned());
        while let Some(path) = next {
            let page = api.call(get(&path).bearer(&ada.token)).await;
            assert!(page.encoded_bytes < 6_291_556, "{kind}: {} bytes", page.encoded_bytes);
            found.extend(ids(&page.body));
            next = page.next_page().map(str::to_owned);
            assert!(
                next.is_none() || page.encoded_bytes > 6_000_000,
                "{kind}: a page ended early at {} bytes",
                page.encoded_bytes
            );
            pages += 1;
        }
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 700, "{kind}");
        assert_eq!(found.len(), 700, "{kind}");
        assert!(pages > 1, "{kind}: one page, so the limit was not tested");
    }
}

#[tokio::test]
async fn every_order_is_paged_without_gaps_or_repeats() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    // Several tasks per moment, so that the id must break ties.
    api.database
        .sql(
            "insert into tasks (user_id, title, completed, created_at, updated_at)
            select $1, 'Task ' || n, n % 3 = 0, '2026-01-01'::timestamp + (n / 4) * interval '1 minute',
                '2026-02-01'::timestamp - (n / 5) * interval '1 minute'
            from generate_series(1, 100) n",
            &[&ada.id],
        )
        .await;
    for (sort, order) in [
        ("created_at", "created_at, id"),
        ("-created_at", "created_at desc, id desc"),
        ("updated_at", "updated_at, id"),
        ("-updated_at", "updated_at desc, id desc"),
        ("created", "created_at desc, id desc"),
        ("updated", "updated_at desc, id desc"),
        ("title", "lower(title) collate \"C\", id"),
        ("-title", "lower(title) collate \"C\" desc, id desc"),
    ] {
        for (filter, condition) in
            [("", "true"), ("&status=pending", "not completed"), ("&q=TASK%201", "title like 'Task 1%'")]
        {
            let statement = format!("select id from tasks where {condition} order by {order}");
            let expected: Vec<i64> =
                api.database.sql(&statement, &[]).await.iter().map(|row| i64::from(row.get::<_, i32>(0))).collect();
            let found = all_pages(&mut api, &ada, &format!("/api/tasks?sort={sort}{filter}&limit=7")).await;
            assert_eq!(found, expected, "{sort} {filter}");
            let offset =
                api.call(get(&format!("/api/tasks?sort={sort}{filter}&limit=7&offset=5")).bearer(&ada.token)).await;
            assert_eq!(ids(&offset.body), expected[5..expected.len().min(12)], "{sort} {filter}");
            let next = offset.next_page().map(str::to_owned);
            if let Some(next) = next {
                assert!(!next.contains("offset"), "{next}");
                assert_eq!(all_pages(&mut api, &ada, &next).await, expected[12..], "{sort} {filter}");
            }
        }
    }
    let beyond = api.call(get("/api/tasks?offset=10000").bearer(&ada.token)).await;
    assert_eq!((beyond.body, beyond.headers.get("link")), (json!([]), None));
}

#[tokio::test]
async fn titles_are_sorted_without_regard_to_case_and_equal_ones_by_id() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    let long = |last: &str| format!("{}{last}", "\u{10FFFF}".repeat(199));
    let mut ids = Vec::new();
    for title in
        ["banana", "Apple", "apple", &long("b"), "ä", "APPLE", "10", "9", "b", "an\u{1}x y", &long("A"), "'\\%", "Z"]
    {
        ids.push(api.make_task(&ada, title).await);
        api.make_task(&bob, title).await;
    }
    // By code point, in lower case: other punctuation, digits, letters, then letters outside of ASCII.
    let mut expected = [11, 6, 7, 9, 1, 2, 5, 8, 0, 12, 4, 10, 3].map(|index: usize| ids[index]).to_vec();
    for sort in ["title", "-title"] {
        for limit in [1, 2, 5, 13] {
            let path = format!("/api/tasks?sort={sort}&limit={limit}");
            assert_eq!(all_pages(&mut api, &ada, &path).await, expected, "{sort} {limit}");
        }
        expected.reverse();
    }

    // The next page begins after the title that the last task had, whatever has happened to that task.
    let page = api.call(get("/api/tasks?sort=title&limit=4").bearer(&ada.token)).await;
    let next = page.next_page().expect("a next page").to_owned();
    api.call(put(&format!("/api/tasks/{}", ids[9])).bearer(&ada.token).json(json!({"title": "zz"}))).await;
    api.call(delete(&format!("/api/tasks/{}", ids[1])).bearer(&ada.token)).await;
    let rest = all_pages(&mut api, &ada, &next).await;
    assert_eq!(rest, [2, 5, 8, 0, 12, 9, 4, 10, 3].map(|index: usize| ids[index]));
    assert_eq!(api.call(get(&next.replace("sort=title", "sort=-title")).bearer(&ada.token)).await.status, 422);
    // Hand-made cursors whose position does not suit their order.
    for cursor in ["title all 1769862896123456 7", "-created_at all 7\0x"] {
        let cursor = URL_SAFE_NO_PAD.encode(cursor);
        for sort in ["title", "-created_at"] {
            let path = format!("/api/tasks?sort={sort}&cursor={cursor}");
            assert_eq!(api.call(get(&path).bearer(&ada.token)).await.status, 422, "{path}");
        }
    }
}

#[tokio::test]
async fn a_search_finds_text_in_either_field_in_any_case_and_with_any_punctuation() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    for (title, description) in [
        ("Milch & Brot", None),
        ("100% sure", Some("under_score")),
        ("back\\slash", Some("ÄPFEL")),
        ("quote \" and '", None),
        ("plain", Some("100 percent")),
    ] {
        let body = json!({"title": title, "description": description});
        assert_eq!(api.call(crate::api::post("/api/tasks").bearer(&ada.token).json(body)).await.status, 201);
    }
    for (query, titles) in [
        ("milch", vec!["Milch & Brot"]),
        ("%26%20B", vec!["Milch & Brot"]),
        ("100", vec!["plain", "100% sure"]),
        ("100%25", vec!["100% sure"]),
        ("%25", vec!["100% sure"]),
        ("_", vec!["100% sure"]),
        ("%5C", vec!["back\\slash"]),
        ("%22", vec!["quote \" and '"]),
        ("%27", vec!["quote \" and '"]),
        ("%C3%A4pfel", vec!["back\\slash"]),
        ("100+percent", vec!["plain"]),
        ("nothing", vec![]),
        ("", vec!["plain", "quote \" and '", "back\\slash", "100% sure", "Milch & Brot"]),
    ] {
        let answer = api.call(get(&format!("/api/tasks?q={query}")).bearer(&ada.token)).await;
        let found: Vec<_> = answer.body.as_array().expect("a list").iter().map(|task| task["title"].clone()).collect();
        assert_eq!(json!(found), json!(titles), "{query}");
    }
}

#[tokio::test]
async fn a_cursor_is_bound_to_order_and_search_too() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    for title in ["a1", "a2", "a3"] {
        api.make_task(&ada, title).await;
    }
    let page = api.call(get("/api/tasks?sort=updated_at&q=a&limit=1").bearer(&ada.token)).await;
    let next = page.next_page().expect("a next page").to_owned();
    assert_eq!(api.call(get(&next).bearer(&ada.token)).await.body[0]["title"], "a2");
    for other in [
        next.replace("sort=updated_at", "sort=created_at"),
        next.replace("sort=updated_at", "sort=-updated_at"),
        next.replace("sort=updated_at&", ""),
        next.replace("q=a", "q=A"),
        next.replace("q=a&", ""),
        format!("{next}&status=pending"),
    ] {
        let answer = api.call(get(&other).bearer(&ada.token)).await;
        assert_eq!((answer.status, &answer.body["errors"][0]["field"]), (422, &json!("cursor")), "{other}");
    }
    let both = api.call(get(&format!("{next}&offset=0")).bearer(&ada.token)).await;
    assert_eq!((both.status, &both.body["errors"][0]["field"]), (422, &json!("offset")));
}
