//! docs/configuration.md is made from the table of keys.

use std::path::Path;

const HEAD: &str = "# Configuration

The file that `--configuration` of `config` and `cleanup` names, TOML, read anew by each `config`. It and every directory
above it must belong to root, and only root may write them (at the user level: root or the runner's account). An unknown
key, a value of another type and a key that is not built yet, with another value than its default, are errors with file
and line. This page is made from the program's own table of keys
(`UPDATE_GOLDEN=1 cargo test -p jacamar-site --test document`).
";

#[test]
fn the_document_is_the_table_of_keys() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let made = format!("{HEAD}{}", jacamar_site::config::markdown());
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &made).expect("docs/configuration.md can be written");
    }
    assert_eq!(
        written, made,
        "docs/configuration.md is not what the program knows; make it with UPDATE_GOLDEN=1"
    );
}
