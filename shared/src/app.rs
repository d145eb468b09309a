//! The handles that everything is given: infrastructure only, no business objects and no caches.
use std::sync::Arc;

use crate::{clock::Clock, config::Config, error::Result, limits::Limiter, services::tokens::Tokens, store::db::Db};

/// A cheap clone.
#[derive(Clone)]
pub struct App {
    pub config: Arc<Config>,
    pub clock: Clock,
    pub db: Db,
    pub limiter: Limiter,
    pub tokens: Tokens,
}

impl App {
    /// Opens everything that the settings name; connects lazily where it can, so that a dependency that is away does not stop the start.
    pub async fn open(config: Config) -> Result<Self> {
        let db = Db::open(&config).await?;
        let limiter = Limiter::open(&config)?;
        let tokens = Tokens::open(&config)?;
        Ok(Self { config: Arc::new(config), clock: Clock::real(), db, limiter, tokens })
    }
}
