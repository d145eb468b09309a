//! How long a request may take until its answer begins. A handler that waits on purpose, for a run or a transcription, asks for more.
use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use poem::{FromRequest, Request, RequestBody, error::GetDataError};
use tokio::time::{Instant, timeout_at};

#[derive(Clone)]
pub struct Patience(Arc<Mutex<Instant>>);

impl Patience {
    pub(super) fn new(timeout: Duration) -> Self {
        Self(Arc::new(Mutex::new(Instant::now() + timeout)))
    }

    /// From now on the request may take this long; never shortens it.
    pub fn allow(&self, more: Duration) {
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *until = (*until).max(Instant::now() + more);
    }

    fn until(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` when the time was up first.
    pub(super) async fn bound<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        loop {
            let until = self.until();
            match timeout_at(until, &mut work).await {
                Ok(done) => return Some(done),
                Err(_) if self.until() > until => {}
                Err(_) => return None,
            }
        }
    }
}

impl<'a> FromRequest<'a> for Patience {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        Ok(request.data::<Self>().cloned().ok_or(GetDataError("Patience"))?)
    }
}
