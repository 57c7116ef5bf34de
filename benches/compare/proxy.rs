//! The proxies: starting them, and what they cost as the kernel counts it.

use crate::Res;
use crate::backend::{Backend, IDENTITY};
use crate::tokens::{AUDIENCE, ISSUER};
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Relay,
    Siogate,
    Haproxy,
    Nginx,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Relay, Kind::Siogate, Kind::Haproxy, Kind::Nginx];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Relay => "relay",
            Kind::Siogate => "siogate",
            Kind::Haproxy => "haproxy",
            Kind::Nginx => "nginx",
        }
    }

    /// Whether it verifies tokens and tells the backend who it is.
    pub fn verifies(self) -> bool {
        matches!(self, Kind::Siogate | Kind::Haproxy)
    }

    /// Where its binary is, for those that may not be installed.
    pub fn installed(self) -> Option<PathBuf> {
        find(self.name())
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = [PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")];
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// What all of them need to start.
pub struct Lab {
    pub dir: PathBuf,
    pub backend: Backend,
    pub siogate: PathBuf,
    /// The CPU that the proxies are pinned to.
    pub core: Option<usize>,
    /// Most sessions at a time.
    pub sessions: usize,
}

/// A running proxy; gone when dropped.
pub struct Proxy {
    pub kind: Kind,
    pub address: SocketAddr,
    /// siogate's private door.
    pub admin: Option<SocketAddr>,
    child: Child,
    used: AtomicUsize,
}

/// Nanoseconds, as the scheduler counts them.
#[derive(Clone, Copy, Default)]
pub struct Time {
    pub on_cpu: u64,
    /// Ready to run while somebody else did.
    pub queued: u64,
}

impl Time {
    pub fn since(self, before: Time) -> Time {
        let (on_cpu, queued) = (self.on_cpu.saturating_sub(before.on_cpu), self.queued.saturating_sub(before.queued));
        Time { on_cpu, queued }
    }
}

impl Proxy {
    pub fn start(kind: Kind, lab: &Lab) -> Res<Self> {
        let log = lab.dir.join(format!("{}.log", kind.name()));
        let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (program, arguments) = match kind {
            Kind::Relay => (std::env::current_exe()?, vec!["relay".into(), lab.backend.address.to_string()]),
            Kind::Siogate => (lab.siogate.clone(), vec!["run".into(), "--config".into(), siogate(lab)?]),
            Kind::Haproxy => {
                (kind.installed().ok_or("not installed")?, vec!["-db".into(), "-f".into(), haproxy(lab, free)?])
            }
            Kind::Nginx => {
                let dir = lab.dir.display().to_string();
                (kind.installed().ok_or("not installed")?, vec!["-p".into(), dir, "-c".into(), nginx(lab, free)?])
            }
        };
        let mut words: Vec<OsString> = Vec::new();
        if find("setpriv").is_some() {
            // Nobody drops a proxy when a signal ends this process. A master that is killed would leave its workers.
            let signal = if kind == Kind::Nginx { "TERM" } else { "KILL" };
            words.extend(["setpriv", "--pdeathsig", signal].map(Into::into));
        }
        if let Some(core) = lab.core {
            words.extend(["taskset", "-c", &core.to_string()].map(Into::into));
        }
        words.push(program.clone().into());
        let mut command = Command::new(words.remove(0));
        command.args(words);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SIOGATE_")) {
            command.env_remove(name);
        }
        let out = File::create(&log)?;
        command.args(arguments).stdin(Stdio::piped()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
        let mut proxy = Self { kind, address: free, admin: None, child, used: AtomicUsize::new(0) };
        proxy.wait(&log)?;
        Ok(proxy)
    }

    /// Waits until it listens, and learns where.
    fn wait(&mut self, log: &Path) -> Res<()> {
        let patience = Instant::now() + Duration::from_secs(10);
        while Instant::now() < patience {
            let said = fs::read_to_string(log).unwrap_or_default();
            let address = match self.kind {
                Kind::Relay => said.trim().parse().ok(),
                Kind::Siogate => {
                    self.admin = door(&said, "admin");
                    door(&said, "public")
                }
                Kind::Haproxy | Kind::Nginx => Some(self.address),
            };
            if let Some(address) = address.filter(|address| TcpStream::connect(address).is_ok()) {
                self.address = address;
                return Ok(());
            }
            if self.child.try_wait()?.is_some() {
                let line = said.lines().next_back().unwrap_or("without a word").to_owned();
                return Err(format!("{} has ended: {line}", self.kind.name()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("{} does not listen", self.kind.name()).into())
    }

    /// A number that was not given before, for tokens that this process has not seen yet.
    pub fn next(&self) -> usize {
        self.used.fetch_add(1, Ordering::Relaxed)
    }

    /// Time on a CPU so far of all its processes and threads, and time in the queue for one.
    pub fn time(&self) -> Res<Time> {
        let mut total = Time::default();
        for pid in tree(self.child.id()) {
            for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                // A thread may end between the two looks.
                let line = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
                let mut numbers = line.split(' ').map(|ns| ns.parse::<u64>().unwrap_or(0));
                total.on_cpu += numbers.next().unwrap_or(0);
                total.queued += numbers.next().unwrap_or(0);
            }
        }
        if total.on_cpu == 0 { Err("this kernel does not tell /proc/PID/schedstat".into()) } else { Ok(total) }
    }

    /// Its share of the memory, in KiB.
    pub fn memory(&self) -> Res<u64> {
        let mut total = 0;
        for pid in tree(self.child.id()) {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no Pss")?;
            total += line.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(total)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Politely first: a master that is killed leaves its workers behind.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let patience = Instant::now() + Duration::from_secs(1);
        while Instant::now() < patience {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where siogate says that one of its doors is.
fn door(said: &str, name: &str) -> Option<SocketAddr> {
    let lines = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.into_iter().find(|line| line["door"] == name).and_then(|line| line["address"].as_str()?.parse().ok())
}

/// A process and its descendants.
fn tree(root: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pairs: Vec<_> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&pid) = found.get(at) {
        found.extend(pairs.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
        at += 1;
    }
    found
}

fn write(lab: &Lab, name: &str, text: &str) -> Res<String> {
    let file = lab.dir.join(name);
    fs::write(&file, text)?;
    Ok(file.display().to_string())
}

/// All that is on by default stays on; only the bounds per address are out of the way, since all clients are one, and
/// `exp` is the end to the second, as it is for HAProxy.
fn siogate(lab: &Lab) -> Res<String> {
    let (backend, jwks) = (lab.backend.address, lab.backend.jwks);
    let text = format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[upstream]
urls = ["http://{backend}"]
[socketio]
allowed_origins = ["https://app.example.test"]
[[issuer]]
issuer = "{ISSUER}"
jwks_url = "http://{jwks}/jwks.json"
audience = ["{AUDIENCE}"]
algorithms = ["RS256"]
leeway = "0s"
[identity.headers]
{IDENTITY} = "sub"
[limits]
max_unauthenticated = 100000
max_unauthenticated_per_ip = 100000
[[http.route]]
path = "/api"
auth = "require"
"#
    );
    write(lab, "siogate.toml", &text)
}

fn haproxy(lab: &Lab, listen: SocketAddr) -> Res<String> {
    let (backend, pem, maxconn) = (lab.backend.address, lab.dir.join("public.pem"), lab.sessions + 500);
    let (pem, bearer) = (pem.display(), "var(txn.bearer)");
    let text = format!(
        r#"
global
    nbthread 1
    maxconn {maxconn}
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
    timeout http-request 10s
    timeout http-keep-alive 60s
frontend door
    bind {listen} backlog 4096
    http-request set-var(txn.bearer) http_auth_bearer
    http-request set-var(txn.alg) {bearer},jwt_header_query('$.alg')
    http-request deny deny_status 401 unless {{ var(txn.alg) -m str RS256 }}
    http-request deny deny_status 401 unless {{ {bearer},jwt_verify(txn.alg,"{pem}") 1 }}
    http-request set-var(txn.exp) {bearer},jwt_payload_query('$.exp','int')
    http-request set-var(txn.now) date()
    http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
    http-request deny deny_status 401 unless {{ {bearer},jwt_payload_query('$.iss') -m str {ISSUER} }}
    http-request deny deny_status 401 unless {{ {bearer},jwt_payload_query('$.aud') -m str {AUDIENCE} }}
    http-request set-header {IDENTITY} %[{bearer},jwt_payload_query('$.sub')]
    http-request del-header authorization
    default_backend servers
backend servers
    server one {backend}
"#
    );
    write(lab, "haproxy.cfg", &text)
}

/// nginx as it comes cannot verify a token: it only passes on.
fn nginx(lab: &Lab, listen: SocketAddr) -> Res<String> {
    let (backend, dir, connections) = (lab.backend.address, lab.dir.display(), lab.sessions * 2 + 1000);
    let text = format!(
        r#"
daemon off;
pid {dir}/nginx.pid;
error_log stderr warn;
worker_processes 1;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
    keepalive_requests 1000000;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream back {{ server {backend}; keepalive 64; }}
    server {{
        listen {listen} backlog=4096;
        location / {{
            proxy_http_version 1.1;
            proxy_read_timeout 3600s;
            proxy_send_timeout 3600s;
            proxy_buffering off;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_pass http://back;
        }}
    }}
}}
"#
    );
    write(lab, "nginx.conf", &text)
}
