//! `siogate run`: the gate, until a signal.

use crate::app::{self, App};
use crate::cli::args::ConfigArgs;
use crate::cli::failure::Failure;
use crate::cli::logging;
use crate::cli::signal::Signals;
use crate::config::load::{self, Loaded};

/// Loads, builds, serves, drains.
///
/// # Errors
/// A bad configuration, or an address that cannot be bound.
pub async fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let loaded = load::load(&args.sources())?;
    let _flush = logging::init(&loaded.config.log).map_err(|e| Failure::Config(format!("log.level: {e}")))?;
    warn(&loaded);
    let app = app::build(loaded)?.bind().await?;
    serve(app).await
}

/// What is allowed, but should be known.
pub fn warn(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!(key = warning.path, "{}", warning.message);
    }
}

/// Serves until SIGTERM or SIGINT; a SIGINT after that ends at once.
///
/// # Errors
/// Where signals cannot be caught.
pub async fn serve(app: App) -> Result<(), Failure> {
    let mut signals = Signals::catch().map_err(|e| Failure::Running(format!("signals: {e}")))?;
    let (drain, drained) = tokio::sync::oneshot::channel();
    let (force, forced) = tokio::sync::oneshot::channel();
    let watch = async move {
        let name = signals.drain().await;
        tracing::info!(signal = name, "asked to stop");
        let _ = drain.send(());
        signals.force().await;
        let _ = force.send(());
        std::future::pending::<()>().await;
    };
    let gate = app.run(
        async {
            let _ = drained.await;
        },
        async {
            let _ = forced.await;
        },
    );
    tokio::select! {
        () = gate => Ok(()),
        () = watch => Ok(()),
    }
}
