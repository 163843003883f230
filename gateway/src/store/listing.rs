//! Reading functions page by page: by key, not by offset, so that a page never repeats or skips a function that was
//! there all along. Cursors are opaque to callers and refused when they belong to another query.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::functions::COLUMNS;
use super::{FunctionRow, Store, StoreError};
use crate::auth::Tenant;

/// What a list of functions is sorted by; ties are broken by id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// By name, in byte order.
    #[default]
    Name,
    /// By the time of creation.
    CreatedAt,
    /// By the time of the last change.
    UpdatedAt,
}

/// Restricts a list to some names, or to all but some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameFilter {
    /// These alone.
    Any(Vec<String>),
    /// All but these.
    NotAny(Vec<String>),
}

/// Which functions, in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FunctionQuery {
    /// The order.
    pub sort: Sort,
    /// Whether it is reversed.
    pub descending: bool,
    /// Text that the name must contain.
    pub name_contains: Option<String>,
    /// Text that the image must contain.
    pub image_contains: Option<String>,
    /// Names to keep or to leave out.
    pub names: Option<NameFilter>,
    /// Longest page, 1 to 1,000; 100 when absent.
    pub limit: Option<u32>,
    /// From the page before.
    pub cursor: Option<String>,
}

/// Some of the things asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// In the order asked for.
    pub items: Vec<T>,
    /// Leads to the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// Where a page ended.
#[derive(Serialize, Deserialize)]
struct Cursor {
    /// The query it belongs to, see [`FunctionQuery::digest`].
    #[serde(rename = "q")]
    query: String,
    /// The last function's sort key: its name, or microseconds since 1970.
    #[serde(rename = "k")]
    key: String,
    /// The last function's id.
    #[serde(rename = "i")]
    id: Uuid,
}

impl Store {
    /// The tenant's live functions.
    ///
    /// # Errors
    /// [`StoreError::BadCursor`], and failures of the database.
    pub async fn function_list(&self, tenant: &Tenant, query: &FunctionQuery) -> Result<Page<FunctionRow>, StoreError> {
        let size = page_size(query.limit);
        // PostgreSQL has no NUL in texts, so nothing contains one.
        let texts = [&query.name_contains, &query.image_contains];
        if texts.into_iter().flatten().any(|text| text.contains('\0')) {
            return Ok(Page { items: Vec::new(), next_cursor: None });
        }
        let (any, not_any) = match &query.names {
            None => (None, None),
            Some(NameFilter::Any(names)) => (Some(names), None),
            Some(NameFilter::NotAny(names)) => (None, Some(names)),
        };
        let tenant_id = tenant.id().as_str();
        let limit = size + 1;
        let mut params: Vec<&(dyn ToSql + Sync)> =
            vec![&tenant_id, &query.name_contains, &query.image_contains, &any, &not_any, &limit];
        let after = query.cursor.as_deref().map(|cursor| query.after(cursor)).transpose()?;
        if let Some((key, id)) = &after {
            params.push(key.as_ref());
            params.push(id);
        }
        let rows = self.app.read(tenant.id(), &query.sql(), &params).await?;
        let items = rows.iter().map(FunctionRow::read).collect::<Result<_, _>>()?;
        Ok(page_of(items, size, |last: &FunctionRow| query.cursor_after(last)))
    }
}

/// A sort key and an id.
type After = (Box<dyn ToSql + Sync + Send>, Uuid);

impl FunctionQuery {
    /// One of twelve texts: three keys, two directions, first page or not. No text of a caller's is part of it.
    fn sql(&self) -> String {
        let key = match self.sort {
            Sort::Name => "name",
            Sort::CreatedAt => "created_at",
            Sort::UpdatedAt => "updated_at",
        };
        let (compare, direction) = if self.descending { ("<", "DESC") } else { (">", "ASC") };
        let after = match self.cursor {
            Some(_) => format!("AND (functions.{key}, functions.id) {compare} ($7, $8)"),
            None => String::new(),
        };
        format!(
            "SELECT {COLUMNS} FROM functions
             WHERE tenant_id = $1 AND deleted_at IS NULL
               AND ($2::text IS NULL OR strpos(name, $2) > 0)
               AND ($3::text IS NULL OR strpos(spec ->> 'image', $3) > 0)
               AND ($4::text[] IS NULL OR name = ANY ($4))
               AND ($5::text[] IS NULL OR name <> ALL ($5))
               {after}
             ORDER BY functions.{key} {direction}, functions.id {direction} LIMIT $6"
        )
    }

    /// What a cursor is bound to: order and text filters. The names are left out, because they follow the functions'
    /// phases, which change between pages.
    fn digest(&self) -> String {
        let parts = format!("{:?} {} {:?} {:?}", self.sort, self.descending, self.name_contains, self.image_contains);
        URL_SAFE_NO_PAD.encode(&Sha256::digest(parts)[..9])
    }

    fn cursor_after(&self, last: &FunctionRow) -> String {
        let key = match self.sort {
            Sort::Name => last.name.to_string(),
            Sort::CreatedAt => last.created_at.as_microsecond().to_string(),
            Sort::UpdatedAt => last.updated_at.as_microsecond().to_string(),
        };
        let cursor = serde_json::json!(Cursor { query: self.digest(), key, id: last.id });
        URL_SAFE_NO_PAD.encode(cursor.to_string())
    }

    fn after(&self, cursor: &str) -> Result<After, StoreError> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| StoreError::BadCursor)?;
        let cursor: Cursor = serde_json::from_slice(&bytes).map_err(|_| StoreError::BadCursor)?;
        // PostgreSQL has no NUL in texts.
        if cursor.query != self.digest() || cursor.key.contains('\0') {
            return Err(StoreError::BadCursor);
        }
        if self.sort == Sort::Name {
            return Ok((Box::new(cursor.key), cursor.id));
        }
        let micros = cursor.key.parse().map_err(|_| StoreError::BadCursor)?;
        let time = Timestamp::from_microsecond(micros).map_err(|_| StoreError::BadCursor)?;
        Ok((Box::new(time), cursor.id))
    }
}

/// The page size to use for what was asked.
pub(super) fn page_size(limit: Option<u32>) -> i64 {
    i64::from(limit.unwrap_or(100).clamp(1, 1_000))
}

/// Makes a page of up to `size + 1` items: the one too many says that there is a next page.
pub(super) fn page_of<T>(mut items: Vec<T>, size: i64, cursor: impl Fn(&T) -> String) -> Page<T> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let more = items.len() > size;
    items.truncate(size);
    let next_cursor = items.last().filter(|_| more).map(cursor);
    Page { items, next_cursor }
}
