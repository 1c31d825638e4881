//! What of an ssh agent a build may use: list keys and sign with them, nothing else.
//!
//! The protocol: a length of 4 bytes (big endian), a type, a body; one answer for each request (draft-miller-ssh-agent).

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of one message at most, as OpenSSH has it.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;

/// Passes requests of `build` that only use keys to `agent`, and its answers back; refuses all others. Ends when the build does.
pub(super) async fn pass<B, A>(mut build: B, mut agent: A) -> std::io::Result<()>
where
    B: AsyncRead + AsyncWrite + Unpin,
    A: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(request) = message(&mut build).await? {
        if matches!(request.get(4), Some(&REQUEST_IDENTITIES | &SIGN_REQUEST)) {
            agent.write_all(&request).await?;
            let answer = message(&mut agent).await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
            build.write_all(&answer).await?;
        } else {
            build.write_all(&FAILURE).await?;
        }
        build.flush().await?;
    }
    Ok(())
}

/// One message with its length; none: the end.
async fn message(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let mut message = vec![0; 4];
    match stream.read_exact(&mut message[..1]).await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    stream.read_exact(&mut message[1..]).await?;
    let length = u32::from_be_bytes([message[0], message[1], message[2], message[3]]) as usize;
    if length == 0 || length > MESSAGE_BYTES_MAX {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    message.resize(4 + length, 0);
    stream.read_exact(&mut message[4..]).await?;
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = (body.len() as u32 + 1).to_be_bytes().to_vec();
        out.push(kind);
        out.extend(body);
        out
    }

    #[tokio::test]
    async fn keys_are_used_and_not_changed() {
        let (mut build, filtered) = tokio::io::duplex(1024);
        let (to_agent, mut agent) = tokio::io::duplex(1024);
        let passing = tokio::spawn(pass(filtered, to_agent));
        // Adding a key, removing all, locking, an extension.
        for kind in [17, 19, 22, 27] {
            build.write_all(&framed(kind, b"x")).await.expect("is taken");
            assert_eq!(message(&mut build).await.expect("answers").as_deref(), Some(&FAILURE[..]));
        }
        for (kind, answer) in [(REQUEST_IDENTITIES, 12), (SIGN_REQUEST, 14)] {
            build.write_all(&framed(kind, b"q")).await.expect("is taken");
            assert_eq!(message(&mut agent).await.expect("asks"), Some(framed(kind, b"q")));
            agent.write_all(&framed(answer, b"a")).await.expect("is taken");
            assert_eq!(message(&mut build).await.expect("answers"), Some(framed(answer, b"a")));
        }
        build.write_all(&u32::MAX.to_be_bytes()).await.expect("is taken");
        assert!(passing.await.expect("ends").is_err());
    }
}
