//! A key server that misbehaves on command.

use crate::support::client::Conn;
use crate::support::tokens::Key;
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// What it answers.
#[derive(Clone)]
pub enum Mood {
    /// 200 with this body.
    Body(String),
    /// Any other status.
    Status(u16),
    /// A redirect.
    Redirect(String),
    /// Accepts and says nothing.
    Silent,
    /// 200 and zeros for ever.
    Endless,
}

pub struct Keys {
    pub url: String,
    port: u16,
    mood: Arc<Mutex<Mood>>,
    fetches: Arc<AtomicUsize>,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Keys {
    pub async fn start(mood: Mood) -> Keys {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let keys = Keys {
            url: format!("http://127.0.0.1:{port}/jwks.json"),
            port,
            mood: Arc::new(Mutex::new(mood)),
            fetches: Arc::default(),
            task: Mutex::default(),
        };
        keys.serve(listener);
        keys
    }

    /// A port on which nobody listens until [`Keys::rise`].
    pub async fn down(mood: Mood) -> Keys {
        let keys = Self::start(mood).await;
        keys.fall().await;
        keys
    }

    pub async fn fall(&self) {
        let task = self.task.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    pub async fn rise(&self) {
        self.serve(TcpListener::bind(("127.0.0.1", self.port)).await.unwrap());
    }

    pub fn mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }

    fn serve(&self, listener: TcpListener) {
        let (mood, fetches) = (self.mood.clone(), self.fetches.clone());
        let serve = async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                fetches.fetch_add(1, Ordering::Relaxed);
                let mood = mood.lock().unwrap().clone();
                connections.spawn(answer(Conn::new(stream), mood));
            }
        };
        *self.task.lock().unwrap() = Some(AbortOnDropHandle::new(tokio::spawn(serve)));
    }
}

async fn answer(mut conn: Conn, mood: Mood) {
    let Some(_) = conn.request().await else { return };
    let reply = match mood {
        Mood::Body(body) => format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ),
        Mood::Status(status) => format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        Mood::Redirect(to) => {
            format!("HTTP/1.1 302 X\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        }
        Mood::Silent => return std::future::pending().await,
        Mood::Endless => {
            let _ = conn.try_write("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
            while conn.try_write([b' '; 65536]).await.is_ok() {}
            return;
        }
    };
    let _ = conn.try_write(reply).await;
    let _ = conn.rest().await;
}

/// The document of these keys.
pub fn jwks(keys: &[&Key]) -> Mood {
    Mood::Body(json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string())
}
