use std::fs;

use tempfile::tempdir;

use super::process::{done, runmill};

#[test]
fn a_document_is_written_and_drift_is_found() {
    let dir = tempdir().unwrap();
    let printed = done(runmill(&dir, &["openapi", "platform"]));
    assert_eq!(printed.code, 0, "{}", printed.err);
    let document: serde_json::Value = serde_json::from_str(&printed.out).unwrap();
    assert!(document["paths"].as_object().unwrap().len() > 2);

    assert_eq!(done(runmill(&dir, &["openapi", "platform", "--output", "platform.json"])).code, 0);
    let file = dir.path().join("platform.json");
    assert_eq!(fs::read_to_string(&file).unwrap(), printed.out);
    assert_eq!(done(runmill(&dir, &["openapi", "platform", "--check", "platform.json"])).code, 0);
    fs::write(&file, printed.out.replacen("/auth/login", "/auth/enter", 1)).unwrap();
    let drifted = done(runmill(&dir, &["openapi", "platform", "--check", "platform.json"]));
    assert_eq!(drifted.code, 1);
    assert!(drifted.err.contains("--output platform.json"), "{}", drifted.err);

    assert_eq!(done(runmill(&dir, &["openapi", "agent"])).code, 0);
    assert_eq!(done(runmill(&dir, &["openapi", "carrier-pigeon"])).code, 2);
    assert!(!dir.path().join("data").exists(), "a document needs no data directory");
}
