//! `siogate dev`: the gate with everything around it, on this machine only.

use crate::app;
use crate::cli::args::{ConfigArgs, DevArgs};
use crate::cli::failure::Failure;
use crate::cli::{logging, run};
use crate::config::load::Loaded;
use crate::config::model::{Log, LogFormat};
use crate::config::secret::Secrets;
use crate::dev::playground::{self, DevOptions};

/// Starts issuer, backend, page and gate, and serves until a signal.
///
/// # Errors
/// Addresses beyond loopback, or taken.
pub async fn dev(config: &ConfigArgs, args: &DevArgs) -> Result<(), Failure> {
    if let Some(why) = args.refused(config) {
        return Err(Failure::Config(why.into()));
    }
    let level = config.log_level.clone().unwrap_or_else(|| "info".into());
    let _flush = logging::init(&Log { level, format: LogFormat::Auto })
        .map_err(|e| Failure::Config(format!("--log-level: {e}")))?;
    let defaults = DevOptions::default();
    let one = |list: &[String], flag: &str| match list {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        _ => Err(Failure::Config(format!("siogate dev takes one {flag}"))),
    };
    let options = DevOptions {
        gate: one(&config.listen, "--listen")?.unwrap_or(defaults.gate),
        playground: args.playground.clone().unwrap_or(defaults.playground),
        upstream: one(&config.upstream, "--upstream")?,
        lifetime: args.token_lifetime,
    };
    let dev = playground::start(&options).await.map_err(|e| Failure::Running(e.to_string()))?;
    let mut gate = dev.config(&options);
    gate.socketio.allowed_origins.extend(args.origin.iter().cloned());
    let loaded = Loaded { config: gate, secrets: Secrets::default(), warnings: Vec::new() };
    let app = app::build(loaded)?.bind().await?;
    let address = app.public_addresses().into_iter().next().unwrap_or_default();
    dev.set_gate_url(format!("http://{address}"));
    println!("playground   {}", dev.playground_url);
    println!("gate         http://{address}");
    println!("backend      {}", options.upstream.as_deref().or(dev.backend_url.as_deref()).unwrap_or_default());
    println!("issuer       {}   (audience {:?})", dev.issuer_url, dev.audience);
    println!("Open the playground in a browser. Ctrl-C ends it.");
    run::serve(app).await
}
