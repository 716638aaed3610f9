//! Listens in on a connection to PostgreSQL and counts the messages of its protocol.
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// What went by since the last look, in order: one letter a message, `>` before those of the client, `<` before those of
/// the server (PostgreSQL's documentation, "Message Formats").
#[derive(Clone, Default)]
pub struct Messages(Arc<Mutex<Vec<(Side, u8)>>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

impl Messages {
    /// Takes what has been seen.
    pub fn take(&self) -> Vec<(Side, char)> {
        let mut seen = self.0.lock().expect("no panic");
        std::mem::take(&mut *seen).into_iter().map(|(side, kind)| (side, kind.into())).collect()
    }
}

/// Starts a proxy to a port of 127.0.0.1; gives its own port, and what it sees.
pub async fn start(to: u16) -> (u16, Messages) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("a bound port").port();
    let messages = Messages::default();
    let seen = messages.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", to)).await.expect("the server");
            let (client_read, client_write) = client.into_split();
            let (server_read, server_write) = server.into_split();
            tokio::spawn(forward(client_read, server_write, Side::Client, seen.clone()));
            tokio::spawn(forward(server_read, client_write, Side::Server, seen.clone()));
        }
    });
    (port, messages)
}

/// Whether a proxy cuts its connection.
#[derive(Clone, Default)]
pub struct Cut(Arc<AtomicBool>);

impl Cut {
    /// The next answer of the server's is not let through: instead of it, the client's connection ends.
    pub fn cut_the_next_answer(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Starts a proxy to a port of 127.0.0.1 that can lose an answer; gives its own port, and the knife.
pub async fn start_cutting(to: u16) -> (u16, Cut) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("a bound port").port();
    let cut = Cut::default();
    let knife = cut.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", to)).await.expect("the server");
            let (mut client_read, mut client_write) = client.into_split();
            let (mut server_read, mut server_write) = server.into_split();
            let knife = knife.clone();
            tokio::spawn(async move {
                let requests = tokio::io::copy(&mut client_read, &mut server_write);
                let answers = async {
                    let mut buffer = vec![0; 64 * 1024];
                    loop {
                        let length = server_read.read(&mut buffer).await?;
                        if length == 0 || knife.0.swap(false, Ordering::SeqCst) {
                            return std::io::Result::Ok(());
                        }
                        client_write.write_all(&buffer[..length]).await?;
                    }
                };
                tokio::select! {
                    _ = requests => {}
                    _ = answers => {}
                }
            });
        }
    });
    (port, cut)
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, side: Side, messages: Messages) -> Option<()> {
    let mut is_startup = side == Side::Client;
    loop {
        // The first message of a client has no letter.
        let kind = if is_startup { b'0' } else { from.read_u8().await.ok()? };
        let length = from.read_u32().await.ok()?;
        let mut body = vec![0; usize::try_from(length).ok()?.checked_sub(4)?];
        from.read_exact(&mut body).await.ok()?;
        messages.0.lock().expect("no panic").push((side, kind));
        let mut message = Vec::with_capacity(body.len() + 5);
        if !is_startup {
            message.push(kind);
        }
        message.extend(length.to_be_bytes());
        message.extend(body);
        to.write_all(&message).await.ok()?;
        is_startup = false;
    }
}
