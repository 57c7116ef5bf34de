//! `siogate check`: is this configuration good, and does the world look as it says?

use crate::app;
use crate::cli::args::ConfigArgs;
use crate::cli::failure::Failure;
use crate::config::load;
use crate::proxy::context::Context;
use crate::session::sharing::Sharing;
use crate::upstream::dial::{self, DialError};
use crate::upstream::head::DialHead;
use crate::upstream::pool::Backend;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Key servers have so long to answer.
const KEYS: Duration = Duration::from_secs(15);

/// Prints everything that is wrong, fetches the keys, asks every Redis, and dials every backend once.
///
/// # Errors
/// [`Failure::Config`] with every problem; [`Failure::Told`] where keys, Redis or backends are out of reach.
pub async fn check(args: &ConfigArgs) -> Result<(), Failure> {
    let loaded = load::load(&args.sources())?;
    for warning in &loaded.warnings {
        println!("warning: {}: {}", warning.path, warning.message);
    }
    let parts = app::build(loaded)?;
    println!("configuration: ok");
    let keys = check_keys(&parts.context).await;
    let stores = check_stores(&parts.context).await;
    let shared = check_shared(parts.sharing()).await;
    let backends = check_backends(&parts.context).await;
    if keys && stores && shared && backends { Ok(()) } else { Err(Failure::Told) }
}

async fn check_keys(context: &Context) -> bool {
    let _ = timeout(KEYS, context.keys.first_load()).await;
    let mut fine = true;
    for (index, rules) in context.verifier.issuers().iter().enumerate().filter(|(_, rules)| !rules.is_remote()) {
        let what = if rules.is_secret() { "shared secret" } else { "keys from a file" };
        println!("issuer {}: {what}", rules.name().map_or_else(|| index.to_string(), String::from));
    }
    for status in context.keys.status() {
        match (&status.last_error, status.keys) {
            (None, n) if n > 0 => println!("issuer {}: {n} keys", status.name),
            (error, _) => {
                fine = false;
                println!("issuer {}: {}", status.name, error.as_deref().unwrap_or("no answer in time"));
            }
        }
    }
    fine
}

async fn check_shared(sharing: Option<&Sharing>) -> bool {
    let Some(sharing) = sharing else { return true };
    let (place, answer) = sharing.ping().await;
    println!("revocations by {place}: {}", answer.as_ref().map_or_else(ToString::to_string, |()| "ok".into()));
    answer.is_ok()
}

async fn check_stores(context: &Context) -> bool {
    let mut fine = true;
    for (name, answer) in context.vouchers.ping().await {
        println!("{name}: {}", answer.as_ref().map_or_else(String::as_str, |()| "ok"));
        fine &= answer.is_ok();
    }
    fine
}

async fn check_backends(context: &Context) -> bool {
    let mut fine = true;
    for backend in context.pool.backends() {
        let (reached, text) = reach(context, backend).await;
        println!("upstream {}: {text}", backend.url);
        fine &= reached;
    }
    fine
}

/// An application may see a v2 socket come and go; `probe = false` keeps the check to a connection.
async fn reach(context: &Context, backend: &Arc<Backend>) -> (bool, String) {
    let deadline = Instant::now() + context.config.upstream.connect_timeout;
    let socketio = &context.config.socketio;
    if !socketio.probe {
        return match backend.endpoint.connect(deadline).await {
            Ok(_) => (true, "reached (not asked for Socket.IO: socketio.probe = false)".into()),
            Err(error) => (false, error.to_string()),
        };
    }
    let head = DialHead::new(&format!("{}?EIO=4&transport=websocket", socketio.path));
    match dial::websocket_at(&context.pool, backend, &head, deadline, deadline).await {
        Ok(_) => (true, "ok, speaks WebSocket".into()),
        Err(DialError::Refused { detail, .. }) => (true, format!("reached, but it refuses the gate's probe: {detail}")),
        Err(error) => (false, error.to_string()),
    }
}
