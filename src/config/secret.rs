//! Secrets and key files: read once, refused where they are weak, and never shown.
//!
//! A secret comes from an environment variable, taken as it is, or from a file, less one newline at its end.

use crate::config::model::Config;
use crate::config::model::issuers::Issuer;
use crate::config::problem::{Problems, shown};
use crate::config::redis_url::RedisUrl;
use crate::config::secret::vouchers::StoreSecrets;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

mod revocation;
pub mod vouchers;

/// The environment as it was when the configuration was read.
pub type Environment = BTreeMap<String, OsString>;

/// No secret or key file is larger.
const LARGEST_FILE: u64 = 1 << 20;

/// Everything secret that a configuration names. `Debug` shows none of it.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// For each issuer of the configuration, in its order: the current secret, then the previous one.
    pub issuers: Vec<Vec<SecretString>>,
    /// The Redis by which revocations are shared.
    pub revocation: Option<RedisUrl>,
    /// For each transmitter, in their order: the bearer token that it sends.
    pub transmitters: Vec<Option<SecretString>>,
    /// For each session store, in their order.
    pub session_stores: Vec<StoreSecrets>,
    /// For each introspection endpoint, in their order: the client's secret.
    pub introspections: Vec<SecretString>,
    /// The bearer token of the admin listener.
    pub admin_token: Option<SecretString>,
}

/// Reads all secrets that `config` names, and looks at the key files that it names.
pub fn read(config: &Config, env: &Environment) -> (Secrets, Problems) {
    let mut problems = Problems::default();
    let issuers =
        config.issuer.iter().enumerate().map(|(i, issuer)| issuer_secrets(i, issuer, env, &mut problems)).collect();
    let admin_token = admin_token(config, env, &mut problems);
    key_files(config, &mut problems);
    let mut secrets = Secrets { issuers, admin_token, ..Secrets::default() };
    revocation::read(config, env, &mut secrets, &mut problems);
    vouchers::read(config, env, &mut secrets, &mut problems);
    (secrets, problems)
}

/// J21: the libraries below accept an empty key.
fn issuer_secrets(index: usize, issuer: &Issuer, env: &Environment, problems: &mut Problems) -> Vec<SecretString> {
    let needed = issuer.algorithms.iter().map(|alg| hash_length(alg)).max().unwrap_or(32).max(32);
    let mut secrets = Vec::new();
    let variables = [("secret_env", &issuer.secret_env), ("previous_secret_env", &issuer.previous_secret_env)];
    let files = [("secret_file", &issuer.secret_file), ("previous_secret_file", &issuer.previous_secret_file)];
    for ((variable_key, variable), (file_key, file)) in variables.into_iter().zip(files) {
        let from_variable = variable.as_deref().map(|name| (variable_key, from_variable(name, env)));
        let from_file = file.as_deref().map(|path| (file_key, from_file(path)));
        for (key, read) in from_variable.into_iter().chain(from_file) {
            let path = format!("issuer[{index}].{key}");
            match read {
                Ok(secret) if secret.expose_secret().len() < needed => {
                    let length = secret.expose_secret().len();
                    problems.error(
                        &path,
                        format!("the secret is too short ({length} bytes); allowed: at least {needed} bytes for its algorithms"),
                    );
                }
                Ok(secret) => {
                    if secret.expose_secret().trim().len() != secret.expose_secret().len() {
                        problems.warn(&path, "the secret begins or ends with white space, which counts as part of it");
                    }
                    secrets.push(secret);
                }
                Err(why) => problems.error(&path, why),
            }
            if key.ends_with("_file") {
                let file = file.as_deref().unwrap_or(Path::new(""));
                warn_if_open(&path, file, problems);
            }
        }
    }
    if let [current, previous] = secrets.as_slice()
        && current.expose_secret() == previous.expose_secret()
    {
        problems.warn(format!("issuer[{index}]"), "the previous secret is the same as the current one");
    }
    secrets
}

fn hash_length(algorithm: &str) -> usize {
    match algorithm {
        "HS512" => 64,
        "HS384" => 48,
        _ => 32,
    }
}

fn admin_token(config: &Config, env: &Environment, problems: &mut Problems) -> Option<SecretString> {
    const ADVISED: usize = 16;
    if config.admin.token_env.is_empty() || config.admin.listen.is_empty() {
        return None;
    }
    match from_variable(&config.admin.token_env, env) {
        Ok(token) => {
            if token.expose_secret().len() < ADVISED {
                problems.warn("admin.token_env", format!("the token is short; advised: {ADVISED} bytes or more"));
            }
            Some(token)
        }
        Err(why) => {
            problems.error("admin.token_env", why);
            None
        }
    }
}

/// The value of the variable `name`, byte for byte, as `process.env` gives it to the application that signs.
///
/// # Errors
/// Where there is none, or it is empty or not UTF-8.
pub fn from_variable(name: &str, env: &Environment) -> Result<SecretString, String> {
    let variable = variable_shown(name);
    let value = env.get(name).ok_or_else(|| format!("{variable} is not set"))?;
    match value.to_str() {
        None => Err(format!("{variable} is not UTF-8")),
        Some("") => Err(format!("{variable} is empty")),
        Some(text) => Ok(SecretString::from(text)),
    }
}

/// Whoever writes the secret itself where its variable's name belongs must not find it in a log.
fn variable_shown(name: &str) -> String {
    let usual = name.len() <= 48
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    if usual {
        format!("the environment variable {name}")
    } else {
        "the environment variable of this name (not shown, as it may be the secret itself)".into()
    }
}

/// The content of a file, less one newline at its end.
///
/// # Errors
/// Where it cannot be read, or is empty or not UTF-8.
pub fn from_file(path: &Path) -> Result<SecretString, String> {
    let bytes = read_file(path)?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", named(path)))?;
    let text = text.strip_suffix('\n').map(|t| t.strip_suffix('\r').unwrap_or(t)).unwrap_or(&text);
    if text.is_empty() { Err(format!("{} is empty", named(path))) } else { Ok(SecretString::from(text)) }
}

fn named(path: &Path) -> String {
    shown(&path.to_string_lossy())
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", named(path));
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(format!("{} is too large; allowed: at most {LARGEST_FILE} bytes", named(path)));
    }
    Ok(bytes)
}

/// P49: a secret that everybody on the machine can read.
fn warn_if_open(key: &str, path: &Path, problems: &mut Problems) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o044 != 0 {
        problems.warn(key, format!("{} can be read by others (mode {mode:04o}); advised: 0600", named(path)));
    }
}

/// What a key file must hold to be worth handing on.
#[derive(Clone, Copy)]
enum Holds {
    Certificates,
    PublicKey,
    PrivateKey,
    Jwks,
}

fn key_files(config: &Config, problems: &mut Problems) {
    let mut look = |key: String, path: Option<&Path>, holds: Holds| {
        let Some(path) = path else { return };
        if let Err(why) = read_file(path).and_then(|bytes| expect(path, &bytes, holds)) {
            problems.error(&key, why);
        }
        if matches!(holds, Holds::PrivateKey) {
            warn_if_open(&key, path, problems);
        }
    };
    if let Some(tls) = &config.server.tls {
        look("server.tls.cert".into(), Some(&tls.cert), Holds::Certificates);
        look("server.tls.key".into(), Some(&tls.key), Holds::PrivateKey);
    }
    look("upstream.ca_file".into(), config.upstream.ca_file.as_deref(), Holds::Certificates);
    for (i, issuer) in config.issuer.iter().enumerate() {
        look(format!("issuer[{i}].key_file"), issuer.key_file.as_deref(), Holds::PublicKey);
        look(format!("issuer[{i}].jwks_file"), issuer.jwks_file.as_deref(), Holds::Jwks);
        look(format!("issuer[{i}].ca_file"), issuer.ca_file.as_deref(), Holds::Certificates);
    }
    let shared = config.revocation.redis_ca_file.as_deref();
    look("revocation.redis_ca_file".into(), shared, Holds::Certificates);
    for (i, transmitter) in config.transmitter.iter().enumerate() {
        look(format!("transmitter[{i}].jwks_file"), transmitter.jwks_file.as_deref(), Holds::Jwks);
        look(format!("transmitter[{i}].ca_file"), transmitter.ca_file.as_deref(), Holds::Certificates);
    }
    for (i, store) in config.session_store.iter().enumerate() {
        let path = format!("session_store[{i}].redis_ca_file");
        look(path, store.redis_ca_file.as_deref(), Holds::Certificates);
    }
    for (i, one) in config.introspection.iter().enumerate() {
        look(format!("introspection[{i}].ca_file"), one.ca_file.as_deref(), Holds::Certificates);
    }
    for (i, one) in config.callout.iter().enumerate() {
        look(format!("callout[{i}].ca_file"), one.ca_file.as_deref(), Holds::Certificates);
    }
    if let Some(assertion) = &config.identity.assertion {
        look("identity.assertion.key_file".into(), assertion.key_file.as_deref(), Holds::PrivateKey);
    }
}

/// A first look: the rooms that use a key parse it in full.
fn expect(path: &Path, bytes: &[u8], holds: Holds) -> Result<(), String> {
    let text = String::from_utf8_lossy(bytes);
    let has = |label: &str| text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(label));
    let file = named(path);
    match holds {
        Holds::Certificates if !has("CERTIFICATE-----") => Err(format!("{file} holds no PEM certificate")),
        Holds::PublicKey if has("PRIVATE KEY-----") => {
            Err(format!("{file} holds a private key; allowed: the public key alone, which is all that verifying needs"))
        }
        Holds::PublicKey if !has("PUBLIC KEY-----") && !has("CERTIFICATE-----") => {
            Err(format!("{file} holds no PEM public key"))
        }
        Holds::PrivateKey if has("ENCRYPTED PRIVATE KEY-----") => Err(format!("{file} holds an encrypted key")),
        Holds::PrivateKey if !has("PRIVATE KEY-----") => Err(format!("{file} holds no PEM private key")),
        Holds::Jwks => {
            let parsed: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
            match parsed.as_ref().and_then(|json| json.get("keys")).and_then(|keys| keys.as_array()) {
                None => Err(format!("{file} is no JWKS; allowed: {{\"keys\": [...]}}")),
                Some(keys) if keys.is_empty() => Err(format!("{file} holds no key")),
                Some(_) => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::ServerTls;
    use crate::config::model::identity::Assertion;
    use std::path::PathBuf;

    const LONG: &str = "0123456789abcdef0123456789abcdef";

    fn env(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(k, v)| (k.to_string(), OsString::from(v))).collect()
    }

    fn with(issuer: Issuer) -> Config {
        Config { issuer: vec![issuer], ..Config::default() }
    }

    fn file(dir: &tempfile::TempDir, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn j21_short_and_empty_secrets_are_refused() {
        for (algorithm, length, good) in [
            ("HS256", 0, false),
            ("HS256", 31, false),
            ("HS256", 32, true),
            ("HS384", 47, false),
            ("HS384", 48, true),
            ("HS512", 63, false),
            ("HS512", 64, true),
        ] {
            let issuer = Issuer {
                secret_env: Some("S".into()),
                algorithms: vec!["HS256".into(), algorithm.into()],
                ..Issuer::default()
            };
            let (secrets, problems) = read(&with(issuer), &env(&[("S", &"k".repeat(length))]));
            assert_eq!(problems.errors.is_empty(), good, "{algorithm} {length}: {problems}");
            assert_eq!(secrets.issuers[0].len(), usize::from(good));
        }
        let issuer = Issuer { secret_env: Some("S".into()), ..Issuer::default() };
        assert!(!read(&with(issuer), &env(&[("S", &"k".repeat(31))])).1.errors.is_empty(), "HS256 is the default");
    }

    #[test]
    fn current_and_previous_secret_come_in_this_order() {
        let dir = tempfile::tempdir().unwrap();
        let previous = file(&dir, "old", format!("old-{LONG}\r\n").as_bytes(), 0o600);
        let issuer = Issuer { secret_env: Some("S".into()), previous_secret_file: Some(previous), ..Issuer::default() };
        let (secrets, problems) = read(&with(issuer), &env(&[("S", LONG)]));
        assert_eq!(problems, Problems::default());
        let exposed: Vec<_> = secrets.issuers[0].iter().map(|s| s.expose_secret().to_string()).collect();
        assert_eq!(exposed, [LONG.to_string(), format!("old-{LONG}")]);
        assert!(!format!("{secrets:?}").contains("0123"));
    }

    #[test]
    fn one_newline_is_taken_off_a_file_and_nothing_off_a_variable() {
        let dir = tempfile::tempdir().unwrap();
        for (content, expected) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a"), (" a ", " a ")] {
            let path = file(&dir, "s", content.as_bytes(), 0o600);
            assert_eq!(from_file(&path).unwrap().expose_secret(), expected);
        }
        for (content, why) in [(&b""[..], "empty"), (b"\n", "empty"), (b"\xff\xfe", "UTF-8")] {
            let path = file(&dir, "s", content, 0o600);
            assert!(from_file(&path).unwrap_err().contains(why));
        }
        assert!(from_file(&dir.path().join("missing")).unwrap_err().starts_with("cannot read"));
        assert!(from_file(dir.path()).unwrap_err().starts_with("cannot read"));
        assert_eq!(from_variable("S", &env(&[("S", "a\n")])).unwrap().expose_secret(), "a\n");
    }

    #[test]
    fn p49_a_secret_file_open_to_others_is_warned_about() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, warned) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o644, true)] {
            let path = file(&dir, &format!("s{mode:o}"), LONG.as_bytes(), mode);
            let issuer = Issuer { secret_file: Some(path), ..Issuer::default() };
            let (_, problems) = read(&with(issuer), &Environment::new());
            assert!(problems.errors.is_empty(), "{problems}");
            assert_eq!(problems.warnings.len(), usize::from(warned), "{mode:o}");
        }
    }

    #[test]
    fn a_secret_written_in_place_of_its_variable_is_not_repeated() {
        for secret in ["hunter2hunter2", "Tr0ub4dor&3", "a b", &"A".repeat(64), "1ABC"] {
            let issuer = Issuer { secret_env: Some(secret.into()), ..Issuer::default() };
            let (_, problems) = read(&with(issuer), &Environment::new());
            assert_eq!(problems.errors.len(), 1);
            assert!(!problems.to_string().contains(secret), "{problems}");
        }
        let issuer = Issuer { secret_env: Some("JWT_SECRET".into()), ..Issuer::default() };
        let (_, problems) = read(&with(issuer), &Environment::new());
        assert_eq!(problems.to_string(), "issuer[0].secret_env: the environment variable JWT_SECRET is not set");
    }

    #[test]
    fn p44_the_admin_token_must_be_there_when_it_is_named() {
        let mut config = Config::default();
        config.admin.token_env = "ADMIN".into();
        assert_eq!(read(&config, &env(&[])).1.errors.len(), 1);
        assert_eq!(read(&config, &env(&[("ADMIN", "")])).1.errors.len(), 1);
        let (secrets, problems) = read(&config, &env(&[("ADMIN", "short")]));
        assert_eq!((problems.errors.len(), problems.warnings.len()), (0, 1));
        assert!(secrets.admin_token.is_some());
        config.admin.listen = String::new();
        assert_eq!(read(&config, &env(&[])).1, Problems::default());
    }

    #[test]
    fn key_files_must_hold_what_their_key_says() {
        let dir = tempfile::tempdir().unwrap();
        let pem = |label: &str| format!("# comment\n-----BEGIN {label}-----\nAA==\n-----END {label}-----\n");
        let certificate = file(&dir, "cert", pem("CERTIFICATE").as_bytes(), 0o644);
        let private = file(&dir, "key", pem("EC PRIVATE KEY").as_bytes(), 0o600);
        let encrypted = file(&dir, "enc", pem("ENCRYPTED PRIVATE KEY").as_bytes(), 0o600);
        let public = file(&dir, "pub", pem("PUBLIC KEY").as_bytes(), 0o644);
        let jwks = file(&dir, "jwks", br#"{"keys":[{"kty":"OKP"}]}"#, 0o644);
        let empty = file(&dir, "none", br#"{"keys":[]}"#, 0o644);
        let good = |issuer: Issuer, cert: &Path, key: &Path| {
            let mut config = with(issuer);
            config.server.tls = Some(ServerTls { cert: cert.into(), key: key.into() });
            config.identity.assertion = Some(Assertion { key_file: Some(key.into()), ..Assertion::default() });
            config.upstream.ca_file = Some(cert.into());
            read(&config, &Environment::new()).1
        };
        let issuer = |key: Option<&PathBuf>, jwks: Option<&PathBuf>| Issuer {
            key_file: key.cloned(),
            jwks_file: jwks.cloned(),
            ..Issuer::default()
        };
        assert_eq!(good(issuer(Some(&public), Some(&jwks)), &certificate, &private), Problems::default());
        assert_eq!(good(issuer(Some(&private), Some(&empty)), &private, &certificate).errors.len(), 6);
        assert_eq!(good(issuer(Some(&jwks), Some(&public)), &certificate, &encrypted).errors.len(), 4);
    }
}
