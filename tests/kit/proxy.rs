//! Somebody who stands between two others on a TCP connection, and may say nothing for a while, or be slow. What is on its
//! way when it falls silent stays on its way, as with a cable that is pulled and put back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What it does with what it hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Passes,
    Delays(Duration),
    Silent,
    Refuses,
}

/// A proxy of one address. It ends, with all its connections, when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    manner: watch::Sender<Manner>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on this port of 127.0.0.1 and passes all on to `target`.
    ///
    /// # Panics
    /// When it cannot listen, or `target` is no address.
    pub async fn start(port: u16, target: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
        let target: SocketAddr = target.parse().expect("an address");
        let (manner, now) = watch::channel(Manner::Passes);
        Self { manner, task: tokio::spawn(listen(listener, target, now)) }
    }

    /// Passes on, at once.
    pub fn pass(&self) {
        self.manner.send_replace(Manner::Passes);
    }

    /// Passes everything on so much later.
    pub fn delay(&self, by: Duration) {
        self.manner.send_replace(Manner::Delays(by));
    }

    /// Says nothing: connections stay open, new ones are taken, and nothing comes out of them.
    pub fn silence(&self) {
        self.manner.send_replace(Manner::Silent);
    }

    /// Breaks all connections and takes no new ones.
    pub fn refuse(&self) {
        self.manner.send_replace(Manner::Refuses);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Its connections end with the sender.
        self.task.abort();
    }
}

async fn listen(listener: TcpListener, target: SocketAddr, manner: watch::Receiver<Manner>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        if *manner.borrow() == Manner::Refuses {
            continue;
        }
        let manner = manner.clone();
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(target).await else { return };
            // Neither side waits for more to send together.
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            // When one direction ends, so does the other: half of a connection is of no use here.
            tokio::select! {
                () = pump(from_client, to_server, manner.clone()) => {}
                () = pump(from_server, to_client, manner) => {}
            }
        });
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut manner: watch::Receiver<Manner>) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = tokio::select! {
            read = from.read(&mut chunk) => read,
            broken = manner.wait_for(|now| *now == Manner::Refuses) => { drop(broken); return; }
        };
        let Ok(read @ 1..) = read else { return };
        // What falls into a silence is passed on after it, unless that ends with a break.
        let now = match manner.wait_for(|now| *now != Manner::Silent).await {
            Ok(now) => *now,
            Err(_) => return,
        };
        match now {
            Manner::Refuses => return,
            Manner::Delays(by) => tokio::time::sleep(by).await,
            Manner::Passes | Manner::Silent => {}
        }
        if to.write_all(&chunk[..read]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    //! That silence is silence.

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_falls_into_a_silence_comes_after_it() {
        let there = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let target = there.local_addr().expect("it listens").to_string();
        let port = TcpListener::bind("127.0.0.1:0").await.and_then(|free| free.local_addr()).expect("a port").port();
        let proxy = Proxy::start(port, &target).await;
        let mut here = TcpStream::connect(("127.0.0.1", port)).await.expect("it takes connections");
        let (mut there, _) = there.accept().await.expect("it passes on");
        let mut heard = [0; 1];
        here.write_all(b"a").await.expect("written");
        there.read_exact(&mut heard).await.expect("passed on");
        proxy.silence();
        here.write_all(b"b").await.expect("written");
        assert!(timeout(Duration::from_millis(100), there.read_exact(&mut heard)).await.is_err(), "it is not silent");
        proxy.pass();
        there.read_exact(&mut heard).await.expect("passed on");
        assert_eq!(&heard, b"b");
        proxy.refuse();
        assert_eq!(there.read(&mut heard).await.expect("an end"), 0);
    }
}
