//! The rules of the house, asserted from `cargo metadata` and from the files themselves: which crate may use which, who
//! may be unsafe, what may not be in the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde::Deserialize;

/// Crates of ours that a crate of ours uses: exactly these. A new arrow is a decision, made here and drawn in
/// `ARCHITECTURE.md`.
const ARROWS: [(&str, &[&str]); 10] = [
    ("jacamar-plan", &[]),
    ("jacamar-kernel", &[]),
    ("jacamar-contract", &["jacamar-plan"]),
    ("jacamar-authorize", &["jacamar-contract", "jacamar-plan"]),
    ("jacamar-site", &["jacamar-plan"]),
    ("jacamar-sandbox", &["jacamar-kernel", "jacamar-plan"]),
    ("jacamar-record", &["jacamar-contract", "jacamar-plan"]),
    (
        "jacamar-auth",
        &[
            "jacamar-authorize",
            "jacamar-contract",
            "jacamar-kernel",
            "jacamar-plan",
            "jacamar-record",
            "jacamar-sandbox",
            "jacamar-site",
        ],
    ),
    (
        "jacamar-runner-glue",
        &[
            "jacamar-contract",
            "jacamar-kernel",
            "jacamar-plan",
            "jacamar-record",
            "jacamar-sandbox",
            "jacamar-site",
        ],
    ),
    ("testbed", &["jacamar-kernel", "jacamar-plan", "jacamar-record", "jacamar-sandbox", "jacamar-site"]),
];

/// Nothing that parses what strangers send, speaks HTTP or TLS, or keeps a database is linked into `jacamar-auth`. An
/// entry that ends with `-` is a beginning.
const NEVER_PRIVILEGED: [&str; 11] = [
    "jsonwebtoken",
    "ureq",
    "rustls",
    "aws-lc-",
    "ring",
    "rusqlite",
    "libsqlite3-sys",
    "openssl",
    "reqwest",
    "hyper",
    "tokio",
];

/// Why the privileged program and what it is made of use a foreign crate: exactly these.
const REASONS: [(&str, &str); 17] = [
    ("annotate-snippets", "site: an error in a file shows the line"),
    ("anyhow", "auth: errors in main"),
    ("caps", "sandbox: which capabilities we were given"),
    ("cgroups-rs", "sandbox: setters of controllers, each value read back"),
    ("clap", "auth: options of the commands for people; never of the stages"),
    ("libc", "kernel: numbers and types of system calls that nix lacks"),
    ("nix", "system calls with types"),
    ("procfs", "sandbox: /proc, parsed once and well"),
    ("seccompiler", "sandbox: filters"),
    ("serde", "the record, host facts, explain"),
    ("serde_json", "the record, host facts, explain; written and read by us alone"),
    ("sha2", "contract, auth: digest of the claims"),
    ("strsim", "site: the nearest known key"),
    ("syscalls", "sandbox, site: names of system calls to numbers"),
    ("thiserror", "errors of libraries"),
    ("toml", "site: files of root"),
    ("tracing", "auth: debug lines of the audit log"),
];

/// Longest source file of the product.
const LINES_MAX: usize = 500;
/// Longer ones, each with its reason.
const LONGER: [(&str, &str); 0] = [];

/// Homes of invented accounts; any other is one of the machine on which somebody wrote the line.
const SCRATCH_HOMES: [&str; 8] = ["alice", "ci1", "ci2", "grün", "u/", "u\"", "\\nx", "{"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace")
}

/// What `cargo metadata` prints, as far as it is read here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Option<Resolve>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

/// `kind` is absent for what is linked, else `dev` or `build`.
#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Deserialize)]
struct EdgeKind {
    kind: Option<String>,
}

fn metadata(more: &[&str]) -> Metadata {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline"])
        .args(more)
        .current_dir(root())
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Crates of ours.
static PACKAGES: LazyLock<Vec<Package>> = LazyLock::new(|| metadata(&["--no-deps"]).packages);

impl Package {
    /// Names of what it uses: linked or for its build, and for its tests if asked.
    fn uses(&self, tests_too: bool) -> BTreeSet<&str> {
        let of = self.dependencies.iter().filter(|d| tests_too || d.kind.as_deref() != Some("dev"));
        of.map(|d| d.name.as_str()).collect()
    }

    /// Roots of library and programs.
    fn roots(&self) -> impl Iterator<Item = &Path> {
        let product = |target: &&Target| target.kind.iter().any(|kind| kind == "lib" || kind == "bin");
        self.targets.iter().filter(product).map(|target| target.src_path.as_path())
    }
}

fn ours() -> BTreeSet<&'static str> {
    PACKAGES.iter().map(|package| package.name.as_str()).collect()
}

/// Every text file of the tree, with its path in the tree.
fn files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_symlink() || name == ".git" || name == "target" || name == "out" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let place = path.strip_prefix(root()).expect("below the root");
                found.push((place.display().to_string(), text));
            }
        }
    }
    found
}

/// Those of the product's own source, without tests.
fn product_sources() -> impl Iterator<Item = (String, String)> {
    files().into_iter().filter(|(place, _)| {
        let product = ["auth/", "sandbox/", "runner-glue/"].iter().any(|folder| place.starts_with(folder));
        product && place.ends_with(".rs") && place.contains("/src/") && !place.contains("/tests")
    })
}

#[test]
fn every_arrow_is_in_the_table_and_drawn() {
    let table: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    assert_eq!(table.keys().copied().collect::<BTreeSet<_>>(), ours(), "crates");
    for package in PACKAGES.iter() {
        let uses: Vec<&str> = package.uses(false).intersection(&ours()).copied().collect();
        assert_eq!(uses, table[package.name.as_str()], "crates of ours that {} uses", package.name);
    }
}

#[test]
fn no_product_knows_the_testbed_and_there_is_no_circle() {
    let mut left: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in PACKAGES.iter() {
        // Tests of a product crate may: what is shipped does not.
        assert!(!package.uses(false).contains("testbed"), "{} uses the testbed", package.name);
        let uses = package.uses(true);
        left.insert(&package.name, uses.intersection(&ours()).copied().collect());
    }
    while !left.is_empty() {
        let free: Vec<&str> = left
            .iter()
            .filter(|(_, uses)| uses.iter().all(|name| !left.contains_key(name)))
            .map(|(name, _)| *name)
            .collect();
        assert!(!free.is_empty(), "a circle among {:?}", left.keys());
        left.retain(|name, _| !free.contains(name));
    }
}

/// Names in the whole tree of a crate's dependencies, development's left out.
fn tree_of(crate_name: &str) -> BTreeSet<String> {
    let Metadata { packages, resolve, .. } = metadata(&[]);
    let nodes = resolve.expect("a resolved tree").nodes;
    let own = packages.iter().find(|package| package.name == crate_name).expect("a crate");
    let mut ways = vec![own.id.as_str()];
    let mut seen = BTreeSet::new();
    while let Some(id) = ways.pop() {
        if seen.insert(id) {
            let node = nodes.iter().find(|node| node.id == id).expect("a node");
            let linked = |edge: &&Edge| edge.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"));
            ways.extend(node.deps.iter().filter(linked).map(|edge| edge.pkg.as_str()));
        }
    }
    packages
        .iter()
        .filter(|package| seen.contains(package.id.as_str()))
        .map(|package| package.name.clone())
        .collect()
}

#[test]
fn the_privileged_program_links_no_http_token_tls_or_database() {
    let tree = tree_of("jacamar-auth");
    assert!(tree.contains("jacamar-sandbox") && tree.contains("nix"), "the tree was read");
    for name in &tree {
        let never = |bad: &str| name == bad || (bad.ends_with('-') && name.starts_with(bad));
        assert!(!NEVER_PRIVILEGED.iter().any(|bad| never(bad)), "jacamar-auth links {name}");
    }
    let user_side = tree_of("jacamar-runner-glue");
    assert!(
        user_side.contains("jsonwebtoken") && user_side.contains("ureq"),
        "names in the list are spelled right"
    );
}

#[test]
fn every_foreign_crate_of_the_privileged_program_has_its_reason() {
    let tree = tree_of("jacamar-auth");
    let privileged = PACKAGES.iter().filter(|package| tree.contains(&package.name));
    let used: BTreeSet<&str> =
        privileged.flat_map(|package| package.uses(false)).filter(|name| !ours().contains(name)).collect();
    let reasons: BTreeMap<&str, &str> = REASONS.into_iter().collect();
    assert_eq!(used, reasons.keys().copied().collect(), "crates and REASONS");
    assert!(reasons.values().all(|reason| reason.len() > 10), "a reason is a sentence");
}

#[test]
fn unsafe_code_is_in_the_kernel_crate_alone() {
    for package in PACKAGES.iter() {
        for file in package.roots() {
            let text = fs::read_to_string(file).expect("a crate's root");
            let forbids = text.lines().any(|line| line == "#![forbid(unsafe_code)]");
            assert_eq!(forbids, package.name != "jacamar-kernel", "{}", file.display());
        }
    }
    // Integration tests are crates too.
    let signs = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "allow(unsafe"];
    for (place, text) in files() {
        let may = place.starts_with("sandbox/kernel/") || place == "tests/tests/house.rs";
        if place.ends_with(".rs") && !may {
            assert!(!signs.iter().any(|sign| text.contains(sign)), "{place} has unsafe code");
        }
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for package in PACKAGES.iter() {
        let text = fs::read_to_string(&package.manifest_path).expect("a manifest");
        let manifest: toml::Table = text.parse().expect("TOML");
        let lints =
            manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        assert_eq!(lints, Some(true), "{}: write [lints] workspace = true", package.manifest_path.display());
    }
}

#[test]
fn no_line_is_of_somebodys_machine_or_left_for_later() {
    // Put together, or this file would find itself.
    let [root_home, homes] = ["root", "home"].map(|name| format!("/{name}/"));
    let later =
        ["TO", "FIX"].into_iter().zip(["DO", "ME"]).map(|(a, b)| format!("{a}{b}")).collect::<Vec<_>>();
    for (place, text) in files() {
        for (number, line) in (1..).zip(text.lines()) {
            let at = format!("{place}:{number}: {line}");
            assert!(!line.contains(&root_home), "a home of root's: {at}");
            let mut named = line.split(&homes).skip(1);
            let invented = |rest: &str| SCRATCH_HOMES.iter().any(|name| rest.starts_with(name));
            assert!(named.all(invented), "a home of somebody's: {at}");
            let words = line.split(|c: char| !c.is_ascii_alphanumeric());
            assert!(
                !words.into_iter().any(|word| later.iter().any(|mark| mark == word)),
                "left for later: {at}"
            );
        }
    }
}

#[test]
fn every_test_that_security_names_is_there() {
    let text = std::fs::read_to_string(root().join("SECURITY.md")).expect("SECURITY.md");
    let table = text.split("## Past attacks").next().unwrap_or_default();
    let mut promises = 0;
    for line in table.lines().filter(|line| line.starts_with("| ") && line.matches('|').count() == 3) {
        let Some((_, tests)) = line.trim_end_matches(" |").rsplit_once("| ") else { continue };
        let named: Vec<&str> = tests
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| name.contains('/') || name.ends_with(".rs"))
            .collect();
        for name in &named {
            let there =
                [root().join(name), root().join("tests/tests").join(name)].iter().any(|path| path.exists());
            assert!(there, "{name} of: {line}");
        }
        promises += usize::from(!named.is_empty());
    }
    assert!(promises > 20, "the table of promises was not found");
}

#[test]
fn no_source_file_is_too_long_to_be_read() {
    let longer: BTreeMap<&str, &str> = LONGER.into_iter().collect();
    for (place, text) in product_sources() {
        let lines = text.lines().count();
        let listed = longer.contains_key(place.as_str());
        assert!(
            lines <= LINES_MAX || listed,
            "{place} has {lines} lines: split it, or list it with a reason"
        );
        assert!(lines > LINES_MAX || !listed, "{place} is short again: take it from the list");
    }
}
