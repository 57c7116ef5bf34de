//! What siogate costs, beside a bare TCP relay and, where they are installed, HAProxy and nginx.
//!
//! ```text
//! cargo bench --bench compare                      about a minute, prints a Markdown table
//! cargo bench --bench compare -- --quick           one short round, to see that it runs
//! SIOGATE_BIN=/path/to/siogate cargo bench --bench compare -- --rounds 9 --seconds 300 --idle 8000 --json out.json
//! ```
//!
//! `docs/performance.md` says what is measured and how to read it. Loopback only, Linux only.

mod backend;
mod client;
mod correctness;
mod load;
mod proxy;
mod relay;
mod report;
mod scale;
mod storm;
mod tokens;
mod wire;

use crate::backend::Backend;
use crate::client::{Login, Place};
use crate::load::Plan;
use crate::proxy::{Kind, Lab, Proxy};
use crate::report::{Figures, SCENARIOS};
use crate::tokens::{Issuer, Tokens};
use std::error::Error;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

type Res<T> = Result<T, Box<dyn Error + Send + Sync>>;

const HELP: &str = "\
cargo bench --bench compare -- [OPTIONS]
  --rounds N     interleaved rounds, at most (3)
  --seconds N    begin no round that would not be over by then (55)
  --window MS    how long messages are exchanged per measurement (400)
  --idle N       idle sessions for the memory figures (1000)
  --peers A,B    of relay,siogate,haproxy,nginx (all that are there)
  --json FILE    write the figures there, too
  --quick        one short round, 200 idle sessions
  --scale [N]    instead: growth to N sessions (9000), fan-out, a fixed rate, latency, expiry, a reconnect storm
The siogate that is measured: $SIOGATE_BIN, else the one that cargo has built beside this.";

struct Options {
    rounds: usize,
    limit: Duration,
    idle: usize,
    peers: Option<Vec<String>>,
    json: Option<PathBuf>,
    plan: Plan,
    scale: Option<scale::Plan>,
}

impl Options {
    fn parse(arguments: &[String]) -> Res<Self> {
        let window = Duration::from_millis(400);
        let plan = Plan { window, handshakes: 1000, polls: 400, requests: 4000 };
        let limit = Duration::from_secs(55);
        let mut options = Self { rounds: 3, limit, idle: 1000, peers: None, json: None, plan, scale: None };
        let mut rest = arguments.iter().peekable();
        while let Some(name) = rest.next() {
            let mut value = || rest.next().ok_or(format!("{name} wants a value"));
            match name.as_str() {
                // What cargo adds.
                "--bench" => {}
                "--rounds" => options.rounds = value()?.parse::<usize>()?.clamp(1, 100),
                "--seconds" => options.limit = Duration::from_secs(value()?.parse()?),
                "--window" => options.plan.window = Duration::from_millis(value()?.parse::<u64>()?.clamp(20, 10_000)),
                "--idle" => options.idle = value()?.parse::<usize>()?.min(100_000),
                "--peers" => options.peers = Some(value()?.split(',').map(str::to_owned).collect()),
                "--json" => options.json = Some(value()?.into()),
                "--scale" => {
                    let most = rest.next_if(|word| !word.starts_with("--")).map_or(Ok(9000), |word| word.parse())?;
                    let window = Duration::from_millis(500);
                    options.scale = Some(scale::Plan { rounds: 2, most: most.max(100), window }.within_descriptors());
                }
                "--quick" => {
                    (options.rounds, options.idle) = (1, 200);
                    let window = Duration::from_millis(100);
                    options.plan = Plan { window, handshakes: 200, polls: 100, requests: 500 };
                }
                other => return Err(format!("{other}: not known\n{HELP}").into()),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let first = arguments.first().map(String::as_str);
    let result = match (first, arguments.get(1)) {
        // `cargo test --all-targets` starts benches without a word.
        (None | Some("--help"), _) => {
            println!("{HELP}");
            Ok(())
        }
        (Some("relay"), Some(backend)) => backend.parse().map_err(Into::into).and_then(relay::run),
        _ => with_all_descriptors().and_then(|()| compare(&arguments)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("compare: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Starts itself again with as many descriptors as it may have: each session takes two here and two in the proxy.
fn with_all_descriptors() -> Res<()> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let mut numbers = line.split_whitespace();
    let (soft, hard) = (numbers.next(), numbers.next());
    if soft == hard || std::env::var_os("COMPARE_AGAIN").is_some() {
        return Ok(());
    }
    let mut again = Command::new("sh");
    again.args(["-c", "ulimit -n $(ulimit -Hn); exec \"$0\" \"$@\""]).arg(std::env::current_exe()?);
    Err(again.args(std::env::args_os().skip(1)).env("COMPARE_AGAIN", "1").exec().into())
}

/// Two CPUs that this process may use: the proxies' and its own.
fn cores() -> Option<(usize, usize)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim();
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(from.parse::<usize>().ok()?..=to.parse().ok()?);
    }
    let (proxies, own) = (*cpus.first()?, *cpus.get(1)?);
    let me = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-acp", &own.to_string(), &me]).output().ok()?;
    pinned.status.success().then_some((proxies, own))
}

fn compare(arguments: &[String]) -> Res<()> {
    let started = Instant::now();
    let options = Options::parse(arguments)?;
    let siogate = std::env::var_os("SIOGATE_BIN").map_or(env!("CARGO_BIN_EXE_siogate").into(), PathBuf::from);
    let issuer = Issuer::new()?;
    let count = options.scale.map_or(options.plan.tokens() * options.rounds, |plan| plan.tokens());
    let tokens = Tokens::make(&issuer, count)?;
    eprintln!("signed {count} tokens in {:.1?}", started.elapsed());
    let (machine, load) = (report::machine(), report::load_average());
    let cores = cores();
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("public.pem"), issuer.pem()?)?;
    let backend = Backend::start(issuer.jwks()?)?;
    let lab = Lab {
        dir: dir.path().into(),
        backend,
        siogate: siogate.canonicalize().map_err(|e| format!("{}: {e}", siogate.display()))?,
        core: cores.map(|(proxies, _)| proxies),
        sessions: options.scale.map_or(options.idle, |plan| plan.most),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(plan) = options.scale {
        let figures = scale::run(&runtime, &lab, plan, &issuer, &tokens)?;
        println!("- {machine}; load average {load} before, {} after; {figures}", report::load_average());
        return Ok(());
    }

    let mut figures = Figures::new(Vec::new());
    let mut proxies = Vec::new();
    for kind in Kind::ALL {
        if let Some(proxy) = enter(kind, &options, &lab, &mut figures)? {
            let proved = runtime.block_on(correctness::check(&proxy, &lab.backend, &issuer, &tokens));
            let proved = proved.map_err(|e| format!("{} is not correct: {e}", kind.name()))?;
            figures.conditions.push(format!("{}: {proved}", kind.name()));
            figures.kinds.push(kind);
            proxies.push(Arc::new(proxy));
        }
    }
    for kind in figures.kinds.clone().into_iter().filter(|_| options.idle > 0) {
        let fresh = Arc::new(Proxy::start(kind, &lab)?);
        let login = Login::new(Place::Header, &tokens.one, kind.verifies());
        runtime.block_on(correctness::ready(&fresh, &login))?;
        figures.idle.push((kind, runtime.block_on(load::idle(&fresh, options.idle, &tokens))?));
        eprintln!("{:>8} idle: done at {:.0?}", kind.name(), started.elapsed());
    }
    let mut done = 0;
    let mut longest = Duration::ZERO;
    while done < options.rounds && started.elapsed() + longest < options.limit {
        let begun = Instant::now();
        round(&runtime, &proxies, done, options.plan, &tokens, &mut figures)?;
        longest = longest.max(begun.elapsed());
        done += 1;
        eprintln!("   round {done}: done at {:.0?}", started.elapsed());
    }
    let pinned = cores.map_or("nothing is pinned".into(), |(proxies, own)| {
        format!("proxies on CPU {proxies}, load and backend on CPU {own}")
    });
    let after = report::load_average();
    figures.conditions.insert(0, format!("{machine}; {pinned}; load average {load} before, {after} after"));
    let plural = if done == 1 { "" } else { "s" };
    let queued = figures.queued();
    let noise = format!("the proxies stood in the queue for their CPU {queued:.0} % of the time (a quiet machine: 0)");
    figures.conditions.insert(1, format!("medians of {done} interleaved round{plural} (lowest..highest); {noise}"));
    println!("{}", figures.markdown()?);
    if let Some(file) = options.json {
        fs::write(file, serde_json::to_vec_pretty(&figures.json())?)?;
    }
    Ok(())
}

/// Starts a proxy; `None`, and a line that says why, where there is none. Relay and siogate have to be there.
fn enter(kind: Kind, options: &Options, lab: &Lab, figures: &mut Figures) -> Res<Option<Proxy>> {
    let wanted = |kind: Kind| options.peers.as_ref().is_none_or(|peers| peers.iter().any(|peer| peer == kind.name()));
    if !wanted(kind) {
        return Ok(None);
    }
    match Proxy::start(kind, lab) {
        Ok(proxy) => Ok(Some(proxy)),
        Err(e) if matches!(kind, Kind::Haproxy | Kind::Nginx) => {
            figures.conditions.push(format!("{}: skipped, {e}", kind.name()));
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Every scenario once, each proxy right after the other; who begins changes.
fn round(
    runtime: &tokio::runtime::Runtime,
    proxies: &[Arc<Proxy>],
    number: usize,
    plan: Plan,
    tokens: &Arc<Tokens>,
    figures: &mut Figures,
) -> Res<()> {
    for scenario in &SCENARIOS {
        for at in 0..proxies.len() {
            let Some(proxy) = proxies.get((at + number) % proxies.len()) else { continue };
            if !scenario.kinds.contains(&proxy.kind) {
                continue;
            }
            let cost = runtime.block_on(load::measure(proxy, scenario.work, plan, tokens));
            let cost = cost.map_err(|e| format!("{}, {}: {e}", proxy.kind.name(), scenario.name))?;
            figures.add(scenario.name, proxy.kind, &cost);
        }
    }
    Ok(())
}
