//! What session stores and endpoints are asked with.

use crate::config::model::Config;
use crate::config::problem::Problems;
use crate::config::redis_url::RedisUrl;
use crate::config::secret::{Environment, Secrets, from_file, from_variable, warn_if_open};
use secrecy::{ExposeSecret, SecretString};

/// What one `[[session_store]]` needs.
#[derive(Clone, Debug, Default)]
pub struct StoreSecrets {
    /// The cookie's secrets, in order.
    pub cookie: Vec<SecretString>,
    /// The Redis, with its password.
    pub redis: Option<RedisUrl>,
}

pub(super) fn read(config: &Config, env: &Environment, secrets: &mut Secrets, problems: &mut Problems) {
    for (i, store) in config.session_store.iter().enumerate() {
        let at = format!("session_store[{i}]");
        let mut cookie = Vec::new();
        let variables = store.secret_env.iter().map(|name| ("secret_env", from_variable(name, env)));
        let files = store.secret_file.iter().map(|path| ("secret_file", from_file(path)));
        for (key, read) in variables.chain(files) {
            let path = format!("{at}.{key}");
            match read {
                Ok(secret) => {
                    // The application's choice, which cannot be refused here without locking its users out.
                    if secret.expose_secret().len() < 16 {
                        problems.warn(&path, "the secret is short; advised: 32 bytes or more");
                    }
                    cookie.push(secret);
                }
                Err(why) => problems.error(path, why),
            }
        }
        for file in &store.secret_file {
            warn_if_open(&format!("{at}.secret_file"), file, problems);
        }
        let url = match (&store.redis_url, &store.redis_url_env) {
            (Some(url), _) => Some(("redis_url", Ok(url.clone()))),
            (None, Some(name)) => {
                let value = from_variable(name, env).map(|url| url.expose_secret().to_owned());
                Some(("redis_url_env", value))
            }
            (None, None) => None,
        };
        let redis = url.and_then(|(key, url)| match url.and_then(|url| RedisUrl::parse(&url)) {
            Ok(url) => Some(url),
            Err(why) => {
                problems.error(format!("{at}.{key}"), why);
                None
            }
        });
        if redis.as_ref().is_some_and(RedisUrl::has_password) && store.redis_url.is_some() {
            problems.error(format!("{at}.redis_url"), "has a password; allowed: the whole address by redis_url_env");
        }
        secrets.session_stores.push(StoreSecrets { cookie, redis });
    }
    for (i, endpoint) in config.introspection.iter().enumerate() {
        let at = format!("introspection[{i}]");
        let secret = match (&endpoint.client_secret_env, &endpoint.client_secret_file) {
            (Some(name), _) => from_variable(name, env).map_err(|why| ("client_secret_env", why)),
            (None, Some(path)) => {
                warn_if_open(&format!("{at}.client_secret_file"), path, problems);
                from_file(path).map_err(|why| ("client_secret_file", why))
            }
            // Said by the checks.
            (None, None) => Ok(SecretString::default()),
        };
        let secret = secret.unwrap_or_else(|(key, why)| {
            problems.error(format!("{at}.{key}"), why);
            SecretString::default()
        });
        secrets.introspections.push(secret);
    }
}
