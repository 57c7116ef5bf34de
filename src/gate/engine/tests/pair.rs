//! The machine and a model of a stock client, joined by a network that delivers in any order, with a
//! clock that stands still unless it is moved. Models engine.io-client: one GET and one POST at a time,
//! nothing new while it upgrades, `5` when its last poll and its last POST are answered.

use super::*;
use std::collections::VecDeque;

/// How far the client is with its upgrade.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Polling,
    /// The WebSocket is opened and `2probe` was sent.
    Probing,
    /// `3probe` came: no new requests; `5` when those under way are answered.
    Pausing,
    Websocket,
    /// It was told that the session is over.
    Told,
    /// It vanished, or lost the only transport it had left.
    Gone,
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    ClientSays,
    BackendSays,
    Upgrade,
    /// The client's WebSocket breaks before it has sent `5`.
    LoseWebsocket,
    GetUp,
    GetDown,
    PostUp,
    PostDown,
    WsUp,
    WsDown,
    /// The clock goes on to the machine's next deadline.
    Tick,
}

pub struct Pair {
    pub now: Instant,
    pub engine: Engine,
    version: Version,
    stage: Stage,
    /// What the client has still to send.
    outbox: VecDeque<Packet>,
    polling: bool,
    posting: bool,
    next_id: GetId,
    get_up: Option<GetId>,
    get_down: VecDeque<(GetId, GetAnswer)>,
    post_up: Option<Vec<Packet>>,
    post_down: Option<bool>,
    ws_up: VecDeque<Packet>,
    ws_down: VecDeque<Packet>,
    /// The gate knows of a WebSocket.
    ws_open: bool,
    pub said: (usize, usize),
    /// What arrived at the backend and at the client.
    pub heard: (Vec<String>, Vec<String>),
    pub pongs: usize,
    pub upgrades: usize,
    pub over: Option<Ending>,
}

impl Pair {
    pub fn new(version: Version, max_payload: usize) -> Self {
        let mut pair = Self {
            now: Instant::now(),
            engine: Engine::new(version, true, Start::Polling, max_payload),
            version,
            stage: Stage::Polling,
            outbox: VecDeque::new(),
            polling: false,
            posting: false,
            next_id: 0,
            get_up: None,
            get_down: VecDeque::new(),
            post_up: None,
            post_down: None,
            ws_up: VecDeque::new(),
            ws_down: VecDeque::new(),
            ws_open: false,
            said: (0, 0),
            heard: (Vec::new(), Vec::new()),
            pongs: 0,
            upgrades: 0,
            over: None,
        };
        pair.client_acts();
        pair
    }

    /// What can happen now.
    pub fn actions(&self) -> Vec<Action> {
        let on = |yes: bool, action: Action| yes.then_some(action);
        let lives = !matches!(self.stage, Stage::Gone | Stage::Told) && self.over.is_none();
        [
            on(lives, Action::ClientSays),
            on(lives, Action::BackendSays),
            on(lives && self.stage == Stage::Polling && !self.ws_open, Action::Upgrade),
            on(lives && matches!(self.stage, Stage::Probing | Stage::Pausing), Action::LoseWebsocket),
            on(self.engine.deadline().is_some(), Action::Tick),
        ]
        .into_iter()
        .flatten()
        .chain(self.deliveries())
        .collect()
    }

    fn deliveries(&self) -> impl Iterator<Item = Action> {
        [
            (self.get_up.is_some(), Action::GetUp),
            (!self.get_down.is_empty(), Action::GetDown),
            (self.post_up.is_some(), Action::PostUp),
            (self.post_down.is_some(), Action::PostDown),
            (!self.ws_up.is_empty(), Action::WsUp),
            (!self.ws_down.is_empty(), Action::WsDown),
        ]
        .into_iter()
        .filter_map(|(yes, action)| yes.then_some(action))
    }

    /// Delivers until nothing is under way; the clock goes on where somebody waits for it.
    pub fn drive(&mut self) {
        for _ in 0..10_000 {
            let next = self.deliveries().next();
            let waits = self.polling && matches!(self.stage, Stage::Pausing);
            match next {
                Some(action) => self.step(action),
                None if waits && self.engine.deadline().is_some() => self.step(Action::Tick),
                None => return,
            }
        }
        panic!("does not come to rest");
    }

    pub fn step(&mut self, action: Action) {
        match action {
            Action::ClientSays => {
                self.said.0 += 1;
                self.outbox.push_back(text(&format!("4c{}", self.said.0)));
            }
            Action::BackendSays => {
                self.said.1 += 1;
                self.engine.send(text(&format!("4s{}", self.said.1)));
            }
            Action::Upgrade => {
                assert!(self.engine.upgrade(self.now), "a client on polling may upgrade");
                self.ws_open = true;
                self.stage = Stage::Probing;
                self.ws_up.push_back(text("2probe"));
            }
            Action::LoseWebsocket => {
                self.stage = Stage::Polling;
                self.ws_up.clear();
                self.ws_down.clear();
                self.ws_open = false;
                self.engine.websocket_gone();
            }
            Action::GetUp => {
                let id = self.get_up.take().unwrap();
                self.engine.get(self.now, id);
            }
            Action::PostUp => {
                let packets = self.post_up.take().unwrap();
                let taken = self.engine.post(Some(packets));
                self.post_down = Some(taken);
            }
            Action::WsUp => {
                let packet = self.ws_up.pop_front().unwrap();
                self.engine.websocket(Some(packet));
            }
            Action::GetDown => self.get_down(),
            Action::PostDown => {
                let taken = self.post_down.take().unwrap();
                assert!(taken || self.over.is_some(), "a stock client's POST is never too late");
                self.posting = false;
            }
            Action::WsDown => {
                let packet = self.ws_down.pop_front().unwrap();
                self.client_hears(packet, true);
            }
            Action::Tick => {
                self.now = self.engine.deadline().map_or(self.now, |at| at.max(self.now));
                self.engine.tick(self.now);
            }
        }
        self.apply();
        self.client_acts();
    }

    fn get_down(&mut self) {
        let (id, answer) = self.get_down.pop_front().unwrap();
        assert_eq!(id, self.next_id, "an answer to a poll that was answered before");
        self.polling = false;
        match answer {
            GetAnswer::Packets(packets) => packets.into_iter().for_each(|p| self.client_hears(p, false)),
            GetAnswer::Conflict => {
                assert!(self.over.is_some(), "a stock client is never refused a poll");
                self.stage = Stage::Told;
            }
        }
    }

    fn client_hears(&mut self, packet: Packet, by_websocket: bool) {
        if matches!(self.stage, Stage::Told | Stage::Gone) {
            return;
        }
        let Packet::Text(bytes) = &packet else { panic!("only text was sent") };
        let said = std::str::from_utf8(bytes).unwrap();
        match said {
            "3probe" => {
                assert!(by_websocket && self.stage == Stage::Probing);
                self.stage = Stage::Pausing;
            }
            "6" => {}
            "2" => self.outbox.push_back(text("3")),
            "3" => self.pongs += 1,
            message => {
                assert!(message.starts_with('4'), "{message}");
                assert_eq!(by_websocket, self.stage == Stage::Websocket, "{message} by the wrong transport");
                self.heard.1.push(message[1..].into());
            }
        }
    }

    /// What the machine wants done is done at once; the network takes its time.
    fn apply(&mut self) {
        while let Some(effect) = self.engine.effect() {
            match effect {
                Effect::Get(id, answer) => self.get_down.push_back((id, answer)),
                Effect::Ws(packet) => {
                    assert!(self.ws_open, "there is no WebSocket to write to");
                    self.ws_down.push_back(packet);
                }
                Effect::DropWs => self.websocket_dropped(),
                Effect::Upgraded => self.upgrades += 1,
                Effect::Client(packet) => match packet {
                    Packet::Text(t) if t.as_ref() == b"3" => self.pongs += 1,
                    Packet::Text(t) => self.heard.0.push(String::from_utf8_lossy(&t[1..]).into_owned()),
                    Packet::Binary(_) => panic!("only text was sent"),
                },
                Effect::Over(ending) => {
                    assert!(self.over.is_none(), "two endings");
                    self.over = Some(ending);
                }
            }
        }
    }

    fn websocket_dropped(&mut self) {
        self.ws_open = false;
        self.ws_down.clear();
        let sent_upgrade = self.stage == Stage::Websocket;
        self.ws_up.clear();
        // Having sent `5` it has no other transport left; else it goes on polling.
        self.stage = if sent_upgrade { Stage::Gone } else { Stage::Polling };
    }

    /// The client does what it can by itself.
    fn client_acts(&mut self) {
        if self.stage == Stage::Pausing && !self.polling && !self.posting {
            self.stage = Stage::Websocket;
            self.ws_up.push_back(text("5"));
        }
        match self.stage {
            Stage::Polling | Stage::Probing => {
                if !self.polling {
                    self.next_id += 1;
                    self.get_up = Some(self.next_id);
                    self.polling = true;
                }
                if !self.posting && !self.outbox.is_empty() {
                    self.post_up = Some(self.outbox.drain(..).collect());
                    self.posting = true;
                }
            }
            Stage::Websocket => self.ws_up.extend(self.outbox.drain(..)),
            Stage::Pausing | Stage::Told | Stage::Gone => {}
        }
    }

    /// All that was said has arrived, once and in order.
    pub fn assert_all_heard(&self) {
        let numbers = |who: char, n: usize| (1..=n).map(|i| format!("{who}{i}")).collect::<Vec<_>>();
        assert_eq!(self.heard.0, numbers('c', self.said.0), "at the backend");
        assert_eq!(self.heard.1, numbers('s', self.said.1), "at the client");
        assert_eq!(self.engine.queued(), 0);
    }

    /// Nothing arrived twice, nothing overtook anything.
    pub fn assert_in_order(&self) {
        for (who, heard) in [('c', &self.heard.0), ('s', &self.heard.1)] {
            let want: Vec<_> = (1..=heard.len()).map(|i| format!("{who}{i}")).collect();
            assert_eq!(*heard, want);
        }
    }

    pub fn is_gone(&self) -> bool {
        self.stage == Stage::Gone
    }

    pub fn upgraded(&self) -> bool {
        self.stage == Stage::Websocket
    }

    pub fn lives(&self) -> bool {
        self.over.is_none()
    }

    /// The client vanishes without a word.
    pub fn vanish(&mut self) {
        self.stage = Stage::Gone;
        self.ws_up.clear();
        self.outbox.clear();
        self.get_up = None;
        self.post_up = None;
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn drain_effects(&mut self) {
        self.apply();
        self.client_acts();
    }
}
