//! Simulates a longer network: a TCP relay that delays all traffic by a fixed time and counts it.
//!
//! Hand-written on threads, because existing crates run on tokio, whose timer has a resolution of one millisecond.
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

/// A relay. It runs until the process exits.
pub struct Relay {
    port: u16,
    traffic: Arc<Traffic>,
}

/// Traffic counters for all connections.
#[derive(Default)]
struct Traffic {
    bytes_to_client: AtomicU64,
    round_trips: AtomicU64,
}

impl Relay {
    /// Relays from a free port of 127.0.0.1 to `to_port`. A round trip takes `round_trip` longer.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn start(to_port: u16, round_trip: Duration) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let relay = Self { port: listener.local_addr()?.port(), traffic: Arc::default() };
        let (delay, traffic) = (round_trip / 2, relay.traffic.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to_port)) else { continue };
                if let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) {
                    let (is_clients_turn, asked) = (Arc::new(AtomicBool::new(true)), traffic.clone());
                    let (is_clients_turn_again, answered) = (is_clients_turn.clone(), traffic.clone());
                    forward(from_client, to_server, delay, move |_| {
                        if is_clients_turn.swap(false, Ordering::SeqCst) {
                            asked.round_trips.fetch_add(1, Ordering::SeqCst);
                        }
                    });
                    forward(server, client, delay, move |bytes| {
                        is_clients_turn_again.store(true, Ordering::SeqCst);
                        answered.bytes_to_client.fetch_add(bytes as u64, Ordering::SeqCst);
                    });
                }
            }
        });
        Ok(relay)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes that the server has sent so far.
    pub fn bytes_to_client(&self) -> u64 {
        self.traffic.bytes_to_client.load(Ordering::SeqCst)
    }

    /// Round trips so far: a client's first bytes at the start, or after data from the server, begin one.
    pub fn round_trips(&self) -> u64 {
        self.traffic.round_trips.load(Ordering::SeqCst)
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, delay: Duration, count: impl Fn(usize) + Send + 'static) {
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
