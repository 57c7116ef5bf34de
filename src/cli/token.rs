//! `siogate token verify`: the server's verifier and rules, asked about one token.

use crate::app;
use crate::auth::identity::{Identity, NEVER};
use crate::cli::args::{ConfigArgs, VerifyArgs};
use crate::cli::failure::Failure;
use crate::config::load;
use crate::proxy::context::Context;
use secrecy::{ExposeSecret, SecretString};
use std::io::Read;
use std::time::Duration;
use tokio::time::timeout;

/// Key servers have so long to answer.
const KEYS: Duration = Duration::from_secs(15);

/// Nothing longer can be a token.
const MAX_INPUT: u64 = 64 * 1024;

/// Prints who the token speaks for, or why it is refused.
///
/// # Errors
/// [`Failure::Config`]; [`Failure::Told`] where the token is refused.
pub async fn verify(config: &ConfigArgs, args: &VerifyArgs) -> Result<(), Failure> {
    let loaded = load::load(&config.sources())?;
    let parts = app::build(loaded)?;
    let context = &parts.context;
    let token = read(args)?;
    let _ = timeout(KEYS, context.keys.first_load()).await;
    match context.verify(token.expose_secret().trim(), None).await {
        Ok(identity) => {
            print(context, &identity);
            Ok(())
        }
        Err(refusal) => {
            println!("refused: {}", refusal.reason.word());
            println!("  {}", shown(&refusal.detail));
            Err(Failure::Told)
        }
    }
}

fn read(args: &VerifyArgs) -> Result<SecretString, Failure> {
    let failed = |what: &str, e: std::io::Error| Failure::Running(format!("{what}: {e}"));
    let mut text = String::new();
    match (&args.token, &args.file) {
        (Some(token), _) if token.expose_secret() != "-" => return Ok(token.clone()),
        (_, Some(path)) => {
            let file = std::fs::File::open(path).map_err(|e| failed(&path.display().to_string(), e))?;
            file.take(MAX_INPUT).read_to_string(&mut text).map_err(|e| failed(&path.display().to_string(), e))?;
        }
        _ => {
            std::io::stdin().take(MAX_INPUT).read_to_string(&mut text).map_err(|e| failed("standard input", e))?;
        }
    }
    Ok(text.into())
}

fn print(context: &Context, identity: &Identity) {
    let now = context.clock.unix();
    println!("accepted");
    println!("  subject       {}", shown(&identity.subject));
    println!("  issuer        {}", shown(&identity.issuer));
    match identity.ends_at {
        NEVER => println!("  seconds left  (it names no end)"),
        ends_at => println!("  seconds left  {}", ends_at.saturating_sub(now)),
    }
    let max = context.config.session.max_lifetime.as_secs();
    if identity.ends_at.saturating_sub(now) > max {
        println!("  a session ends earlier, after session.max_lifetime ({max} s)");
    }
    println!("headers for the backend:");
    for (name, value) in context.mapping.headers(identity, "(session)") {
        println!("  {name}: {}", shown(&String::from_utf8_lossy(value.as_bytes())));
    }
    if let Some(assertion) = context.config.identity.assertion.as_ref().filter(|_| context.signer.is_some()) {
        println!("  {}: (signed for audience {:?})", assertion.header, assertion.audience);
    }
}

/// What a token says, fit for a terminal: control characters are escaped.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}
