//! Long lists of layers in blocks that are mounted as one layer each.
//!
//! Overlayfs takes 500 layers, and each mount of them looks up every one's path and looks through all of them in the root: a chain of steps
//! would cost its length squared. So of a long list blocks of 32 layers are joined, of these blocks again 32, and so on. The lowest 32
//! layers stay on their own: an image's large ones are there.

use std::ops::Range;

/// Lists up to this length are mounted as they are: longer than what images have.
const PLAIN_MAX: usize = 64;

/// Layers of a block, and blocks of a larger one.
const BLOCK: usize = 32;

/// The blocks of a list of `depth` layers, the lowest first; a block of one is the layer itself. Lists that begin alike have the same ones.
pub(super) fn blocks(depth: usize) -> Vec<Range<usize>> {
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < depth {
        let mut len = 1;
        while depth > PLAIN_MAX && fits(at, len * BLOCK, depth) {
            len *= BLOCK;
        }
        blocks.push(at..at + len);
        at += len;
    }
    blocks
}

fn fits(at: usize, len: usize, depth: usize) -> bool {
    at >= len && at.is_multiple_of(len) && at + len <= depth
}

/// What a block is joined from.
pub(super) fn parts(block: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    block.clone().step_by(block.len() / BLOCK).map(|at| at..at + block.len() / BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_layers_are_there_in_order_and_few_are_mounted() {
        for depth in (0..3000).chain([32 * 1024 - 1, 32 * 1024, 40_000]) {
            let blocks = blocks(depth);
            let layers: Vec<usize> = blocks.iter().cloned().flatten().collect();
            assert!(layers.iter().copied().eq(0..depth), "{depth}");
            assert!(blocks.len() <= 32 + 31 * 4, "{depth} layers are {} blocks", blocks.len());
            assert!(blocks.iter().take(32.min(depth)).all(|block| block.len() == 1), "{depth}");
            assert!(depth > 64 || blocks.len() == depth);
        }
    }

    #[test]
    fn a_longer_list_has_the_blocks_of_a_shorter_one() {
        for depth in 65..3000 {
            let (short, long) = (blocks(depth), blocks(depth + 1));
            let joined = short.iter().filter(|block| block.len() > 1);
            // As they are, or as part of a larger one.
            assert!(
                joined.clone().all(|block| long.iter().any(|other| other == block
                    || other.contains(&block.start) && parts(other).any(|part| part == *block))),
                "{depth}"
            );
        }
    }

    #[test]
    fn parts_are_blocks_one_size_smaller() {
        assert!(parts(&(32..64)).eq((32..64).map(|at| at..at + 1)));
        assert!(parts(&(1024..2048)).eq((32..64).map(|at| at * 32..at * 32 + 32)));
    }
}
