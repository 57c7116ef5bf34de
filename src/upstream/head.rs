//! The head of a WebSocket request to a backend, kept as it goes on the wire.

use http::header::{self, HeaderName, HeaderValue};

/// Most heads fit.
const USUAL: usize = 1024;

/// What to ask a backend for: the request line and every header but the upgrade's own.
#[derive(Clone)]
pub struct DialHead {
    bytes: Vec<u8>,
    has_host: bool,
    offered: Vec<String>,
    fit: bool,
}

impl DialHead {
    /// `target` is in origin form: begins with `/`; visible ASCII without `#`. A head with anything else cannot be
    /// dialled.
    #[must_use]
    pub fn new(target: &str) -> Self {
        let fit = target.starts_with('/') && target.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        let mut bytes = Vec::with_capacity(USUAL);
        bytes.extend_from_slice(b"GET ");
        bytes.extend_from_slice(target.as_bytes());
        bytes.extend_from_slice(b" HTTP/1.1\r\n");
        Self { bytes, has_host: false, offered: Vec::new(), fit }
    }

    /// Adds a header. Those that are the dial's own business are left out: what describes this connection, and
    /// the upgrade. `sec-websocket-protocol` is what the backend may choose from. Without `host`, the backend's
    /// own is sent.
    ///
    /// A header value cannot hold a line break by its type: nothing splits a head.
    pub fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        if is_ours(name.as_str()) || *name == header::HOST && self.has_host {
            return;
        }
        if *name == header::HOST {
            self.has_host = true;
        }
        if *name == header::SEC_WEBSOCKET_PROTOCOL {
            let offers = value.to_str().unwrap_or_default().split(',').map(str::trim);
            self.offered.extend(offers.filter(|offer| !offer.is_empty()).map(String::from));
        }
        self.line(name.as_str(), value.as_bytes());
    }

    /// Adds a header of the gate's own, none of the above; `false`, and nothing is added, where the text is none of
    /// visible ASCII, blanks and tabs.
    pub fn add_text(&mut self, name: &HeaderName, text: &str) -> bool {
        let fits = text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
        if fits {
            self.line(name.as_str(), text.as_bytes());
        }
        fits
    }

    fn line(&mut self, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.bytes.extend_from_slice(part);
        }
    }

    /// The subprotocols that the request names.
    #[must_use]
    pub fn offered(&self) -> &[String] {
        &self.offered
    }

    /// The whole head; `None` where its target cannot be sent. `host` is the backend's own, `key` its
    /// `Sec-WebSocket-Key`.
    #[must_use]
    pub fn request(&self, host: &HeaderValue, key: &[u8; 24]) -> Option<Vec<u8>> {
        if !self.fit {
            return None;
        }
        const UPGRADE: &[u8] =
            b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: ";
        let mut out = Vec::with_capacity(self.bytes.len() + UPGRADE.len() + host.len() + key.len() + 16);
        out.extend_from_slice(&self.bytes);
        if !self.has_host {
            out.extend_from_slice(b"host: ");
            out.extend_from_slice(host.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(UPGRADE);
        out.extend_from_slice(key);
        out.extend_from_slice(b"\r\n\r\n");
        Some(out)
    }
}

/// (Headers *named in* `Connection` are the caller's to leave out: here a client could name an identity header and
/// have it removed.)
fn is_ours(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "upgrade"
            | "sec-websocket-key"
            | "sec-websocket-version"
            | "sec-websocket-extensions"
            | "sec-websocket-accept"
            | "content-length"
            | "transfer-encoding"
            | "keep-alive"
            | "te"
            | "trailer"
            | "expect"
            | "proxy-connection"
            | "http2-settings"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(head: &mut DialHead, name: &'static str, value: &'static str) {
        head.add(&HeaderName::from_static(name), &HeaderValue::from_static(value));
    }

    #[test]
    fn p06_no_text_splits_a_head() {
        let name = HeaderName::from_static("x-forwarded-host");
        let mut head = DialHead::new("/");
        for bad in ["a\r\nb: c", "a\nb", "a\0", "\u{e9}", "a\u{7f}"] {
            assert!(!head.add_text(&name, bad), "{bad:?}");
        }
        assert!(head.add_text(&name, "a, b\tc"));
        let request = head.request(&HeaderValue::from_static("h"), &[b'k'; 24]).unwrap();
        assert!(request.starts_with(b"GET / HTTP/1.1\r\nx-forwarded-host: a, b\tc\r\nhost: h\r\n"));
    }

    #[test]
    fn offers_are_collected_from_every_line() {
        let mut head = DialHead::new("/");
        add(&mut head, "sec-websocket-protocol", "chat, mqtt");
        add(&mut head, "sec-websocket-protocol", ",v2");
        assert_eq!(head.offered(), ["chat", "mqtt", "v2"]);
    }
}
