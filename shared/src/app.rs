//! The handles that everything is given: infrastructure only, no business objects and no caches.
use std::sync::Arc;

use crate::{
    blobs::Blobs,
    clock::Clock,
    config::Config,
    error::Result,
    events::Live,
    group::Group,
    limits::{Limiter, Parallel},
    pulse::Pulse,
    queue::Queue,
    services::{
        agents::MainAgents,
        runs::accept::{Accepts, Admission},
        tokens::Tokens,
        vault::Vault,
    },
    store::db::Db,
};

/// Statements of one group on their way at once, and what one of them holds at most: while one is committed, the next is written.
const AT_ONCE: usize = 2;
const MOST: usize = 64;

/// A cheap clone.
#[derive(Clone)]
pub struct App {
    pub config: Arc<Config>,
    pub clock: Clock,
    pub db: Db,
    pub queue: Queue,
    pub live: Live,
    pub blobs: Blobs,
    pub limiter: Limiter,
    pub parallel: Parallel,
    pub tokens: Tokens,
    pub vault: Vault,
    pub admission: Admission,
    /// On Postgres; SQLite's one writer commits in groups anyway.
    pub accepts: Option<Group<Accepts>>,
    pub main_agents: Group<MainAgents>,
    pub pulse: Pulse,
}

impl App {
    /// Opens everything that the settings name; connects lazily where it can, so that a dependency that is away does not stop the start.
    pub async fn open(config: Config) -> Result<Self> {
        let db = Db::open(&config).await?;
        let queue = Queue::connect(&config.redis).await?;
        let live = Live::open(&config)?;
        let tokens = Tokens::open(&config)?;
        let vault = Vault::open(&config, &tokens)?;
        let blobs = Blobs::open(&config, tokens.signing_key()).await?;
        let limiter = Limiter::open(&config)?;
        let parallel = Parallel::open(&config)?;
        let (admission, pulse) = (Admission::default(), Pulse::default());
        let accepts = db.is_postgres().then(|| Group::new(Accepts(db.clone()), AT_ONCE, MOST));
        let main_agents = Group::new(MainAgents(db.clone()), AT_ONCE, MOST);
        Ok(Self {
            config: Arc::new(config),
            clock: Clock::real(),
            db,
            queue,
            live,
            blobs,
            limiter,
            parallel,
            tokens,
            vault,
            admission,
            accepts,
            main_agents,
            pulse,
        })
    }
}
