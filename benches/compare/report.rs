//! The figures as a Markdown table and as JSON.

use crate::Res;
use crate::client::Place;
use crate::load::{Cost, Idle, Work};
use crate::proxy::{Kind, Time};
use serde_json::{Value, json};
use std::fmt::Write;
use std::fs;

/// A row of the table.
pub struct Scenario {
    pub name: &'static str,
    pub title: &'static str,
    pub work: Work,
    pub kinds: &'static [Kind],
    /// What the relay's part is measured in where it has none in this row.
    relay: &'static str,
    /// At most so much of what this one costs in that row.
    goal: (f64, Kind, &'static str),
}

const VERIFYING: &[Kind] = &[Kind::Siogate, Kind::Haproxy];

/// Everything that is measured in rounds.
#[rustfmt::skip]
pub const SCENARIOS: [Scenario; 8] = [
    Scenario {
        name: "echo-64B-k1", title: "message of 64 B there and back, 1 in flight", relay: "echo-64B-k1",
        work: Work::Echo { connections: 64, in_flight: 1, size: 64 }, kinds: &Kind::ALL,
        goal: (1.05, Kind::Relay, "echo-64B-k1"),
    },
    Scenario {
        name: "echo-64B-k16", title: "message of 64 B, 16 in flight", relay: "echo-64B-k16",
        work: Work::Echo { connections: 64, in_flight: 16, size: 64 }, kinds: &Kind::ALL,
        goal: (1.05, Kind::Relay, "echo-64B-k16"),
    },
    Scenario {
        name: "echo-64KiB-k2", title: "message of 64 KiB, 2 in flight", relay: "echo-64KiB-k2",
        work: Work::Echo { connections: 16, in_flight: 2, size: 65_536 }, kinds: &Kind::ALL,
        goal: (0.60, Kind::Relay, "echo-64KiB-k2"),
    },
    Scenario {
        name: "handshake", title: "handshake, RS256 token in a header", relay: "handshake",
        work: Work::Handshake(Place::Header), kinds: &Kind::ALL, goal: (0.75, Kind::Haproxy, "handshake"),
    },
    Scenario {
        name: "handshake-again", title: "handshake, the same token again", relay: "handshake",
        work: Work::Again, kinds: VERIFYING, goal: (0.62, Kind::Haproxy, "handshake-again"),
    },
    Scenario {
        name: "handshake-connect", title: "handshake, token in CONNECT", relay: "handshake",
        work: Work::Handshake(Place::Connect), kinds: &[Kind::Siogate], goal: (1.05, Kind::Siogate, "handshake"),
    },
    Scenario {
        name: "polling", title: "polling session, 4 requests", relay: "polling",
        work: Work::Polling, kinds: &Kind::ALL, goal: (0.45, Kind::Haproxy, "polling"),
    },
    Scenario {
        name: "http", title: "HTTP request with a token", relay: "http",
        work: Work::Http, kinds: &Kind::ALL, goal: (0.40, Kind::Haproxy, "http"),
    },
];

/// KiB of its own memory that an idle session may take.
const IDLE_GOAL: f64 = 2.5;
/// KiB that may be left when all sessions are gone.
const AFTER_GOAL: i64 = 5 * 1024;

/// All figures of a run.
pub struct Figures {
    pub kinds: Vec<Kind>,
    /// What was done, on what, in how many rounds.
    pub conditions: Vec<String>,
    /// `(scenario, kind, microseconds of every round)`
    cpu: Vec<(&'static str, Kind, Vec<f64>)>,
    pub idle: Vec<(Kind, Idle)>,
    total: Time,
}

impl Figures {
    pub fn new(kinds: Vec<Kind>) -> Self {
        Self { kinds, conditions: Vec::new(), cpu: Vec::new(), idle: Vec::new(), total: Time::default() }
    }

    pub fn add(&mut self, scenario: &'static str, kind: Kind, cost: &Cost) {
        let micros = cost.time.on_cpu as f64 / 1000.0 / cost.units.max(1) as f64;
        self.total.on_cpu += cost.time.on_cpu;
        self.total.queued += cost.time.queued;
        match self.cpu.iter_mut().find(|(s, k, _)| *s == scenario && *k == kind) {
            Some((_, _, list)) => list.push(micros),
            None => self.cpu.push((scenario, kind, vec![micros])),
        }
    }

    /// How much of their time the proxies stood in the queue for their CPU: the noise of the machine.
    pub fn queued(&self) -> f64 {
        100.0 * self.total.queued as f64 / (self.total.on_cpu + self.total.queued).max(1) as f64
    }

    fn rounds(&self, scenario: &str, kind: Kind) -> &[f64] {
        self.cpu.iter().find(|(s, k, _)| *s == scenario && *k == kind).map_or(&[], |(_, _, list)| list)
    }

    /// Median of the ratios of each round: both were measured within seconds of each other.
    fn ratio(&self, one: (&str, Kind), other: (&str, Kind)) -> Option<f64> {
        let pairs = self.rounds(one.0, one.1).iter().zip(self.rounds(other.0, other.1));
        median(&pairs.map(|(one, other)| one / other).collect::<Vec<_>>())
    }

    /// The table, and under which conditions it came about.
    pub fn markdown(&self) -> Res<String> {
        let mut out = String::new();
        for line in &self.conditions {
            writeln!(out, "- {line}")?;
        }
        write!(out, "\n| CPU time per unit, µs |")?;
        for kind in &self.kinds {
            write!(out, " {} |{}", kind.name(), if *kind == Kind::Relay { "" } else { " × relay |" })?;
        }
        writeln!(out, " siogate shall be | and is |")?;
        writeln!(out, "|---{}|---|---|", "|---".repeat(self.kinds.len() * 2 - 1))?;
        for row in &SCENARIOS {
            write!(out, "| {} |", row.title)?;
            for kind in &self.kinds {
                let rounds = self.rounds(row.name, *kind);
                match median(rounds) {
                    Some(median) => write!(out, " {} |", spread(median, rounds))?,
                    None => write!(out, " - |")?,
                }
                if *kind != Kind::Relay {
                    write!(out, " {} |", two(self.ratio((row.name, *kind), (row.relay, Kind::Relay))))?;
                }
            }
            let (most, kind, name) = row.goal;
            let of = if kind == Kind::Siogate { "in a header" } else { kind.name() };
            let reached = self.ratio((row.name, Kind::Siogate), (name, kind));
            writeln!(out, " ≤ {most:.2} × {of} | {} |", verdict(reached, most))?;
        }
        self.memory(&mut out)?;
        Ok(out)
    }

    fn memory(&self, out: &mut String) -> Res<()> {
        let Some((_, first)) = self.idle.first() else { return Ok(()) };
        writeln!(
            out,
            "\n| memory (PSS), {} idle sessions | KiB each | start, MiB | open, MiB | 2 s after a mass close, MiB |",
            first.sessions
        )?;
        writeln!(out, "|---|---|---|---|---|")?;
        for (kind, idle) in &self.idle {
            let mib = |kib: u64| kib as f64 / 1024.0;
            let (start, open, after) = (mib(idle.before), mib(idle.open), mib(idle.after));
            writeln!(out, "| {} | {:.2} | {start:.1} | {open:.1} | {after:.1} |", kind.name(), idle.each())?;
        }
        if let Some((_, idle)) = self.idle.iter().find(|(kind, _)| *kind == Kind::Siogate) {
            let left = idle.after.cast_signed() - idle.before.cast_signed();
            writeln!(
                out,
                "\nsiogate: an idle session shall be ≤ {IDLE_GOAL} KiB and is {}; after a mass close it shall be back to \
                 the start + 5 MB, {}.",
                verdict(Some(idle.each()), IDLE_GOAL),
                if left <= AFTER_GOAL { "and is" } else { "**and is not**" }
            )?;
        }
        Ok(())
    }

    /// The same for machines.
    pub fn json(&self) -> Value {
        let cpu = self.cpu.iter().map(|(scenario, kind, rounds)| {
            let relay = SCENARIOS.iter().find(|row| row.name == *scenario).map_or("", |row| row.relay);
            json!({
                "scenario": scenario, "peer": kind.name(), "us": rounds, "median_us": median(rounds),
                "x_relay": self.ratio((scenario, *kind), (relay, Kind::Relay)),
            })
        });
        let idle = self.idle.iter().map(|(kind, idle)| {
            json!({
                "peer": kind.name(), "sessions": idle.sessions, "kib_each": idle.each(), "before_kib": idle.before,
                "open_kib": idle.open, "after_kib": idle.after,
            })
        });
        json!({"conditions": self.conditions, "queued_percent": self.queued(), "cpu": cpu.collect::<Vec<_>>(), "idle": idle.collect::<Vec<_>>()})
    }
}

pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some((low + high) / 2.0)
}

fn spread(median: f64, rounds: &[f64]) -> String {
    let digits = if median < 10.0 { 2 } else { 1 };
    let (low, high) = (rounds.iter().copied().fold(f64::MAX, f64::min), rounds.iter().copied().fold(0.0, f64::max));
    format!("{median:.digits$} ({low:.digits$}..{high:.digits$})")
}

pub fn two(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{value:.2}"))
}

pub fn verdict(value: Option<f64>, most: f64) -> String {
    match value {
        Some(value) if value <= most => format!("{value:.2}"),
        Some(value) => format!("**{value:.2}**"),
        None => "-".into(),
    }
}

/// The machine in one line.
pub fn machine() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |m| m.1);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cpus} × {model}, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}

/// The load average of the last minute.
pub fn load_average() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or("?").to_owned()
}
