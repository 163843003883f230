use std::collections::HashSet;

use gateway::auth::Tenant;
use gateway::store::{FunctionQuery, NameFilter, Sort, Store, StoreError};

use crate::bed::{Database, name, new_tenant, origin, spec};

async fn all(store: &Store, tenant: &Tenant, query: &FunctionQuery) -> Vec<String> {
    let mut query = query.clone();
    let mut names = Vec::new();
    loop {
        let page = store.function_list(tenant, &query).await.unwrap();
        assert!(page.items.len() <= query.limit.unwrap_or(100) as usize);
        names.extend(page.items.iter().map(|row| row.name.to_string()));
        match page.next_cursor {
            Some(cursor) => query.cursor = Some(cursor),
            None => return names,
        }
    }
}

async fn fill(store: &Store, tenant: &Tenant, names: impl Iterator<Item = String>) {
    for text in names {
        store.function_create(tenant, &name(&text), &spec(&format!("img-{text}")), &origin(), None).await.unwrap();
    }
}

#[tokio::test]
async fn every_order_and_page_size_gives_all_once() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    fill(&store, &tenant, (0..23).map(|i| format!("f{:02}", (i * 7) % 23))).await;
    for limit in [1, 2, 22, 23, 24, 1_000] {
        for sort in [Sort::Name, Sort::CreatedAt, Sort::UpdatedAt] {
            for descending in [false, true] {
                let query = FunctionQuery { sort, descending, limit: Some(limit), ..Default::default() };
                let mut names = all(&store, &tenant, &query).await;
                if descending {
                    names.reverse();
                }
                let expected: Vec<_> = match sort {
                    Sort::Name => (0..23).map(|i| format!("f{i:02}")).collect(),
                    _ => (0..23).map(|i| format!("f{:02}", (i * 7) % 23)).collect(),
                };
                assert_eq!(names, expected, "{sort:?} {descending} {limit}");
            }
        }
    }
}

#[tokio::test]
async fn inserts_and_deletes_between_pages_neither_repeat_nor_hide_others() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    fill(&store, &tenant, (0..20).map(|i| format!("f{:02}", i * 2))).await;
    let mut query = FunctionQuery { limit: Some(3), ..Default::default() };
    let mut seen = Vec::new();
    for round in 0.. {
        let page = store.function_list(&tenant, &query).await.unwrap();
        seen.extend(page.items.iter().map(|row| row.name.to_string()));
        let Some(cursor) = page.next_cursor else { break };
        query.cursor = Some(cursor);
        // One before and one after where we are; and the very function the cursor points at goes.
        fill(&store, &tenant, [format!("a{round:02}"), format!("z{round:02}")].into_iter()).await;
        let last = name(seen.last().unwrap());
        store.function_delete(&tenant, &last, None, &origin(), None).await.unwrap();
        assert!(round < 50);
    }
    let unique: HashSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "{seen:?}");
    assert!((0..20).all(|i| unique.contains(&format!("f{:02}", i * 2))), "{seen:?}");
    assert!(seen.iter().all(|name| !name.starts_with('a')), "{seen:?}");
}

#[tokio::test]
async fn filters_narrow_the_list() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    fill(&store, &tenant, ["api", "api-2", "web", "x-api"].map(str::to_owned).into_iter()).await;
    let text = |s: &str| Some(s.to_owned());
    let names = |names: &[&str]| names.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
    let cases = [
        (FunctionQuery { name_contains: text("api"), ..Default::default() }, vec!["api", "api-2", "x-api"]),
        (FunctionQuery { image_contains: text("img-w"), ..Default::default() }, vec!["web"]),
        (FunctionQuery { name_contains: text("%"), ..Default::default() }, vec![]),
        (FunctionQuery { name_contains: text("a\0"), ..Default::default() }, vec![]),
        (FunctionQuery { names: Some(NameFilter::Any(names(&["web", "no"]))), ..Default::default() }, vec!["web"]),
        (
            FunctionQuery { names: Some(NameFilter::NotAny(names(&["web", "api"]))), ..Default::default() },
            vec!["api-2", "x-api"],
        ),
        (FunctionQuery { names: Some(NameFilter::Any(vec![])), ..Default::default() }, vec![]),
    ];
    for (query, expected) in cases {
        let query = FunctionQuery { limit: Some(1), ..query };
        assert_eq!(all(&store, &tenant, &query).await, expected, "{query:?}");
    }
}

#[tokio::test]
async fn a_cursor_of_another_query_is_refused() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    fill(&store, &tenant, (0..3).map(|i| format!("f{i}"))).await;
    let query = FunctionQuery { limit: Some(1), ..Default::default() };
    let cursor = store.function_list(&tenant, &query).await.unwrap().next_cursor.unwrap();
    let with = |cursor: &str| FunctionQuery { cursor: Some(cursor.to_owned()), ..query.clone() };
    for query in [
        FunctionQuery { descending: true, ..with(&cursor) },
        FunctionQuery { sort: Sort::CreatedAt, ..with(&cursor) },
        FunctionQuery { name_contains: Some("f".into()), ..with(&cursor) },
        with("x"),
        with(""),
        with("eyJxIjoiIn0"),
    ] {
        let refused = store.function_list(&tenant, &query).await;
        assert!(matches!(refused, Err(StoreError::BadCursor)), "{query:?}");
    }
    let refused = store.audit_list(&tenant, Some("x"), None).await;
    assert!(matches!(refused, Err(StoreError::BadCursor)));
}

#[tokio::test]
async fn the_audit_log_pages_backwards() {
    let database = Database::new().await;
    let store = database.store();
    let tenant = new_tenant(&store).await;
    fill(&store, &tenant, (0..7).map(|i| format!("f{i}"))).await;
    let mut cursor = None;
    let mut targets = Vec::new();
    loop {
        let page = store.audit_list(&tenant, cursor.as_deref(), Some(3)).await.unwrap();
        targets.extend(page.items.into_iter().map(|entry| entry.target));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(targets, (0..7).rev().map(|i| format!("f{i}")).collect::<Vec<_>>());
}
