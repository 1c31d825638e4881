//! The state of a build: every event folded in, nothing drawn.

mod log;
mod vertex;

use std::collections::{BTreeSet, HashMap};

use crate::event::{SolveStatus, Vertex, VertexDigest, VertexLog, VertexStatus, VertexWarning};
use crate::{Timestamp, warnings};

pub use log::LogBuffer;
use vertex::{Group, Member};
pub use vertex::{StatusState, VertexState};

/// Where a vertex stands in [`Trace::vertices`].
pub type VertexIndex = usize;

/// Everything known about a build so far.
#[derive(Debug, Default)]
pub struct Trace {
    vertices: Vec<VertexState>,
    /// Also has the members of groups, which lead to the group.
    by_digest: HashMap<VertexDigest, VertexIndex>,
    groups: HashMap<String, Group>,
    /// What a person has seen start, in that order.
    visible: Vec<VertexIndex>,
    /// Changed since a display last took the changes.
    changed: BTreeSet<VertexIndex>,
    warnings: Vec<VertexWarning>,
    started: Option<Timestamp>,
    /// Nanoseconds from the daemon's clock to ours, measured when the first vertex started.
    clock_offset: Option<i64>,
}

impl Trace {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Folds in what an event says. `now` is on the caller's clock.
    pub fn update(&mut self, status: &SolveStatus, now: Timestamp) {
        let mut touched_groups = Vec::new();
        for vertex in &status.vertexes {
            self.started = self.started.or(vertex.started);
            if vertex.progress_group.is_some() {
                self.update_member(vertex, &mut touched_groups);
            } else {
                self.update_vertex(vertex, now);
            }
        }
        for id in touched_groups {
            self.refresh_group(&id, now);
        }
        for part in &status.statuses {
            self.update_status(part, now);
        }
        for warning in &status.warnings {
            self.warnings.push(warning.clone());
            if let Some(&index) = self.by_digest.get(&warning.vertex) {
                self.vertices[index].warnings.push(warning.clone());
                self.vertices[index].touch(1, now);
            }
        }
        for log in &status.logs {
            self.update_log(log, now);
        }
    }

    /// All vertices, started or not; groups are vertices too, their members are not.
    pub fn vertices(&self) -> &[VertexState] {
        &self.vertices
    }

    /// What is shown, in the order in which it started.
    pub fn visible(&self) -> impl Iterator<Item = &VertexState> {
        self.visible.iter().map(|&index| &self.vertices[index])
    }

    /// The same with their places among all vertices.
    pub fn visible_indices(&self) -> impl Iterator<Item = (VertexIndex, &VertexState)> {
        self.visible.iter().map(|&index| (index, &self.vertices[index]))
    }

    /// All warnings without repeats.
    pub fn warnings(&self) -> Vec<VertexWarning> {
        warnings::dedup(&self.warnings)
    }

    /// When the build began, on the caller's clock.
    pub fn started(&self) -> Option<Timestamp> {
        self.started.map(|started| self.local(started))
    }

    /// Turns a time of the daemon into one of the caller's clock.
    pub fn local(&self, remote: Timestamp) -> Timestamp {
        remote.shifted(self.clock_offset.unwrap_or(0))
    }

    /// Turns a time of the caller into one of the daemon's clock.
    pub fn remote(&self, local: Timestamp) -> Timestamp {
        local.shifted(-self.clock_offset.unwrap_or(0))
    }

    /// How many vertices are done, and how many there are. Groups that are not shown do not count.
    pub fn counts(&self) -> (usize, usize) {
        let counted = self.vertices.iter().filter(|vertex| !vertex.hidden);
        counted.fold((0, 0), |(done, all), vertex| (done + usize::from(vertex.is_completed()), all + 1))
    }

    /// The same vertices, to draw from and to take buffered output from.
    pub fn vertices_mut(&mut self) -> &mut [VertexState] {
        &mut self.vertices
    }

    /// What changed and was not [`seen`](Self::seen) yet, in the order in which it became known.
    pub fn changed(&self) -> Vec<VertexIndex> {
        self.changed.iter().copied().collect()
    }

    /// Marks a change as seen.
    pub fn seen(&mut self, index: VertexIndex) {
        self.changed.remove(&index);
    }

    fn insert(&mut self, digest: &str, state: VertexState) -> VertexIndex {
        let index = self.vertices.len();
        self.vertices.push(state);
        self.by_digest.insert(digest.to_owned(), index);
        index
    }

    fn measure_clock(&mut self, remote: Timestamp, now: Timestamp) {
        self.clock_offset.get_or_insert_with(|| now.nanos_since(remote));
    }

    fn update_vertex(&mut self, event: &Vertex, now: Timestamp) {
        let index = match self.by_digest.get(&event.digest) {
            Some(&index) => index,
            None => self.insert(&event.digest, VertexState::new(&event.digest)),
        };
        let was_started = self.vertices[index].is_started();
        if self.vertices[index].apply(event) {
            self.vertices[index].touch(1, now);
            self.changed.insert(index);
        }
        if let Some(started) = event.started
            && !was_started
        {
            self.measure_clock(started, now);
            self.visible.push(index);
        }
    }

    fn update_member(&mut self, event: &Vertex, touched: &mut Vec<String>) {
        let Some(group) = &event.progress_group else { return };
        let index = match self.groups.get(&group.id) {
            Some(known) => known.index,
            None => {
                let mut state = VertexState::new(&group.id);
                state.name.clone_from(&group.name);
                state.hidden = true;
                let index = self.insert(&group.id, state);
                self.groups.insert(group.id.clone(), Group::new(index));
                index
            }
        };
        self.by_digest.insert(event.digest.clone(), index);
        let known = self.groups.get_mut(&group.id).expect("inserted above");
        known.members.insert(event.digest.clone(), Member::new(event, group.weak));
        if !touched.contains(&group.id) {
            touched.push(group.id.clone());
        }
    }

    fn refresh_group(&mut self, id: &str, now: Timestamp) {
        let Some(group) = self.groups.get(id) else { return };
        let index = group.index;
        let was_hidden = self.vertices[index].hidden;
        let changed = self.vertices[index].apply_group(group);
        if let Some(first) = self.vertices[index].intervals().first() {
            self.measure_clock(first.start, now);
        }
        if self.vertices[index].hidden {
            return;
        }
        if was_hidden {
            self.visible.push(index);
        }
        if changed || was_hidden {
            self.vertices[index].touch(1, now);
            self.changed.insert(index);
        }
    }

    fn update_status(&mut self, event: &VertexStatus, now: Timestamp) {
        let Some(&index) = self.by_digest.get(&event.vertex) else { return };
        self.vertices[index].apply_status(event);
        self.vertices[index].touch(1, now);
        self.changed.insert(index);
    }

    fn update_log(&mut self, event: &VertexLog, now: Timestamp) {
        let Some(&index) = self.by_digest.get(&event.vertex) else { return };
        self.vertices[index].apply_log(event);
        self.vertices[index].touch(1, now);
        self.changed.insert(index);
    }
}

#[cfg(test)]
mod tests;
