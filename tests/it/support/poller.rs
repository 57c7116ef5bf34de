//! A polling client, one connection for each request as the Node clients do.

use crate::support::client::{Answer, Ask, Conn, Ws};
use crate::support::gate::Gate;
use serde_json::Value;

pub const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
pub const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

pub struct Poller {
    pub addr: String,
    pub sid: String,
    pub open: Value,
    /// The handshake's answer.
    pub answer: Answer,
    base: &'static str,
}

impl Poller {
    /// A session; `ask` changes the handshake.
    pub async fn open(gate: &Gate, ask: impl FnOnce(Ask) -> Ask) -> Poller {
        Self::begin(gate, POLLING, ask).await
    }

    pub async fn begin(gate: &Gate, base: &'static str, ask: impl FnOnce(Ask) -> Ask) -> Poller {
        let answer = gate.ask(ask(Ask::get(base))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let text = answer.text();
        let open = &text[text.find("0{").unwrap() + 1..];
        let open: Value = serde_json::Deserializer::from_str(open).into_iter().next().unwrap().unwrap();
        let sid = open["sid"].as_str().unwrap().to_owned();
        Poller { addr: gate.addr.clone(), sid, open, answer, base }
    }

    /// With a token in its handshake and the CONNECT answered.
    pub async fn connected(gate: &Gate, token: &str) -> Poller {
        let poller = Self::open(gate, |ask| ask.bearer(token)).await;
        assert_eq!(poller.post("40").await.text(), "ok");
        assert!(poller.get().await.text().starts_with("40{"));
        poller
    }

    pub fn target(&self) -> String {
        format!("{}&sid={}", self.base, self.sid)
    }

    pub fn upgrade_target(&self) -> String {
        self.target().replace("=polling", "=websocket")
    }

    pub async fn ask(&self, ask: Ask) -> Answer {
        Conn::open(&self.addr).await.ask(ask).await
    }

    pub async fn get(&self) -> Answer {
        self.ask(Ask::get(&self.target())).await
    }

    /// A GET that is on its way; its answer is awaited later.
    pub async fn hold(&self) -> Conn {
        let mut conn = Conn::open(&self.addr).await;
        conn.write(Ask::get(&self.target()).bytes()).await;
        conn
    }

    pub async fn post(&self, body: &str) -> Answer {
        self.ask(Ask::post(&self.target(), body)).await
    }

    pub async fn probe(&self) -> Result<Ws, Answer> {
        Ws::open(Conn::open(&self.addr).await, Ask::upgrade(&self.upgrade_target())).await
    }

    /// Goes on by WebSocket, as clients do.
    pub async fn upgrade(&self) -> Ws {
        let mut ws = self.probe().await.unwrap();
        ws.send("2probe").await;
        assert_eq!(ws.text().await, "3probe");
        ws.send("5").await;
        ws
    }
}
