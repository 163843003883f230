//! A small TCP proxy for fault tests: it stands in front of a server and breaks the line on purpose.
//!
//! It knows nothing about the bytes it carries, so TLS passes through it and PostgreSQL does too.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// A proxy on a free loopback port. Dropping it drops its connections and frees the port.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy in front of `target` (`host:port`), which need not be up yet.
    ///
    /// # Errors
    /// When no loopback port can be bound.
    pub fn start(target: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let target = target.to_owned();
        let acceptor = thread::Builder::new().name(format!("proxy {target}")).spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &target, &shared)
        })?;
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// The address to give to the client under test.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops every connection at once and closes every new one as soon as it is made, until [`Self::restore`].
    ///
    /// The port stays bound, so that nobody else can take it meanwhile: a client sees its connection closed, not
    /// refused.
    pub fn cut(&self) {
        let mut line = self.shared.line();
        line.cut = true;
        line.drop_connections();
        self.shared.changed.notify_all();
    }

    /// Lets connections through again, without delay.
    pub fn restore(&self) {
        let mut line = self.shared.line();
        line.cut = false;
        line.delay = Duration::ZERO;
        self.shared.changed.notify_all();
    }

    /// Holds every piece of data back for `delay`, in each direction. A delay longer than the test makes a line that is
    /// up and silent. Data held back when the delay is lowered goes on at once if its new time has passed.
    pub fn delay(&self, delay: Duration) {
        self.shared.line().delay = delay;
        self.shared.changed.notify_all();
    }

    /// How many connections clients have made so far, those made while the line was cut included.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.line().accepted
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        {
            let mut line = self.shared.line();
            line.stopped = true;
            line.drop_connections();
            self.shared.changed.notify_all();
        }
        // The acceptor sleeps in accept(): one connection wakes it. If that fails it is not sleeping there any more.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    line: Mutex<Line>,
    changed: Condvar,
}

impl Shared {
    /// A panic elsewhere leaves nothing half done in here, so a poisoned lock is still good.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until data that came at `since` may go on; false when the line is cut first.
    fn hold(&self, since: Instant) -> bool {
        let mut line = self.line();
        loop {
            if line.cut || line.stopped {
                return false;
            }
            let left = line.delay.saturating_sub(since.elapsed());
            if left.is_zero() {
                return true;
            }
            line = self.changed.wait_timeout(line, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[derive(Debug, Default)]
struct Line {
    cut: bool,
    stopped: bool,
    delay: Duration,
    accepted: u64,
    connections: HashMap<u64, [TcpStream; 2]>,
}

impl Line {
    fn drop_connections(&mut self) {
        for end in self.connections.drain().flat_map(|(_, ends)| ends) {
            // An end that is closed already needs no closing.
            drop(end.shutdown(Shutdown::Both));
        }
    }
}

fn accept(listener: &TcpListener, target: &str, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        let id = {
            let mut line = shared.line();
            if line.stopped {
                return;
            }
            line.accepted += 1;
            if line.cut {
                continue;
            }
            line.accepted
        };
        let shared = Arc::clone(shared);
        let target = target.to_owned();
        // Connecting may take long, and must not keep the next client waiting.
        thread::spawn(move || carry(id, client, &target, &shared));
    }
}

fn carry(id: u64, client: TcpStream, target: &str, shared: &Arc<Shared>) {
    let Ok(server) = TcpStream::connect(target) else { return };
    drop(client.set_nodelay(true));
    drop(server.set_nodelay(true));
    let (Ok(client_end), Ok(server_end)) = (client.try_clone(), server.try_clone()) else { return };
    {
        let mut line = shared.line();
        if line.cut || line.stopped {
            return;
        }
        line.connections.insert(id, [client_end, server_end]);
    }
    let (Ok(client_reader), Ok(server_writer)) = (client.try_clone(), server.try_clone()) else { return };
    let upward = thread::spawn({
        let shared = Arc::clone(shared);
        move || copy(client_reader, server_writer, &shared)
    });
    copy(server, client, shared);
    drop(upward.join());
    shared.line().connections.remove(&id);
}

fn copy(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => {
                // One side has said all: the other may still be answering.
                drop(to.shutdown(Shutdown::Write));
                return;
            }
            Ok(length) if shared.hold(Instant::now()) && to.write_all(&buffer[..length]).is_ok() => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => {
                drop(from.shutdown(Shutdown::Both));
                drop(to.shutdown(Shutdown::Both));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each byte with the same byte.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let mut writer = stream.try_clone().unwrap();
                    drop(io::copy(&mut stream, &mut writer));
                });
            }
        });
        address
    }

    fn round_trip(stream: &mut TcpStream) -> io::Result<u8> {
        let mut byte = [7];
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    #[test]
    fn carries_both_ways_and_counts() {
        let proxy = Proxy::start(&echo().to_string()).unwrap();
        let mut first = TcpStream::connect(proxy.address()).unwrap();
        let mut second = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(round_trip(&mut first).unwrap(), 7);
        assert_eq!(round_trip(&mut second).unwrap(), 7);
        assert_eq!(proxy.accepted(), 2);
    }

    #[test]
    fn a_cut_drops_old_and_new_connections_until_restored() {
        let proxy = Proxy::start(&echo().to_string()).unwrap();
        let mut old = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(round_trip(&mut old).unwrap(), 7);
        proxy.cut();
        round_trip(&mut old).unwrap_err();
        let mut new = TcpStream::connect(proxy.address()).unwrap();
        round_trip(&mut new).unwrap_err();
        proxy.restore();
        let mut after = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(round_trip(&mut after).unwrap(), 7);
    }

    #[test]
    fn data_held_back_goes_on_when_the_line_is_restored() {
        let proxy = Proxy::start(&echo().to_string()).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(round_trip(&mut stream).unwrap(), 7);
        proxy.delay(Duration::MAX);
        stream.write_all(&[1]).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stream.set_read_timeout(None).unwrap();
        proxy.restore();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(byte[0], 1);
    }

    #[test]
    fn a_server_that_is_away_looks_like_a_closed_line() {
        let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let proxy = Proxy::start(&free.to_string()).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        round_trip(&mut stream).unwrap_err();
    }

    #[test]
    fn dropping_the_proxy_frees_its_port() {
        let proxy = Proxy::start(&echo().to_string()).unwrap();
        let address = proxy.address();
        drop(proxy);
        TcpStream::connect(address).unwrap_err();
    }
}
