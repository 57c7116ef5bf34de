//! What is done to a proxy, and what it cost: the load, bracketed by two looks at the proxy's CPU time.

use crate::Res;
use crate::client::{self, Client, Login, Place};
use crate::proxy::{Proxy, Time};
use crate::tokens::Tokens;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Nothing here takes longer unless a proxy hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a proxy still does when the last client has its answer.
const SETTLE: Duration = Duration::from_millis(20);

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Messages there and back.
    Echo { connections: usize, in_flight: usize, size: usize },
    /// TCP connection, upgrade, OPEN, CONNECT and its answer, close; each with a token that is new to the proxy.
    Handshake(Place),
    /// The same with one user's token.
    Again,
    /// A session by polling; each with a token that is new to the proxy.
    Polling,
    /// Requests to the application on open connections, by users who come back.
    Http,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long messages are exchanged.
    pub window: Duration,
    pub handshakes: usize,
    pub polls: usize,
    pub requests: usize,
}

impl Plan {
    fn count(&self, work: Work) -> usize {
        match work {
            Work::Echo { .. } => 0,
            Work::Handshake(_) | Work::Again => self.handshakes,
            Work::Polling => self.polls,
            Work::Http => self.requests,
        }
    }

    /// New tokens that a proxy is shown in one round.
    pub fn tokens(&self) -> usize {
        [self.handshakes, self.handshakes, self.polls].into_iter().map(|n| n + warm_up(n)).sum()
    }
}

fn warm_up(count: usize) -> usize {
    count / 10 + 10
}

/// What a proxy was measured at.
pub struct Cost {
    pub units: u64,
    pub time: Time,
}

/// Measures one kind of load once.
pub async fn measure(proxy: &Arc<Proxy>, work: Work, plan: Plan, tokens: &Arc<Tokens>) -> Res<Cost> {
    let run = async {
        match work {
            Work::Echo { connections, in_flight, size } => {
                let clients = open(proxy, connections, tokens).await?;
                let (clients, _) = echo(clients, in_flight, size, plan.window / 8).await?;
                let before = settled(proxy).await?;
                let (clients, units) = echo(clients, in_flight, size, plan.window).await?;
                let time = settled(proxy).await?.since(before);
                close(clients).await?;
                Ok(Cost { units, time })
            }
            work => {
                let count = plan.count(work);
                repeat(proxy, work, warm_up(count), tokens).await?;
                let before = settled(proxy).await?;
                repeat(proxy, work, count, tokens).await?;
                let time = settled(proxy).await?.since(before);
                Ok(Cost { units: count as u64, time })
            }
        }
    };
    timeout(PATIENCE, run).await.map_err(|_| "the proxy hangs")?
}

pub async fn settled(proxy: &Proxy) -> Res<Time> {
    sleep(SETTLE).await;
    proxy.time()
}

/// Opens sessions, a few at a time.
pub async fn open(proxy: &Arc<Proxy>, count: usize, tokens: &Arc<Tokens>) -> Res<Vec<Client>> {
    let left = Arc::new(AtomicUsize::new(count));
    let mut tasks = JoinSet::new();
    for _ in 0..32.min(count) {
        let (proxy, tokens, left) = (proxy.clone(), tokens.clone(), left.clone());
        tasks.spawn(async move {
            let mut clients = Vec::new();
            while let Some(n) = ticket(&left) {
                let login = Login::new(Place::Header, tokens.again(n), proxy.kind.verifies());
                clients.push(Client::open(proxy.address, &login).await?);
            }
            Ok(clients)
        });
    }
    Ok(all(tasks).await?.into_iter().flatten().collect())
}

fn ticket(left: &AtomicUsize) -> Option<usize> {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).ok()
}

pub async fn all<T: 'static>(mut tasks: JoinSet<Res<T>>) -> Res<Vec<T>> {
    let mut results = Vec::new();
    while let Some(result) = tasks.join_next().await {
        results.push(result??);
    }
    Ok(results)
}

pub async fn echo(clients: Vec<Client>, in_flight: usize, size: usize, time: Duration) -> Res<(Vec<Client>, u64)> {
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            let count = client.echo(size, in_flight, until).await?;
            Ok((client, count))
        });
    }
    let (clients, counts): (Vec<_>, Vec<u64>) = all(tasks).await?.into_iter().unzip();
    Ok((clients, counts.into_iter().sum()))
}

pub async fn close(clients: Vec<Client>) -> Res<()> {
    let mut tasks = JoinSet::new();
    for client in clients {
        tasks.spawn(client.close());
    }
    all(tasks).await.map(|_| ())
}

/// So many units by 16 clients (32 for plain requests) at a time.
async fn repeat(proxy: &Arc<Proxy>, work: Work, count: usize, tokens: &Arc<Tokens>) -> Res<()> {
    let left = Arc::new(AtomicUsize::new(count));
    let mut tasks = JoinSet::new();
    for _ in 0..if work == Work::Http { 32 } else { 16 } {
        let (proxy, tokens, left) = (proxy.clone(), tokens.clone(), left.clone());
        tasks.spawn(async move {
            let mut connection = None;
            while let Some(n) = ticket(&left) {
                once(&proxy, work, n, &tokens, &mut connection).await?;
            }
            Ok(())
        });
    }
    all(tasks).await.map(|_| ())
}

async fn once(proxy: &Proxy, work: Work, n: usize, tokens: &Tokens, connection: &mut Option<Client>) -> Res<()> {
    let verified = proxy.kind.verifies();
    match work {
        Work::Handshake(place) => {
            let login = Login::new(place, tokens.fresh(proxy.next())?, verified);
            Client::open(proxy.address, &login).await?.close().await
        }
        Work::Again => {
            let login = Login::new(Place::Header, &tokens.one, verified);
            Client::open(proxy.address, &login).await?.close().await
        }
        Work::Polling => {
            let login = Login::new(Place::Header, tokens.fresh(proxy.next())?, verified);
            client::poll(proxy.address, &login).await
        }
        Work::Http => {
            let login = Login::new(Place::Header, tokens.again(n), verified);
            let client = match connection {
                Some(client) => client,
                None => connection.insert(Client::dial(proxy.address).await?),
            };
            client.call(&login).await
        }
        Work::Echo { .. } => Ok(()),
    }
}

/// A proxy's memory in KiB.
pub struct Idle {
    pub sessions: usize,
    /// Before the first session but one.
    pub before: u64,
    /// With the first fifth of the sessions.
    fifth: u64,
    pub open: u64,
    /// Two seconds after all of them are gone.
    pub after: u64,
}

impl Idle {
    /// What one more session takes. From the first fifth to the last: what is there once for all of them, or was used
    /// while they came in, is not theirs.
    pub fn each(&self) -> f64 {
        (self.open as f64 - self.fifth as f64) / (self.sessions - self.sessions / 5).max(1) as f64
    }
}

/// Opens sessions that then say nothing, looks at the proxy's memory, and lets them all go at once.
pub async fn idle(proxy: &Arc<Proxy>, sessions: usize, tokens: &Arc<Tokens>) -> Res<Idle> {
    let run = async {
        let memory = async |wait: u64| {
            sleep(Duration::from_millis(wait)).await;
            proxy.memory()
        };
        close(open(proxy, 1, tokens).await?).await?;
        let before = memory(300).await?;
        let mut clients = open(proxy, sessions / 5, tokens).await?;
        let fifth = memory(1000).await?;
        clients.extend(open(proxy, sessions - sessions / 5, tokens).await?);
        let open = memory(1000).await?;
        drop(clients);
        Ok(Idle { sessions, before, fifth, open, after: memory(2000).await? })
    };
    timeout(PATIENCE + Duration::from_millis(sessions as u64), run).await.map_err(|_| "the proxy hangs")?
}
