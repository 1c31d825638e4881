//! `kiln build` from beginning to end.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_session::client::Session;

use super::cache::Caches;
use super::inputs::{self, Body, Inputs};
use super::options::Options;
use super::outcome::{self, Response};
use super::outputs::{self, EngineState, Export, Surroundings, Target};
use super::request::{self, Facts, Parts};
use super::solve::{self, Failure, Solved};
use super::{call, fetch, git, oci_index, provenance};
use crate::builder::{self, Builder, Choice};
use crate::cli::BuildArgs;
use crate::docker::config::Config;
use crate::docker::context;
use crate::docker::credentials::Credentials;
use crate::docker::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::flags::HostAddress;
use crate::interrupt::Interrupt;
use crate::lend::Lent;
use crate::load::Loading;
use crate::output::print;
use crate::printer::{self, Printer};
use crate::random;
use crate::settings::Settings;

/// Builds what the flags say.
pub async fn run(
    args: &BuildArgs,
    settings: &Settings,
    builder_flag: Option<&str>,
    debug: bool,
) -> Result<()> {
    let options = Options::parse(args, settings)?;
    let result = run_parsed(&options, settings, builder_flag, debug).await;
    result.map_err(|error| error.in_context("failed to build"))
}

async fn run_parsed(
    options: &Options,
    settings: &Settings,
    builder_flag: Option<&str>,
    debug: bool,
) -> Result<()> {
    for warning in &options.warnings {
        printer::warn(warning);
    }
    let config = Config::load(settings)?;
    let choice = builder::choose(settings, &config, builder_flag)?;
    let mut inputs = inputs::inputs(options, settings, || Box::new(std::io::stdin()) as Body)?;
    if let Some(path) = &options.iidfile {
        remove_stale(path)?;
    }
    let mut interrupt = Interrupt::listen(settings);
    let job = Job { options, settings, config: &config, choice: &choice, debug };
    let builder = tokio::select! {
        builder = builder::connect(settings, &choice) => builder?,
        () = interrupt.requested() => return Err(Error::canceled()),
    };
    job.build(builder, &mut inputs, &mut interrupt).await
}

/// What holds for the whole command.
struct Job<'a> {
    options: &'a Options,
    settings: &'a Settings,
    config: &'a Config,
    choice: &'a Choice,
    debug: bool,
}

impl Job<'_> {
    async fn build(
        &self,
        mut builder: Builder,
        inputs: &mut Inputs,
        interrupt: &mut Interrupt,
    ) -> Result<()> {
        let options = self.options;
        if let Some(url) = &inputs.dockerfile_url {
            let text = tokio::select! {
                text = fetch::dockerfile(&builder.client, url) => text?,
                () = interrupt.requested() => return Err(Error::canceled()),
            };
            inputs.keep_dockerfile(&text, self.settings)?;
        }
        let engine = self.find_engine().await?;
        let around = Surroundings {
            embedded: builder.is_embedded(),
            engine: engine
                .as_ref()
                .map_or(EngineState::Absent, |engine| EngineState::Present { takes_oci: engine.takes_oci }),
            stdout_is_terminal: std::io::stdout().is_terminal(),
        };
        let (exports, warning) = outputs::exports(options, self.settings, around)?;
        if let Some(warning) = warning {
            printer::warn(&warning);
        }
        let inline = options.build_arg_flag("BUILDKIT_INLINE_CACHE");
        let caches = Caches::resolve(&options.cache_from, &options.cache_to, inline, self.settings)?;
        for warning in &caches.warnings {
            printer::warn(warning);
        }
        let facts = self.ask_facts(&builder).await?;
        let git = self.git_attributes(inputs, &facts);
        let proxies = self.proxies()?;
        let credentials = Arc::new(Credentials::new(self.config.clone(), self.settings)?);
        let build = random::build_id()?;

        let printer =
            Printer::start(self.settings, options.progress, &builder.name, builder.driver, self.debug)
                .map_err(Error::user)?;
        let mut attempt = 0;
        let (solved, lent, loading) = loop {
            attempt += 1;
            let can_repeat = inputs.upload.is_none();
            let mut session = Session::new(&inputs.shared_key).await.when("make a session")?;
            if builder.client.is_over_socket() {
                session.give_handles();
            }
            let loading = Loading::start(&exports, engine.clone(), self.settings, &printer.reports()).await?;
            let mut lent =
                Lent::new(options, inputs, &exports, &caches, &loading, credentials.clone(), self.settings)?;
            let upload = lent.take_upload(inputs)?;
            lent.attach(&mut session);
            let request = request::request(&Parts {
                options,
                inputs,
                exports: &exports,
                caches: &caches,
                facts: &facts,
                proxies: &proxies,
                git: &git,
                upload,
                session: session.id(),
                build: &build,
            })?;
            let reports = printer.reports();
            let question = options.call.as_ref();
            let result = solve::solve(&builder.client, request, session, question, reports, interrupt).await;
            match result {
                // The embedded daemon may have gone idle at that very moment: another one takes its place.
                Err(Failure::Daemon(error))
                    if error.is_unreachable() && attempt == 1 && can_repeat && builder.is_embedded() =>
                {
                    drop(loading);
                    builder = builder::connect(self.settings, self.choice).await?;
                }
                result => break (result, lent, loading),
            }
        };
        let (result, loaded) = match solved {
            Ok(solved) => (Ok(solved), loading.finish().await),
            Err(failure) => {
                drop(loading);
                (Err(failure), Ok(()))
            }
        };
        let warnings = printer.finish().await;
        let solved = result.map_err(outcome::error_of)?;
        loaded?;
        let mut solved = solved;
        if self.options.metadata_file.is_some() && self.options.call.is_none() {
            let mode = provenance::Mode::of(self.settings);
            let told = provenance::of_record(&builder.client, &build, mode).await?;
            solved.response.exporter_response.extend(told);
        }
        self.finish(&builder, solved, &exports, &caches, &lent, inputs, &build, &warnings)
    }

    async fn find_engine(&self) -> Result<Option<Engine>> {
        if !outputs::wants_engine(self.options) {
            return Ok(None);
        }
        let named = self.options.outputs.iter().find_map(|output| output.attrs.get("context"));
        let endpoint = match context::endpoint(self.settings, self.config, named.map(String::as_str)) {
            Ok(endpoint) => endpoint,
            // An engine that the user chose must be there; the usual one may be missing.
            Err(error) if named.is_some() || self.settings.docker_host().is_some() => return Err(error),
            Err(_) => return Ok(None),
        };
        let engine = Engine::probe(&endpoint).await;
        if engine.is_none() && (named.is_some() || self.settings.docker_host().is_some()) {
            return Err(Error::environment(format!(
                "cannot load the image: no Docker Engine answers at {endpoint}"
            ))
            .hint("unset DOCKER_HOST to load into the local image store"));
        }
        Ok(engine)
    }

    async fn ask_facts(&self, builder: &Builder) -> Result<Facts> {
        let mut facts = Facts::default();
        let wants_gateway = self.options.hosts.iter().any(|host| host.address == HostAddress::Gateway);
        let wants_provenance = self.settings.flag("BUILDX_NO_DEFAULT_ATTESTATIONS") != Some(true);
        if builder.is_embedded() && !wants_gateway {
            facts.default_provenance = wants_provenance;
            return Ok(facts);
        }
        let failed =
            |error: kiln_client::Error| Error::environment("the builder does not answer").because(error);
        if wants_gateway {
            let workers = builder.client.workers().await.map_err(failed)?;
            facts.host_gateway = workers.into_iter().find_map(|worker| {
                worker.labels.get("org.mobyproject.buildkit.worker.moby.host-gateway-ip").cloned()
            });
        }
        // Daemons without that call are older than provenance.
        facts.default_provenance = wants_provenance && builder.client.info().await.map_err(failed)?.is_some();
        Ok(facts)
    }

    fn git_attributes(&self, inputs: &Inputs, facts: &Facts) -> BTreeMap<String, String> {
        let asked = self.options.attestations.get("provenance").is_some_and(Option::is_some);
        let wanted = git::Wanted::of(self.settings, facts.default_provenance || asked);
        match inputs.locals.get("context") {
            Some(context) if self.options.context != "-" => {
                git::attributes(wanted, context, &self.options.file, &inputs.locals)
            }
            _ => BTreeMap::new(),
        }
    }

    fn proxies(&self) -> Result<Vec<(String, String)>> {
        if self.config.proxies.is_empty() {
            return Ok(Vec::new());
        }
        let host = context::endpoint(self.settings, self.config, None).map(|endpoint| endpoint.to_string());
        Ok(self.config.proxy_args(&host.unwrap_or_default()))
    }

    #[expect(clippy::too_many_arguments, reason = "the last step needs what all steps before it made")]
    fn finish(
        &self,
        builder: &Builder,
        solved: Solved,
        exports: &[Export],
        caches: &Caches,
        lent: &Lent,
        inputs: &Inputs,
        build: &str,
        warnings: &[kiln_progress::VertexWarning],
    ) -> Result<()> {
        let options = self.options;
        let mut response: Response = solved.response.exporter_response.into_iter().collect();
        lent.commit()?;
        caches.finish(&response)?;
        index_layouts(exports, &response)?;
        if exports
            .iter()
            .any(|export| export.attrs.get("prefer-image-digest").is_some_and(|value| value == "true"))
        {
            outcome::prefer_image_digest(&mut response);
        }
        if let (Some(question), Some(answer)) = (&options.call, &solved.answer) {
            if let Some(path) = &options.metadata_file {
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                response.extend(answer.iter().map(|(key, value)| (key.clone(), text(value))));
                outcome::write_metadata(path, &response, None)?;
            }
            let (text, status) = call::render(question, answer, &inputs.dockerfile_shown)?;
            print(&text)?;
            return if status == 0 { Ok(()) } else { Err(Error::silent(status)) };
        }
        if let Some(path) = &options.iidfile {
            crate::files::write_atomic(path, outcome::image_id(&response).as_bytes())?;
        }
        if let Some(path) = &options.metadata_file {
            response.insert("buildx.build.ref".to_owned(), format!("{0}/{0}0/{build}", builder.name));
            let wanted = self.settings.flag("BUILDX_METADATA_WARNINGS") == Some(true);
            outcome::write_metadata(path, &response, wanted.then_some(warnings))?;
        }
        if options.quiet {
            print(&format!("{}\n", outcome::image_id(&response)))?;
        }
        match response.get("frontend.result.inlinemessage") {
            Some(message) => print(&format!("\n{message}\n")),
            None => Ok(()),
        }
    }
}

/// Enters the image into the index of each layout that got its blobs.
fn index_layouts(exports: &[Export], response: &Response) -> Result<()> {
    use base64::Engine as _;
    let Some(encoded) = response.get("containerimage.descriptor") else { return Ok(()) };
    let layouts: Vec<&PathBuf> = exports
        .iter()
        .filter_map(|export| if let Target::Layout(path) = &export.target { Some(path) } else { None })
        .collect();
    if layouts.is_empty() {
        return Ok(());
    }
    let what = "understand the daemon's answer about the image";
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).when(what)?;
    let descriptor = serde_json::from_slice(&decoded).when(what)?;
    let names: Vec<oci_index::Name> = match response.get("image.name").filter(|names| !names.is_empty()) {
        Some(names) => names.split(',').map(|name| oci_index::Name::Image(name.to_owned())).collect(),
        None => vec![oci_index::Name::Tag("latest".to_owned())],
    };
    layouts.into_iter().try_for_each(|path| oci_index::put(path, &descriptor, &names))
}

fn remove_stale(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).when(format!("remove the old image ID file `{}`", path.display()))
        }
        _ => Ok(()),
    }
}
