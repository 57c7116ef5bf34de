//! `--scale`: what depends on how many are there, on the clock, or on everybody coming at once.

use crate::Res;
use crate::backend::SHOUT;
use crate::client::{self, Client, Login, Place};
use crate::load::{self, all};
use crate::proxy::{Kind, Lab, Proxy};
use crate::tokens::{Credential, Issuer, Tokens};
use crate::wire;
use crate::{correctness, report, storm};
use serde_json::json;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

/// Sessions that talk, however many are open.
pub const TALKERS: usize = 64;
/// Messages of the fixed rate, per second.
const RATE: f64 = 5000.0;
/// Sessions that end in the same second.
const EXPIRING: usize = 2000;
/// Nothing takes longer unless a proxy hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub rounds: usize,
    /// Sessions at most.
    pub most: usize,
    pub window: Duration,
}

impl Plan {
    /// Each session takes two descriptors here and two in the proxy.
    pub fn within_descriptors(self) -> Self {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
        let soft = line.split_whitespace().next().and_then(|n| n.parse::<usize>().ok()).unwrap_or(usize::MAX);
        Self { most: self.most.min(soft.saturating_sub(500) / 2), ..self }
    }

    /// All users; those of the storm each need a token that the proxy has not seen.
    pub fn tokens(&self) -> usize {
        self.most + 1000
    }
}

/// Everything of `--scale`, as Markdown.
pub fn run(runtime: &Runtime, lab: &Lab, plan: Plan, issuer: &Issuer, tokens: &Arc<Tokens>) -> Res<String> {
    let mut out = format!("{} sessions at most, {} rounds\n", plan.most, plan.rounds);
    let start = |kind| -> Res<Arc<Proxy>> {
        let proxy = Arc::new(Proxy::start(kind, lab)?);
        let login = Login::new(Place::Header, &tokens.one, kind.verifies());
        runtime.block_on(correctness::ready(&proxy, &login))?;
        Ok(proxy)
    };
    let began = Instant::now();
    let done = |what: &str| eprintln!("{what:>10}: done at {:.0?}", began.elapsed());
    growth(&mut out, runtime, lab, plan, &start, tokens)?;
    done("growth");
    {
        let mut kinds = vec![Kind::Relay, Kind::Siogate];
        kinds.extend(Kind::Haproxy.installed().map(|_| Kind::Haproxy));
        let proxies = kinds.into_iter().map(start).collect::<Res<Vec<_>>>()?;
        pace(&mut out, runtime, plan, &proxies, tokens)?;
        done("rate");
    }
    expiry(&mut out, runtime, &start(Kind::Siogate)?, issuer)?;
    done("expiry");
    for kind in [Kind::Relay, Kind::Siogate] {
        let proxy = start(kind)?;
        let storm =
            runtime.block_on(async { timeout(PATIENCE * 2, storm::measure(&proxy, lab, plan.most, tokens)).await });
        storm.map_err(|_| "the storm does not end")??.describe(&mut out, kind)?;
    }
    done("storm");
    Ok(out)
}

/// One proxy at one number of sessions.
struct Size {
    kind: Kind,
    sessions: usize,
    /// Microseconds a message; microseconds a session that a shout reaches; milliseconds until the last has it.
    message: Vec<f64>,
    shout: Vec<f64>,
    last: Vec<f64>,
    /// KiB a session.
    each: Vec<f64>,
}

fn growth(
    out: &mut String,
    runtime: &Runtime,
    lab: &Lab,
    plan: Plan,
    start: &impl Fn(Kind) -> Res<Arc<Proxy>>,
    tokens: &Arc<Tokens>,
) -> Res<()> {
    let mut steps: Vec<usize> = [100, 1000, 9000].into_iter().map(|n| plan.most.min(n)).collect();
    steps.dedup();
    let mut sizes: Vec<Size> = Vec::new();
    for round in 0..plan.rounds {
        for at in 0..2 {
            let kind = if (round + at) % 2 == 0 { Kind::Relay } else { Kind::Siogate };
            let proxy = start(kind)?;
            let grow = async { timeout(PATIENCE * 2, grow(&proxy, lab, plan, &steps, tokens, &mut sizes)).await };
            runtime.block_on(grow).map_err(|_| "the growing load hangs")??;
        }
    }
    let find = |kind, sessions| sizes.iter().find(|size| size.kind == kind && size.sessions == sessions);
    writeln!(
        out,
        "\n| sessions | relay µs/message | siogate µs/message | × relay | relay KiB each | siogate KiB each | fan-out, relay \
         ms | siogate ms | × relay | relay µs each | siogate µs each | × relay |\n|{}",
        "---|".repeat(12)
    )?;
    for &sessions in &steps {
        let (Some(relay), Some(ours)) = (find(Kind::Relay, sessions), find(Kind::Siogate, sessions)) else { continue };
        writeln!(
            out,
            "| {sessions} | {:.1} | {:.1} | {} | {:.2} | {:.2} | {:.1} | {:.1} | {} | {:.2} | {:.2} | {} |",
            mid(&relay.message),
            mid(&ours.message),
            ratio(&ours.message, &relay.message),
            mid(&relay.each),
            mid(&ours.each),
            mid(&relay.last),
            mid(&ours.last),
            ratio(&ours.last, &relay.last),
            mid(&relay.shout),
            mid(&ours.shout),
            ratio(&ours.shout, &relay.shout)
        )?;
    }
    for kind in [Kind::Relay, Kind::Siogate] {
        let all = || sizes.iter().filter(|size| size.kind == kind);
        let message = spread(all().map(|size| mid(&size.message)));
        // A hundred sessions fit into what an allocator has in reserve.
        let each = spread(all().filter(|size| size.sessions >= 1000).map(|size| mid(&size.each)));
        let judge = |spread: f64| report::verdict(Some(spread), 1.10);
        let (message, each) = (judge(message), judge(each));
        writeln!(
            out,
            "\n{}: dearest / cheapest message {message}, session {each} (from 1,000 on); shall be ≤ 1.10.",
            kind.name()
        )?;
    }
    Ok(())
}

/// Opens more and more sessions on one proxy; at each step some talk, and the backend speaks to all.
async fn grow(
    proxy: &Arc<Proxy>,
    lab: &Lab,
    plan: Plan,
    steps: &[usize],
    tokens: &Arc<Tokens>,
    sizes: &mut Vec<Size>,
) -> Res<()> {
    let mut clients: Vec<Client> = Vec::new();
    let memory = async || {
        sleep(Duration::from_millis(500)).await;
        proxy.memory()
    };
    // What the first sessions, their handshakes and their talk leave behind is not the others'.
    clients.extend(load::open(proxy, 20, tokens).await?);
    clients = load::echo(clients, 1, 64, plan.window / 4).await?.0;
    for &sessions in steps {
        let (from, before) = (clients.len(), memory().await?);
        clients.extend(load::open(proxy, sessions.saturating_sub(from), tokens).await?);
        let each = (memory().await? as f64 - before as f64) / (sessions - from).max(1) as f64;
        let stride = (sessions / TALKERS).max(1);
        let (mut talkers, mut idle) = (Vec::new(), Vec::new());
        for (n, client) in clients.into_iter().enumerate() {
            if n % stride == 0 && talkers.len() < TALKERS { talkers.push(client) } else { idle.push(client) }
        }
        let talkers = load::echo(talkers, 1, 64, plan.window / 4).await?.0;
        let before = load::settled(proxy).await?;
        let (talkers, units) = load::echo(talkers, 1, 64, plan.window).await?;
        let message = load::settled(proxy).await?.since(before).on_cpu as f64 / 1000.0 / units.max(1) as f64;
        clients = talkers;
        clients.extend(idle);
        let at = sizes.iter().position(|size| size.kind == proxy.kind && size.sessions == sessions);
        let at = at.unwrap_or_else(|| {
            let (message, shout, last, each) = Default::default();
            sizes.push(Size { kind: proxy.kind, sessions, message, shout, last, each });
            sizes.len() - 1
        });
        let Some(size) = sizes.get_mut(at) else { continue };
        size.message.push(message);
        size.each.push(each);
        let (mut last, mut shout) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let (all, ms, micros) = hear(proxy, lab, clients).await?;
            clients = all;
            last.push(ms);
            shout.push(micros);
        }
        // The first one warms up.
        size.last.push(mid(last.get(1..).unwrap_or_default()));
        size.shout.push(mid(shout.get(1..).unwrap_or_default()));
    }
    drop(clients);
    Ok(())
}

/// The backend says one thing to all: milliseconds until the last has it, and the proxy's microseconds for each.
async fn hear(proxy: &Arc<Proxy>, lab: &Lab, clients: Vec<Client>) -> Res<(Vec<Client>, f64, f64)> {
    let count = clients.len();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            match client.packet().await?.as_str() {
                SHOUT => Ok((client, Instant::now())),
                other => Err(format!("heard {other:?}").into()),
            }
        });
    }
    let before = load::settled(proxy).await?;
    let began = Instant::now();
    lab.backend.shout();
    let (clients, heard): (Vec<_>, Vec<_>) = all(tasks).await?.into_iter().unzip();
    let last = heard.into_iter().max().unwrap_or(began).duration_since(began);
    let time = load::settled(proxy).await?.since(before);
    Ok((clients, last.as_secs_f64() * 1000.0, time.on_cpu as f64 / 1000.0 / count.max(1) as f64))
}

/// What messages at a fixed rate cost, and how long their echo takes.
#[derive(Default)]
struct Paced {
    micros: Vec<f64>,
    latencies: Vec<Duration>,
    sent: u64,
}

fn pace(out: &mut String, runtime: &Runtime, plan: Plan, proxies: &[Arc<Proxy>], tokens: &Arc<Tokens>) -> Res<()> {
    let window = plan.window * 2;
    // What HAProxy, or the relay where there is none, takes of the same connections.
    let Some(judge) = proxies.last() else { return Ok(()) };
    let (most, busy) = runtime.block_on(async { timeout(PATIENCE, capacity(judge, window, tokens)).await? })?;
    writeln!(
        out,
        "\n| 200 connections, 64 B | messages/s | CPU µs each | × relay | p50, ms | p99, ms |\n|---|---|---|---|---|---|"
    )?;
    for (what, rate) in [("a fixed rate", RATE), ("80 % of capacity", most * 0.8)] {
        let mut figures: Vec<Paced> = proxies.iter().map(|_| Paced::default()).collect();
        for round in 0..plan.rounds.max(3) {
            for at in 0..proxies.len() {
                let at = (at + round) % proxies.len();
                let (Some(proxy), Some(figures)) = (proxies.get(at), figures.get_mut(at)) else { continue };
                let paced = async { timeout(PATIENCE, at_rate(proxy, rate, window, tokens, figures)).await? };
                runtime.block_on(paced).map_err(|e| format!("{} at {rate:.0}/s: {e}", proxy.kind.name()))?;
            }
        }
        let seconds = window.as_secs_f64() * plan.rounds.max(3) as f64;
        let relay = figures.first().map(|paced| paced.micros.clone()).unwrap_or_default();
        for (proxy, mut paced) in proxies.iter().zip(figures) {
            let (name, got) = (proxy.kind.name(), paced.sent as f64 / seconds);
            let (half, tail) = quantiles(&mut paced.latencies);
            let ratio = ratio(&paced.micros, &relay);
            writeln!(
                out,
                "| {what}, {name} | {got:.0} | {:.1} | {ratio} | {half:.2} | {tail:.2} |",
                mid(&paced.micros)
            )?;
        }
    }
    let judge = judge.kind.name();
    writeln!(
        out,
        "\nAt the fixed rate siogate shall be ≤ 1.05 × relay; its p99 at 80 % no worse than {judge}'s. Capacity: {most:.0} \
         messages/s with 1 in flight on each connection, through {judge}, whose CPU was then busy for {busy:.0} % of the \
         time. Timers of the load tick every millisecond, so messages come in small bursts, the same for all."
    )?;
    Ok(())
}

/// Messages a second at saturation, and how busy the proxy was.
async fn capacity(proxy: &Arc<Proxy>, window: Duration, tokens: &Arc<Tokens>) -> Res<(f64, f64)> {
    let clients = load::open(proxy, 200, tokens).await?;
    let clients = load::echo(clients, 1, 64, window / 4).await?.0;
    let (before, began) = (proxy.time()?, Instant::now());
    let (clients, units) = load::echo(clients, 1, 64, window).await?;
    let (wall, time) = (began.elapsed(), proxy.time()?.since(before));
    load::close(clients).await?;
    Ok((units as f64 / wall.as_secs_f64(), time.on_cpu as f64 / wall.as_nanos() as f64 * 100.0))
}

async fn at_rate(proxy: &Arc<Proxy>, rate: f64, window: Duration, tokens: &Arc<Tokens>, into: &mut Paced) -> Res<()> {
    let clients = load::open(proxy, 200, tokens).await?;
    let clients = load::echo(clients, 1, 64, window / 8).await?.0;
    let before = load::settled(proxy).await?;
    let interval = Duration::from_secs_f64(clients.len() as f64 / rate);
    let began = tokio::time::Instant::now();
    let mut tasks = JoinSet::new();
    for (n, mut client) in clients.into_iter().enumerate() {
        let first = began + interval.mul_f64(n as f64 / 200.0);
        tasks.spawn(async move {
            let times = client.paced(64, first.into_std(), interval, (began + window).into_std()).await?;
            Ok((client, times))
        });
    }
    let (clients, times): (Vec<_>, Vec<_>) = all(tasks).await?.into_iter().unzip();
    let time = load::settled(proxy).await?.since(before);
    load::close(clients).await?;
    let times = times.concat();
    into.sent += times.len() as u64;
    into.micros.push(time.on_cpu as f64 / 1000.0 / times.len().max(1) as f64);
    into.latencies.extend(times);
    Ok(())
}

impl Client {
    /// A message every `interval`; how long each took. One that is late because its predecessor was counts from when it was due.
    async fn paced(&mut self, size: usize, first: Instant, interval: Duration, until: Instant) -> Res<Vec<Duration>> {
        let message = client::event(size);
        let (mut sent, mut expected, mut buf) = (Vec::new(), Vec::new(), Vec::new());
        wire::put(&mut sent, wire::TEXT, message.as_bytes(), Some(wire::KEY));
        wire::put(&mut expected, wire::TEXT, message.as_bytes(), None);
        let (mut due, mut times) = (first, Vec::new());
        while due < until {
            let mut began = due;
            if Instant::now() < due {
                sleep_until(due.into()).await;
                began = Instant::now();
            }
            self.exchange(&sent, &expected, &mut buf).await?;
            times.push(began.elapsed());
            due += interval;
        }
        Ok(times)
    }
}

/// Sessions whose tokens end in the same second.
fn expiry(out: &mut String, runtime: &Runtime, proxy: &Arc<Proxy>, issuer: &Issuer) -> Res<()> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH);
    // Signing takes about a millisecond each on a slow core, a handshake less.
    let exp = now()?.as_secs() + 8;
    let credential = |n| {
        let user = format!("mortal-{n:04}");
        Ok(Credential { token: issuer.token(&user, &json!({"exp": exp}))?, user })
    };
    let users = (0..EXPIRING).map(credential).collect::<Res<Vec<_>>>()?;
    let cut = async {
        let mut tasks: JoinSet<Res<Duration>> = JoinSet::new();
        for user in &users {
            let mut client = Client::open(proxy.address, &Login::new(Place::Header, user, true)).await?;
            tasks.spawn(async move {
                match client.packet().await {
                    // A packet that tells of the end counts as the end.
                    Ok(_) | Err(_) => Ok(now()?),
                }
            });
        }
        let spare = Duration::from_secs(exp).saturating_sub(now()?);
        if spare < Duration::from_millis(300) {
            return Err("the sessions were not open in time".into());
        }
        sleep(spare - Duration::from_millis(200)).await;
        let before = proxy.time()?;
        let mut cuts = all(tasks).await?;
        sleep(Duration::from_millis(300)).await;
        let time = proxy.time()?.since(before);
        let early = cuts.iter().filter(|cut| cut.as_secs() < exp).count();
        cuts.iter_mut().for_each(|cut| *cut = cut.saturating_sub(Duration::from_secs(exp)));
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((cuts, early, time))
    };
    let (mut cuts, early, time) =
        runtime.block_on(async { timeout(PATIENCE, cut).await.map_err(|_| "not all were cut") })??;
    let (half, tail) = quantiles(&mut cuts);
    let each = time.on_cpu as f64 / 1000.0 / EXPIRING as f64;
    writeln!(
        out,
        "\n{EXPIRING} tokens that end in the same second: {} cut, {early} before `exp`; p50 {half:.0} ms, p99 {} ms after \
         it (shall be ≤ 250), {} µs of CPU each (shall be ≤ 40).",
        cuts.len(),
        report::verdict(Some(tail), 250.0),
        report::verdict(Some(each), 40.0)
    )?;
    Ok(())
}

/// Sorts, and gives half and 99 % in milliseconds.
pub fn quantiles(times: &mut [Duration]) -> (f64, f64) {
    times.sort();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
    let ms = |share| at(share).copied().unwrap_or_default().as_secs_f64() * 1000.0;
    (ms(50), ms(99))
}

fn mid(values: &[f64]) -> f64 {
    report::median(values).unwrap_or(f64::NAN)
}

/// Median of the ratios of each round.
fn ratio(ours: &[f64], theirs: &[f64]) -> String {
    report::two(report::median(&ours.iter().zip(theirs).map(|(a, b)| a / b).collect::<Vec<_>>()))
}

fn spread(values: impl Iterator<Item = f64>) -> f64 {
    let (low, high) = values.fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    high / low
}
