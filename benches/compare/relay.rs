//! The yardstick: what everybody writes first, a TCP relay with `copy_bidirectional` on one thread.

use crate::Res;
use std::io::{Read, Write};
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};

/// Says its port on standard output and relays until its standard input ends, as it does with the parent.
pub fn run(backend: SocketAddr) -> Res<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        std::io::stdout().flush()?;
        let (gone, parent) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read(&mut [0]);
            drop(gone);
        });
        tokio::select! {
            result = relay(listener, backend) => result,
            _ = parent => Ok(()),
        }
    })
}

async fn relay(listener: TcpListener, backend: SocketAddr) -> Res<()> {
    loop {
        let (mut client, _) = listener.accept().await?;
        tokio::spawn(async move {
            client.set_nodelay(true)?;
            let mut server = TcpStream::connect(backend).await?;
            server.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
    }
}
