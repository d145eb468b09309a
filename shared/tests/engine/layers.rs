//! Imports run one way. What Cargo cannot enforce is read from the sources.
use std::{
    fs,
    path::{Path, PathBuf},
};

struct Line {
    /// From the root of the workspace: `api/src/agent/runs.rs`.
    file: String,
    code: String,
}

fn sources(dir: &Path, root: &Path, into: &mut Vec<Line>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, root, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let file = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            // A file's own tests may look behind the curtain.
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            into.extend(statements(code).map(|code| Line { file: file.clone(), code }));
        }
    }
}

/// Lines of code without comments; an import that spans lines becomes one, with its paths written out.
fn statements(code: &str) -> impl Iterator<Item = String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for line in code.lines().map(str::trim).filter(|l| !l.starts_with("//")) {
        let text = match open.take() {
            Some(before) => format!("{before} {line}"),
            None => line.to_owned(),
        };
        let starts_import = text.trim_start_matches("pub ").trim_start_matches("pub(super) ").starts_with("use ");
        if starts_import && !text.ends_with(';') {
            open = Some(text);
        } else if starts_import {
            let tree = text.split_once("use ").map_or("", |(_, t)| t).trim_end_matches(';');
            lines.extend(paths(tree));
        } else {
            lines.push(text);
        }
    }
    lines.into_iter()
}

/// `a::{b, c::{d, e}}` → `a::b`, `a::c::d`, `a::c::e`
fn paths(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let inner = rest.trim().trim_end_matches('}');
    let inner = if rest.trim().ends_with('}') { &rest.trim()[..rest.trim().len() - 1] } else { inner };
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let parts = parts.into_iter().map(str::trim).filter(|p| !p.is_empty());
    parts.flat_map(|p| paths(p).into_iter().map(|p| format!("{}{p}", prefix.trim()))).collect()
}

/// Whether the code names the crate or module at the start of a path.
fn names(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + path.len()..].chars().next();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '.' || c == '"')
            && (path.ends_with("::") || after.is_none_or(|c| !c.is_alphanumeric() && c != '_'))
    })
}

/// The module path of a line's imports, with `super::` resolved one level a time.
fn absolute(line: &Line) -> String {
    let file = line.file.split_once("src/").map_or("", |(_, f)| f).trim_end_matches(".rs").trim_end_matches("/mod");
    let mut module: Vec<_> = file.split('/').filter(|m| *m != "lib").collect();
    let mut code = line.code.as_str();
    let mut climbed = false;
    while let Some(rest) = code.strip_prefix("super::") {
        module.pop();
        code = rest;
        climbed = true;
    }
    if climbed { format!("crate::{}::{code}", module.join("::")).replace("::::", "::") } else { code.to_owned() }
}

const DIALECTS: [&str; 3] = ["agent", "platform", "agentos"];

/// Why a line may not be where it is.
fn broken(line: &Line) -> Option<&'static str> {
    let (file, code) = (line.file.as_str(), absolute(line));
    let shared = file.starts_with("shared/");
    let under = |dirs: &[&str]| dirs.iter().any(|d| file.starts_with(d));
    let crate_store = shared && names(&code, "crate::store");
    if (names(&code, "runmill_shared::store") || crate_store)
        && !under(&["shared/src/services/", "shared/src/store/", "shared/src/app.rs"])
    {
        return Some("the store is reached through services");
    }
    if names(&code, "sqlx::") && !under(&["shared/src/store/", "shared/src/error.rs"]) {
        return Some("SQL is in the store");
    }
    if (names(&code, "poem::") || names(&code, "poem_openapi::")) && !under(&["api/"]) {
        return Some("poem is in the api");
    }
    if names(&code, "runmill_api::") && under(&["shared/", "worker/"])
        || names(&code, "runmill_worker::") && under(&["shared/", "api/"])
    {
        return Some("imports run from cli to api and worker to shared");
    }
    let own = code.split("crate::").nth(1).unwrap_or_default();
    let first = own.split("::").next().unwrap_or_default();
    if under(&["shared/src/domain/"]) && !["", "domain", "error", "Error", "Result", "clock", "config"].contains(&first) {
        return Some("the domain imports the error, the clock and plain settings only");
    }
    if under(&["shared/src/store/", "shared/src/queue/", "shared/src/blobs/"]) && first == "services" {
        return Some("services are above the store, the queue and the blobs");
    }
    let dialect = DIALECTS.into_iter().find(|d| file.starts_with(&format!("api/src/{d}/")));
    if dialect.is_some_and(|own| DIALECTS.into_iter().any(|other| other != own && names(&code, &format!("crate::{other}")))) {
        return Some("one dialect never imports another");
    }
    None
}

#[test]
fn imports_run_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut lines = Vec::new();
    for part in ["shared/src", "api/src", "worker/src"] {
        sources(&root.join(part), root, &mut lines);
    }
    assert!(lines.len() > 3000, "the sources were not found");
    let all: Vec<_> = lines.iter().filter_map(|l| broken(l).map(|why| format!("{}: {}: {why}", l.file, l.code))).collect();
    assert!(all.is_empty(), "{all:#?}");
}

#[test]
fn the_check_sees_what_is_forbidden() {
    let forbidden = [
        ("api/src/agent/runs.rs", "use runmill_shared::{app::App,\n    store::{db::Db, runs}};"),
        ("worker/src/lanes.rs", "let run = runmill_shared::store::runs::view::by_id(db, owner, id);"),
        ("shared/src/queue/memory.rs", "use crate::store::db;"),
        ("shared/src/domain/run.rs", "use crate::{clock::Timestamp, services::runs};"),
        ("shared/src/domain/run.rs", "use super::super::store::db::Db;"),
        ("shared/src/store/db.rs", "use super::super::services::runs;"),
        ("shared/src/services/stream.rs", "use sqlx::query;"),
        ("shared/src/services/stream.rs", "use poem::Response;"),
        ("worker/src/lanes.rs", "use runmill_api::serve;"),
        ("api/src/platform/users.rs", "use crate::{http::page, agent::runs};"),
    ];
    for (file, code) in forbidden {
        let lines: Vec<_> = statements(code).map(|code| Line { file: file.to_owned(), code }).collect();
        assert!(lines.iter().any(|l| broken(l).is_some()), "{file}: {code}");
    }
    let allowed = [
        ("api/src/agent/runs.rs", "use poem::Response;"),
        ("shared/src/services/runs/accept.rs", "use crate::store::{db::Tx, threads};"),
        ("shared/src/store/db.rs", "use sqlx::{PgPool, SqlitePool};"),
        ("shared/src/domain/run.rs", "use super::Lane;"),
        ("api/src/agent/runs.rs", "// runmill_shared::store is not for us"),
    ];
    for (file, code) in allowed {
        let lines: Vec<_> = statements(code).map(|code| Line { file: file.to_owned(), code }).collect();
        assert!(lines.iter().all(|l| broken(l).is_none()), "{file}: {code}");
    }
}
