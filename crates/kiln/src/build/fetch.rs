//! A Dockerfile from a URL, fetched by the builder: its network, its credentials and its cache are those of the build.

use std::time::Duration;

use kiln_client::{Client, Error as ClientError};
use kiln_llb::{Constraints, FileInfo, HttpSource, MarshalOptions, State};
use kiln_proto::MESSAGE_BYTES_MAX;
use kiln_proto::control;
use kiln_proto::frontend::llb_bridge_client::LlbBridgeClient;
use kiln_proto::frontend::{
    PingRequest, ReadFileRequest, Result as GatewayResult, ReturnRequest, SolveRequest, StatFileRequest,
    result,
};

use crate::error::{Error, Result};
use crate::random;

/// A Dockerfile that is longer is none (Buildx's limit).
const DOCKERFILE_BYTES_MAX: i64 = 2 << 20;
/// What the file is called on the way.
const NAME: &str = "Dockerfile";
/// After the answer is there, the build that it needed has this long to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches the file.
pub async fn dockerfile(client: &Client, url: &str) -> Result<Vec<u8>> {
    let failed =
        |error: ClientError| Error::build(format!("cannot fetch the Dockerfile {url}")).because(error);
    let build = random::build_id()?;
    let request =
        control::SolveRequest { r#ref: build.clone(), internal: true, ..control::SolveRequest::default() };
    let solving = client.solve(request);
    let reading = read(client, &build, url);
    tokio::pin!(solving, reading);
    let found = tokio::select! {
        found = &mut reading => found,
        // Without the build there is no answer to wait for.
        Err(error) = &mut solving => return Err(failed(error)),
    };
    let text = found.map_err(failed)??;
    // The file is here; how the build ends changes nothing.
    let _ = tokio::time::timeout(END_TIMEOUT, solving).await;
    Ok(text)
}

async fn read(client: &Client, build: &str, url: &str) -> std::result::Result<Result<Vec<u8>>, ClientError> {
    let mut bridge = LlbBridgeClient::new(client.channel())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    bridge.ping(Client::for_build(PingRequest {}, build)?).await?;
    let source = HttpSource {
        file: FileInfo { filename: NAME.to_owned(), ..FileInfo::default() },
        ..HttpSource::default()
    };
    let name = format!("[internal] load {url}");
    let state = State::http(url, source, Constraints::new().custom_name(name));
    let definition =
        match state.marshal(&MarshalOptions::new(kiln_oci::platform::default_for_host(), String::new())) {
            Ok(definition) => definition,
            Err(error) => {
                return Ok(Err(Error::user(format!("{url:?} is no address of a Dockerfile")).because(error)));
            }
        };
    let request = SolveRequest {
        definition: Some(definition),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..SolveRequest::default()
    };
    let solved = bridge.solve(Client::for_build(request, build)?).await?.into_inner();
    let reference = match solved.result.and_then(|result| result.result) {
        Some(result::Result::Ref(reference)) => reference.id,
        Some(result::Result::RefDeprecated(id)) => id,
        _ => String::new(),
    };
    let stat =
        StatFileRequest { r#ref: reference.clone(), path: NAME.to_owned(), ..StatFileRequest::default() };
    let stat = bridge.stat_file(Client::for_build(stat, build)?).await?.into_inner().stat.unwrap_or_default();
    if stat.size > DOCKERFILE_BYTES_MAX {
        return Ok(Err(Error::user(format!("Dockerfile {url} bigger than allowed max size (2.097MB)"))));
    }
    let request =
        ReadFileRequest { r#ref: reference, file_path: NAME.to_owned(), ..ReadFileRequest::default() };
    let text = bridge.read_file(Client::for_build(request, build)?).await?.into_inner().data.to_vec();
    let end = ReturnRequest { result: Some(GatewayResult::default()), error: None };
    bridge.r#return(Client::for_build(end, build)?).await?;
    Ok(Ok(text))
}
