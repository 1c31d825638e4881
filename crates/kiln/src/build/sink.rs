//! Where the bytes of a result go: a file, standard output, or another program.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kiln_session::client::TargetFile;
use tokio::sync::mpsc;

use crate::error::Result;
use crate::files::Pending;

/// Chunks that wait for another program to take them.
const QUEUE: usize = 16;

/// A file that gets its name when the build has succeeded.
#[derive(Clone, Debug)]
pub struct FileSink(Arc<Mutex<Option<Pending>>>);

impl FileSink {
    /// Begins the file.
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Some(Pending::create(path)?)))))
    }

    /// Gives the file its name.
    pub fn commit(&self) -> Result<()> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(pending) => pending.commit(),
            None => Ok(()),
        }
    }
}

impl Write for FileSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(pending) => pending.write(data),
            None => Err(io::Error::other("the result was written already")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TargetFile for FileSink {
    fn handle(&self) -> Option<OwnedFd> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.handle()
    }
}

/// Hands chunks to whoever reads the other end. Written from threads, read by a task.
#[derive(Clone, Debug)]
pub struct ChannelSink(mpsc::Sender<Bytes>);

impl TargetFile for ChannelSink {}

/// A sink and its other end.
pub fn channel() -> (ChannelSink, mpsc::Receiver<Bytes>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (ChannelSink(sender), receiver)
}

impl Write for ChannelSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.0.blocking_send(Bytes::copy_from_slice(data)) {
            Ok(()) => Ok(data.len()),
            Err(_) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the receiver of the image is gone")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_when_it_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.tar");
        let sink = FileSink::create(&path).unwrap();
        sink.clone().write_all(b"data").unwrap();
        assert!(!path.exists());
        sink.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
        assert!(sink.clone().write_all(b"more").is_err());
    }

    #[test]
    fn chunks_arrive_in_order() {
        let (mut sink, mut receiver) = channel();
        let writer = std::thread::spawn(move || (0..100u8).try_for_each(|n| sink.write_all(&[n])));
        let got: Vec<u8> = std::iter::from_fn(|| receiver.blocking_recv()).flatten().collect();
        writer.join().unwrap().unwrap();
        assert_eq!(got, (0..100).collect::<Vec<u8>>());
        let (mut sink, receiver) = channel();
        drop(receiver);
        assert!(sink.write_all(b"x").is_err());
    }
}
