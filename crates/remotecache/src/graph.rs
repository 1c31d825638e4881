//! A cache as a graph, and its way from and to the document.

mod build;
mod marshal;
mod parse;

pub use build::GraphBuilder;
pub use marshal::marshal;
pub use parse::parse;

use kiln_oci::{Descriptor, Timestamp};

/// Records with their links, and the layers that results are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheGraph {
    /// The layers.
    pub layers: Vec<GraphLayer>,
    /// The records. Inputs may stand before or after what uses them, but never in a circle.
    pub records: Vec<GraphRecord>,
}

/// A layer on top of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphLayer {
    /// Its blob, with its uncompressed digest as an annotation.
    pub descriptor: Descriptor,
    /// The layer below.
    pub parent: Option<usize>,
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphRecord {
    /// The op with its output, or some content.
    pub digest: String,
    /// For each input all ways to know it.
    pub inputs: Vec<Vec<GraphInput>>,
    /// What is known under this key.
    pub results: Vec<GraphResult>,
}

/// One way to know an input.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GraphInput {
    /// The input's record.
    pub record: usize,
    /// The part of it that is looked at; empty: all.
    pub selector: String,
}

/// A result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphResult {
    /// When it was made.
    pub created: Timestamp,
    /// What it is made of.
    pub layers: LayerList,
}

/// Layers of a result. Never written out before they are needed: a hostile document could make that very long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerList {
    /// A layer with all below it.
    Head(usize),
    /// These, bottom first.
    Each(Vec<usize>),
}

impl CacheGraph {
    /// Puts another graph beside this one.
    pub fn append(&mut self, other: CacheGraph) {
        let (layers, records) = (self.layers.len(), self.records.len());
        self.layers.extend(
            other
                .layers
                .into_iter()
                .map(|layer| GraphLayer { parent: layer.parent.map(|parent| parent + layers), ..layer }),
        );
        for mut record in other.records {
            for way in record.inputs.iter_mut().flatten() {
                way.record += records;
            }
            for result in &mut record.results {
                match &mut result.layers {
                    LayerList::Head(head) => *head += layers,
                    LayerList::Each(each) => each.iter_mut().for_each(|layer| *layer += layers),
                }
            }
            self.records.push(record);
        }
    }

    /// The blobs of a result, bottom first.
    pub fn blobs(&self, layers: &LayerList) -> Vec<&Descriptor> {
        match layers {
            LayerList::Each(each) => each.iter().map(|layer| &self.layers[*layer].descriptor).collect(),
            LayerList::Head(head) => {
                let mut chain = Vec::new();
                let mut next = Some(*head);
                while let Some(layer) = next {
                    chain.push(&self.layers[layer].descriptor);
                    next = self.layers[layer].parent;
                }
                chain.reverse();
                chain
            }
        }
    }
}

#[cfg(test)]
mod tests;
