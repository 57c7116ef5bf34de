//! A restart of the backend, after which everybody comes back at once.

use crate::Res;
use crate::client::{Client, Login, Place};
use crate::load::{self, all};
use crate::proxy::{Kind, Lab, Proxy};
use crate::scale::{PATIENCE, TALKERS, quantiles};
use crate::tokens::Tokens;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What it took until everybody was back.
pub struct Storm {
    count: usize,
    /// How long each client needed, from the moment when all began.
    back: Vec<Duration>,
    attempts: u64,
    cpu: u64,
    /// KiB: with all sessions before, and at the worst moment.
    before: u64,
    peak: u64,
    /// `/healthz`: answers, and the slowest.
    health: Option<(u64, Duration)>,
}

impl Storm {
    pub fn describe(mut self, out: &mut String, kind: Kind) -> Res<()> {
        let (half, tail) = quantiles(&mut self.back);
        let last = self.back.last().copied().unwrap_or_default().as_secs_f64();
        let mib = |kib: u64| kib as f64 / 1024.0;
        write!(
            out,
            "\nStorm of {} clients after a restart of the backend, {}: all back after {last:.2} s (p50 {:.2} s, p99 {:.2} s, \
             {} attempts), {:.0} µs of CPU each, memory {:.1} MiB before, {:.1} MiB at most",
            self.count,
            kind.name(),
            half / 1000.0,
            tail / 1000.0,
            self.attempts,
            self.cpu as f64 / 1000.0 / self.count.max(1) as f64,
            mib(self.before),
            mib(self.peak)
        )?;
        if let Some((answers, slowest)) = self.health {
            write!(
                out,
                "; /healthz answered {answers} times, the slowest after {:.1} ms",
                slowest.as_secs_f64() * 1000.0
            )?;
        }
        Ok(writeln!(out, ".")?)
    }
}

/// The backend is gone and comes back, and so do all clients.
pub async fn measure(proxy: &Arc<Proxy>, lab: &Lab, count: usize, tokens: &Arc<Tokens>) -> Res<Storm> {
    let clients = load::open(proxy, count, tokens).await?;
    sleep(Duration::from_millis(300)).await;
    let before = proxy.memory()?;
    let watch = Watch::start(proxy.clone());
    // One more: the backend comes back when everybody knows that it is gone.
    let (gone, begin) = (Arc::new(Barrier::new(count + 1)), Arc::new(Barrier::new(count + 1)));
    let attempts = Arc::new(AtomicU64::new(0));
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for (n, mut client) in clients.into_iter().enumerate() {
        let (gone, begin, attempts, arrived) = (gone.clone(), begin.clone(), attempts.clone(), arrived.clone());
        let (proxy, tokens) = (proxy.clone(), tokens.clone());
        tasks.spawn(async move {
            while client.packet().await.is_ok() {}
            drop(client);
            gone.wait().await;
            begin.wait().await;
            let began = Instant::now();
            // The first thousand were shown when the sessions were opened.
            let login = Login::new(Place::Header, tokens.fresh(1000 + n)?, proxy.kind.verifies());
            loop {
                attempts.fetch_add(1, Ordering::Relaxed);
                match Client::open(proxy.address, &login).await {
                    Ok(client) => {
                        arrived.send(began.elapsed())?;
                        return Ok(client);
                    }
                    Err(e) if began.elapsed() > PATIENCE => return Err(e),
                    Err(_) => sleep(Duration::from_millis(200)).await,
                }
            }
        });
    }
    drop(arrived);
    lab.backend.kill();
    gone.wait().await;
    lab.backend.revive()?;
    let begun = proxy.time()?;
    begin.wait().await;
    let mut back = Vec::new();
    while let Some(time) = arrivals.recv().await {
        back.push(time);
    }
    let cpu = load::settled(proxy).await?.since(begun).on_cpu;
    let mut clients = all(tasks).await?;
    let (peak, health) = watch.stop()?;
    // They are sessions: the first and the last can talk.
    clients.truncate(TALKERS);
    load::echo(clients, 1, 64, Duration::from_millis(50)).await?;
    Ok(Storm { count, back, attempts: attempts.load(Ordering::Relaxed), cpu, before, peak, health })
}

/// Most memory in KiB; how often `/healthz` answered, and the slowest.
type Seen = (u64, Option<(u64, Duration)>);

/// Looks at memory and health beside the load, on a thread of its own.
struct Watch {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Res<Seen>>,
}

impl Watch {
    fn start(proxy: Arc<Proxy>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let thread = std::thread::spawn(move || {
            let (mut peak, mut answers, mut slowest) = (0, 0, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                peak = peak.max(proxy.memory()?);
                if let Some(admin) = proxy.admin {
                    slowest = slowest.max(healthy(admin)?);
                    answers += 1;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok((peak, proxy.admin.map(|_| (answers, slowest))))
        });
        Self { over, thread }
    }

    fn stop(self) -> Res<Seen> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the watch failed")?
    }
}

/// How long `/healthz` takes, its connection included.
fn healthy(admin: SocketAddr) -> Res<Duration> {
    let began = Instant::now();
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") { Ok(began.elapsed()) } else { Err(format!("/healthz: {answer}").into()) }
}
