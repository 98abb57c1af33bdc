//! The repository keeps its own rules.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Who may depend on whom, besides tests: the arrows of docs/ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("fanledger-domain", &[]),
    ("fanledger-journal", &[]),
    ("fanledger-commands", &["fanledger-domain", "fanledger-journal"]),
    ("fanledger-projections", &["fanledger-domain", "fanledger-journal"]),
    ("fanledger-gateway-api", &[]),
    ("fanledger-gateway", &["fanledger-commands", "fanledger-domain", "fanledger-gateway-api"]),
    ("fanledger-media-pipeline", &["fanledger-commands", "fanledger-domain"]),
    ("fanledger-web", &["fanledger-gateway-api", "fanledger-domain"]),
    ("fanledger-devkit", &[]),
    ("fanledger-simulator", &["fanledger-commands", "fanledger-devkit", "fanledger-domain", "fanledger-journal"]),
    (
        "fanledger",
        &[
            "fanledger-commands",
            "fanledger-devkit",
            "fanledger-domain",
            "fanledger-gateway",
            "fanledger-gateway-api",
            "fanledger-journal",
            "fanledger-media-pipeline",
            "fanledger-projections",
            "fanledger-simulator",
        ],
    ),
    ("xtask", &["fanledger-devkit", "fanledger-domain"]),
];

fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(xtask::root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

#[test]
fn crates_depend_on_each_other_along_the_arrows_only() {
    let packages = packages();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        let allowed = arrows.get(name).unwrap_or_else(|| panic!("{name} is not in the list of arrows: add it"));
        let dependencies = package["dependencies"].as_array().unwrap();
        // In tests everyone may use the devkit, which itself depends on nothing of ours.
        for dependency in dependencies.iter().filter(|dependency| dependency["kind"] != "dev") {
            let other = dependency["name"].as_str().unwrap();
            assert!(!ours.contains(other) || allowed.contains(&other), "{name} must not depend on {other}");
        }
    }
}

#[test]
fn the_domain_has_no_floats() {
    let mut found = Vec::new();
    for path in rust_files(&xtask::root().join("domain").join("src")) {
        for (number, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap();
            if code.contains("fn visit_f64") && code.contains("_: f64") {
                // A serde visitor must take one to say that it looked away from it.
                continue;
            }
            if code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "f32" || word == "f64") {
                found.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "floats near money: {found:?}");
}

#[test]
fn every_crate_says_what_it_is_for() {
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let targets = package["targets"].as_array().unwrap();
        for target in targets.iter().filter(|target| target["kind"][0] == "lib") {
            let source = std::fs::read_to_string(target["src_path"].as_str().unwrap()).unwrap();
            let opening = source.lines().take_while(|line| line.starts_with("//!")).count();
            assert!((4..=40).contains(&opening), "{name}'s lib.rs opens with {opening} lines of //!");
        }
    }
}

/// Who follows a runbook word for word applies this patch.
#[test]
fn the_runbook_s_patch_applies_to_the_code_as_it_is() {
    let patch = std::fs::read_to_string(xtask::root().join("docs/runbooks/add-a-column.patch")).unwrap();
    let file = patch.lines().find_map(|line| line.strip_prefix("--- a/")).unwrap();
    let code = std::fs::read_to_string(xtask::root().join(file)).unwrap();
    let hunks: Vec<&str> = patch.split("\n@@ ").skip(1).collect();
    assert!(!hunks.is_empty());
    for hunk in hunks {
        let before: Vec<&str> = hunk.lines().skip(1).filter_map(|line| line.strip_prefix([' ', '-'])).collect();
        let before = before.join("\n");
        assert!(code.contains(&before), "docs/runbooks/add-a-column.patch no longer applies to {file}:\n{before}");
    }
}

#[test]
fn the_written_contracts_are_those_of_the_code() {
    if let Err(error) = xtask::contracts::check() {
        panic!("{error}");
    }
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
