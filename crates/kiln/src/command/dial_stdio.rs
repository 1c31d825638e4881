//! `kiln dial-stdio`: standard input and output become a connection to the builder.

use kiln_client::Address;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::connect;
use crate::blocking::Reader;
use crate::error::{Context as _, Error, Result};
use crate::settings::Settings;

/// Copies bytes both ways until either side ends.
pub async fn dial_stdio(settings: &Settings, builder: Option<&str>) -> Result<()> {
    let builder = connect(settings, builder).await?;
    match &builder.address {
        Address::Unix(path) => copy(UnixStream::connect(path).await.when("connect to the builder")?).await,
        Address::Tcp { host, port } => {
            copy(TcpStream::connect((host.as_str(), *port)).await.when("connect to the builder")?).await
        }
        Address::Command { shown, .. } => Err(Error::not_yet(format!("dial-stdio to {shown}"))),
    }
}

async fn copy(stream: impl AsyncRead + AsyncWrite) -> Result<()> {
    let (mut from_builder, mut to_builder) = tokio::io::split(stream);
    let mut stdin = Reader::new(std::io::stdin());
    let mut stdout = tokio::io::stdout();
    let up = async {
        tokio::io::copy(&mut stdin, &mut to_builder).await?;
        to_builder.shutdown().await
    };
    let down = async {
        tokio::io::copy(&mut from_builder, &mut stdout).await?;
        stdout.flush().await
    };
    tokio::pin!(up, down);
    // The end of standard input leaves the other direction open; the builder's end is the end.
    let result = tokio::select! {
        ended = &mut down => ended,
        ended = &mut up => match ended {
            Ok(()) => down.await,
            Err(error) => Err(error),
        },
    };
    result.when("pass bytes between standard input and the builder")
}
