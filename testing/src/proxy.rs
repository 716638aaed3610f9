//! A network between the functions and their database: it can be broken, and listened in on.
//!
//! Written by hand: toxiproxy is a Go program that no package of crates.io or npm brings along, and its port to Rust, the crate
//! noxious, is no longer kept.
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

/// What the network does with what it carries.
#[derive(Clone, Copy)]
pub enum Network {
    /// It carries everything.
    Whole,
    /// It carries nothing, not even a goodbye, and nobody is told.
    Lossy,
    /// Of the next answer on each connection that was there before, half is carried, and then the connection is reset.
    CutsAnswers,
    /// Connections are accepted, and led on only this long after the first of them.
    Asleep(Duration),
}

/// A running proxy; dropping it closes everything.
pub struct Proxy {
    port: u16,
    state: Arc<watch::Sender<State>>,
    connections: Arc<AtomicU64>,
    open: Arc<Open>,
    task: JoinHandle<()>,
}

/// What went by, in order: one letter a message of PostgreSQL's protocol ("Message Formats" in its documentation), `0` for the
/// first message of a client, which has none. Of connections with TLS this says nothing.
#[derive(Clone, Default)]
pub struct Messages(Arc<Mutex<Vec<(Side, char)>>>);

/// Whose message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The function's.
    Client,
    /// PostgreSQL's, or its pooler's.
    Server,
}

impl Messages {
    /// Takes what has been seen since the last look.
    pub fn take(&self) -> Vec<(Side, char)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, side: Side, letter: char) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((side, letter));
    }
}

/// Finds the messages in one direction of one connection.
struct Parser {
    side: Side,
    messages: Messages,
    /// The first message of a client has no letter.
    is_startup: bool,
    /// The head of a message that has not come whole yet.
    head: Vec<u8>,
    /// How many bytes of a message's body are still to come.
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
                // The length counts itself.
                self.body = usize::try_from(u32::from_be_bytes(length)).unwrap_or_default().saturating_sub(4);
                self.head.clear();
                self.is_startup = false;
            }
        }
    }
}

/// The numbers of the connections that are not closed.
#[derive(Default)]
struct Open(Mutex<BTreeSet<u64>>);

impl Open {
    fn numbers(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy)]
struct State {
    network: Network,
    /// Connections with a lower number were there before the network became what it is.
    first_new: u64,
    /// Connections with a lower number are closed.
    first_open: u64,
    /// When what is asleep will have woken.
    awake_at: Option<Instant>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1, and leads to another one there.
    pub async fn start(to: u16) -> Result<Self> {
        Self::start_on(0, to).await
    }

    /// As [`start`](Self::start), on a port that is known before.
    pub async fn start_on(port: u16, to: u16) -> Result<Self> {
        Self::start_with(port, to, None).await
    }

    /// As [`start`](Self::start), with the messages that go by.
    pub async fn listening_in(to: u16) -> Result<(Self, Messages)> {
        let messages = Messages::default();
        Ok((Self::start_with(0, to, Some(messages.clone())).await?, messages))
    }

    async fn start_with(port: u16, to: u16, messages: Option<Messages>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let port = listener.local_addr()?.port();
        let whole = State { network: Network::Whole, first_new: 0, first_open: 0, awake_at: None };
        let state = Arc::new(watch::Sender::new(whole));
        let connections = Arc::new(AtomicU64::new(0));
        let open = Arc::<Open>::default();
        let (sender, counter, all) = (state.clone(), connections.clone(), open.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                all.numbers().insert(number);
                let (sender, all, mut watched) = (sender.clone(), all.clone(), sender.subscribe());
                let messages = messages.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = carry(client, to, number, &sender, messages) => {}
                        _ = watched.wait_for(|state| number < state.first_open) => {}
                    }
                    all.numbers().remove(&number);
                });
            }
        });
        Ok(Self { port, state, connections, open, task })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the network.
    pub fn set(&self, network: Network) {
        let first_new = self.connections.load(Ordering::SeqCst);
        self.state.send_modify(|state| *state = State { network, first_new, awake_at: None, ..*state });
    }

    /// Closes all connections that there are, and waits until both sides have been told.
    pub async fn close_all(&self) {
        let first_open = self.begin_to_close();
        while self.open.numbers().range(..first_open).next().is_some() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn begin_to_close(&self) -> u64 {
        let first_open = self.connections.load(Ordering::SeqCst);
        self.state.send_modify(|state| state.first_open = first_open);
        first_open
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.begin_to_close();
    }
}

/// Carries one connection until either side closes it.
async fn carry(client: TcpStream, to: u16, number: u64, state: &watch::Sender<State>, messages: Option<Messages>) {
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
    // As both ends have it: or else what comes in pieces waits for the other side's acknowledgement.
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
        // Before it is passed on: whoever has an answer finds its messages.
        if let Some(parser) = &mut parser {
            parser.read(&buffer[..length]);
        }
        let now = *state.borrow();
        match now.network {
            // What is lost once is lost for good; so is the end of the connection.
            Network::Lossy => std::future::pending().await,
            Network::CutsAnswers if side == Side::Server && number < now.first_new => {
                to.write_all(&buffer[..length / 2]).await?;
                to.flush().await?;
                // A close that lingers for no time is a reset.
                return to.as_ref().set_zero_linger();
            }
            _ if length == 0 => return Ok(()),
            _ => to.write_all(&buffer[..length]).await?,
        }
    }
}
