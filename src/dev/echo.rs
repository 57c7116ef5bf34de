//! The application behind the playground: one Socket.IO connection's packets in, packets out. No IO, no clock.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Attachments of one packet, as many as the Node server allows by default.
const ATTACHMENTS: usize = 10;

/// The namespaces that exist.
const NAMESPACES: [&str; 2] = ["/", "/admin"];

/// One Engine.IO packet to send.
#[derive(Clone, Debug, PartialEq)]
pub enum Out {
    /// The whole text of a packet, type digit included.
    Text(String),
    /// An attachment.
    Binary(Bytes),
}

/// The client broke the protocol, or left: nothing more will be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over;

/// What the application knows about the request that opened the connection.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Identity and forwarding headers.
    pub headers: Map<String, Value>,
    /// The request target.
    pub target: String,
}

/// An event that waits for its attachments.
struct Pending {
    event: Event,
    missing: usize,
    attachments: Vec<Bytes>,
}

/// A parsed EVENT or BINARY_EVENT.
struct Event {
    namespace: String,
    ack: Option<u64>,
    args: Vec<Value>,
}

/// One connection.
pub struct Echo {
    seen: Seen,
    new_id: fn() -> String,
    joined: BTreeMap<String, String>,
    pending: Option<Pending>,
}

impl Echo {
    /// `new_id` makes socket ids.
    pub fn new(seen: Seen, new_id: fn() -> String) -> Self {
        Self { seen, new_id, joined: BTreeMap::new(), pending: None }
    }

    /// True once any namespace was joined.
    pub fn joined(&self) -> bool {
        !self.joined.is_empty()
    }

    /// A Socket.IO packet: the text behind the message digit `4`.
    ///
    /// # Errors
    /// [`Over`].
    pub fn text(&mut self, packet: &str) -> Result<Vec<Out>, Over> {
        if self.pending.is_some() {
            return Err(Over); // text between a header and its attachments
        }
        let kind = packet.get(..1).ok_or(Over)?;
        let rest = packet.get(1..).ok_or(Over)?;
        match kind {
            "0" => self.connect(rest),
            "1" => {
                let (namespace, _) = split_namespace(rest);
                self.joined.remove(namespace);
                Ok(Vec::new())
            }
            "2" => self.event(rest, 0),
            "3" | "6" => Ok(Vec::new()), // nothing sent from here asks for an answer
            "5" => {
                let (count, rest) = rest.split_once('-').ok_or(Over)?;
                let count = count.parse::<usize>().map_err(|_| Over)?;
                if count > ATTACHMENTS { Err(Over) } else { self.event(rest, count) }
            }
            _ => Err(Over),
        }
    }

    /// An attachment.
    ///
    /// # Errors
    /// [`Over`] where none was announced.
    pub fn binary(&mut self, data: Bytes) -> Result<Vec<Out>, Over> {
        let mut pending = self.pending.take().ok_or(Over)?;
        pending.attachments.push(data);
        pending.missing = pending.missing.saturating_sub(1);
        if pending.missing == 0 {
            return Ok(self.handle(pending.event, pending.attachments));
        }
        self.pending = Some(pending);
        Ok(Vec::new())
    }

    fn connect(&mut self, rest: &str) -> Result<Vec<Out>, Over> {
        let (namespace, payload) = split_namespace(rest);
        let auth = match payload {
            "" => Value::Null,
            text => serde_json::from_str(text).ok().filter(Value::is_object).ok_or(Over)?,
        };
        if !NAMESPACES.contains(&namespace) {
            return Ok(vec![packet('4', namespace, None, &json!({ "message": "Invalid namespace" }))]);
        }
        if self.joined.contains_key(namespace) {
            return Err(Over);
        }
        let id = (self.new_id)();
        let identity = json!(["identity", {
            "headers": self.seen.headers,
            "target": self.seen.target,
            "auth": auth,
            "namespace": namespace,
            "socket": id,
        }]);
        let answer = vec![packet('0', namespace, None, &json!({ "sid": id })), packet('2', namespace, None, &identity)];
        self.joined.insert(namespace.to_owned(), id);
        Ok(answer)
    }

    fn event(&mut self, rest: &str, attachments: usize) -> Result<Vec<Out>, Over> {
        let (namespace, rest) = split_namespace(rest);
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (ack, json) = rest.split_at(digits);
        let ack = if ack.is_empty() { None } else { Some(ack.parse().map_err(|_| Over)?) };
        let args: Vec<Value> = serde_json::from_str(json).map_err(|_| Over)?;
        if !args.first().is_some_and(Value::is_string) || !self.joined.contains_key(namespace) {
            return Err(Over);
        }
        let event = Event { namespace: namespace.to_owned(), ack, args };
        if attachments == 0 {
            return Ok(self.handle(event, Vec::new()));
        }
        self.pending = Some(Pending { event, missing: attachments, attachments: Vec::new() });
        Ok(Vec::new())
    }

    fn handle(&self, event: Event, attachments: Vec<Bytes>) -> Vec<Out> {
        let Event { namespace, ack, args } = event;
        match args.first().and_then(Value::as_str) {
            Some("hello") => {
                let who = self.seen.headers.get("x-auth-subject").and_then(Value::as_str).unwrap_or("stranger");
                let answer = json!([format!("hello, {who}")]);
                ack.map(|id| packet('3', &namespace, Some(id), &answer)).into_iter().collect()
            }
            Some("echo") => {
                // Placeholders are numbers into the attachments: both travel back as they came.
                let mut out = with_attachments('2', &namespace, None, &Value::from(args.clone()), &attachments);
                if let Some(id) = ack {
                    let args: Vec<Value> = args.into_iter().skip(1).collect();
                    out.extend(with_attachments('3', &namespace, Some(id), &Value::from(args), &attachments));
                }
                out
            }
            _ => Vec::new(), // as an application without a handler for it
        }
    }
}

/// `/admin,rest` to its parts; no namespace is `/`.
fn split_namespace(text: &str) -> (&str, &str) {
    if text.starts_with('/') { text.split_once(',').unwrap_or((text, "")) } else { ("/", text) }
}

/// A packet without attachments.
fn packet(kind: char, namespace: &str, ack: Option<u64>, data: &Value) -> Out {
    Out::Text(spell(&kind.to_string(), namespace, ack, data))
}

/// EVENT (`2`) and ACK (`3`) become their binary forms (`5`, `6`) where there is something to attach.
fn with_attachments(kind: char, namespace: &str, ack: Option<u64>, data: &Value, attachments: &[Bytes]) -> Vec<Out> {
    if attachments.is_empty() {
        return vec![packet(kind, namespace, ack, data)];
    }
    let kind = if kind == '2' { '5' } else { '6' };
    let head = Out::Text(spell(&format!("{kind}{}-", attachments.len()), namespace, ack, data));
    std::iter::once(head).chain(attachments.iter().cloned().map(Out::Binary)).collect()
}

fn spell(head: &str, namespace: &str, ack: Option<u64>, data: &Value) -> String {
    let namespace = if namespace == "/" { String::new() } else { format!("{namespace},") };
    let ack = ack.map(|id| id.to_string()).unwrap_or_default();
    format!("4{head}{namespace}{ack}{data}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> Echo {
        let mut headers = Map::new();
        headers.insert("x-auth-subject".into(), "alice".into());
        Echo::new(Seen { headers, target: "/socket.io/?EIO=4".into() }, || "SID".into())
    }

    fn texts(out: Vec<Out>) -> Vec<String> {
        out.into_iter().map(|o| if let Out::Text(t) = o { t } else { "<binary>".into() }).collect()
    }

    fn joined() -> Echo {
        let mut echo = echo();
        echo.text("0").unwrap();
        echo
    }

    #[test]
    fn connect_is_answered_and_followed_by_what_the_server_saw() {
        let mut echo = echo();
        assert!(!echo.joined());
        let out = texts(echo.text(r#"0{"color":"blue"}"#).unwrap());
        assert_eq!(out[0], r#"40{"sid":"SID"}"#);
        let event: Value = serde_json::from_str(out[1].strip_prefix("42").unwrap()).unwrap();
        assert_eq!(event[0], "identity");
        assert_eq!(event[1]["headers"]["x-auth-subject"], "alice");
        assert_eq!(event[1]["auth"]["color"], "blue");
        assert!(echo.joined());
    }

    #[test]
    fn namespaces_are_apart() {
        let mut echo = echo();
        assert_eq!(texts(echo.text("0/admin,").unwrap())[0], r#"40/admin,{"sid":"SID"}"#);
        assert_eq!(texts(echo.text("0/nope,{}").unwrap()), [r#"44/nope,{"message":"Invalid namespace"}"#]);
        assert_eq!(echo.text(r#"2["hello"]"#), Err(Over), "not joined to /");
        assert_eq!(texts(echo.text(r#"2/admin,7["hello"]"#).unwrap()), [r#"43/admin,7["hello, alice"]"#]);
        echo.text("1/admin,").unwrap();
        assert!(!echo.joined());
    }

    #[test]
    fn echo_goes_back_as_event_and_as_acknowledgement() {
        let mut echo = joined();
        assert_eq!(texts(echo.text(r#"20["echo","a",1]"#).unwrap()), [r#"42["echo","a",1]"#, r#"430["a",1]"#]);
        assert_eq!(texts(echo.text(r#"2["echo"]"#).unwrap()), [r#"42["echo"]"#]);
        assert_eq!(texts(echo.text(r#"25["other"]"#).unwrap()), [""; 0]);
    }

    #[test]
    fn attachments_go_back_in_order() {
        let mut echo = joined();
        let args = r#"["echo",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
        assert_eq!(echo.text(&format!("52-3{args}")), Ok(vec![]));
        assert_eq!(echo.binary(Bytes::from_static(b"a")), Ok(vec![]));
        let out = echo.binary(Bytes::from_static(b"b")).unwrap();
        let binaries: Vec<_> =
            out.iter().filter_map(|o| if let Out::Binary(b) = o { Some(&b[..]) } else { None }).collect();
        assert_eq!(binaries, [b"a", b"b", b"a", b"b"]);
        let texts = texts(out);
        assert_eq!(texts[0], format!("452-{args}"));
        assert!(texts[3].starts_with("462-3[{"), "{}", texts[3]);
    }

    #[test]
    fn broken_packets_end_the_connection() {
        for bad in [
            "",
            "7",
            "0[]",
            "0{",
            "0null",
            r#"2["x""#,
            "2{}",
            "2[1]",
            "5[1]",
            r#"511-["echo"]"#,
            "é",
            "2é",
            "299999999999999999999[\"echo\"]",
        ] {
            assert_eq!(joined_for(bad).text(bad), Err(Over), "{bad}");
        }
        assert_eq!(joined().binary(Bytes::new()), Err(Over), "not announced");
        let mut echo = joined();
        echo.text(r#"51-["echo",{"_placeholder":true,"num":0}]"#).unwrap();
        assert_eq!(echo.text(r#"2["echo"]"#), Err(Over), "text before the attachment");
        assert_eq!(joined().text("0"), Err(Over), "joined twice");
    }

    fn joined_for(packet: &str) -> Echo {
        if packet.starts_with('0') { echo() } else { joined() }
    }
}
