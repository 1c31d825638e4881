//! Runs file actions: which action works on what, and one layer for a chain of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_layer::union::Union;
use kiln_llb::{ActionInput, FileAction, FileActionKind, FileOp};
use kiln_solver::OpContext;
use kiln_store::{CommitInfo, Directories, LayerId, LayerMeta, MutableLayer, Ref};

use super::links;
use super::mounts::inherit_root;
use crate::Worker;
use crate::error::{Error, Result};
use crate::fileop::{
    Copying, FileError, Owner, Source, Target, copy, mkdir, mkfile, resolve_owner, rm, symlink,
};
use crate::op::VertexOp;

/// Runs the actions, on threads that may block.
pub async fn execute(
    vertex: &VertexOp,
    op: &FileOp,
    inputs: Vec<Ref>,
    cx: &OpContext<VertexOp>,
) -> Result<Vec<Ref>> {
    let cancel = Arc::new(AtomicBool::new(false));
    let _cancel_when_dropped = SetOnDrop(cancel.clone());
    let (worker, op, name) = (vertex.worker().clone(), op.clone(), cx.options().name.to_string());
    let copies = |action: &&FileAction| matches!(action.kind, FileActionKind::Copy(_));
    let run = Run {
        worker: worker.clone(),
        inputs,
        name,
        cancel,
        many_copies: op.actions.iter().filter(copies).count() > 1,
        done: HashMap::new(),
        open: HashMap::new(),
    };
    worker.blocking(move || run.all(&op)).await?
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Run {
    worker: Worker,
    inputs: Vec<Ref>,
    /// What made the layers, for people.
    name: String,
    cancel: Arc<AtomicBool>,
    /// More than one of the actions copies.
    many_copies: bool,
    /// Results of actions that are layers already.
    done: HashMap<usize, Ref>,
    /// Results of actions that the next one goes on with.
    open: HashMap<usize, Work>,
}

/// A layer in the making.
struct Work {
    layer: MutableLayer,
    target: Target,
    _below: Directories,
    /// Actions so far: each copy is a round of its own.
    rounds: usize,
    links: Vec<LayerId>,
}

impl Run {
    fn all(mut self, op: &FileOp) -> Result<Vec<Ref>> {
        let mut results = vec![Ref::scratch(); op.output_count()];
        for (index, action) in op.actions.iter().enumerate() {
            let failed = |error| match error {
                Error::File(error) => Error::File(FileError::Action { index, source: Box::new(error) }),
                other => other,
            };
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let mut work = self.take(action.input)?;
            self.apply(&mut work, action).map_err(failed)?;
            work.rounds += 1;
            if goes_on(op, index) {
                self.open.insert(index, work);
                continue;
            }
            let result = self.commit(work)?;
            if let Some(slot) = action.output.and_then(|output| results.get_mut(output)) {
                *slot = result.clone();
            }
            self.done.insert(index, result);
        }
        Ok(results)
    }

    /// What an action changes: a layer that is being made, or a new one on top of what there is.
    fn take(&mut self, input: ActionInput) -> Result<Work> {
        if let ActionInput::Action(action) = input
            && let Some(work) = self.open.remove(&action)
        {
            return Ok(work);
        }
        let base = self.result(input);
        let store = self.worker.store();
        let layer = store.new_layer(&base, LayerMeta::regular(self.name.clone()))?;
        inherit_root(&layer)?;
        let below = store.directories(&base)?;
        let target = Target::open(layer.dir(), below.dirs_bottom_up().to_vec(), *store.format())?;
        Ok(Work { layer, target, _below: below, rounds: 0, links: Vec::new() })
    }

    fn result(&self, input: ActionInput) -> Ref {
        match input {
            ActionInput::Scratch => Ref::scratch(),
            ActionInput::Input(input) => self.inputs.get(input).cloned().unwrap_or_else(Ref::scratch),
            ActionInput::Action(action) => self.done.get(&action).cloned().unwrap_or_else(Ref::scratch),
        }
    }

    fn apply(&self, work: &mut Work, action: &FileAction) -> Result<()> {
        let owner = self.owner(work, action)?;
        match &action.kind {
            FileActionKind::Mkdir(action) => mkdir(&work.target, action, owner)?,
            FileActionKind::Mkfile(action) => mkfile(&work.target, action, owner)?,
            FileActionKind::Symlink(action) => symlink(&work.target, action, owner)?,
            FileActionKind::Rm(action) => rm(&work.target, action)?,
            FileActionKind::Copy(copying) => {
                let from = self.result(action.secondary_input);
                let union = self.worker.store().union(&from)?;
                let linkable = self.linkable(work, &from)?;
                let budget = &self.worker.store().options().budget;
                let with = Copying {
                    source: Source { union: &union, linkable: &linkable },
                    round: self.many_copies.then_some(work.rounds),
                    budget,
                    cancel: &self.cancel,
                };
                copy(&work.target, copying, owner, &with)?;
            }
        }
        Ok(())
    }

    fn owner(&self, work: &Work, action: &FileAction) -> Result<Option<Owner>> {
        let owner = resolve_owner(action.owner(), |input| {
            if input == ActionInput::Scratch {
                return Ok(None);
            }
            let is_this = input == action.input && matches!(input, ActionInput::Action(_));
            if is_this {
                return work.target.view(work.layer.dir()).map(Some);
            }
            let dirs = self
                .worker
                .layer_dirs(&self.result(input))
                .map_err(|error| FileError::Invalid(error.to_string()))?;
            Ok(Some(Union::open(&dirs, self.worker.store().format())?))
        })?;
        Ok(owner)
    }

    /// For each layer of `from`, whether its files may be linked into the new layer.
    ///
    /// Two files of one ref must not be one file behind the scenes: programs compare inode numbers, and `cp a b` refuses
    /// to copy a file onto itself. So nothing is linked from a layer that the result has in it already, itself or by
    /// way of links.
    fn linkable(&self, work: &mut Work, from: &Ref) -> Result<Vec<bool>> {
        let store = self.worker.store();
        let each =
            from.layers().iter().map(|layer| links::origins(store, layer)).collect::<Result<Vec<_>>>()?;
        let below = work.layer.parent();
        self.worker.origins().of(store, below, |present| {
            each.into_iter()
                .map(|origins| {
                    let free = !origins.iter().any(|origin| present.contains(origin));
                    if free {
                        work.links.extend(origins);
                    }
                    free
                })
                .collect()
        })
    }

    fn commit(&self, work: Work) -> Result<Ref> {
        let Work { layer, target, links, .. } = work;
        drop(target);
        let values = links::value(links).into_iter().collect();
        Ok(layer.commit(CommitInfo { values, ..CommitInfo::default() })?)
    }
}

/// Whether the next user of an action's result simply goes on with it: then both are one layer.
fn goes_on(op: &FileOp, index: usize) -> bool {
    let this = ActionInput::Action(index);
    let mut users = 0;
    let mut as_base = 0;
    for action in &op.actions {
        let base = usize::from(action.input == this);
        as_base += base;
        users += base + usize::from(action.secondary_input == this);
        if let Some(owner) = action.owner() {
            let looks_up = |user: &kiln_llb::UserOpt| matches!(user, kiln_llb::UserOpt::Name { input, .. } if *input == this);
            let looks = [&owner.user, &owner.group].into_iter().flatten().any(looks_up);
            // Its own base it sees as it is being made; others need a layer.
            users += usize::from(looks && base == 0);
        }
    }
    op.actions[index].output.is_none() && as_base == 1 && users == 1
}

#[cfg(test)]
mod tests {
    use kiln_llb::{CopyAction, MkdirAction};

    use super::*;

    fn action(input: ActionInput, secondary_input: ActionInput, output: Option<usize>) -> FileAction {
        let kind = match secondary_input {
            ActionInput::Scratch => FileActionKind::Mkdir(MkdirAction::default()),
            _ => FileActionKind::Copy(CopyAction::default()),
        };
        FileAction { input, secondary_input, output, kind }
    }

    #[test]
    fn chains_are_one_layer_and_everything_else_is_not() {
        use ActionInput::{Action, Input, Scratch};
        let chain = FileOp {
            actions: vec![
                action(Input(0), Scratch, None),
                action(Action(0), Scratch, None),
                action(Action(1), Input(1), Some(0)),
            ],
        };
        assert_eq!([goes_on(&chain, 0), goes_on(&chain, 1), goes_on(&chain, 2)], [true, true, false]);
        let forked = FileOp {
            actions: vec![
                action(Input(0), Scratch, None),
                action(Action(0), Scratch, Some(0)),
                action(Action(0), Scratch, Some(1)),
            ],
        };
        assert!(!goes_on(&forked, 0));
        let copied_from =
            FileOp { actions: vec![action(Scratch, Scratch, None), action(Input(0), Action(0), Some(0))] };
        assert!(!goes_on(&copied_from, 0));
    }
}
