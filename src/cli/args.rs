//! The command line. Every flag that sets a key names it; `--set` reaches all the others.

use crate::config::load::{Override, Sources, environment};
use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An authenticating reverse proxy for Socket.IO.
///
/// Verifies every session before its first byte reaches the backend, and ends it when its token does.
/// Without a command, `siogate` runs.
#[derive(Clone, Debug, Parser)]
#[command(name = "siogate", version, propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do; nothing: run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the gate (the default)
    Run,
    /// Check the configuration: every problem, with its key; exit code 64 if there is one
    Check,
    /// Ask about tokens
    Token(TokenArgs),
    /// Try it out on this machine: an own issuer, a playground page, and a backend where no --upstream is given
    Dev(DevArgs),
}

/// Flags of every command. Order of precedence: defaults < file < SIOGATE_* variables < flags.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// Configuration file [default: ./config.toml, where there is one]
    #[arg(long, short, global = true, value_name = "FILE", env = "SIOGATE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address to listen on, may be repeated (sets server.listen)
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub listen: Vec<String>,
    /// Backend URL, may be repeated (sets upstream.urls)
    #[arg(long, global = true, value_name = "URL")]
    pub upstream: Vec<String>,
    /// Address of the admin listener, "" for none (sets admin.listen)
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub admin_listen: Option<String>,
    /// Log level or filter (sets log.level)
    #[arg(long, global = true, value_name = "LEVEL", env = "SIOGATE_LOG")]
    pub log_level: Option<String>,
    /// Set any key, may be repeated: --set issuer[0].leeway=10s
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
}

/// `siogate token`
#[derive(Args, Clone, Debug)]
pub struct TokenArgs {
    /// What to ask.
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// The questions about tokens.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Verify a token as the gate would, and say who it is, until when, or why not
    Verify(VerifyArgs),
}

/// `siogate token verify`
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// The token, or "-" to read it from standard input (the default): arguments can be seen by other users
    #[arg(value_name = "TOKEN", value_parser = masked, conflicts_with = "file")]
    pub token: Option<SecretString>,
    /// Read the token from a file
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `siogate dev`. The flags --listen and --upstream are those of every command.
#[derive(Args, Clone, Debug)]
pub struct DevArgs {
    /// How long a token of the playground lives
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = lifetime)]
    pub token_lifetime: Duration,
    /// Where the page and the issuer are [default: 127.0.0.1:8081]
    #[arg(long, value_name = "HOST:PORT")]
    pub playground: Option<String>,
    /// Origin of a page that may connect besides the playground, may be repeated (sets socketio.allowed_origins)
    #[arg(long, value_name = "ORIGIN")]
    pub origin: Vec<String>,
    /// Refused, and so not in the help: see [`DevArgs::refused`].
    #[command(flatten)]
    pub not: NotForDev,
}

/// Flags of every other command. Here they stand in the place of the global ones of the same name.
#[derive(Args, Clone, Debug, Default)]
pub struct NotForDev {
    #[arg(long, short, hide = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(long, hide = true, value_name = "HOST:PORT")]
    admin_listen: Option<String>,
    #[arg(long, hide = true, value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
}

impl DevArgs {
    /// Why these flags are refused, if they are.
    pub fn refused(&self, global: &ConfigArgs) -> Option<&'static str> {
        let config = self.not.config.is_some() || global.config.is_some();
        let admin_listen = self.not.admin_listen.is_some() || global.admin_listen.is_some();
        let set = !self.not.set.is_empty() || !global.set.is_empty();
        (config || admin_listen || set).then_some(
            "siogate dev takes no --config (or SIOGATE_CONFIG), no --admin-listen and no --set: it configures itself",
        )
    }
}

impl ConfigArgs {
    /// All layers, with the environment of this process.
    pub fn sources(&self) -> Sources {
        Sources { file: self.file(), env: environment(), overrides: self.overrides() }
    }

    /// The file to read. `./config.toml` may be absent: everything can be set by variables too.
    pub fn file(&self) -> Option<PathBuf> {
        let default = Path::new("config.toml");
        self.config.clone().or_else(|| default.exists().then(|| default.to_path_buf()))
    }

    /// The keys that the flags set. `--set` comes last and so has the last word.
    pub fn overrides(&self) -> Vec<Override> {
        let one = |flag: &str, key: &str, value: String| Override { flag: flag.into(), key: key.into(), value };
        let list = |items: &[String]| serde_json::Value::from(items).to_string();
        let mut all = Vec::new();
        if !self.listen.is_empty() {
            all.push(one("--listen", "server.listen", list(&self.listen)));
        }
        if !self.upstream.is_empty() {
            all.push(one("--upstream", "upstream.urls", list(&self.upstream)));
        }
        all.extend(self.admin_listen.iter().map(|text| one("--admin-listen", "admin.listen", text.clone())));
        all.extend(self.log_level.iter().map(|text| one("--log-level", "log.level", text.clone())));
        all.extend(self.set.iter().map(|(key, value)| one("--set", key, value.clone())));
        all
    }
}

/// The part before the first `=` is the key.
fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_string(), value.to_string())),
        _ => Err("allowed: KEY=VALUE, such as log.format=json".into()),
    }
}

fn masked(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(SecretString::from(text))
}

fn lifetime(text: &str) -> Result<Duration, String> {
    match crate::config::duration::parse(text)? {
        time if time.is_zero() || time > Duration::from_secs(24 * 3600) => {
            Err("allowed: more than 0s, at most 24h".into())
        }
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Config;
    use crate::config::shape::Shape;
    use clap::CommandFactory;
    use secrecy::ExposeSecret;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_may_stand_before_and_after_the_command() {
        for line in ["siogate --config a.toml run", "siogate run --config a.toml", "siogate -c a.toml"] {
            assert_eq!(parse(line).unwrap().config.config, Some("a.toml".into()), "{line}");
        }
        let cli = parse("siogate token verify --config a.toml").unwrap();
        assert_eq!(cli.config.config, Some("a.toml".into()));
        assert!(parse("siogate").unwrap().command.is_none());
        assert!(parse("siogate nonsense").is_err());
        assert!(parse("siogate token").is_err());
    }

    #[test]
    fn flags_become_the_keys_that_their_help_names() {
        let line = "siogate run --listen 127.0.0.1:1 --upstream http://a:1 --upstream http://b:1 \
                    --admin-listen 127.0.0.1:2 --log-level debug --set socketio.eio3=false";
        let cli = parse(line).unwrap();
        let overrides = cli.config.overrides();
        let shown: Vec<_> = overrides.iter().map(|o| (o.flag.as_str(), o.key.as_str(), o.value.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("--listen", "server.listen", r#"["127.0.0.1:1"]"#),
                ("--upstream", "upstream.urls", r#"["http://a:1","http://b:1"]"#),
                ("--admin-listen", "admin.listen", "127.0.0.1:2"),
                ("--log-level", "log.level", "debug"),
                ("--set", "socketio.eio3", "false"),
            ]
        );
        let root = Shape::of::<Config>();
        for one in &overrides {
            assert!(crate::config::assign::dotted_path(&root, &one.key).is_ok(), "{one:?}");
        }
        let cli = parse("siogate dev --token-lifetime 5s --origin http://x").unwrap();
        let Some(Command::Dev(dev)) = cli.command else { panic!("not dev") };
        assert_eq!((dev.token_lifetime.as_secs(), dev.origin.len()), (5, 1));
    }

    #[test]
    fn dev_refuses_what_it_cannot_use_wherever_it_stands_and_does_not_offer_it() {
        let refused = |line: &str| {
            let cli = parse(line).unwrap();
            let Some(Command::Dev(dev)) = cli.command else { panic!("not dev") };
            dev.refused(&cli.config).is_some()
        };
        for flag in ["--config a.toml", "-c a.toml", "--admin-listen 127.0.0.1:1", "--set log.format=json"] {
            assert!(refused(&format!("siogate dev {flag}")), "{flag}");
            assert!(refused(&format!("siogate {flag} dev")), "{flag}");
        }
        for flag in ["", "--listen 127.0.0.1:1", "--upstream http://a:1", "--log-level debug", "--origin http://x"] {
            assert!(!refused(&format!("siogate dev {flag}")), "{flag}");
        }
        let help = |line: &str| parse(line).unwrap_err().to_string();
        let (dev, run) = (help("siogate dev --help"), help("siogate run --help"));
        for flag in ["--config", "--admin-listen", "--set"] {
            assert!(run.contains(flag) && !dev.contains(flag), "{flag} in {dev}");
        }
        for flag in ["--listen", "--upstream", "--log-level", "--token-lifetime"] {
            assert!(dev.contains(flag), "{flag} in {dev}");
        }
    }

    #[test]
    fn the_help_of_each_flag_names_its_key() {
        let command = Cli::command();
        for (flag, key) in [
            ("listen", "server.listen"),
            ("upstream", "upstream.urls"),
            ("admin_listen", "admin.listen"),
            ("log_level", "log.level"),
        ] {
            let arg = command.get_arguments().find(|arg| arg.get_id() == flag).unwrap();
            assert!(arg.get_help().unwrap().to_string().contains(key), "{flag}");
        }
    }

    #[test]
    fn a_token_on_the_command_line_is_not_shown_again() {
        let cli = parse("siogate token verify eyJhbGciOi.x.y").unwrap();
        assert!(!format!("{cli:?}").contains("eyJ"));
        let Some(Command::Token(TokenArgs { command: TokenCommand::Verify(args) })) = cli.command else { panic!() };
        assert_eq!(args.token.unwrap().expose_secret(), "eyJhbGciOi.x.y");
        let dash = parse("siogate token verify -").unwrap();
        let Some(Command::Token(TokenArgs { command: TokenCommand::Verify(args) })) = dash.command else { panic!() };
        assert_eq!(args.token.unwrap().expose_secret(), "-");
        assert!(parse("siogate token verify a --file b").is_err());
    }

    #[test]
    fn set_takes_everything_after_the_first_equals_sign() {
        let cli = parse("siogate --set identity.headers.x-a=b=c --set admin.listen=").unwrap();
        assert_eq!(cli.config.set[0], ("identity.headers.x-a".into(), "b=c".into()));
        assert_eq!(cli.config.set[1], ("admin.listen".into(), String::new()));
        assert!(parse("siogate --set novalue").is_err());
        assert!(parse("siogate --set =x").is_err());
        for bad in ["0s", "60", "25h", "x"] {
            assert!(parse(&format!("siogate dev --token-lifetime {bad}")).is_err(), "{bad}");
        }
    }
}
