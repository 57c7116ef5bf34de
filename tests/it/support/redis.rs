//! A real redis-server, on a socket of its own or on a free port.

use crate::support::within;
use siogate::config::redis_url::RedisUrl;
use siogate::store::redis::Redis;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

/// How long a question of [`open`] is waited for.
pub const TIMEOUT: Duration = Duration::from_secs(2);

/// Whether there is one. `tests/run.sh` installs it; where it cannot, it says so by `E2E_NO_REDIS`.
pub fn installed() -> bool {
    let skip = std::env::var_os("E2E_NO_REDIS").is_some();
    if skip {
        eprintln!("skipped: E2E_NO_REDIS is set");
    }
    !skip
}

/// A running server; it is killed when dropped.
pub struct Server {
    pub url: String,
    pub dir: TempDir,
    args: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// On a Unix socket.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("redis.sock");
        let args = ["--port", "0", "--unixsocket", socket.to_str().unwrap()].map(String::from).to_vec();
        Self::run(format!("unix:{}", socket.display()), dir, args).await
    }

    /// On a port, with more arguments.
    pub async fn on_port(port: u16, more: &[&str]) -> Self {
        let mut args = vec!["--port".into(), port.to_string(), "--bind".into(), "127.0.0.1".into()];
        args.extend(more.iter().map(ToString::to_string));
        Self::run(format!("redis://127.0.0.1:{port}"), tempfile::tempdir().unwrap(), args).await
    }

    /// A Sentinel, by its configuration file.
    pub async fn on_port_with_file(port: u16, file: &Path) -> Self {
        let args = [file.to_str().unwrap(), "--sentinel", "--port", &port.to_string()].map(String::from).to_vec();
        Self::run(format!("redis://127.0.0.1:{port}"), tempfile::tempdir().unwrap(), args).await
    }

    async fn run(url: String, dir: TempDir, args: Vec<String>) -> Self {
        let mut server = Self { url, dir, args, child: None };
        server.revive().await;
        server
    }

    /// Starts it again where it was, empty.
    pub async fn revive(&mut self) {
        let mut command = Command::new("redis-server");
        // A Sentinel's configuration file comes first.
        command.args(&self.args);
        if !self.args.iter().any(|arg| arg == "--sentinel") {
            command.args(["--save", "", "--appendonly", "no"]);
        }
        command.arg("--dir").arg(self.dir.path()).stdout(Stdio::piped()).stdin(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().expect("redis-server; see tests/run.sh");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains("eady to accept connections") || line.contains("Sentinel ID is") {
                    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                    return;
                }
            }
            panic!("redis-server ended");
        };
        within("redis-server", ready).await;
        self.child = Some(child);
    }

    /// Kills it at once.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// Stops or continues its process: it is there and does not answer.
    pub fn freeze(&self, frozen: bool) {
        let pid = self.child.as_ref().and_then(Child::id).unwrap();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let done = std::process::Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
        assert!(done.success());
    }

    pub fn redis(&self) -> Redis {
        open(&self.url)
    }

    /// One command by `redis-cli`.
    pub async fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        match self.url.strip_prefix("unix:") {
            Some(path) => command.args(["-s", path]),
            None => command.args(["-u", &self.url]),
        };
        let out = within("redis-cli", command.args(args).output()).await.unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }
}

pub fn open(url: &str) -> Redis {
    Redis::open(&RedisUrl::parse(url).unwrap(), None, TIMEOUT).unwrap()
}

/// The other end of a connection that a [`Redis`] makes: greets it, and says nothing once it is asked.
pub async fn greet_and_be_asked(line: &mut UnixStream) {
    let (mut seen, mut greeted) = (Vec::new(), 0);
    loop {
        assert_ne!(within("a command", line.read_buf(&mut seen)).await.unwrap(), 0, "it has hung up");
        if String::from_utf8_lossy(&seen).contains("GETRANGE") {
            return;
        }
        let commands = seen.iter().filter(|byte| **byte == b'*').count();
        line.write_all("+OK\r\n".repeat(commands - greeted).as_bytes()).await.unwrap();
        greeted = commands;
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}
