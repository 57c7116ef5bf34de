//! One connected byte stream to a target: name service, TCP, TLS, all before one deadline.

use crate::stream::Stream;
use crate::upstream::target::{Address, Target};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

/// Addresses of a name are used for so long without asking again: a burst of sessions is one question.
const NAME_FRESH: Duration = Duration::from_secs(5);

/// A connection that is on its way, and how much was said on it.
type Begun = io::Result<(TcpStream, usize)>;

/// A target that can be connected to.
pub struct Endpoint {
    address: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    loopback_only: bool,
    known: Mutex<Option<Known>>,
    /// Held by the one who asks the name service; the others wait for its answer.
    asking: tokio::sync::Mutex<()>,
}

struct Known {
    addresses: Arc<[SocketAddr]>,
    until: Instant,
}

impl Endpoint {
    /// `tls` is needed for targets with TLS only.
    ///
    /// # Errors
    /// Where a TLS target has no configuration or a host that no certificate can name.
    pub fn new(target: &Target, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let tls = if target.tls {
            let config = tls.ok_or_else(|| io::Error::other("no TLS configuration"))?;
            let name = ServerName::try_from(target.host.clone()).map_err(io::Error::other)?;
            Some((TlsConnector::from(Arc::clone(config)), name))
        } else {
            None
        };
        Ok(Self {
            address: target.address.clone(),
            tls,
            loopback_only: false,
            known: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        })
    }

    /// Refuse every address that is not this machine's, whatever the name service says.
    #[must_use]
    pub fn loopback_only(mut self) -> Self {
        self.loopback_only = true;
        self
    }

    /// Connects before `deadline`.
    ///
    /// # Errors
    /// The last thing that failed.
    pub async fn connect(&self, deadline: Instant) -> io::Result<Stream> {
        Ok(self.open(deadline, &[]).await?.0)
    }

    /// Connects before `deadline`, and says how many bytes of `first` it has handed over already: a connection on
    /// the same machine stands as soon as it is asked for, and need not be waited for.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub async fn open(&self, deadline: Instant, first: &[u8]) -> io::Result<(Stream, usize)> {
        // What has nothing to wait for is there at once. The rest is boxed: a handshake's future would have room for it.
        let begun = match &self.address {
            Address::Ip(address) if self.tls.is_none() && self.allows(*address) => match begin(*address, first) {
                Ok((tcp, said)) if said > 0 => return Ok((Stream::Tcp(tcp), said)),
                begun => Some(begun),
            },
            _ => None,
        };
        let opening = timeout_at(deadline, Box::pin(self.start(deadline, first, begun)));
        opening.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn start(&self, deadline: Instant, first: &[u8], begun: Option<Begun>) -> io::Result<(Stream, usize)> {
        // Behind TLS the first bytes on the wire are not the caller's.
        let first = if self.tls.is_some() { &[] } else { first };
        let (tcp, said) = match &self.address {
            Address::Unix(path) => return unix(path).await.map(|stream| (Stream::Unix(stream), 0)),
            Address::Ip(address) => self.tcp(&[*address], deadline, first, begun).await?,
            Address::Name(name, port) => {
                let addresses = self.resolve(name, *port).await?;
                match self.tcp(&addresses, deadline, first, None).await {
                    Ok(tcp) => tcp,
                    Err(error) => {
                        self.doubt();
                        return Err(error);
                    }
                }
            }
        };
        let Some((connector, name)) = &self.tls else { return Ok((Stream::Tcp(tcp), said)) };
        let tls = connector.connect(name.clone(), tcp).await?;
        Ok((Stream::Tls(Box::new(tls.into())), 0))
    }

    fn allows(&self, address: SocketAddr) -> bool {
        !self.loopback_only || address.ip().is_loopback()
    }

    /// The addresses in turn, each with its share of the time that is left: one that drops packets does not eat it all.
    /// The first one may have been begun.
    async fn tcp(&self, addresses: &[SocketAddr], deadline: Instant, first: &[u8], mut begun: Option<Begun>) -> Begun {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no usable address");
        for (i, address) in addresses.iter().enumerate() {
            if !self.allows(*address) {
                continue;
            }
            let (tcp, said) = match begun.take().unwrap_or_else(|| begin(*address, first)) {
                Ok((tcp, 0)) => (tcp, 0),
                Ok(connected) => return Ok(connected),
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            let share = share(Instant::now(), deadline, addresses.len().saturating_sub(i));
            last = match timeout_at(share, connected(&tcp)).await {
                Ok(Ok(())) => return Ok((tcp, said)),
                Ok(Err(error)) => error,
                Err(_) => io::ErrorKind::TimedOut.into(),
            };
        }
        Err(last)
    }

    async fn resolve(&self, name: &str, port: u16) -> io::Result<Arc<[SocketAddr]>> {
        if let Some(addresses) = self.fresh() {
            return Ok(addresses);
        }
        let _asking = self.asking.lock().await;
        if let Some(addresses) = self.fresh() {
            return Ok(addresses);
        }
        let found: io::Result<Arc<[SocketAddr]>> =
            tokio::net::lookup_host((name, port)).await.map(|addresses| addresses.take(16).collect());
        let old = self.known(|known| known.as_ref().map(|k| Arc::clone(&k.addresses)));
        let addresses = match (found, old) {
            (Ok(addresses), _) if !addresses.is_empty() => addresses,
            // A name service that is away does not take the backend with it.
            (_, Some(addresses)) => addresses,
            (Ok(_), None) => return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            (Err(error), None) => return Err(error),
        };
        let now = Instant::now();
        let until = now.checked_add(NAME_FRESH).unwrap_or(now);
        self.known(|known| *known = Some(Known { addresses: Arc::clone(&addresses), until }));
        Ok(addresses)
    }

    fn fresh(&self) -> Option<Arc<[SocketAddr]>> {
        let now = Instant::now();
        self.known(|known| known.as_ref().filter(|k| k.until > now).map(|k| Arc::clone(&k.addresses)))
    }

    /// After a failure: ask the name service again.
    fn doubt(&self) {
        let now = Instant::now();
        self.known(|known| {
            if let Some(known) = known {
                known.until = now;
            }
        });
    }

    fn known<T>(&self, f: impl FnOnce(&mut Option<Known>) -> T) -> T {
        f(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Asks for a connection, and says as much of `first` as it takes at once.
fn begin(address: SocketAddr, first: &[u8]) -> Begun {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // Small frames must not wait for the acknowledgement of the last one.
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        // The rule where one may not wait: it is on its way, or there already.
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        outcome => outcome?,
    }
    // Also an empty send would take away the error that says why there is no connection.
    let said = if first.is_empty() { Ok(0) } else { socket.send(first) };
    let said = match said {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => 0,
        said => said?,
    };
    Ok((TcpStream::from_std(socket.into())?, said))
}

async fn connected(tcp: &TcpStream) -> io::Result<()> {
    tcp.writable().await?;
    tcp.take_error()?.map_or(Ok(()), Err)
}

/// A Unix socket whose backlog is full says so at once instead of waiting, so we wait ourselves; the caller has the deadline.
async fn unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            other => return other,
        }
    }
}

/// The end of the first of `parts` equal shares of the time until `deadline`.
#[must_use]
pub fn share(now: Instant, deadline: Instant, parts: usize) -> Instant {
    let left = deadline.saturating_duration_since(now);
    let part = left.checked_div(u32::try_from(parts.max(1)).unwrap_or(u32::MAX)).unwrap_or(left);
    now.checked_add(part).unwrap_or(deadline)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::new(&Target::parse(url).unwrap(), None).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn time_is_shared_equally_among_those_who_are_left() {
        let now = Instant::now();
        let end = now + Duration::from_secs(6);
        assert_eq!(share(now, end, 3), now + Duration::from_secs(2));
        assert_eq!(share(now, end, 1), end);
        assert_eq!(share(now, end, 0), end);
        assert_eq!(share(end, now, 2), end);
    }

    #[test]
    fn tls_needs_a_configuration() {
        assert!(Endpoint::new(&Target::parse("https://app").unwrap(), None).is_err());
    }

    #[tokio::test]
    async fn j29_other_machines_are_not_connected_to_where_only_this_one_may_be() {
        let error = endpoint("http://192.0.2.1:1").loopback_only().connect(soon()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_name_is_asked_for_once_in_a_while_and_again_after_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = endpoint(&format!("http://localhost:{}", listener.local_addr().unwrap().port()));
        endpoint.connect(soon()).await.unwrap();
        assert!(endpoint.fresh().is_some());
        drop(listener);
        endpoint.connect(soon()).await.unwrap_err();
        assert!(endpoint.fresh().is_none());
        assert!(endpoint.known(|known| known.is_some()), "kept, in case the name service is away");
    }

    #[tokio::test]
    async fn a_missing_unix_socket_is_an_error_at_once() {
        let error = endpoint("unix:/nowhere/app.sock").connect(soon()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
