//! The reference page agrees with the program.

use std::path::Path;

#[test]
fn the_page_is_that_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/kiln.md");
    let page = kiln::reference::page();
    if std::env::var_os("KILN_WRITE_REFERENCE").is_some() {
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/reference/kiln.md is out of date: see its first lines");
}
