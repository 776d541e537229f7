//! The house rules that no compiler checks: which room may depend on which, what thinking rooms may not reach, and that
//! every file says what it is for. Each rule is an absence; each failure names the place and the rule.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Every room, and the rooms it may depend on (DESIGN §3: left and up, never right or down).
const ARROWS: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("engine-runtime", &["engine"]),
    ("engine-embedded", &["engine"]),
    // Follows a topic into segments like those of the embedded log, so that both are read by one code.
    ("engine-kafka", &["engine", "engine-embedded"]),
    ("engine-sql", &["engine"]),
    ("chassis", &["engine"]),
    ("xtask", &[]),
    ("schemas", &["engine"]),
    ("domain", &["engine", "schemas"]),
    ("views", &["engine", "schemas"]),
    ("command-side", &["engine", "engine-runtime", "chassis", "schemas", "domain"]),
    ("projections", &["engine", "engine-runtime", "engine-sql", "schemas", "views"]),
    ("query-side", &["engine", "engine-runtime", "engine-sql", "chassis", "schemas", "views"]),
    (
        "docket",
        &[
            "engine",
            "engine-runtime",
            "engine-embedded",
            "engine-kafka",
            "engine-sql",
            "chassis",
            "schemas",
            "domain",
            "views",
            "command-side",
            "projections",
            "query-side",
        ],
    ),
];

/// Rooms that never wait.
const THINKING: &[&str] = &["engine", "schemas", "domain", "views"];

/// What waits, or knows the time, or throws dice.
const WAITING_CRATES: &[&str] = &[
    "tokio",
    "tokio-util",
    "futures",
    "hyper",
    "hyper-util",
    "axum",
    "tower",
    "tower-http",
    "sqlx",
    "fjall",
    "moka",
    "rustix",
    "rand",
    "parking_lot",
    "metrics",
    "tracing",
    "reqwest",
];

/// Packages that prove and measure: they may depend on any room, and nobody on them.
const PROOFS: &[&str] = &["tests", "benches"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the repository").to_owned()
}

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().expect("cargo metadata answers")
}

#[test]
fn every_arrow_points_left_or_up() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let rooms: BTreeSet<String> = metadata.packages.iter().map(|package| package.name.to_string()).collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let name = package.name.to_string();
        if PROOFS.contains(&name.as_str()) {
            continue;
        }
        let Some(may) = allowed.get(name.as_str()) else {
            wrong.push(format!("{name} is no room of DESIGN §3; give it its arrows in tests/tidy"));
            continue;
        };
        for dependency in &package.dependencies {
            let inside = rooms.contains(&dependency.name);
            // A test may use an adapter to run the real thing; that is no arrow of the product.
            if inside && dependency.kind == DependencyKind::Normal && !may.contains(&dependency.name.as_str()) {
                wrong.push(format!("{name} must not depend on {}", dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn thinking_rooms_depend_on_nothing_that_waits() {
    let mut wrong = Vec::new();
    for package in metadata().packages.iter().filter(|package| THINKING.contains(&package.name.as_str())) {
        for dependency in &package.dependencies {
            if dependency.kind == DependencyKind::Normal && WAITING_CRATES.contains(&dependency.name.as_str()) {
                wrong.push(format!("{} thinks, so it must not depend on {}", package.name, dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn thinking_rooms_are_fenced_and_every_fence_says_why() {
    for package in metadata().packages.iter().filter(|package| THINKING.contains(&package.name.as_str())) {
        let fences = package.manifest_path.with_file_name("clippy.toml");
        let text = fs::read_to_string(&fences).unwrap_or_else(|_| panic!("{} has no clippy.toml", package.name));
        for banned in ["SystemTime::now", "Instant::now", "HashMap", "HashSet", "std::env::var"] {
            assert!(text.contains(banned), "{fences} does not ban {banned}");
        }
        for line in text.lines().filter(|line| line.contains("path =")) {
            assert!(line.contains("reason ="), "{fences}: a fence without a reason: {line}");
        }
    }
}

#[test]
fn every_source_file_begins_by_saying_what_it_is_for() {
    let mut wrong = Vec::new();
    for file in rust_files(&root()) {
        let text = fs::read_to_string(&file).expect("a listed file can be read");
        if !text.starts_with("//!") {
            wrong.push(format!("{} has no //! header", file.display()));
        }
        if file.file_name().is_some_and(|name| name == "mod.rs") {
            wrong.push(format!("{}: modules are `name.rs` and `name/`, not `mod.rs`", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_fault_in_the_log_has_a_page() {
    let mut missing = BTreeSet::new();
    for file in rust_files(&root()).into_iter().filter(|file| !file.starts_with(root().join("tests"))) {
        let text = fs::read_to_string(&file).expect("a listed file can be read");
        for found in text.split("fault.code = \"").skip(1) {
            let code = found.split('"').next().unwrap_or_default().to_owned();
            if !root().join("infra/chassis/pages").join(format!("{code}.md")).exists() {
                missing.insert(code);
            }
        }
    }
    assert!(missing.is_empty(), "without a page in infra/chassis/pages: {missing:?}");
}

#[test]
fn no_test_is_ignored() {
    let ignored: Vec<_> = rust_files(&root())
        .into_iter()
        .filter(|file| {
            let text = fs::read_to_string(file).expect("a listed file can be read");
            text.lines().any(|line| line.trim_start().starts_with("#[ignore"))
        })
        .collect();
    assert!(ignored.is_empty(), "{ignored:?}");
}

#[test]
fn every_package_has_the_licences_and_lints_of_the_workspace() {
    for package in metadata().packages {
        let manifest = fs::read_to_string(&package.manifest_path).expect("a manifest can be read");
        for line in ["license.workspace = true", "edition.workspace = true", "[lints]\nworkspace = true"] {
            assert!(manifest.contains(line), "{} lacks `{line}`", package.manifest_path);
        }
    }
}

#[test]
fn every_fault_names_tests_that_exist() {
    let table = fs::read_to_string(root().join("docs/faults.md")).expect("docs/faults.md can be read");
    let sources: String =
        rust_files(&root()).iter().map(|file| fs::read_to_string(file).expect("a listed file can be read")).collect();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| fault")).collect();
    assert!(rows.len() > 20, "docs/faults.md has lost its tables");
    for row in rows {
        let named = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap_or_default();
        let tests: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test is named: {row}");
        for test in tests {
            assert!(sources.contains(&format!("fn {test}()")), "docs/faults.md names {test}, which is not there");
        }
    }
}

fn rust_files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository can be listed") {
            let path = entry.expect("an entry can be read").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() {
                if !name.starts_with('.') && !name.starts_with("target") {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
