//! Who asked for what: the requests of one build as a tree, for its provenance.
//!
//! A frontend that has another frontend run gives rise to a branch. Each branch knows its request, the results it was promised and the
//! images it looked up. What made a graph is also known to the whole daemon while its build runs, so that another build that is handed the
//! graph over as an input can tell.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_export::provenance::{Asked, Capture, ImageMaterial, Request, redact_request};
use kiln_frontend::{SolveRequest, SourceMeta};
use kiln_oci::{Digest, Platform};
use kiln_proto::pb;

use super::Promise;
use super::sent::head;

/// The requests behind the graphs of builds that run. Clones are the same list.
#[derive(Clone, Default)]
pub struct Origins(Arc<Mutex<HashMap<String, Vec<(u64, Asked)>>>>);

impl Origins {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<(u64, Asked)>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `head` is the vertex that a graph is for.
    fn add(&self, head: &str, asked: Asked) -> Origin {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        self.lock().entry(head.to_owned()).or_default().push((number, asked));
        Origin { origins: self.clone(), head: head.to_owned(), number }
    }

    /// What made a graph; nothing if nobody knows or the known ones differ.
    fn find(&self, definition: &pb::Definition) -> Option<Asked> {
        let head = head(definition)?;
        let origins = self.lock();
        let (first, rest) = origins.get(&head)?.split_first()?;
        rest.iter().all(|(_, asked)| *asked == first.1).then(|| first.1.clone())
    }
}

/// Keeps an entry of [`Origins`].
struct Origin {
    origins: Origins,
    head: String,
    number: u64,
}

impl Drop for Origin {
    fn drop(&mut self) {
        let mut origins = self.origins.lock();
        if let Some(list) = origins.get_mut(&self.head) {
            list.retain(|(number, _)| *number != self.number);
            if list.is_empty() {
                origins.remove(&self.head);
            }
        }
    }
}

/// One branch.
pub struct Trace {
    origins: Origins,
    /// What the frontend here was asked for; at the top there is none.
    request: Option<Request>,
    /// What the client asked for; none if it sent a graph and nothing else.
    root: Option<Request>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    images: Vec<ImageMaterial>,
    promises: Vec<Promise>,
    below: Vec<Arc<Trace>>,
    kept: Vec<Origin>,
}

impl Trace {
    /// The top of a build that was asked for with this.
    pub fn top(origins: Origins, request: &SolveRequest) -> Arc<Trace> {
        let says_something = !request.frontend.is_empty()
            || !request.frontend_opts.is_empty()
            || !request.frontend_inputs.is_empty();
        let root = says_something.then(|| request_of(&origins, request));
        Arc::new(Trace { origins, request: None, root, seen: Mutex::default() })
    }

    /// A branch for a frontend that is about to run; see [`Trace::grow`].
    pub fn branch(&self, request: &SolveRequest) -> Arc<Trace> {
        Arc::new(Trace {
            origins: self.origins.clone(),
            request: Some(request_of(&self.origins, request)),
            root: self.root.clone().or_else(|| self.request.clone()),
            seen: Mutex::default(),
        })
    }

    /// Takes in the branch of a frontend that succeeded.
    pub fn grow(&self, branch: Arc<Trace>) {
        self.seen().below.push(branch);
    }

    /// Notes a result that was promised here.
    pub fn promised(&self, promise: &Promise) {
        let sources = promise.capture().unwrap_or_default();
        let asked = self.request(&sources).map(|request| request.asked(&sources).without_root());
        let kept = asked.zip(promise.definition().head()).map(|(asked, head)| self.origins.add(head, asked));
        let mut seen = self.seen();
        seen.promises.push(promise.clone());
        seen.kept.extend(kept);
    }

    /// Notes an image that was looked up here.
    pub fn looked_up(&self, found: &SourceMeta, platform: Option<&Platform>) {
        const IMAGE: &str = "docker-image://";
        const LAYOUT: &str = "oci-layout://";
        let Some(image) = &found.image else { return };
        let identifier = found.source.identifier.as_str();
        let reference = identifier.strip_prefix(IMAGE).or_else(|| identifier.strip_prefix(LAYOUT));
        self.seen().images.push(ImageMaterial {
            reference: reference.unwrap_or(identifier).to_owned(),
            platform: platform.map(Platform::normalized),
            digest: Digest::parse(&image.digest).ok(),
            local: !identifier.starts_with(IMAGE),
        });
    }

    /// What the frontend here was asked for, with the client's own request where that is another one.
    pub fn request(&self, sources: &Capture) -> Option<Request> {
        let mut request = self.request.clone()?;
        if let Some(root) = self.root.as_ref().filter(|root| !root.is_empty()) {
            let root = root.asked(sources);
            request.root = (root != request.asked(sources)).then_some(root);
        }
        Some(request)
    }

    /// The branch whose frontend was promised this result.
    pub fn find(self: &Arc<Self>, promise: &Promise) -> Option<Arc<Trace>> {
        let below = self.seen().below.clone();
        let found = below.iter().find_map(|branch| branch.find(promise));
        found.or_else(|| self.seen().promises.iter().any(|one| one.is(promise)).then(|| self.clone()))
    }

    /// All results that were promised here and below.
    pub fn promises(&self) -> Vec<Promise> {
        let (mut all, below) = {
            let seen = self.seen();
            (seen.promises.clone(), seen.below.clone())
        };
        all.extend(below.iter().flat_map(|branch| branch.promises()));
        all
    }

    /// All images that were looked up here and below.
    pub fn images(&self) -> Vec<ImageMaterial> {
        let (mut all, below) = {
            let seen = self.seen();
            (seen.images.clone(), seen.below.clone())
        };
        all.extend(below.iter().flat_map(|branch| branch.images()));
        all
    }

    /// The build ends: other builds are not told of its requests any more.
    pub fn close(&self) {
        let (kept, below) = {
            let mut seen = self.seen();
            (std::mem::take(&mut seen.kept), seen.below.clone())
        };
        drop(kept);
        below.iter().for_each(|branch| branch.close());
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn request_of(origins: &Origins, request: &SolveRequest) -> Request {
    let inputs = &request.frontend_inputs;
    let known = inputs.iter().filter_map(|(name, graph)| Some((name.clone(), origins.find(graph)?)));
    Request { inputs: known.collect(), ..redact_request(&request.frontend, &request.frontend_opts) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kiln_proto::prost::Message;

    use super::*;

    fn asked_for(target: &str) -> Asked {
        let args = BTreeMap::from([("target".to_owned(), target.to_owned())]);
        redact_request("dockerfile.v0", &args).asked(&Capture::new())
    }

    fn graph(head: &str) -> pb::Definition {
        let end =
            pb::Op { inputs: vec![pb::Input { digest: head.to_owned(), index: 0 }], ..Default::default() };
        pb::Definition { def: vec![end.encode_to_vec().into()], ..Default::default() }
    }

    #[test]
    fn a_graph_is_known_while_its_builds_run_and_agree() {
        let origins = Origins::default();
        let first = origins.add("a", asked_for("one"));
        let same = origins.add("a", asked_for("one"));
        assert_eq!(origins.find(&graph("a")), Some(asked_for("one")));
        assert_eq!(origins.find(&graph("b")), None);
        let other = origins.add("a", asked_for("two"));
        assert_eq!(origins.find(&graph("a")), None);
        drop((first, other));
        assert_eq!(origins.find(&graph("a")), Some(asked_for("one")));
        drop(same);
        assert_eq!(origins.find(&graph("a")), None);
        assert!(origins.lock().is_empty());
    }

    #[test]
    fn the_request_at_the_top_is_told_where_it_is_another_one() {
        let request = |frontend: &str, opts: &[(&str, &str)]| SolveRequest {
            frontend: frontend.to_owned(),
            frontend_opts: opts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..SolveRequest::default()
        };
        let nothing = Capture::new();
        let same = request("dockerfile.v0", &[("target", "x"), ("attest:provenance", "")]);
        let branch = Trace::top(Origins::default(), &same).branch(&same);
        assert_eq!(branch.request(&nothing).unwrap().root, None);
        let top = Trace::top(Origins::default(), &request("", &[("mine", "1")]));
        assert!(top.request(&nothing).is_none());
        let root = top.branch(&same).request(&nothing).unwrap().root.unwrap();
        assert_eq!(root, redact_request("", &BTreeMap::from([("mine".into(), "1".into())])).asked(&nothing));
    }
}
