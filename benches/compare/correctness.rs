//! A figure counts only where the work was done: whose token is good gets in and is named to the backend, nobody else
//! reaches it, and bytes come back as they were sent.

use crate::Res;
use crate::backend::Backend;
use crate::client::{self, Client, Login, Place};
use crate::proxy::{Kind, Proxy};
use crate::tokens::{Credential, Issuer, Tokens};
use crate::wire;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(5);

/// What was proved, in words.
pub async fn check(proxy: &Proxy, backend: &Backend, issuer: &Issuer, tokens: &Tokens) -> Res<String> {
    let places: &[Place] = match proxy.kind {
        Kind::Siogate => &[Place::Header, Place::Query, Place::Cookie, Place::Connect],
        _ => &[Place::Header],
    };
    let good = &tokens.one;
    ready(proxy, &Login::new(Place::Header, good, proxy.kind.verifies())).await?;
    for place in places {
        let login = Login::new(*place, good, proxy.kind.verifies());
        let mut client = timeout(PATIENCE, Client::open(proxy.address, &login)).await??;
        timeout(PATIENCE, intact(&mut client)).await??;
        timeout(PATIENCE, client.close()).await??;
    }
    let login = Login::new(Place::Header, good, proxy.kind.verifies());
    timeout(PATIENCE, client::poll(proxy.address, &login)).await??;
    timeout(PATIENCE, Client::dial(proxy.address).await?.call(&login)).await??;
    if !proxy.kind.verifies() {
        return Ok("bytes intact; verifies nothing".into());
    }
    let mut refusals = 0;
    let before = backend.requests();
    let (nobody, bad) = bad(issuer, good)?;
    for place in places {
        for (what, credential) in &bad {
            refused(proxy, &Login::new(*place, credential, true), what).await?;
            refusals += 3;
        }
    }
    refused(proxy, &Login::new(Place::Nowhere, &nobody, true), "missing").await?;
    refusals += 3;
    sleep(Duration::from_millis(100)).await;
    match backend.requests() - before {
        0 => Ok(format!(
            "{places:?} accepted with the right identity, polling and HTTP too; {refusals} bad, expired, foreign and \
             missing tokens refused, none reached the backend; bytes intact"
        )),
        n => Err(format!("{n} requests without a good token reached the backend").into()),
    }
}

/// Keys may still be under way.
async fn ready(proxy: &Proxy, login: &Login<'_>) -> Res<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match timeout(PATIENCE, Client::open(proxy.address, login)).await? {
            Ok(client) => return timeout(PATIENCE, client.close()).await?,
            Err(e) if Instant::now() > until => return Err(e),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Nobody, and tokens that must not let anybody in.
fn bad(issuer: &Issuer, good: &Credential) -> Res<(Credential, Vec<(&'static str, Credential)>)> {
    let user = good.user.clone();
    let wrap = |token: String| Credential { user: user.clone(), token };
    let (message, signature) = good.token.rsplit_once('.').ok_or("no token")?;
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let tampered = format!("{message}.{first}{}", signature.get(1..).unwrap_or_default());
    let stranger = Issuer::new()?.token(&user, &json!({}))?;
    let expired = issuer.token(&user, &json!({"exp": 1_700_000_000}))?;
    let elsewhere = issuer.token(&user, &json!({"aud": "mail"}))?;
    let list = vec![
        ("tampered", wrap(tampered)),
        ("signed by a stranger", wrap(stranger)),
        ("expired", wrap(expired)),
        ("for another audience", wrap(elsewhere)),
    ];
    Ok((wrap(String::new()), list))
}

/// By WebSocket, by polling and as a plain request. A place that a plain request does not have means none there.
async fn refused(proxy: &Proxy, login: &Login<'_>, what: &str) -> Res<()> {
    let by_websocket = timeout(PATIENCE, Client::open(proxy.address, login)).await?.err();
    let by_polling = timeout(PATIENCE, client::poll(proxy.address, login)).await?.err();
    let plain = timeout(PATIENCE, Client::dial(proxy.address).await?.call(login)).await?.err();
    for (door, refusal) in [("WebSocket", by_websocket), ("polling", by_polling), ("HTTP", plain)] {
        match refusal.map(|e| e.to_string()) {
            Some(word) if word.starts_with("refused") || word == "closed" => {}
            other => return Err(format!("a token that is {what} by {door}: {other:?} instead of a refusal").into()),
        }
    }
    Ok(())
}

/// Messages of awkward lengths, in fragments, and binary ones come back as they were sent.
async fn intact(client: &mut Client) -> Res<()> {
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    let mut byte = || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise as u8
    };
    let mut frames: Vec<(u8, Vec<u8>)> = Vec::new();
    for size in [8, 125, 126, 127, 65_535, 65_536, 300_000] {
        let mut text = b"42[\"".to_vec();
        text.extend((0..size - 6).map(|_| b'a' + byte() % 26));
        text.extend(b"\"]");
        frames.push((wire::TEXT, text));
    }
    frames.push((0x01, b"42[\"in ".to_vec()));
    frames.push((0x00, b"three ".to_vec()));
    frames.push((0x80, b"parts\"]".to_vec()));
    frames.push((wire::TEXT, br#"451-["b",{"_placeholder":true,"num":0}]"#.to_vec()));
    frames.push((0x82, (0..70_000).map(|_| byte()).collect()));
    frames.push((wire::TEXT, b"42[\"end\"]".to_vec()));
    let (mut sent, mut expected, mut buf) = (Vec::new(), Vec::new(), Vec::new());
    for (first, payload) in &frames {
        wire::put(&mut sent, *first, payload, Some([byte(), byte(), byte(), byte()]));
        wire::put(&mut expected, *first, payload, None);
    }
    client.exchange(&sent, &expected, &mut buf).await
}
