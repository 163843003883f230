//! Reading functions page by page: by key, not by offset, so that a page never repeats or skips a function that was
//! there all along. Cursors are opaque to callers and refused when they belong to another query.

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

impl Store {
    /// The tenant's live functions.
    ///
    /// # Errors
    /// [`StoreError::BadCursor`], and failures of the database.
    pub async fn function_list(&self, tenant: &Tenant, query: &FunctionQuery) -> Result<Page<FunctionRow>, StoreError> {
        let _ = (tenant, query);
        todo!()
    }
}
