//! Lists of functions: one query of the store, statuses from the watch cache, no call to the API server.

use std::sync::Arc;

use eventflow_api::function::Phase;
use eventflow_api::http::FunctionList;
use http::StatusCode;
use serde_json::Value;

use super::document;
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::routes::call::Call;
use crate::routes::{Answer, json};
use crate::store::{FunctionQuery, NameFilter, Sort};

/// `GET /v1/functions`: `limit`, `cursor`, `sort` (`name`, `createdAt`, `updatedAt`, `-` in front for descending), `q`
/// (the name contains it), `image` (the image contains it), `phase`.
///
/// # Errors
/// A query that cannot be read, a foreign cursor, a failing store.
pub async fn list(app: Arc<App>, caller: Caller, call: Call) -> Answer {
    let query = query(&app, &caller, &call)?;
    let page = app.store.function_list(&caller.tenant, &query).await?;
    let functions = page.items.into_iter().map(|row| document::of(&app, &caller, row)).collect();
    json(StatusCode::OK, &FunctionList { functions, next_cursor: page.next_cursor })
}

fn query(app: &App, caller: &Caller, call: &Call) -> Result<FunctionQuery, ApiError> {
    let mut query = call.query()?;
    let (sort, descending) = sort(query.text("sort").as_deref())?;
    let phase = query.text("phase").map(|word| phase(&word)).transpose()?;
    let read = FunctionQuery {
        sort,
        descending,
        name_contains: query.text("q").filter(|text| !text.is_empty()),
        image_contains: query.text("image").filter(|text| !text.is_empty()),
        names: phase.map(|phase| names(app, caller, phase)),
        limit: query.limit()?,
        cursor: query.text("cursor"),
    };
    query.finish()?;
    Ok(read)
}

fn sort(word: Option<&str>) -> Result<(Sort, bool), ApiError> {
    let word = word.unwrap_or("name");
    let (field, descending) = match word.strip_prefix('-') {
        Some(field) => (field, true),
        None => (word, false),
    };
    let sort = match field {
        "name" => Sort::Name,
        "createdAt" => Sort::CreatedAt,
        "updatedAt" => Sort::UpdatedAt,
        _ => {
            let detail =
                "The query parameter \"sort\" must be name, createdAt or updatedAt, with - in front for descending.";
            return Err(ApiError::malformed(detail));
        }
    };
    Ok((sort, descending))
}

fn phase(word: &str) -> Result<Phase, ApiError> {
    serde_json::from_value(Value::from(word)).map_err(|_| {
        ApiError::malformed(
            "The query parameter \"phase\" must be Pending, Queued, Running, Idle, Suspended, Failed or Unknown.",
        )
    })
}

/// The phase is known to the watch cache, the rows to the store. Rows that the cache does not know are pending.
fn names(app: &App, caller: &Caller, phase: Phase) -> NameFilter {
    let phases = app.cluster.phases(&caller.tenant);
    let with = |keep: &dyn Fn(Phase) -> bool| {
        phases.iter().filter(|(_, phase)| keep(**phase)).map(|(name, _)| name.clone()).collect()
    };
    match phase {
        Phase::Pending => NameFilter::NotAny(with(&|known| known != Phase::Pending)),
        wanted => NameFilter::Any(with(&|known| known == wanted)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorting_is_by_a_known_field() {
        assert_eq!(sort(None).unwrap(), (Sort::Name, false));
        assert_eq!(sort(Some("-createdAt")).unwrap(), (Sort::CreatedAt, true));
        for bad in ["", "-", "--name", "size", "Name"] {
            assert!(sort(Some(bad)).is_err(), "{bad}");
        }
        assert_eq!(phase("Running").unwrap(), Phase::Running);
        assert!(phase("running").is_err());
    }
}
