//! Simulates a longer network: a TCP relay that delays all traffic by a fixed time and counts it.
//!
//! Hand-written on threads, because existing crates run on tokio, whose timer has a resolution of one millisecond.
use anyhow::Result;
use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    ops::{DerefMut, Range},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// A relay. It runs until the process exits.
pub struct Relay {
    port: u16,
    round_trip: Duration,
    traffic: Arc<Traffic>,
}

/// Traffic counters for all connections.
#[derive(Default)]
struct Traffic {
    bytes_to_client: AtomicU64,
    /// When each answered round trip began.
    round_trips: Mutex<Vec<Instant>>,
}

impl Traffic {
    fn round_trips(&self) -> impl DerefMut<Target = Vec<Instant>> {
        self.round_trips.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relay {
    /// Relays from a free port of 127.0.0.1 to `to_port`. A round trip takes `round_trip` longer, and so does connecting.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn start(to_port: u16, round_trip: Duration) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let relay = Self { port: listener.local_addr()?.port(), round_trip, traffic: Arc::default() };
        let (delay, traffic) = (round_trip / 2, relay.traffic.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // The kernel accepts a connection at once. The client's first bytes wait for the round trip that
                // connecting would have taken.
                let connected = Instant::now() + round_trip;
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to_port)) else { continue };
                traffic.round_trips().push(Instant::now());
                if let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) {
                    // When the client sent what has no answer yet.
                    let (asked, asked_before) = (Arc::new(Mutex::new(None)), traffic.clone());
                    let unanswered = asked.clone();
                    let to_server_read = move |_| {
                        asked.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
                    };
                    let to_client = move |bytes| {
                        let began = unanswered.lock().unwrap_or_else(PoisonError::into_inner).take();
                        asked_before.round_trips().extend(began);
                        asked_before.bytes_to_client.fetch_add(bytes as u64, Ordering::SeqCst);
                    };
                    forward(from_client, to_server, connected, delay, to_server_read, |_| {});
                    forward(server, client, connected, delay, |_| {}, to_client);
                }
            }
        });
        Ok(relay)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The time that a round trip takes longer, in ms.
    pub fn round_trip_ms(&self) -> f64 {
        self.round_trip.as_secs_f64() * 1000.0
    }

    /// Bytes that clients have received so far.
    pub fn bytes_to_client(&self) -> u64 {
        self.traffic.bytes_to_client.load(Ordering::SeqCst)
    }

    /// Round trips so far. Connecting is one. Another begins when the client sends its first bytes, or sends bytes after it
    /// has received data. Only those that were answered count: nobody waits for the end of a connection.
    pub fn round_trips(&self) -> u64 {
        self.traffic.round_trips().len() as u64
    }

    /// The answered round trips that began in this time.
    pub fn round_trips_in(&self, time: Range<Instant>) -> u64 {
        self.traffic.round_trips().iter().filter(|began| time.contains(began)).count() as u64
    }
}

/// Forwards in one direction. The first bytes are not sent before `connected`. `on_read` and `on_write` are called with
/// the number of bytes, before these are forwarded and before they are delivered.
fn forward(
    mut from: TcpStream,
    mut to: TcpStream,
    connected: Instant,
    delay: Duration,
    on_read: impl Fn(usize) + Send + 'static,
    on_write: impl Fn(usize) + Send + 'static,
) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    let _ = to.set_nodelay(true);
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            on_read(length);
            let due = Instant::now().max(connected) + delay;
            if sender.send((due, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            on_write(bytes.len());
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each byte with one byte.
    fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut byte = [0];
                while let Ok(1) = stream.read(&mut byte) {
                    let _ = stream.write_all(&byte);
                }
            }
        });
        port
    }

    #[test]
    fn connecting_and_each_exchange_are_a_round_trip_and_take_its_time() {
        let relay = Relay::start(echo(), Duration::from_millis(20)).expect("a relay");
        let began = Instant::now();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).expect("connected");
        for exchange in 1..=3 {
            client.write_all(b"x").expect("written");
            client.read_exact(&mut [0]).expect("answered");
            assert_eq!(relay.round_trips(), 1 + exchange);
            let passed = began.elapsed();
            assert!(passed >= Duration::from_millis(20 * (1 + exchange)), "{exchange}: {passed:?}");
        }
        assert_eq!(relay.bytes_to_client(), 3);
        assert_eq!(relay.round_trips_in(began..Instant::now()), 4);
        assert_eq!(relay.round_trips_in(Instant::now()..Instant::now() + Duration::from_secs(1)), 0);
    }

    #[test]
    fn what_a_client_sends_before_it_has_received_the_answer_is_the_same_round_trip() {
        let relay = Relay::start(echo(), Duration::from_millis(400)).expect("a relay");
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).expect("connected");
        client.write_all(b"x").expect("written");
        // After 600 ms the server answers, and after 800 ms the client has the answer.
        thread::sleep(Duration::from_millis(700));
        client.write_all(b"y").expect("written");
        client.read_exact(&mut [0; 2]).expect("answered");
        assert_eq!(relay.round_trips(), 2);
        // Nobody answered it, so it does not count as a round trip.
        client.write_all(b"z").expect("written");
        assert_eq!(relay.round_trips(), 2);
    }
}
