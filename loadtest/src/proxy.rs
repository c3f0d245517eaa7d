//! A proxy between one member and the API server that can drop traffic: in both directions, or only responses.

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
    /// Forwards everything.
    Open = 0,
    /// Forwards nothing; connections stay open.
    Cut = 1,
    /// Forwards requests, but no responses.
    HalfOpen = 2,
}

/// A proxy on loopback.
pub struct Proxy {
    /// Its port.
    pub port: u16,
    mode: Arc<AtomicU8>,
}

impl Proxy {
    /// Starts a proxy for an address such as `127.0.0.1:6443`.
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

    /// Changes the mode.
    pub fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }
}

/// Forwards bytes, except while `swallows` returns true; a connection with missing bytes is then broken.
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
            // A TLS stream with missing bytes cannot continue.
            return;
        }
        if count == 0 || (!broken && to.write_all(&buffer[..count]).await.is_err()) {
            return;
        }
    }
}
