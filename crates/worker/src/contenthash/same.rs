//! Long lists say what short ones do: random layers, with bounds under which all is memory and under which all is a file, and against a plain
//! map.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::builder::TableBuilder;
use super::record::{Record, RecordKind, is_below, path_order};
use super::scratch::{Bounds, Scratch};
use super::table::LayerTable;
use super::tests::{selectors, short};
use super::tree::Tree;
use super::unread::Unread;
use super::*;

/// What a layer says of a path.
#[derive(Clone, Debug, PartialEq)]
enum Item {
    File(Option<u8>),
    Dir { opaque: bool },
    Link(String),
    Special,
    Whiteout,
}

/// Paths, bytes of which their headers are, and what they are. Folders around paths are not always there, and files
/// have something below them: the tree has to make do with it.
type Layer = Vec<(String, u8, Item)>;

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        5 => prop::option::weighted(0.9, 1_u8..4).prop_map(Item::File),
        4 => prop::bool::weighted(0.2).prop_map(|opaque| Item::Dir { opaque }),
        1 => prop_oneof!["/[ab]", "\\.\\./[ab]", "[ab]", "/[ab]/[ab]"].prop_map(Item::Link),
        1 => Just(Item::Special),
        1 => Just(Item::Whiteout),
    ]
}

fn layer() -> impl Strategy<Value = Layer> {
    let path = prop::collection::vec("[abc][a-c.]{0,2}", 1..4).prop_map(|parts| parts.join("/"));
    let root = (String::new(), 1, Item::Dir { opaque: false });
    prop::collection::vec((path, 0_u8..3, item()), 0..40).prop_map(move |mut items| {
        items.insert(0, root.clone());
        items
    })
}

fn with<T>((path, header, item): &(String, u8, Item), of: impl FnOnce(&Record<'_>) -> T) -> T {
    let hash;
    let (kind, content) = match item {
        Item::File(content) => {
            hash = content.map(|byte| [byte; 32]);
            (RecordKind::File, hash.as_ref())
        }
        Item::Dir { opaque } => (RecordKind::Dir { opaque: *opaque }, None),
        Item::Link(target) => (RecordKind::Symlink { target: target.as_bytes() }, None),
        Item::Special => (RecordKind::Special, None),
        Item::Whiteout => (RecordKind::Whiteout, None),
    };
    let header = if *item == Item::Whiteout { [0; 32] } else { [*header; 32] };
    of(&Record { path: path.as_bytes(), kind, header: &header, content })
}

fn table(layer: &Layer, scratch: &Scratch) -> Arc<LayerTable> {
    let mut builder = TableBuilder::new(scratch);
    layer.iter().for_each(|item| with(item, |record| builder.push(record)).unwrap());
    Arc::new(builder.finish().unwrap())
}

/// Nothing fits into memory.
pub(super) fn tiny() -> Bounds {
    Bounds {
        spool: kiln_spool::Bounds { short_bytes_max: 0, tail_bytes_max: 3 },
        block_records: 2,
        block_bytes: 150,
        blocks_ahead: 2,
        sort_bytes: 300,
        runs: 2,
        unread_files: 2,
        unread_bytes: 10,
    }
}

/// Layers put on each other one by one.
fn shown(layers: &[Layer]) -> Vec<String> {
    let mut all: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    for layer in layers {
        let mut last: BTreeMap<&[u8], &(String, u8, Item)> = BTreeMap::new();
        layer.iter().for_each(|item| _ = last.insert(item.0.as_bytes(), item));
        for item in last.values() {
            if with(item, |record| record.replaces()) {
                all.retain(|path, _| !is_below(path, item.0.as_bytes()));
            }
            all.remove(item.0.as_bytes());
        }
        for item in last.values().filter(|item| item.2 != Item::Whiteout) {
            all.insert(item.0.as_bytes().to_vec(), with(item, |record| format!("{record:?}")));
        }
    }
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by(|(a, _), (b, _)| path_order(a, b));
    all.into_iter().map(|(_, said)| said).collect()
}

fn walked(tree: &Tree, path: &str) -> Vec<String> {
    let mut walk = tree.walk(path.as_bytes()).unwrap();
    let mut said = Vec::new();
    while let Some(here) = walk.next().unwrap() {
        said.push(format!("{:?}", here.record()));
    }
    said
}

/// The digest, or what a test without files can say instead of it.
fn picked(tree: &Tree, selector: &Selector, scratch: &Scratch) -> String {
    let (budget, dirs) = (Budget::new(0), []);
    let mut unread = Unread::new(tree, &dirs, &budget, Bounds::default());
    match select(tree, selector, &mut unread, scratch) {
        Ok(selection) => format!("{:?}", selection.digest(tree).map_err(|error| error.kind())),
        Err(error) => error.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn long_lists_say_what_short_ones_do(layers in prop::collection::vec(layer(), 1..4)) {
        let dir = tempfile::tempdir().unwrap();
        let (memory, long) = (short(), Scratch::bounded(dir.path(), tiny()));
        let of = |scratch: &Scratch| Tree::new(layers.iter().map(|layer| table(layer, scratch)).collect());
        let (one, other) = (of(&memory), of(&long));
        let all = shown(&layers);
        prop_assert_eq!(&walked(&one, ""), &all);
        prop_assert_eq!(&walked(&other, ""), &all);
        for (path, _, _) in layers.iter().flatten() {
            let below = format!("{path:?}");
            for tree in [&one, &other] {
                let here = tree.at(path.as_bytes(), |record| format!("{record:?}")).unwrap();
                let expected = all.iter().find(|said| said.starts_with(&prefix(path)));
                prop_assert_eq!(here.as_ref(), expected, "{}", below);
            }
            prop_assert_eq!(walked(&one, path), walked(&other, path), "{}", below);
            prop_assert_eq!(
                one.deep_digest(path.as_bytes()).unwrap(),
                other.deep_digest(path.as_bytes()).unwrap(),
                "{}", below
            );
        }
        for selector in selectors() {
            prop_assert_eq!(
                picked(&one, &selector, &memory),
                picked(&other, &selector, &long),
                "{:?}", selector
            );
        }
        for (a, b) in one.tables().iter().zip(other.tables()) {
            let (a, b) = (a.encode(&memory).unwrap(), b.encode(&long).unwrap());
            let mut bytes = Vec::new();
            b.write_to(&mut bytes).unwrap();
            prop_assert_eq!(a.as_slice().unwrap(), &bytes);
            let again = LayerTable::decode(&b, &long).unwrap().encode(&memory).unwrap();
            prop_assert_eq!(again.as_slice().unwrap(), &bytes);
        }
    }
}

/// How a record of this path begins when it is printed.
fn prefix(path: &str) -> String {
    format!("Record {{ path: {:?}, ", path.as_bytes())
}

/// Cache keys of earlier versions are made of these.
#[test]
fn digests_are_what_they_were() {
    let layer = |layer: u8| -> Layer {
        const PATHS: [&str; 14] =
            ["", "a", "a/b", "a/b/c", "a/b.c", "a/x", "a-b", "b", "b/a", "c", "c/a", "d", "d/e", "d/e/f"];
        let item = |(number, path): (u8, &str)| {
            let item = match (number, layer) {
                (0 | 1 | 2 | 9 | 12, _) | (11, 0) => Item::Dir { opaque: false },
                (11, _) => Item::Dir { opaque: true },
                (7, 0) => Item::Link("/a/b".into()),
                (7, _) => Item::Whiteout,
                (10, _) => Item::Special,
                _ => Item::File(Some(number + layer + 100)),
            };
            (path.to_owned(), number + layer, item)
        };
        let there = |(number, _): &(u8, &str)| layer == 0 || number % 3 != 1;
        (0..).zip(PATHS).filter(there).map(item).collect()
    };
    let sums = |layers: &[u8]| -> Vec<String> {
        let tables = layers.iter().map(|number| table(&layer(*number), &short())).collect();
        let tree = Tree::new(tables);
        let sum = |selector| checksum(&tree, &[], &[selector], &Budget::new(0), &short()).unwrap();
        selectors().into_iter().map(|selector| hex(&sum(selector)[..4])).collect()
    };
    let lower = [
        "5d9491ef", "70b38290", "c25844b7", "c25844b7", "9da39277", "3dd189cc", "7ace0470", "924d429a",
        "9da39277", "f3d8614f",
    ];
    let both = [
        "b2e502f8", "e5c6e04e", "a1b3d897", "a1b3d897", "d167f6a8", "98e3751a", "400f833d", "ff4c3d8f",
        "d167f6a8", "033f093c",
    ];
    assert_eq!(sums(&[0]), lower);
    assert_eq!(sums(&[0, 1]), both);
    assert_eq!(sums(&[1, 0]), lower);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
