//! The Redis that replicas share, and what transmitters of security events send.

use crate::config::model::Config;
use crate::config::problem::Problems;
use crate::config::redis_url::RedisUrl;
use crate::config::secret::{Environment, Secrets, from_variable};
use secrecy::ExposeSecret;

pub(super) fn read(config: &Config, env: &Environment, secrets: &mut Secrets, problems: &mut Problems) {
    let shared = &config.revocation;
    let url = match (&shared.redis_url, &shared.redis_url_env) {
        (Some(url), _) => Some(("redis_url", RedisUrl::parse(url))),
        (None, Some(name)) => {
            let url = from_variable(name, env).and_then(|url| RedisUrl::parse(url.expose_secret()));
            Some(("redis_url_env", url))
        }
        (None, None) => None,
    };
    match url {
        Some((key, Err(why))) => problems.error(format!("revocation.{key}"), why),
        Some(("redis_url", Ok(url))) if url.has_password() => {
            problems.error("revocation.redis_url", "has a password; allowed: the whole address by redis_url_env");
        }
        Some((_, Ok(url))) => secrets.revocation = Some(url),
        None => {}
    }
    for (i, transmitter) in config.transmitter.iter().enumerate() {
        let token = Some(transmitter.token_env.as_str()).filter(|name| !name.is_empty());
        let token = token.and_then(|name| match from_variable(name, env) {
            Ok(token) => Some(token),
            Err(why) => {
                problems.error(format!("transmitter[{i}].token_env"), why);
                None
            }
        });
        secrets.transmitters.push(token);
    }
}
