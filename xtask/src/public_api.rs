//! What users of the library can name: a file that is checked in, so that no change to it goes unseen.
use public_api::Builder;

use crate::Result;
use crate::workspace::{cargo, difference, output_of, read, root, target, write};

/// Beside the default features. `mpi` is left out, as it needs an installed MPI to build.
const FEATURES: &str = "linfa,serde";

/// Brings docs/public-api.txt up to date, or says in what it differs.
pub(crate) fn run(check: bool) -> Result<()> {
    let file = root().join("docs/public-api.txt");
    let now = public_api()?;
    if !check {
        return write(&file, &now);
    }
    match difference(&read(&file)?, &now) {
        Some(difference) => Err(format!(
            "the public API is not that of docs/public-api.txt {difference}\n\
             If that is meant, `cargo xtask public-api` writes it again; users want a line of it in CHANGELOG.md."
        )),
        None => Ok(()),
    }
}

/// An item a line.
fn public_api() -> Result<String> {
    let json = ["-Z", "unstable-options", "--output-format", "json"];
    output_of(
        cargo()
            .env("RUSTDOC", root().join("xtask/rustdoc-json.sh"))
            .args(["rustdoc", "--quiet", "--locked", "--package", "flash-kmeans", "--lib"])
            .args(["--features", FEATURES, "--"])
            .args(json),
    )?;
    // What every type implements, and what the compiler finds out, is not written anywhere in the sources.
    let api = Builder::from_rustdoc_json(target().join("doc/flash_kmeans.json"))
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .build()
        .map_err(|error| format!("the JSON of rustdoc: {error}"))?;
    Ok(format!("{api}"))
}
