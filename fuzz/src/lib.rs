//! What the targets share.
use std::sync::OnceLock;

use runmill_shared::{App, config::Config};
use tokio::runtime::Runtime;

/// One runtime a process; a target's work is over when it returns.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
}

/// An embedded installation in a temporary folder, for what cannot be asked without one. Nothing is in its database.
pub fn app() -> &'static App {
    static APP: OnceLock<(tempfile::TempDir, App)> = OnceLock::new();
    let (_, app) = APP.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::defaults().unwrap();
        config.data_dir = folder.path().to_owned();
        let app = runtime().block_on(App::open(config)).unwrap();
        (folder, app)
    });
    app
}

/// The first line, and what follows it.
pub fn line(text: &str) -> (&str, &str) {
    text.split_once('\n').unwrap_or((text, ""))
}
