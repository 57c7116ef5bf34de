//! The server half of Engine.IO for one client, sans-IO: polling, WebSocket, and the upgrade.
//!
//! Feed it what happens, with the time; take [`Effect`]s out until there are none. It holds packets
//! for a poller, never bytes of a socket. Once a session is authenticated and on a WebSocket it has
//! no use for this machine any more: the relay passes its frames on.
//!
//! Heartbeats: before there is a backend the machine pings (protocol 3: answers) by itself; afterwards
//! they run from end to end, so that a dead peer is noticed by the other one.

use crate::gate::ending::Ending;
use crate::protocol::engineio::{Kind, Packet, Version};
use crate::protocol::payload;
use crate::reason::Reason;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// An upgrade that is begun must be finished within this time (Engine.IO's `upgradeTimeout`).
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// A poll during the upgrade is answered with a noop this late (engine.io checks as often).
const NOOP_DELAY: Duration = Duration::from_millis(100);

/// What a queued packet costs beyond its bytes: a backend may send any number of empty ones.
const PACKET_COST: usize = 64;

/// A held GET is named by a number of the caller's.
pub type GetId = u64;

/// What a GET is answered with.
#[derive(Clone, Debug, PartialEq)]
pub enum GetAnswer {
    /// 200 with these packets.
    Packets(Vec<Packet>),
    /// 400 `{"code":3,...}`: another poll of the session is under way, or it is on a WebSocket.
    Conflict,
}

/// What the machine wants done.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Answer this GET.
    Get(GetId, GetAnswer),
    /// Write this packet to the client's WebSocket.
    Ws(Packet),
    /// Close the WebSocket that tried to upgrade; the session goes on.
    DropWs,
    /// The client is on its WebSocket from now on.
    Upgraded,
    /// The client said this to the backend.
    Client(Packet),
    /// The session is over.
    Over(Ending),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leg {
    Polling,
    /// A WebSocket was opened for the session.
    Opened(Instant),
    /// It said `2probe`.
    Probed(Instant),
    Websocket,
}

/// What a client that polls cannot do without if it is to be told anything more.
#[derive(Debug, PartialEq)]
pub struct Rest {
    /// Attachments of a packet that it has fetched already.
    pub attachments: Vec<Packet>,
    /// No other packet was queued behind them: what the backend still owes belongs to that one.
    pub last: bool,
}

/// Timings that were announced in OPEN.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// `pingInterval`
    pub interval: Duration,
    /// `pingTimeout`
    pub timeout: Duration,
}

/// One client's Engine.IO session.
pub struct Engine {
    version: Version,
    b64: bool,
    max_payload: usize,
    leg: Leg,
    get: Option<(GetId, Option<Instant>)>,
    out: VecDeque<Packet>,
    out_bytes: usize,
    beat: Option<Beat>,
    /// Protocol 3: nobody but the machine answers the client's pings.
    answers_pings: bool,
    draining: bool,
    over: bool,
    effects: VecDeque<Effect>,
}

struct Beat {
    every: Heartbeat,
    ping_at: Instant,
    pong_by: Option<Instant>,
}

/// How the client came.
pub enum Start {
    /// By polling.
    Polling,
    /// With a WebSocket at once.
    Websocket,
}

impl Engine {
    /// A session whose OPEN has been sent. `max_payload` bounds one polling answer in bytes.
    pub fn new(version: Version, b64: bool, start: Start, max_payload: usize) -> Self {
        let leg = match start {
            Start::Polling => Leg::Polling,
            Start::Websocket => Leg::Websocket,
        };
        Self {
            version,
            b64,
            max_payload,
            leg,
            get: None,
            out: VecDeque::new(),
            out_bytes: 0,
            beat: None,
            answers_pings: false,
            draining: false,
            over: false,
            effects: VecDeque::new(),
        }
    }

    /// Ping the client from here on, until [`Engine::end_to_end`]. Protocol 3 clients ping by themselves
    /// and are answered.
    pub fn beat(&mut self, now: Instant, every: Heartbeat) {
        match self.version {
            Version::V3 => self.answers_pings = true,
            Version::V4 => self.beat = Some(Beat { every, ping_at: now + every.interval, pong_by: None }),
        }
    }

    /// The backend is there: heartbeats pass through from now on.
    pub fn end_to_end(&mut self) {
        self.beat = None;
        self.answers_pings = false;
    }

    /// The next thing to do.
    pub fn effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What waits for the client, in bytes of memory.
    pub fn queued(&self) -> usize {
        self.out_bytes
    }

    /// True once all traffic is on the WebSocket.
    pub fn on_websocket(&self) -> bool {
        self.leg == Leg::Websocket
    }

    /// True while a GET is held.
    pub fn holds_get(&self) -> bool {
        self.get.is_some()
    }

    /// When to call [`Engine::tick`] next.
    pub fn deadline(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let upgrade = match self.leg {
            Leg::Opened(by) | Leg::Probed(by) => Some(by),
            _ => None,
        };
        let noop = self.get.and_then(|(_, at)| at);
        let beat = self.beat.as_ref().map(|b| b.pong_by.unwrap_or(b.ping_at));
        [upgrade, noop, beat].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        if self.over {
            return;
        }
        if let Leg::Opened(by) | Leg::Probed(by) = self.leg
            && now >= by
        {
            self.drop_websocket();
        }
        if let Some((id, Some(at))) = self.get
            && now >= at
        {
            self.get = None;
            self.effects.push_back(Effect::Get(id, noop()));
        }
        let Some(beat) = &mut self.beat else { return };
        match beat.pong_by {
            Some(by) if now >= by => self.end(Ending::Client),
            None if now >= beat.ping_at => {
                beat.pong_by = Some(now + beat.every.timeout);
                self.send(Packet::Text(Bytes::from_static(b"2")));
            }
            _ => {}
        }
    }

    /// A GET of this session arrived.
    pub fn get(&mut self, now: Instant, id: GetId) {
        if self.over || self.leg == Leg::Websocket {
            return self.effects.push_back(Effect::Get(id, GetAnswer::Conflict));
        }
        if let Some((held, _)) = self.get.take() {
            // engine.io: the first poll is told to close, the second is refused, the session ends.
            let close = Packet::Text(Bytes::from_static(b"1"));
            self.effects.push_back(Effect::Get(held, GetAnswer::Packets(vec![close])));
            self.effects.push_back(Effect::Get(id, GetAnswer::Conflict));
            return self.end(Ending::Gate(Reason::ProtocolError));
        }
        let noop_at = matches!(self.leg, Leg::Probed(_)).then(|| now + NOOP_DELAY);
        self.get = Some((id, noop_at));
        self.flush();
    }

    /// The client gave up a GET that is held: it has gone away.
    pub fn get_gone(&mut self, id: GetId) {
        if self.get.is_some_and(|(held, _)| held == id) {
            self.get = None;
            self.end(Ending::Client);
        }
    }

    /// A POST arrived; `None` where its body was no payload. `false`: it came too late and was not
    /// looked at, for the session is over or on a WebSocket.
    pub fn post(&mut self, packets: Option<Vec<Packet>>) -> bool {
        if self.over || self.leg == Leg::Websocket {
            return false;
        }
        match packets {
            None => self.end(Ending::Gate(Reason::ProtocolError)),
            Some(packets) => {
                for packet in packets {
                    // What stands behind a close packet is not for anybody.
                    if !self.over {
                        self.client(packet);
                    }
                }
            }
        }
        true
    }

    /// The client wants to go on by WebSocket; `false`: it may not, close that socket.
    pub fn upgrade(&mut self, now: Instant) -> bool {
        let may = !self.over && self.leg == Leg::Polling;
        if may {
            self.leg = Leg::Opened(now + UPGRADE_TIMEOUT);
        }
        may
    }

    /// A packet came by WebSocket; `None` where the frame held none.
    pub fn websocket(&mut self, packet: Option<Packet>) {
        if self.over {
            return;
        }
        match (self.leg, packet) {
            (Leg::Polling, _) => {}
            (Leg::Websocket, Some(packet)) => self.client(packet),
            (Leg::Websocket, None) => self.end(Ending::Gate(Reason::ProtocolError)),
            (Leg::Opened(by) | Leg::Probed(by), Some(Packet::Text(text))) if text.as_ref() == b"2probe" => {
                self.leg = Leg::Probed(by);
                self.effects.push_back(Effect::Ws(Packet::Text(Bytes::from_static(b"3probe"))));
                // Release the poll, so that the client can stop polling.
                if let Some((id, _)) = self.get.take() {
                    self.effects.push_back(Effect::Get(id, noop()));
                }
            }
            (_, Some(packet)) if packet.kind() == Kind::Upgrade => {
                self.leg = Leg::Websocket;
                if let Some((id, _)) = self.get.take() {
                    self.effects.push_back(Effect::Get(id, noop()));
                }
                self.effects.push_back(Effect::Upgraded);
                self.flush();
            }
            _ => self.drop_websocket(),
        }
    }

    /// The WebSocket is gone.
    pub fn websocket_gone(&mut self) {
        match self.leg {
            Leg::Websocket => self.end(Ending::Client),
            Leg::Opened(_) | Leg::Probed(_) => self.leg = Leg::Polling,
            Leg::Polling => {}
        }
    }

    fn drop_websocket(&mut self) {
        self.leg = Leg::Polling;
        self.effects.push_back(Effect::DropWs);
    }

    /// Something for the client.
    pub fn send(&mut self, packet: Packet) {
        if self.over {
            return;
        }
        self.out_bytes += packet.len() + PACKET_COST;
        self.out.push_back(packet);
        self.flush();
    }

    /// No more will come for the client: end when it has fetched what is queued.
    pub fn drain(&mut self) {
        self.draining = true;
        self.flush();
    }

    /// Sends nothing more and forgets what is queued, but for what is given back.
    pub fn stop(&mut self) -> Rest {
        self.over = true;
        self.out_bytes = 0;
        let count = self.out.iter().take_while(|packet| matches!(packet, Packet::Binary(_))).count();
        let last = count == self.out.len();
        let attachments = self.out.drain(..count).collect();
        self.out.clear();
        Rest { attachments, last }
    }

    fn flush(&mut self) {
        if self.leg == Leg::Websocket {
            while let Some(packet) = self.out.pop_front() {
                self.effects.push_back(Effect::Ws(packet));
            }
            self.out_bytes = 0;
        } else if let Some((id, _)) = self.get {
            let packets = self.batch();
            if !packets.is_empty() {
                self.get = None;
                self.effects.push_back(Effect::Get(id, GetAnswer::Packets(packets)));
            }
        }
        if self.draining && self.out.is_empty() {
            self.end(Ending::Upstream);
        }
    }

    /// As many packets as fit one answer, at least one.
    fn batch(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        let mut size = 0;
        while let Some(packet) = self.out.front() {
            size += payload::encoded_len(self.version, self.b64, packet);
            if !packets.is_empty() && size > self.max_payload {
                break;
            }
            self.out_bytes -= packet.len() + PACKET_COST;
            packets.extend(self.out.pop_front());
        }
        packets
    }

    /// One packet of the client, on whichever transport.
    fn client(&mut self, packet: Packet) {
        match packet.kind() {
            Kind::Message => self.effects.push_back(Effect::Client(packet)),
            Kind::Ping if self.version == Version::V3 && self.answers_pings => {
                self.send(Packet::Text(Bytes::from_static(b"3")));
            }
            Kind::Ping if self.version == Version::V3 => self.effects.push_back(Effect::Client(packet)),
            // Protocol 4: "invalid heartbeat direction".
            Kind::Ping => self.end(Ending::Gate(Reason::ProtocolError)),
            Kind::Pong => match &mut self.beat {
                Some(beat) => {
                    if let Some(by) = beat.pong_by.take() {
                        beat.ping_at = by - beat.every.timeout + beat.every.interval;
                    }
                }
                None => self.effects.push_back(Effect::Client(packet)),
            },
            Kind::Close if self.leg != Leg::Websocket => {
                if let Some((id, _)) = self.get.take() {
                    self.effects.push_back(Effect::Get(id, noop()));
                }
                self.end(Ending::Client);
            }
            // Engine.IO servers ignore these outside of an upgrade.
            Kind::Open | Kind::Close | Kind::Upgrade | Kind::Noop => {}
        }
    }

    fn end(&mut self, ending: Ending) {
        if !self.over {
            self.over = true;
            self.effects.push_back(Effect::Over(ending));
        }
    }
}

fn noop() -> GetAnswer {
    GetAnswer::Packets(vec![Packet::Text(Bytes::from_static(b"6"))])
}

#[cfg(test)]
mod tests;
