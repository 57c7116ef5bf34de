//! Refreshes: names that can be told from the application's own, and a protocol that has events.

use crate::config::model::{Config, Protocol};
use crate::config::problem::{Problems, shown};

const MAX_NAME: usize = 64;

pub(super) fn check(config: &Config, problems: &mut Problems) {
    let refresh = &config.session.refresh;
    let names = [("event", &refresh.event), ("warn_event", &refresh.warn_event), ("notify", &refresh.notify)];
    for (i, (key, name)) in names.iter().enumerate() {
        let path = format!("session.refresh.{key}");
        if *key == "notify" && name.is_empty() {
            continue;
        }
        // What JSON may escape could be written in more than one way.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_:.-".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
            let allowed = "allowed: 1 to 64 letters, digits and _ : . -";
            problems.error(&path, format!("{} is no event's name here; {allowed}", shown(name)));
        } else if let Some((other, _)) = names.iter().take(i).find(|(_, other)| other == name) {
            problems.error(&path, format!("{} is session.refresh.{other} too; allowed: another name", shown(name)));
        }
    }
    if refresh.enabled && config.socketio.protocol == Protocol::EngineIo {
        problems.error(
            "session.refresh.enabled",
            "raw Engine.IO has no events; allowed: false, or socketio.protocol = \"socket.io\"",
        );
    }
}
