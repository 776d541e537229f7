//! How a process ends: the first SIGINT or SIGTERM asks everybody to drain, the second ends it at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code of a process that did not wait for its drain: 128 + SIGINT, as shells have it.
const IMPATIENT_EXIT_CODE: i32 = 130;

/// Listens for SIGINT and SIGTERM from now on; the token is cancelled by the first. The second ends the process without
/// waiting for anything: what was acknowledged is safe in the log.
///
/// # Errors
/// If the handlers cannot be registered.
pub fn on_signals() -> io::Result<CancellationToken> {
    let mut signals = Signals::listen()?;
    let token = CancellationToken::new();
    let draining = token.clone();
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::info!(signal = name, "draining; a second {name} ends at once");
        draining.cancel();
        let name = signals.next().await;
        tracing::warn!(signal = name, "ending without draining");
        std::process::exit(IMPATIENT_EXIT_CODE);
    });
    Ok(token)
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_first_signal_asks_to_drain() {
        let draining = on_signals().unwrap();
        assert!(!draining.is_cancelled());
        let status = Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status().unwrap();
        assert!(status.success());
        tokio::time::timeout(Duration::from_secs(20), draining.cancelled()).await.expect("the token is cancelled");
    }
}
