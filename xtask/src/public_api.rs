//! What users of the library can name: a file that is checked in, so that no change to it goes unseen, and an example that
//! runs for each.
use std::path::PathBuf;

use public_api::{Builder, PublicApi};
use serde_json::Value;

use crate::Result;
use crate::workspace::{cargo, difference, output_of, read, root, target, write};

/// Beside the default features. `mpi` is left out, as it needs an installed MPI to build.
const FEATURES: &str = "linfa,serde";

/// Brings docs/public-api.txt up to date, or says in what it differs.
pub(crate) fn run(check: bool) -> Result<()> {
    let file = root().join("docs/public-api.txt");
    let json = rustdoc_json()?;
    // What every type implements, and what the compiler finds out, is not written anywhere in the sources.
    let api = Builder::from_rustdoc_json(&json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build()
        .map_err(|error| format!("the JSON of rustdoc: {error}"))?;
    let now = format!("{api}");
    if !check {
        return write(&file, &now);
    }
    let json =
        serde_json::from_str(&read(&json)?).map_err(|error| format!("the JSON of rustdoc: {error}"))?;
    let without = without_example(&api, &json);
    if !without.is_empty() {
        return Err(format!(
            "these have no example in their documentation that runs:\n{}\nA block of code, neither `ignore` nor \
             `no_run`, is one; `cargo test --doc -p flash-kmeans` runs them.",
            without.join("\n")
        ));
    }
    match difference(&read(&file)?, &now) {
        Some(difference) => Err(format!(
            "the public API is not that of docs/public-api.txt {difference}\n\
             If that is meant, `cargo xtask public-api` writes it again; users want a line of it in CHANGELOG.md."
        )),
        None => Ok(()),
    }
}

/// The JSON that rustdoc makes of the library.
fn rustdoc_json() -> Result<PathBuf> {
    let json = ["-Z", "unstable-options", "--output-format", "json"];
    output_of(
        cargo()
            .env("RUSTDOC", root().join("xtask/rustdoc-json.sh"))
            .args(["rustdoc", "--quiet", "--locked", "--package", "flash-kmeans", "--lib"])
            .args(["--features", FEATURES, "--"])
            .args(json),
    )?;
    Ok(target().join("doc/flash_kmeans.json"))
}

/// The types, traits, functions and methods whose documentation has no example that runs.
///
/// Exempt are modules, and what the example of a type or trait shows: fields, variants, constants and associated types.
/// Methods that implement a trait have the trait's documentation.
fn without_example(api: &PublicApi, json: &Value) -> Vec<String> {
    const KINDS: [&str; 6] = ["struct", "enum", "union", "trait", "type_alias", "function"];
    let of = |id: u32| &json["index"][id.to_string()];
    let items = api.items().filter(|item| {
        let inner = &of(item.id().0)["inner"];
        let implements =
            item.parent_id().is_some_and(|parent| of(parent.0)["inner"]["impl"]["trait"].is_object());
        KINDS.iter().any(|kind| inner[kind].is_object())
            && !implements
            && !has_example(of(item.id().0)["docs"].as_str().unwrap_or_default())
    });
    items.map(|item| item.to_string()).collect()
}

/// Whether a text has a block of Rust that rustdoc runs.
fn has_example(docs: &str) -> bool {
    let fences = docs.lines().filter_map(|line| line.trim_start().strip_prefix("```"));
    // Every other fence closes a block.
    fences.step_by(2).any(|language| matches!(language.trim(), "" | "rust" | "should_panic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_blocks_that_run() {
        assert!(has_example("Says.\n\n# Examples\n```\nassert!(true);\n```\n"));
        assert!(has_example("```text\nx + y\n```\n```rust\nassert!(true);\n```\n"));
        for without in
            ["", "Says `this`.", "```text\nx + y\n```\n", "```no_run\nf();\n```\n", "```ignore\nf();\n```"]
        {
            assert!(!has_example(without), "{without}");
        }
    }
}
