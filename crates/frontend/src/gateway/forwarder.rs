//! One build that is made up by whoever calls.

use super::convert;
use crate::solution::Refs;
use crate::{Bridge, Container, ContainerMount, ContainerRequest, Error, Solution};
use bytes::Bytes;
use kiln_proto::frontend as api;
use kiln_proto::pb;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// The state of one build behind the service: results that were handed out, by id, and the answer once it is
/// there.
pub struct Forwarder<B: Bridge> {
    pub(super) bridge: Arc<B>,
    pub(super) inputs: BTreeMap<String, pb::Definition>,
    state: Mutex<State<B>>,
    answered: CancellationToken,
}

struct State<B: Bridge> {
    refs: HashMap<String, B::Ref>,
    next_id: u64,
    answer: Option<Result<Solution<B::Ref>, Error>>,
    containers: HashMap<String, Arc<dyn Container>>,
}

/// Which forms of answer a caller understands.
#[derive(Clone, Copy)]
pub(super) struct Forms {
    pub(super) result: bool,
    pub(super) array: bool,
}

impl<B: Bridge> Forwarder<B> {
    /// A build on this bridge; `inputs` are what the client handed over.
    pub fn new(bridge: Arc<B>, inputs: BTreeMap<String, pb::Definition>) -> Arc<Self> {
        let state = State { refs: HashMap::new(), next_id: 0, answer: None, containers: HashMap::new() };
        Arc::new(Forwarder { bridge, inputs, state: Mutex::new(state), answered: CancellationToken::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the caller's answer. Old callers give it with their last solve and no further call: for those
    /// see [`Forwarder::take_answer`] when the connection has ended.
    pub async fn answer(&self) -> Result<Solution<B::Ref>, Error> {
        self.answered.cancelled().await;
        self.take_answer()
    }

    /// The answer, if there is one by now.
    pub fn take_answer(&self) -> Result<Solution<B::Ref>, Error> {
        let answer = self.lock().answer.clone();
        answer.unwrap_or_else(|| Err(Error::unknown("no result for incomplete build")))
    }

    /// Whether the caller has said that it is done.
    pub fn is_answered(&self) -> bool {
        self.answered.is_cancelled()
    }

    /// Ends all containers and forgets all results.
    pub async fn close(&self) {
        let (containers, refs) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.containers), std::mem::take(&mut state.refs))
        };
        drop(refs);
        for (id, container) in containers {
            if let Err(error) = container.release().await {
                tracing::warn!(%error, container = id, "releasing a container failed");
            }
        }
    }

    /// Sets the answer; the first one counts.
    fn set_answer(&self, answer: Result<Solution<B::Ref>, Error>) -> Result<(), Error> {
        let mut state = self.lock();
        if state.answer.is_some() {
            return Err(Error::unknown("gateway result is already set"));
        }
        state.answer = Some(answer);
        drop(state);
        self.answered.cancel();
        Ok(())
    }

    /// A result that was handed out.
    pub(super) fn find(&self, id: &str) -> Result<B::Ref, Error> {
        let found = self.lock().refs.get(id).cloned();
        found.ok_or_else(|| Error::unknown(format!("no such ref: {id}")))
    }

    fn returned(&self, id: &str) -> Result<Option<B::Ref>, Error> {
        if id.is_empty() {
            return Ok(None);
        }
        let found = self.lock().refs.get(id).cloned();
        found.map(Some).ok_or_else(|| Error::unknown(format!("return reference {id} not found")))
    }

    /// Gives a result an id.
    fn hand_out(&self, reference: &Option<B::Ref>) -> api::Ref {
        let Some(reference) = reference else { return api::Ref::default() };
        let def = Some(self.bridge.definition(reference));
        let mut state = self.lock();
        state.next_id += 1;
        let id = format!("ref{}", state.next_id);
        state.refs.insert(id.clone(), reference.clone());
        api::Ref { id, def }
    }

    pub(super) async fn solve(&self, request: api::SolveRequest) -> Result<api::SolveResponse, Error> {
        let forms = Forms { result: request.allow_result_return, array: request.allow_result_array_ref };
        let last = request.r#final.then(|| request.exporter_attr.clone());
        let solution = self.bridge.solve(convert::solve(request)).await?;
        if let Some(attrs) = last {
            self.answer_with(&solution, &attrs)?;
        }
        self.solved(solution, forms)
    }

    /// An old caller's last solve is its answer as well.
    fn answer_with(&self, solution: &Solution<B::Ref>, attrs: &Bytes) -> Result<(), Error> {
        let attrs: BTreeMap<String, String> =
            serde_json::from_slice(attrs).map_err(|error| Error::of(&error))?;
        let decode = |(key, value): (String, String)| {
            use base64::Engine;
            let value = base64::engine::general_purpose::STANDARD.decode(value);
            value.map(|value| (key, Bytes::from(value))).map_err(|error| Error::of(&error))
        };
        let mut metadata = attrs.into_iter().map(decode).collect::<Result<BTreeMap<_, _>, _>>()?;
        metadata.extend(solution.metadata.clone());
        let mut answer = solution.clone();
        answer.metadata = metadata;
        // It may be asked for when the connection ends; a later answer takes its place.
        self.lock().answer = Some(Ok(answer));
        Ok(())
    }

    fn solved(&self, solution: Solution<B::Ref>, forms: Forms) -> Result<api::SolveResponse, Error> {
        use api::result::Result as Refs_;
        let mut response = api::SolveResponse::default();
        let refs = match &solution.refs {
            Refs::Single(reference) => {
                let reference = self.hand_out(reference);
                if !forms.result {
                    response.r#ref.clone_from(&reference.id);
                }
                match forms.array {
                    true => Refs_::Ref(reference),
                    false => Refs_::RefDeprecated(reference.id),
                }
            }
            Refs::Map(_) if !forms.result => {
                return Err(Error::unknown("solve did not return default result"));
            }
            Refs::Map(many) => {
                let all = many.iter().map(|(name, one)| (name.clone(), self.hand_out(one)));
                match forms.array {
                    true => Refs_::Refs(api::RefMap { refs: all.collect() }),
                    false => Refs_::RefsDeprecated(api::RefMapDeprecated {
                        refs: all.map(|(name, reference)| (name, reference.id)).collect(),
                    }),
                }
            }
        };
        let mut attestations = BTreeMap::new();
        for (name, list) in &solution.attestations {
            let one = |attestation: &crate::Attestation<B::Ref>| {
                let mut message = convert::attestation(attestation);
                if attestation.reference.is_some() {
                    message.r#ref = Some(self.hand_out(&attestation.reference));
                }
                message
            };
            let attestation = list.iter().map(one).collect();
            attestations.insert(name.clone(), api::Attestations { attestation });
        }
        let metadata = solution.metadata;
        response.result = Some(api::Result { metadata, attestations, result: Some(refs) });
        Ok(response)
    }

    pub(super) fn return_(&self, request: api::ReturnRequest) -> Result<(), Error> {
        if let Some(status) = request.error {
            return self.set_answer(Err(Error::from_rpc(&status)));
        }
        let result =
            request.result.ok_or_else(|| Error::unknown("gateway return must be either result or err"))?;
        let solution = self.solution(result)?;
        self.set_answer(Ok(solution))
    }

    fn solution(&self, result: api::Result) -> Result<Solution<B::Ref>, Error> {
        use api::result::Result as Refs_;
        let map = |refs: Vec<(String, String)>| {
            let one = |(name, id): (String, String)| Ok((name, self.returned(&id)?));
            refs.into_iter().map(one).collect::<Result<BTreeMap<_, _>, Error>>().map(Refs::Map)
        };
        let refs = match result.result {
            None => Refs::Single(None),
            Some(Refs_::RefDeprecated(id)) => Refs::Single(self.returned(&id)?),
            Some(Refs_::Ref(reference)) => Refs::Single(self.returned(&reference.id)?),
            Some(Refs_::RefsDeprecated(refs)) => map(refs.refs.into_iter().collect())?,
            Some(Refs_::Refs(refs)) => {
                map(refs.refs.into_iter().map(|(name, reference)| (name, reference.id)).collect())?
            }
        };
        let mut attestations = BTreeMap::new();
        for (name, list) in result.attestations {
            let one = |attestation: api::Attestation| {
                let reference = match &attestation.r#ref {
                    Some(reference) => self.returned(&reference.id)?,
                    None => None,
                };
                convert::attestation_of(attestation, reference)
            };
            let list = list.attestation.into_iter().map(one).collect::<Result<Vec<_>, Error>>()?;
            attestations.insert(name, list);
        }
        Ok(Solution { refs, metadata: result.metadata, attestations })
    }

    pub(super) async fn new_container(&self, request: api::NewContainerRequest) -> Result<(), Error> {
        let id = request.container_id.clone();
        let exists = || Error::new(Code::AlreadyExists, format!("Container {id} already exists"));
        if self.lock().containers.contains_key(&id) {
            return Err(exists());
        }
        let network = request.network();
        let mut mounts = Vec::with_capacity(request.mounts.len());
        for mount in request.mounts {
            let reference = match mount.result_id.as_str() {
                "" => None,
                result => Some(self.find(result).map_err(|_| {
                    let target = &mount.dest;
                    Error::unknown(format!(
                        "failed to find ref {result} for {target:?} mount: return reference {result} not found"
                    ))
                })?),
            };
            mounts.push(ContainerMount { mount, reference });
        }
        let container = self.bridge.new_container(ContainerRequest {
            id: id.clone(),
            mounts,
            network,
            platform: request.platform.as_ref().map(convert::platform_of),
            extra_hosts: request.extra_hosts,
            hostname: request.hostname,
        });
        let container: Arc<dyn Container> = container.await?.into();
        let clash = {
            let mut state = self.lock();
            let taken = state.containers.contains_key(&id);
            if !taken {
                state.containers.insert(id.clone(), container.clone());
            }
            taken
        };
        if clash {
            container.release().await?;
            return Err(exists());
        }
        Ok(())
    }

    /// A container by its id.
    pub(super) fn container(&self, id: &str) -> Option<Arc<dyn Container>> {
        self.lock().containers.get(id).cloned()
    }

    /// A container whose files are asked for.
    pub(super) fn container_of_file(
        &self,
        id: &str,
        mount: i32,
    ) -> Result<(Arc<dyn Container>, usize), Error> {
        let unknown = || Error::unknown(format!("container details for {id}@{mount} not found"));
        let container = self.container(id).ok_or_else(unknown)?;
        Ok((container, usize::try_from(mount).map_err(|_| unknown())?))
    }

    pub(super) async fn release_container(&self, id: &str) -> Result<(), Error> {
        let container = self.lock().containers.remove(id);
        match container {
            Some(container) => container.release().await,
            None => Err(Error::unknown(format!("container details for {id} not found"))),
        }
    }
}
