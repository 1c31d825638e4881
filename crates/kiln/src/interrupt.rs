//! Ends what runs when the user says so: SIGINT, SIGTERM, or the Docker CLI closing its socket.

use std::io::Read as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::docker::plugin::SOCKET_VARIABLE;
use crate::error::exit;
use crate::settings::Settings;

/// Tells when to stop. The first word stops cleanly; the second ends the process at once.
#[derive(Clone, Debug)]
pub struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Begins to listen.
    pub fn listen(settings: &Settings) -> Self {
        let (sender, receiver) = watch::channel(false);
        if let Some(address) = settings.var(SOCKET_VARIABLE) {
            follow_docker(&address, sender.clone());
        }
        tokio::spawn(async move {
            let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
            let (Ok(mut interrupts), Ok(mut terminations)) = signals else {
                // Without handlers the signals end the process themselves.
                return;
            };
            loop {
                tokio::select! {
                    _ = interrupts.recv() => {}
                    _ = terminations.recv() => {}
                }
                if sender.send_replace(true) {
                    std::process::exit(i32::from(exit::CANCELED));
                }
            }
        });
        Self(receiver)
    }

    /// One that never comes.
    #[cfg(test)]
    pub fn never() -> Self {
        let (sender, receiver) = watch::channel(false);
        std::mem::forget(sender);
        Self(receiver)
    }

    /// Returns when the user wants to stop.
    pub async fn requested(&mut self) {
        if self.0.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The Docker CLI keeps a connection open as long as the plugin shall run.
fn follow_docker(address: &str, sender: watch::Sender<bool>) {
    let connected = match address.strip_prefix('@') {
        Some(name) => {
            SocketAddr::from_abstract_name(name).and_then(|address| UnixStream::connect_addr(&address))
        }
        None => UnixStream::connect(address),
    };
    let Ok(mut stream) = connected else { return };
    // A thread of its own that ends with the process: it only waits.
    std::thread::spawn(move || {
        let mut byte = [0];
        while matches!(stream.read(&mut byte), Ok(count) if count > 0) {}
        sender.send_replace(true);
    });
}
