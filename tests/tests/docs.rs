//! What documents say of the code.

#[test]
fn every_test_in_the_table_of_known_failures_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let table = std::fs::read_to_string(root.join("docs/known-failures.md")).unwrap();
    let mut rows = 0;
    for row in table.lines().filter(|line| line.starts_with("| ") && line.contains(".rs`")) {
        let test = row.trim_end_matches(['|', ' ']).rsplit(" | ").next().unwrap();
        let [_, file, _, name, ..] = test.split('`').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let path = if file.contains('/') { root.join(file) } else { root.join("tests/tests").join(file) };
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert!(text.contains(&format!("fn {name}()")), "{file} has no test {name}");
        rows += 1;
    }
    assert!(rows > 30, "{rows} rows");
}
