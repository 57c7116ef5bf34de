//! One bound socket, TCP or Unix.

use crate::config::address::Listen;
use crate::stream::Stream;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpSocket, UnixListener, lookup_host};

/// Connections that wait to be accepted: a fleet of clients comes back at once after a restart.
const BACKLOG: u32 = 4096;

/// A socket that accepts connections.
#[derive(Debug)]
pub enum Door {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix domain socket; its file goes with the door.
    Unix(UnixListener, PathBuf),
}

impl Door {
    /// Binds an address of the configuration.
    ///
    /// # Errors
    /// As the system says.
    pub async fn bind(address: &Listen) -> io::Result<Door> {
        match address {
            Listen::Tcp { host, port } => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for address in lookup_host((host.as_str(), *port)).await? {
                    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                    socket.set_reuseaddr(true)?;
                    socket.set_nodelay(true)?;
                    match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
                        Ok(listener) => return Ok(Door::Tcp(listener)),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Listen::Unix(path) => {
                remove_stale(path)?;
                Ok(Door::Unix(UnixListener::bind(path)?, path.clone()))
            }
        }
    }

    /// Where it is: `127.0.0.1:8080` or `unix:/run/siogate.sock`.
    pub fn address(&self) -> String {
        match self {
            Door::Tcp(listener) => listener.local_addr().map(|a| a.to_string()).unwrap_or_default(),
            Door::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// The next connection. A Unix peer counts as loopback: it is on this machine.
    ///
    /// # Errors
    /// As the system says; most are about the one connection.
    pub async fn accept(&self) -> io::Result<(Stream, IpAddr)> {
        match self {
            Door::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Small frames must not wait for the acknowledgement of the last one. Linux hands the listener's
                // setting down.
                if cfg!(not(target_os = "linux")) {
                    stream.set_nodelay(true)?;
                }
                Ok((Stream::Tcp(stream), peer.ip()))
            }
            Door::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), IpAddr::V4(Ipv4Addr::LOCALHOST)))
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Door::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A socket file that an earlier process left behind is in the way; any other file is somebody's.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
            Err(_) => std::fs::remove_file(path),
        },
        _ => Ok(()),
    }
}
