//! A longer network: a TCP relay that holds back all that passes by a fixed time, and counts what passes.
//!
//! Our own, on threads: crates that do this run on tokio, whose timer counts whole milliseconds.
use anyhow::Result;
use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// A relay; it runs for as long as the process lives.
pub struct Relay {
    port: u16,
    traffic: Arc<Traffic>,
}

/// What has passed, of all connections.
#[derive(Default)]
struct Traffic {
    bytes_to_client: AtomicU64,
    round_trips: AtomicU64,
}

impl Relay {
    /// Relays from a free port of 127.0.0.1 to another; a round trip takes `round_trip` longer.
    ///
    /// # Errors
    /// Where there is no free port.
    pub fn start(to_port: u16, round_trip: Duration) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let relay = Self { port: listener.local_addr()?.port(), traffic: Arc::default() };
        let (delay, traffic) = (round_trip / 2, relay.traffic.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to_port)) else { continue };
                if let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) {
                    let (is_clients_turn, asked) = (Arc::new(AtomicBool::new(true)), traffic.clone());
                    let (is_over, answered) = (is_clients_turn.clone(), traffic.clone());
                    pass_on(from_client, to_server, delay, move |_| {
                        if is_clients_turn.swap(false, Ordering::SeqCst) {
                            asked.round_trips.fetch_add(1, Ordering::SeqCst);
                        }
                    });
                    pass_on(server, client, delay, move |bytes| {
                        is_over.store(true, Ordering::SeqCst);
                        answered.bytes_to_client.fetch_add(bytes as u64, Ordering::SeqCst);
                    });
                }
            }
        });
        Ok(relay)
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many bytes have come from the other side so far.
    pub fn bytes_to_client(&self) -> u64 {
        self.traffic.bytes_to_client.load(Ordering::SeqCst)
    }

    /// How often so far a client has sent something after the server's last word: each time it will wait for an answer.
    pub fn round_trips(&self) -> u64 {
        self.traffic.round_trips.load(Ordering::SeqCst)
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, delay: Duration, count: impl Fn(usize) + Send + 'static) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    let _ = to.set_nodelay(true);
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            count(length);
            if sender.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
