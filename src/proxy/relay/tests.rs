//! A relay between a client and a backend of which every byte is known, in virtual time.

mod answers;
mod broken;
mod connecting;
mod cut;
mod leaving;
mod passing;
mod pressure;
mod silence;

use super::*;
use crate::config::model::Config;
use crate::protocol::engineio::Version;
use crate::proxy::support::{Gate, Wire, user};
use crate::session::registry::Entry;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const MEGABYTE: usize = 1 << 20;

/// How a relay begins.
struct Setup {
    config: fn(&mut Config),
    watch: Watch,
    beats: bool,
    client: Vec<u8>,
    upstream: Vec<u8>,
    greeting: Vec<u8>,
    attachments: (u32, u32),
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            config: |_| {},
            watch: Watch::SocketIo,
            beats: true,
            client: Vec::new(),
            upstream: Vec::new(),
            greeting: Vec::new(),
            attachments: (0, 0),
        }
    }
}

/// A relay between a client and a backend.
struct Rig {
    gate: Gate,
    client: Wire,
    backend: Wire,
    entry: Arc<Entry>,
    relay: JoinHandle<()>,
}

impl Rig {
    /// Of a session that is alice's.
    fn new(setup: Setup) -> Self {
        let gate = Gate::new(setup.config);
        let mut stay = gate.stay();
        gate.admit(&mut stay, "alice");
        let entry = stay.entry().clone();
        let (client, near) = Wire::new(Writer::Client);
        let (backend, far) = Wire::new(Writer::Server);
        let relay = tokio::spawn(run(Parts {
            context: gate.context.clone(),
            stay,
            record: gate.record(),
            admission: Admission::with_user(Version::V4, user("alice")),
            watch: setup.watch,
            client: (near, setup.client),
            upstream: (far, setup.upstream),
            greeting: setup.greeting,
            attachments: setup.attachments,
            beats: setup.beats,
        }));
        Self { gate, client, backend, entry, relay }
    }

    fn plain() -> Self {
        Self::new(Setup::default())
    }

    /// The client joins a namespace and the backend agrees.
    async fn join(&mut self, namespace: &str) {
        let comma = if namespace.is_empty() { "" } else { "," };
        self.client.say(&format!("40{namespace}{comma}")).await;
        assert_eq!(self.backend.hears().await, format!("40{namespace}{comma}"));
        let answer = format!("40{namespace}{comma}{{\"sid\":\"x\"}}");
        self.backend.say(&answer).await;
        assert_eq!(self.client.hears().await, answer);
    }

    /// The relay has ended in this way, or ends so when `by` leaves, and left nothing.
    async fn ended(mut self, by: &'static str, reason: &'static str) -> Gate {
        match by {
            "client" => {
                drop(self.client);
                self.backend.rest().await;
            }
            "upstream" => {
                drop(self.backend);
                self.client.rest().await;
            }
            _ => drop((self.client, self.backend)),
        }
        self.relay.await.unwrap();
        drop(self.entry);
        assert_eq!(self.gate.ended(by, reason), 1, "not ended by {by} with {reason:?}");
        self.gate.assert_empty();
        self.gate
    }
}
