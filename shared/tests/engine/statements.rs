//! Every statement is registered, and every registered one can be prepared on both databases.
use std::{fs, path::Path};

use runmill_shared::store::statements;

use super::*;

#[tokio::test]
async fn every_statement_can_be_prepared() {
    for w in worlds().await {
        let mut failed = Vec::new();
        for statement in statements() {
            if let Err(e) = w.app.db.prepare(statement).await {
                failed.push(format!("{e}: {statement:?}"));
            }
        }
        assert!(failed.is_empty(), "{}: {failed:#?}", w.name);
        assert!(w.app.db.prepare(Sql::both("SELECT nothing FROM nowhere")).await.is_err());
    }
}

fn rust_files(dir: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn every_constant_is_in_the_list_of_its_file() {
    let mut files = Vec::new();
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store"), &mut files);
    let mut found = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let list = text.split_once("STATEMENTS: &[Sql] =").map_or("", |(_, rest)| rest.split_once("];").unwrap().0);
        let listed: Vec<_> = list.split(|c: char| !c.is_ascii_uppercase() && c != '_').collect();
        for line in text.lines() {
            let Some((name, _)) =
                line.trim().trim_start_matches("pub ").strip_prefix("const ").and_then(|l| l.split_once(": Sql"))
            else {
                continue;
            };
            found += 1;
            assert!(listed.contains(&name), "{} is not in the STATEMENTS of {}", name, file.display());
        }
    }
    assert_eq!(found, statements().len(), "a file's list is not part of `store::statements`, or names something twice");
}
