//! From the layers to one checked configuration: defaults < file < `SIOGATE_*` < flags.
//!
//! Every layer is held against the model by itself, so that a mistake is found also where a later layer
//! covers it; what is good is merged, read, checked across keys, and its secrets are fetched. All problems of all
//! of this come back together.

use crate::config::assign::{NoSuchKey, dotted_path, interpret, place, variable_path};
use crate::config::check;
use crate::config::conform::{Conform, VARIABLE_PREFIX};
use crate::config::model::Config;
use crate::config::problem::{Problem, Problems, is_under, shown};
use crate::config::secret::{self, Environment, Secrets};
use crate::config::shape::{Path, Shape};
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use std::ffi::OsStr;
use std::path::{Path as FilePath, PathBuf};

/// One key set on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The flag as the user knows it: `--listen`, `--set`.
    pub flag: String,
    /// The key's path: `server.listen`, `issuer[0].leeway`.
    pub key: String,
    /// The value as text.
    pub value: String,
}

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file; `None`: there is none.
    pub file: Option<PathBuf>,
    /// The environment: [`environment`], or a test's own.
    pub env: Environment,
    /// The flags, the last one wins.
    pub overrides: Vec<Override>,
}

/// A configuration that may be run.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Every value.
    pub config: Config,
    /// What its `*_env` and `*_file` keys lead to.
    pub secrets: Secrets,
    /// What should be said aloud at start.
    pub warnings: Vec<Problem>,
}

/// The environment of this process. Names that are not UTF-8 are nobody's here.
pub fn environment() -> Environment {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
}

/// Variables with the prefix that are no keys: they stand for `--config` and `--log-level`.
pub const OTHER_VARIABLES: &[&str] = &["SIOGATE_CONFIG", "SIOGATE_LOG"];

/// Reads, merges and checks.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let root = Shape::of::<Config>();
    let mut layers = Layers::new(&root);
    let readable = match sources.file.as_deref().map(read_file).transpose() {
        Ok(dict) => {
            layers.file(dict.unwrap_or_default());
            true
        }
        Err(why) => {
            layers.conform.problems.error("", why);
            false
        }
    };
    let strangers = layers.variables(&sources.env);
    for one in &sources.overrides {
        layers.flag(one);
    }
    if readable {
        layers.strangers(&strangers);
    }
    let config = layers.extract();
    let Layers { conform, origins, .. } = layers;
    let mut problems = conform.problems;
    let mut found = check::check(&config);
    let (secrets, mut others) = secret::read(&config, &sources.env);
    others.errors.retain(|other| !found.errors.iter().any(|problem| problem.path == other.path));
    found.append(others);
    for problem in found.errors.iter_mut().chain(&mut found.warnings) {
        let last = origins.iter().rev().find(|(path, _)| is_under(&problem.path, path));
        problem.origin = last.map(|(_, origin)| origin.clone());
    }
    // Without its file the configuration is mostly defaults: what follows from that helps nobody.
    if readable {
        let fresh = |p: &Problem| !conform.touched.iter().any(|t| is_under(&p.path, t) || is_under(t, &p.path));
        found.errors.retain(fresh);
        problems.errors.extend(found.errors);
    }
    problems.warnings.extend(found.warnings);
    if problems.errors.is_empty() { Ok(Loaded { config, secrets, warnings: problems.warnings }) } else { Err(problems) }
}

/// Reads a file's text into keys. The message has the place, but not the line itself: it may hold a secret.
fn read_file(path: &FilePath) -> Result<Dict, String> {
    let bytes =
        std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", shown(&path.to_string_lossy())))?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", shown(&path.to_string_lossy())))?;
    Toml::from_str::<Dict>(&text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let before = text.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let message: Vec<_> = error.message().lines().collect();
        format!("{}: line {line}, column {column}: {}", path.display(), message.join("; "))
    })
}

/// A layer of good values, for figment to merge.
struct Layer {
    name: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

struct Layers<'a> {
    root: &'a Shape,
    conform: Conform<'a>,
    figment: Figment,
    /// What indexes and single entries of a table refer to where no layer has said anything yet.
    defaults: Option<Value>,
    /// Which variable or flag set what, in order.
    origins: Vec<(String, String)>,
}

impl<'a> Layers<'a> {
    fn new(root: &'a Shape) -> Self {
        let defaults = Value::serialize(Config::default()).ok();
        Self { root, conform: Conform::new(root), figment: Figment::new(), defaults, origins: Vec::new() }
    }

    fn merge(&mut self, name: &str, dict: Dict) {
        let figment = std::mem::take(&mut self.figment);
        self.figment = figment.merge(Layer { name: name.to_string(), dict });
    }

    fn file(&mut self, mut dict: Dict) {
        self.conform.table(&mut dict, self.root, &Path::default());
        self.merge("file", dict);
    }

    /// Sets what variables set, in the order of their keys; returns those that are no key.
    fn variables<'e>(&mut self, env: &'e Environment) -> Vec<(&'e str, &'e OsStr)> {
        let mut strangers = Vec::new();
        let mut known = Vec::new();
        for (variable, value) in env {
            let Some(name) = variable.strip_prefix(VARIABLE_PREFIX) else { continue };
            if OTHER_VARIABLES.contains(&variable.as_str()) {
                continue;
            }
            match variable_path(self.root, name) {
                Ok((path, shape)) => known.push((path, shape, variable, value)),
                Err(_) => strangers.push((variable.as_str(), value.as_os_str())),
            }
        }
        // By name, ISSUER__10 would come before ISSUER__2.
        known.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, shape, variable, value) in known {
            self.conform.origin = Some(variable.clone());
            match value.to_str() {
                Some(text) => self.assign(&path, shape, text, variable),
                None => self.conform.refuse(&path, "the value is not UTF-8"),
            }
        }
        self.conform.origin = None;
        strangers
    }

    /// Refuses variables that are no key, unless the configuration names them or Kubernetes made them.
    fn strangers(&mut self, variables: &[(&str, &OsStr)]) {
        let mut named = Vec::new();
        collect_names(&Value::from(self.merged()), &mut named);
        for (variable, value) in variables {
            let name = variable.strip_prefix(VARIABLE_PREFIX).unwrap_or_default();
            if named.iter().any(|n| n == variable) || is_service_link(name, value) {
                continue;
            }
            if let Err(end) = variable_path(self.root, name) {
                self.conform.origin = Some((*variable).to_string());
                self.conform.unknown(&end.parent, end.shape, &end.name);
            }
        }
        self.conform.origin = None;
    }

    fn flag(&mut self, one: &Override) {
        self.conform.origin = Some(one.flag.clone());
        match dotted_path(self.root, &one.key) {
            Ok((path, shape)) => self.assign(&path, shape, &one.value, &one.flag),
            Err(NoSuchKey { parent, shape, name }) => self.conform.unknown(&parent, shape, &name),
        }
        self.conform.origin = None;
    }

    fn assign(&mut self, path: &Path, shape: &Shape, text: &str, origin: &str) {
        let mut value = match interpret(shape, text) {
            Ok(value) => value,
            Err(why) => return self.conform.refuse(path, format!("{} is {why}", shown(text))),
        };
        if !self.conform.keep(&mut value, shape, path) {
            return;
        }
        let merged = Value::from(self.merged());
        match place(Some(&merged), self.defaults.as_ref(), &path.0, value) {
            Ok(placed) => {
                self.merge(origin, placed.into_dict().unwrap_or_default());
                self.origins.push((path.to_string(), origin.to_string()));
            }
            Err(why) => self.conform.refuse(path, why),
        }
    }

    fn merged(&self) -> Dict {
        self.figment.data().ok().and_then(|mut data| data.remove(&Profile::Default)).unwrap_or_default()
    }

    /// The merged values as the model. Only keys that a table cannot do without can still be missing here.
    fn extract(&mut self) -> Config {
        let mut value = Value::from(self.merged());
        loop {
            let error = match value.deserialize::<Config>() {
                Ok(config) => return config,
                Err(error) => error,
            };
            let path = error.path.join(".");
            match &error.kind {
                figment::error::Kind::MissingField(name) => {
                    let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                    self.conform.touched.push(path.clone());
                    self.conform.problems.error(path, "is required here");
                }
                other => self.conform.problems.error(path, other.to_string()),
            }
            if !remove(&mut value, &error.path) {
                return Config::default();
            }
        }
    }
}

/// Takes out the table at `path`, or at the nearest place above it that is one.
fn remove(value: &mut Value, path: &[String]) -> bool {
    let (Some((key, rest)), Value::Dict(_, dict)) = (path.split_first(), value) else { return false };
    let Some(inner) = dict.get_mut(key) else { return false };
    let deeper = !rest.is_empty() && remove(inner, rest);
    deeper || dict.remove(key).is_some()
}

/// The values of all keys that name an environment variable.
fn collect_names(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Dict(_, dict) => {
            for (key, inner) in dict {
                match (inner, inner.as_str()) {
                    (_, Some(name)) if key.ends_with("_env") => names.push(name.to_string()),
                    (Value::Array(_, list), _) if key.ends_with("_env") => {
                        names.extend(list.iter().filter_map(|name| name.as_str().map(String::from)));
                    }
                    _ => collect_names(inner, names),
                }
            }
        }
        Value::Array(_, items) => items.iter().for_each(|item| collect_names(item, names)),
        _ => {}
    }
}

/// Kubernetes gives every pod `SIOGATE_SERVICE_HOST`, `SIOGATE_PORT_8080_TCP_ADDR` and the like where a service of
/// the namespace is called `siogate` or `siogate-...`. No key looks like these: its name has two underscores.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let name = format!("_{name}");
    let part = |marker: &str| name.split_once(marker).map(|(_, rest)| rest);
    let is_url = value.to_str().is_some_and(|text| text.contains("://"));
    let numbered = part("_PORT_").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let named = part("_SERVICE_PORT").is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    let link = name.ends_with("_SERVICE_HOST") || named || numbered || (name.ends_with("_PORT") && is_url);
    link && !name.contains("__")
}

#[cfg(test)]
mod tests;
