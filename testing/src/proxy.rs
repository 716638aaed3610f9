//! A TCP proxy between the functions and their database, which can simulate faults and record protocol messages.
//!
//! Hand-written because toxiproxy is a Go program that no crate or npm package ships, and its Rust port, the crate
//! noxious, is unmaintained.
use std::{
    collections::BTreeSet,
    io::Result,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

/// How the simulated network treats data.
#[derive(Clone, Copy)]
pub enum Network {
    /// Forwards everything.
    Whole,
    /// Silently drops everything, including the end of a connection.
    Lossy,
    /// Forwards half of the next read from the server, then resets the connection. Only affects connections that were
    /// open when this was set.
    CutsAnswers,
    /// Accepts new connections, but connects to the server only this long after the first of them, like a database that
    /// wakes up.
    Asleep(Duration),
}

/// A running proxy. Dropping it closes all connections.
pub struct Proxy {
    port: u16,
    state: Arc<watch::Sender<State>>,
    connections: Arc<AtomicU64>,
    open: Arc<OpenConnections>,
    task: JoinHandle<()>,
}

/// The recorded messages of PostgreSQL's protocol, in order, each by its type byte ("Message Formats" in PostgreSQL's
/// documentation). `0` stands for a client's first message, which has no type byte. Does not work with TLS.
#[derive(Clone, Default)]
pub struct Messages(Arc<Mutex<Vec<(Side, char)>>>);

/// The sender of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The function.
    Client,
    /// PostgreSQL, or its pooler.
    Server,
}

impl Messages {
    /// Removes and returns the messages recorded since the last call.
    pub fn take(&self) -> Vec<(Side, char)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, side: Side, letter: char) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((side, letter));
    }
}

/// Splits one direction of one connection into messages.
struct Parser {
    side: Side,
    messages: Messages,
    /// Whether the next message is a client's first, which has no type byte.
    is_startup: bool,
    /// The bytes of an incomplete message header.
    head: Vec<u8>,
    /// Bytes of the current message's body that have not arrived yet.
    body: usize,
}

impl Parser {
    fn new(side: Side, messages: Messages) -> Self {
        Self { side, messages, is_startup: side == Side::Client, head: Vec::new(), body: 0 }
    }

    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.body.min(bytes.len());
            self.body -= skipped;
            bytes = &bytes[skipped..];
            let length_at = usize::from(!self.is_startup);
            let wanted = (length_at + 4 - self.head.len()).min(bytes.len());
            self.head.extend(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            if let Some(length) = self.head.get(length_at..).and_then(|length| length.try_into().ok()) {
                self.messages.push(self.side, if self.is_startup { '0' } else { self.head[0].into() });
                // The length field includes itself.
                self.body = usize::try_from(u32::from_be_bytes(length)).unwrap_or_default().saturating_sub(4);
                self.head.clear();
                self.is_startup = false;
            }
        }
    }
}

/// The numbers of the open connections.
#[derive(Default)]
struct OpenConnections(Mutex<BTreeSet<u64>>);

impl OpenConnections {
    fn numbers(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy)]
struct State {
    network: Network,
    /// Connections with a lower number are older than the current `network`.
    first_new: u64,
    /// Connections with a lower number must close.
    first_open: u64,
    /// When the server wakes up, once a connection has arrived while it is [`Network::Asleep`].
    awake_at: Option<Instant>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and forwards to the port `to` on 127.0.0.1.
    pub async fn start(to: u16) -> Result<Self> {
        Self::start_on(0, to).await
    }

    /// Like [`start`](Self::start), on a given port.
    pub async fn start_on(port: u16, to: u16) -> Result<Self> {
        Self::start_with(port, to, None).await
    }

    /// Like [`start`](Self::start), and records the messages.
    pub async fn start_recording(to: u16) -> Result<(Self, Messages)> {
        let messages = Messages::default();
        Ok((Self::start_with(0, to, Some(messages.clone())).await?, messages))
    }

    async fn start_with(port: u16, to: u16, messages: Option<Messages>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let port = listener.local_addr()?.port();
        let initial = State { network: Network::Whole, first_new: 0, first_open: 0, awake_at: None };
        let state = Arc::new(watch::Sender::new(initial));
        let connections = Arc::new(AtomicU64::new(0));
        let open = Arc::<OpenConnections>::default();
        let (sender, counter, all) = (state.clone(), connections.clone(), open.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                all.numbers().insert(number);
                let (sender, all, mut watched) = (sender.clone(), all.clone(), sender.subscribe());
                let messages = messages.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = relay(client, to, number, &sender, messages) => {}
                        _ = watched.wait_for(|state| number < state.first_open) => {}
                    }
                    all.numbers().remove(&number);
                });
            }
        });
        Ok(Self { port, state, connections, open, task })
    }

    /// The port that the proxy listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes how the network behaves from now on.
    pub fn set(&self, network: Network) {
        let first_new = self.connections.load(Ordering::SeqCst);
        self.state.send_modify(|state| *state = State { network, first_new, awake_at: None, ..*state });
    }

    /// Closes all open connections and waits until both ends have been closed.
    pub async fn close_all(&self) {
        let first_open = self.start_closing();
        while self.open.numbers().range(..first_open).next().is_some() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn start_closing(&self) -> u64 {
        let first_open = self.connections.load(Ordering::SeqCst);
        self.state.send_modify(|state| state.first_open = first_open);
        first_open
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.start_closing();
    }
}

/// Relays one connection until either side closes it.
async fn relay(client: TcpStream, to: u16, number: u64, state: &watch::Sender<State>, messages: Option<Messages>) {
    let network = state.borrow().network;
    if let Network::Asleep(wakes_after) = network {
        state.send_if_modified(|state| {
            state.awake_at.get_or_insert_with(|| Instant::now() + wakes_after);
            false
        });
        let awake_at = state.borrow().awake_at;
        sleep_until(awake_at.unwrap_or_else(Instant::now)).await;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    // Both real ends set TCP_NODELAY too. Without it, data in several packets waits for the other side's
    // acknowledgement.
    for side in [&client, &server] {
        let _ = side.set_nodelay(true);
    }
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let (mut requests, mut answers) = (state.subscribe(), state.subscribe());
    let parser = |side| messages.clone().map(|messages| Parser::new(side, messages));
    tokio::select! {
        _ = forward(client_read, server_write, number, &mut requests, Side::Client, parser(Side::Client)) => {}
        _ = forward(server_read, client_write, number, &mut answers, Side::Server, parser(Side::Server)) => {}
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    number: u64,
    state: &mut watch::Receiver<State>,
    side: Side,
    mut parser: Option<Parser>,
) -> Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        // Record before forwarding, so that whoever has the response finds its messages recorded.
        if let Some(parser) = &mut parser {
            parser.read(&buffer[..length]);
        }
        let now = *state.borrow();
        match now.network {
            // Data that is lost is never sent again, and neither is the end of the connection.
            Network::Lossy => std::future::pending().await,
            Network::CutsAnswers if side == Side::Server && number < now.first_new => {
                to.write_all(&buffer[..length / 2]).await?;
                to.flush().await?;
                // Closing with zero linger sends a reset.
                return to.as_ref().set_zero_linger();
            }
            _ if length == 0 => return Ok(()),
            _ => to.write_all(&buffer[..length]).await?,
        }
    }
}
