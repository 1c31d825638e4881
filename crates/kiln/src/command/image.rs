//! `kiln image …`: the image store of the daemon.

mod show;
mod transfer;

use std::borrow::Cow;
use std::fs::File;
use std::io::{IsTerminal as _, Read, Write as _};
use std::sync::Arc;

use futures::StreamExt as _;
use kiln_client::details::Details;
use kiln_proto::images::images_client::ImagesClient;
use kiln_proto::images::load_images_request::Part;
use kiln_proto::images::{
    InspectImageRequest, ListImagesRequest, LoadImagesRequest, LoadOptions, PullImageRequest,
    PushImageRequest, RemoveImageRequest, SaveImagesRequest, TagImageRequest,
};
use kiln_proto::{MESSAGE_BYTES_MAX, tonic};
use kiln_session::client::Session;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::connect;
use crate::builder::Builder;
use crate::cli::{ImageArgs, ImageCommand, ListArgs, LoadArgs, PullArgs, PushArgs, SaveArgs};
use crate::docker::config::Config;
use crate::docker::credentials::Credentials;
use crate::error::{Context as _, Error, Result};
use crate::files::Pending;
use crate::interrupt::Interrupt;
use crate::lend::Logins;
use crate::output::print;
use crate::settings::Settings;

/// Bytes of an archive in one message.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks read ahead.
const QUEUE: usize = 4;

/// Runs one of them; the user may stop it at any time.
pub async fn image(args: &ImageArgs, settings: &Settings, builder: Option<&str>) -> Result<()> {
    let mut interrupt = Interrupt::listen(settings);
    tokio::select! {
        result = run(args, settings, builder) => result,
        () = interrupt.requested() => Err(Error::canceled()),
    }
}

async fn run(args: &ImageArgs, settings: &Settings, builder: Option<&str>) -> Result<()> {
    let builder = connect(settings, builder).await?;
    let store = Store { client: client(&builder), builder, settings };
    match &args.command {
        ImageCommand::Ls(args) => store.list(args).await,
        ImageCommand::Pull(args) => store.pull(args).await,
        ImageCommand::Push(args) => store.push(args).await,
        ImageCommand::Rm { images } => store.remove(images).await,
        ImageCommand::Tag { source, target } => store.tag(source, target).await,
        ImageCommand::Inspect { images } => store.inspect(images).await,
        ImageCommand::Save(args) => store.save(args).await,
        ImageCommand::Load(args) => store.load(args).await,
    }
}

fn client(builder: &Builder) -> ImagesClient<Channel> {
    ImagesClient::new(builder.client.channel())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

struct Store<'a> {
    client: ImagesClient<Channel>,
    builder: Builder,
    settings: &'a Settings,
}

/// Turns the service's refusals into errors.
struct Failed {
    what: String,
    builder: String,
}

impl Failed {
    fn of(&self, status: Status) -> Error {
        let message = format!("cannot {}", self.what);
        match status.code() {
            Code::Unimplemented => Error::user(format!("the builder {:?} has no image store", self.builder))
                .hint("images are kept by kilnd: leave --builder and BUILDKIT_HOST out"),
            Code::NotFound => {
                Error::user(format!("{message}: {}", status.message())).hint("see `kiln image ls`")
            }
            _ => {
                let error = Error::environment(format!("{message}: {}", status.message()));
                Details::of(&status).advice.into_iter().fold(error, Error::hint)
            }
        }
    }
}

/// Platforms as the service takes them: none for this machine's, `all` for all of them.
fn pull_platforms(given: &[String]) -> Result<Vec<String>> {
    match given {
        [] => Ok(vec![kiln_oci::platform::default_for_host().to_string()]),
        [all] if all == "all" => Ok(Vec::new()),
        given => platforms(given),
    }
}

fn platforms(given: &[String]) -> Result<Vec<String>> {
    Ok(crate::flags::platforms(given)?.iter().map(ToString::to_string).collect())
}

impl Store<'_> {
    fn failed<'w>(&self, what: impl Into<Cow<'w, str>>) -> Failed {
        Failed { what: what.into().into_owned(), builder: self.builder.name.clone() }
    }
    async fn list(mut self, args: &ListArgs) -> Result<()> {
        let request = ListImagesRequest { references: args.images.clone() };
        let failed = self.failed("list images");
        let images = self.client.list(request).await.map_err(|status| failed.of(status))?.into_inner().images;
        print(&match (args.quiet, args.format.as_str()) {
            (true, _) => show::digests(&images, args.no_trunc),
            (_, "json") => show::json_lines(&images),
            _ => show::table(&images, args.no_trunc),
        })
    }

    async fn remove(mut self, images: &[String]) -> Result<()> {
        for reference in images {
            let failed = self.failed(format!("remove {reference}"));
            let request = RemoveImageRequest { reference: reference.clone() };
            let removed = self.client.remove(request).await.map_err(|status| failed.of(status))?.into_inner();
            let untagged = removed.untagged.iter().map(|name| format!("Untagged: {name}\n"));
            let deleted = removed.deleted.iter().map(|digest| format!("Deleted: {digest}\n"));
            print(&untagged.chain(deleted).collect::<String>())?;
        }
        Ok(())
    }

    async fn tag(mut self, source: &str, target: &str) -> Result<()> {
        let failed = self.failed(format!("tag {source} as {target}"));
        let request = TagImageRequest { source: source.to_owned(), target: target.to_owned() };
        self.client.tag(request).await.map_err(|status| failed.of(status))?;
        Ok(())
    }

    async fn inspect(mut self, images: &[String]) -> Result<()> {
        let mut found = Vec::new();
        for reference in images {
            let failed = self.failed(format!("inspect {reference}"));
            let request = InspectImageRequest { reference: reference.clone() };
            found.push(show::details(
                &self.client.inspect(request).await.map_err(|status| failed.of(status))?.into_inner(),
            ));
        }
        print(&(serde_json::to_string_pretty(&found).expect("a JSON value has only string keys") + "\n"))
    }

    async fn pull(mut self, args: &PullArgs) -> Result<()> {
        let (session, _serving) = self.lend_logins().await?;
        let request = PullImageRequest {
            reference: args.image.clone(),
            platforms: pull_platforms(&args.platform)?,
            session,
        };
        let failed = self.failed(format!("pull {}", args.image));
        let progress = self.client.pull(request).await.map_err(|status| failed.of(status))?.into_inner();
        let result = transfer::follow(progress, args.quiet).await.map_err(|status| failed.of(status))?;
        print(&show::result(&result, args.quiet))
    }

    async fn push(mut self, args: &PushArgs) -> Result<()> {
        let (session, _serving) = self.lend_logins().await?;
        let request = PushImageRequest {
            reference: args.image.clone(),
            target: args.target.clone().unwrap_or_default(),
            platforms: platforms(&args.platform)?,
            session,
            insecure: args.insecure,
        };
        let failed = self.failed(format!("push {}", args.target.as_ref().unwrap_or(&args.image)));
        let progress = self.client.push(request).await.map_err(|status| failed.of(status))?.into_inner();
        let result = transfer::follow(progress, args.quiet).await.map_err(|status| failed.of(status))?;
        print(&show::result(&result, args.quiet))
    }

    async fn save(mut self, args: &SaveArgs) -> Result<()> {
        let request = SaveImagesRequest {
            references: args.images.clone(),
            format: args.format.clone(),
            platforms: platforms(&args.platform)?,
        };
        let failed = self.failed("save the images");
        if args.output.is_none() && std::io::stdout().is_terminal() {
            return Err(Error::user("refusing to write an archive to the terminal").hint("use --output FILE"));
        }
        let mut chunks = self.client.save(request).await.map_err(|status| failed.of(status))?.into_inner();
        let mut file = args.output.as_deref().map(Pending::create).transpose()?;
        while let Some(chunk) = chunks.message().await.map_err(|status| failed.of(status))? {
            match &mut file {
                Some(file) => file.write_all(&chunk.data),
                None => std::io::stdout().lock().write_all(&chunk.data),
            }
            .when("write the archive")?;
        }
        match file {
            Some(file) => file.commit(),
            None => std::io::stdout().lock().flush().when("write the archive"),
        }
    }

    async fn load(mut self, args: &LoadArgs) -> Result<()> {
        let source: Box<dyn Read + Send> = match &args.input {
            Some(path) => Box::new(File::open(path).when(format!("read `{}`", path.display()))?),
            None if std::io::stdin().is_terminal() => {
                return Err(
                    Error::user("nothing to load: standard input is the terminal").hint("use --input FILE")
                );
            }
            None => Box::new(std::io::stdin()),
        };
        let options = LoadOptions { name: args.name.clone(), platforms: platforms(&args.platform)? };
        let (parts, problem) = archive(source);
        let first = futures::stream::iter([Part::Options(options)]);
        let messages = first.chain(parts).map(|part| LoadImagesRequest { part: Some(part) });
        let failed = self.failed("load the archive");
        let loaded = async {
            let progress = self.client.load(messages).await?.into_inner();
            transfer::follow(progress, args.quiet).await
        };
        let result = loaded.await;
        // An archive that could not be read to its end looks like a broken one to the daemon.
        if let Ok(error) = problem.await {
            return Err(error).when("read the archive");
        }
        print(&show::result(&result.map_err(|status| failed.of(status))?, args.quiet))
    }

    /// Opens a session that answers for credentials; it ends with what is returned.
    async fn lend_logins(&self) -> Result<(String, Serving)> {
        let config = Config::load(self.settings)?;
        let mut session = Session::new("").await.when("make a session")?;
        session.credentials(Arc::new(Logins(Arc::new(Credentials::new(config, self.settings)?))));
        let id = session.id().to_owned();
        Ok((id, Serving(tokio::spawn(session.serve(self.builder.client.channel())))))
    }
}

/// A session that is being served; the daemon misses it when it breaks, and says so.
struct Serving(tokio::task::JoinHandle<std::result::Result<(), kiln_session::client::Error>>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The chunks of an archive, and what went wrong with reading it.
fn archive(
    mut source: impl Read + Send + 'static,
) -> (impl futures::Stream<Item = Part>, tokio::sync::oneshot::Receiver<std::io::Error>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(QUEUE);
    let (problem, problems) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            match source.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk) {
                Ok(0) => return,
                Ok(_) if sender.blocking_send(Part::Data(chunk.into())).is_err() => return,
                Ok(_) => {}
                Err(error) => {
                    let _ = problem.send(error);
                    return;
                }
            }
        }
    });
    (ReceiverStream::new(receiver), problems)
}
