use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use runmill_testkit::http_server::{HttpServer, Request, Response};
use sha2::{Digest, Sha256};
use tempfile::{TempDir, tempdir};

use super::process::{Done, done, runmill};

fn content() -> Vec<u8> {
    (0..300_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn pull(dir: &TempDir, url: &str, sha256: &str) -> Done {
    done(runmill(dir, &["models", "pull", "whisper-base", "--url", url, "--sha256", sha256]))
}

fn models(dir: &TempDir) -> PathBuf {
    dir.path().join("data/models")
}

fn files(dir: &Path) -> Vec<String> {
    let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

/// Serves `content` from where the request asks, and breaks off the first `breaks` answers half-way.
fn server(breaks: usize) -> HttpServer {
    let answered = Arc::new(AtomicUsize::new(0));
    HttpServer::start(move |request: &Request| {
        let content = content();
        let range = request.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        let start = range.unwrap_or(0);
        let rest = &content[start..];
        let mut response = match range {
            None => Response::new(200, rest),
            Some(_) => {
                Response::new(206, rest).with("content-range", format!("bytes {start}-{}/{}", content.len() - 1, content.len()))
            }
        };
        if answered.fetch_add(1, Ordering::Relaxed) < breaks {
            response.length = Some(rest.len());
            response.body.truncate(rest.len() / 2);
        }
        response
    })
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_was() {
    let dir = tempdir().unwrap();
    let server = server(2);
    let sha256 = hex::encode(Sha256::digest(content()));
    let pulled = pull(&dir, &format!("{}/model", server.url), &sha256);
    assert_eq!(pulled.code, 0, "{}", pulled.err);
    assert_eq!(fs::read(models(&dir).join("ggml-base.bin")).unwrap(), content());
    assert_eq!(files(&models(&dir)), ["ggml-base.bin"]);
    let ranges: Vec<_> = server.requests().iter().map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=600000-".to_owned()), Some("bytes=900000-".to_owned())]);

    // It is not got twice.
    let again = pull(&dir, &format!("{}/model", server.url), &sha256);
    assert_eq!(again.code, 0);
    assert!(again.out.contains("there already"), "{}", again.out);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn what_an_earlier_process_left_is_gone_on_with() {
    let dir = tempdir().unwrap();
    let sha256 = hex::encode(Sha256::digest(content()));
    fs::create_dir_all(models(&dir)).unwrap();
    fs::write(models(&dir).join(format!(".ggml-base.bin.{}.part", &sha256[..8])), &content()[..1_000_000]).unwrap();
    let server = server(0);
    let pulled = pull(&dir, &server.url, &sha256);
    assert_eq!(pulled.code, 0, "{}", pulled.err);
    assert_eq!(server.requests()[0].header("range"), Some("bytes=1000000-"));
    assert_eq!(fs::read(models(&dir).join("ggml-base.bin")).unwrap(), content());
}

#[test]
fn other_content_is_refused_and_nothing_is_left() {
    let dir = tempdir().unwrap();
    let server = server(0);
    let expected = hex::encode(Sha256::digest(b"something else"));
    let refused = pull(&dir, &server.url, &expected);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains(&expected) && refused.err.contains("nothing was kept"), "{}", refused.err);
    assert_eq!(files(&models(&dir)), Vec::<String>::new());
}

#[test]
fn a_server_that_has_it_not_is_named() {
    let dir = tempdir().unwrap();
    let server = HttpServer::start(|_| Response::new(404, "no"));
    let refused = pull(&dir, &server.url, &"0".repeat(64));
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("404") && refused.err.contains(&server.url), "{}", refused.err);
    assert_eq!(server.requests().len(), 1, "a refusal is not asked again");
}

#[test]
fn nothing_is_downloaded_unpinned() {
    let dir = tempdir().unwrap();
    let server = server(0);
    for args in [
        &["models", "pull", "whisper-unheard-of"][..],
        &["models", "pull", "whisper-unheard-of", "--url", &server.url],
        &["models", "pull", "whisper-base", "--url", &server.url, "--sha256", "abc"],
        &["models", "pull", "../etc/passwd", "--url", &server.url, "--sha256", &"0".repeat(64)],
    ] {
        let refused = done(runmill(&dir, args));
        assert_eq!(refused.code, 2, "{args:?}: {}", refused.err);
    }
    let known = done(runmill(&dir, &["models", "pull", "whisper-unheard-of"]));
    assert!(known.err.contains("whisper-base"), "{}", known.err);
    // A known model from a mirror is still held to its own sha256.
    let mirrored = done(runmill(&dir, &["models", "pull", "whisper-tiny", "--url", &server.url]));
    assert_eq!(mirrored.code, 1);
    assert!(mirrored.err.contains("be07e048"), "{}", mirrored.err);
    assert_eq!(server.requests().len(), 1);
}
