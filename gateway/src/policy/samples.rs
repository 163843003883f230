//! The last requests that were judged, in memory alone, to try a new revision on before it is put in force.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use policy_engine::types::{AdmissionView, RequestView};

/// Requests that are kept.
const REQUESTS: usize = 64;
/// Changes of functions that are kept.
const ADMISSIONS: usize = 16;
/// Of so many requests one is kept.
const ONE_IN: u64 = 16;

/// The last of each world.
#[derive(Default)]
pub(super) struct Samples {
    seen: AtomicU64,
    requests: Mutex<VecDeque<RequestView>>,
    admissions: Mutex<VecDeque<AdmissionView>>,
}

impl Samples {
    pub(super) fn request(&self, view: &RequestView) {
        if self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(ONE_IN) {
            keep(&self.requests, view, REQUESTS);
        }
    }

    pub(super) fn admission(&self, view: &AdmissionView) {
        keep(&self.admissions, view, ADMISSIONS);
    }

    pub(super) fn requests(&self) -> Vec<RequestView> {
        self.requests.lock().map(|kept| kept.iter().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn admissions(&self) -> Vec<AdmissionView> {
        self.admissions.lock().map(|kept| kept.iter().cloned().collect()).unwrap_or_default()
    }
}

/// Nobody waits to be kept: a sample is as good as another.
fn keep<V: Clone>(kept: &Mutex<VecDeque<V>>, view: &V, most: usize) {
    if let Ok(mut kept) = kept.try_lock() {
        if kept.len() == most {
            kept.pop_front();
        }
        kept.push_back(view.clone());
    }
}
