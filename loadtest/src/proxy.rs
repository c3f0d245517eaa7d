//! A way to the API server that can be cut: for one member, both ways or the way back only.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What the proxy does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Passes them on.
    Open = 0,
    /// Passes nothing, either way; connections stand.
    Cut = 1,
    /// Passes requests, and no answers.
    HalfOpen = 2,
}

/// A proxy on loopback.
pub struct Proxy {
    /// Its port.
    pub port: u16,
    mode: Arc<AtomicU8>,
}

impl Proxy {
    /// Listens before an address such as `127.0.0.1:6443`.
    pub async fn start(server: String) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let mode = Arc::new(AtomicU8::new(Mode::Open as u8));
        let shared = Arc::clone(&mode);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mode, server) = (Arc::clone(&shared), server.clone());
                tokio::spawn(async move {
                    if let Ok(upstream) = TcpStream::connect(server).await {
                        let (from_client, to_client) = client.into_split();
                        let (from_server, to_server) = upstream.into_split();
                        let up = pump(from_client, to_server, Arc::clone(&mode), |mode| mode == Mode::Cut as u8);
                        let down = pump(from_server, to_client, mode, |mode| mode != Mode::Open as u8);
                        tokio::select! { () = up => {}, () = down => {} }
                    }
                });
            }
        });
        Ok(Self { port, mode })
    }

    /// Changes what it does from now on.
    pub fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }
}

/// Passes bytes on, but swallows what comes while `swallows` says so; what was swallowed has broken the connection.
async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mode: Arc<AtomicU8>,
    swallows: fn(u8) -> bool,
) {
    let mut buffer = vec![0_u8; 64 * 1024];
    let mut broken = false;
    while let Ok(count) = from.read(&mut buffer).await {
        broken |= swallows(mode.load(Ordering::SeqCst));
        if broken && !swallows(mode.load(Ordering::SeqCst)) {
            // A hole in a TLS stream cannot be mended.
            return;
        }
        if count == 0 || (!broken && to.write_all(&buffer[..count]).await.is_err()) {
            return;
        }
    }
}
