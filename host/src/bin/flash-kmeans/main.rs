//! The `flash-kmeans` command.
fn main() {}
