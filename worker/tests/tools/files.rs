//! Files of a thread: on both databases, and with whatever store the attachments have.
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::TryStreamExt;
use runmill_shared::{
    App,
    domain::{caller::Owner, new_id},
    services::{
        attachments,
        files::{self, Place},
    },
    store::files as rows,
};
use runmill_testkit::database::databases;
use runmill_worker::tools::ToolContext;
use serde_json::{Value, json};

use crate::support::{call, in_thread};

fn place(cx: &ToolContext) -> Place<'_> {
    Place { owner: &cx.scope.owner, thread_id: cx.scope.thread_id, thread: &cx.scope.thread }
}

/// The same thread, another step.
fn step(cx: &ToolContext, key: &str) -> ToolContext {
    ToolContext { step_key: key.to_owned(), ..cx.clone() }
}

async fn objects(app: &App) -> usize {
    app.blobs.list("ann/").try_collect::<Vec<_>>().await.unwrap().len()
}

#[tokio::test]
async fn a_file_is_written_listed_read_replaced_and_deleted() {
    for database in databases().await {
        let cx = in_thread(&database, |_| {}).await;
        assert_eq!(call(&cx, "file_list", json!({})).await, Ok(json!({"files": []})));
        let written = call(&cx, "file_write", json!({"name": "Grüße.md", "content": "# Hallo\n"})).await;
        assert_eq!(written, Ok(json!({"name": "Grüße.md", "mime_type": "text/markdown", "size": 8})), "{}", database.name());
        let pixel = json!({"name": "a.png", "content": "iVBORw0KGgoAAAANSUhEUg==", "encoding": "base64"});
        assert_eq!(call(&step(&cx, "2"), "file_write", pixel).await.unwrap()["mime_type"], "image/png");
        let replaced = call(&step(&cx, "3"), "file_write", json!({"name": "Grüße.md", "content": "anders"})).await;
        assert_eq!(replaced.unwrap()["size"], 6);
        assert_eq!(
            call(&cx, "file_list", json!({})).await,
            Ok(json!({"files": [
                {"name": "Grüße.md", "mime_type": "text/markdown", "size": 6}, {"name": "a.png", "mime_type": "image/png", "size": 16},
            ]}))
        );
        assert_eq!(objects(&cx.app).await, 2, "what was replaced is gone");
        let read = call(&cx, "file_read", json!({"name": "Grüße.md"})).await.unwrap();
        assert_eq!((&read["content"], read.get("next_offset")), (&json!("anders"), None));
        let gone = call(&cx, "file_delete", json!({"name": "Grüße.md"})).await;
        assert_eq!(gone, Ok(json!({"name": "Grüße.md", "existed": true})));
        assert_eq!(call(&cx, "file_delete", json!({"name": "Grüße.md"})).await.unwrap()["existed"], false);
        assert_eq!(call(&cx, "file_read", json!({"name": "Grüße.md"})).await.unwrap_err().code, "FILE_NOT_FOUND");
        assert_eq!(objects(&cx.app).await, 1);
    }
}

#[tokio::test]
async fn a_file_is_seen_in_its_thread_and_by_its_owner() {
    for database in databases().await {
        let cx = in_thread(&database, |_| {}).await;
        call(&cx, "file_write", json!({"name": "mine.txt", "content": "secret"})).await.unwrap();
        let mut elsewhere = cx.clone();
        elsewhere.scope.thread_id = new_id();
        let mut another = cx.clone();
        another.scope.owner = Owner::of_row("bob");
        for cx in [elsewhere, another] {
            assert_eq!(call(&cx, "file_list", json!({})).await, Ok(json!({"files": []})), "{}", database.name());
            for tool in ["file_read", "pdf_extract", "docx_extract", "spreadsheet_read"] {
                assert_eq!(call(&cx, tool, json!({"name": "mine.txt"})).await.unwrap_err().code, "FILE_NOT_FOUND", "{tool}");
            }
            if cx.scope.owner.as_str() == "bob" {
                assert_eq!(call(&cx, "file_delete", json!({"name": "mine.txt"})).await.unwrap()["existed"], false);
            }
        }
        assert_eq!(call(&cx, "file_read", json!({"name": "mine.txt"})).await.unwrap()["content"], "secret");
    }
}

#[tokio::test]
async fn the_same_step_writes_once() {
    for database in databases().await {
        let cx = in_thread(&database, |_| {}).await;
        let first = json!({"name": "log.txt", "content": "first"});
        let written = call(&cx, "file_write", first.clone()).await.unwrap();
        assert_eq!(call(&cx, "file_write", first.clone()).await, Ok(written));
        assert_eq!(objects(&cx.app).await, 1);
        call(&step(&cx, "next"), "file_write", json!({"name": "log.txt", "content": "second"})).await.unwrap();
        let read = call(&cx, "file_read", json!({"name": "log.txt"})).await.unwrap();
        assert_eq!(read["content"], "second", "{}", database.name());
        // Twice at once, as when a worker lost its run and does not know it yet.
        let again = step(&cx, "both");
        let third = json!({"name": "log.txt", "content": "third"});
        let (a, b) = tokio::join!(call(&again, "file_write", third.clone()), call(&again, "file_write", third));
        assert_eq!(a.unwrap(), b.unwrap());
        assert_eq!(call(&cx, "file_list", json!({})).await.unwrap()["files"].as_array().map(Vec::len), Some(1));
    }
}

/// A future that is given up after so many polls, as by a process that dies there.
struct Dies<F> {
    work: Pin<Box<F>>,
    polls: usize,
}

impl<F: Future> Future for Dies<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        self.work.as_mut().poll(cx).map(Some)
    }
}

#[tokio::test]
async fn a_write_that_dies_leaves_the_old_file_or_the_new_one() {
    for database in databases().await {
        let cx = in_thread(&database, |_| {}).await;
        files::write(&cx.app, place(&cx), "a.txt", Bytes::from("0"), "start").await.unwrap();
        let mut before = "0".to_owned();
        let mut survived = 0;
        for polls in 1..200 {
            let (key, content) = (format!("key-{polls}"), polls.to_string());
            let write = || files::write(&cx.app, place(&cx), "a.txt", Bytes::from(content.clone()), &key);
            let outcome = Dies { work: Box::pin(write()), polls }.await;
            let (_, now) = files::read(&cx.app, place(&cx), "a.txt", 100).await.unwrap();
            assert!([before.as_bytes(), content.as_bytes()].contains(&&now[..]), "{now:?} after {polls} on {}", database.name());
            survived += usize::from(outcome.is_none());
            if let Some(written) = outcome {
                assert_eq!((written.unwrap().size, &now[..]), (i64::try_from(content.len()).unwrap(), content.as_bytes()));
                break;
            }
            // The call is made again, under the same key.
            write().await.unwrap();
            let (_, now) = files::read(&cx.app, place(&cx), "a.txt", 100).await.unwrap();
            assert_eq!(now, content, "after {polls} on {}", database.name());
            before = content;
        }
        assert!(survived > 3, "it was never given up in the middle");
        attachments::sweep(&cx.app).await.unwrap();
        assert_eq!(objects(&cx.app).await, 1, "{}", database.name());
    }
}

#[tokio::test]
async fn what_was_taken_out_is_swept_with_its_object() {
    for database in databases().await {
        let cx = in_thread(&database, |_| {}).await;
        let file = files::write(&cx.app, place(&cx), "a.txt", Bytes::from("words"), "k").await.unwrap();
        let mut tx = cx.app.db.begin().await.unwrap();
        let gone = rows::discard(&mut tx, &cx.scope.owner, cx.scope.thread_id, "a.txt", new_id()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(gone.iter().map(|g| g.id).collect::<Vec<_>>(), [file.id]);
        assert!(attachments::owned(&cx.app, &cx.scope.owner, &file.bucket, &file.path).await.is_err(), "{}", database.name());
        assert_eq!(attachments::sweep(&cx.app).await.unwrap(), 1);
        assert_eq!(objects(&cx.app).await, 0);
    }
}

#[tokio::test]
async fn a_thread_takes_so_many_files_and_so_many_bytes() {
    for database in databases().await {
        let cx = in_thread(&database, |config| {
            config.attachments.thread_files = 2;
            config.attachments.thread_bytes = 20;
            config.attachments.max_bytes = 16;
        })
        .await;
        let write = async |name: &str, content: String| {
            call(&step(&cx, &new_id().to_string()), "file_write", json!({"name": name, "content": content})).await
        };
        write("a.txt", "a".repeat(10)).await.unwrap();
        assert_eq!(write("b.txt", "b".repeat(11)).await.unwrap_err().code, "THREAD_FULL", "{}", database.name());
        write("b.txt", "b".repeat(10)).await.unwrap();
        assert_eq!(write("c.txt", "c".to_owned()).await.unwrap_err().code, "THREAD_FULL");
        write("b.txt", "B".repeat(10)).await.expect("what it replaces does not count");
        assert_eq!(write("a.txt", "a".repeat(17)).await.unwrap_err().code, "TOO_LARGE");
        assert_eq!(objects(&cx.app).await, 2);
        let all = cx.app.config.attachments.thread_files + 1;
        assert!(rows::list(&cx.app.db, &cx.scope.owner, cx.scope.thread_id, all).await.unwrap().len() == 2);
    }
}

#[tokio::test]
async fn names_types_and_contents_that_do_not_fit_are_refused() {
    let database = databases().await.remove(0);
    let cx = in_thread(&database, |_| {}).await;
    let refused = async |arguments: Value| call(&cx, "file_write", arguments).await.unwrap_err();
    for name in ["../a.txt", "a/b.txt", ".hidden", "a b.txt", "nul\0.txt", "..."] {
        let e = refused(json!({"name": name, "content": "x"})).await;
        assert_eq!(e.code, "VALIDATION_ERROR", "{name}: {e}");
    }
    assert!(refused(json!({"name": "a/b c.txt", "content": "x"})).await.message.contains("b_c.txt"));
    for (name, content) in [("run.exe", "words"), ("page.html", "<p>"), ("a.png", "words")] {
        assert_eq!(refused(json!({"name": name, "content": content})).await.code, "UNSUPPORTED_FILE_TYPE", "{name}");
    }
    let e = refused(json!({"name": "a.txt", "content": "not base64!", "encoding": "base64"})).await;
    assert_eq!(e.code, "INVALID_ARGUMENTS");
    assert_eq!(refused(json!({"name": "a.txt", "content": ""})).await.code, "INVALID_ARGUMENTS");
    assert_eq!(objects(&cx.app).await, 0);
}

#[tokio::test]
async fn a_long_file_is_read_in_parts() {
    let database = databases().await.remove(0);
    let cx = ToolContext { max_output_bytes: 4096, ..in_thread(&database, |_| {}).await };
    let text = "Zeile mit Ümlaut \"und\" mehr\n".repeat(500);
    files::write(&cx.app, place(&cx), "long.txt", Bytes::from(text.clone()), "k").await.unwrap();
    for encoding in ["text", "base64"] {
        let (mut whole, mut offset) = (Vec::new(), json!(0));
        while !offset.is_null() {
            let part = call(&cx, "file_read", json!({"name": "long.txt", "encoding": encoding, "offset": offset})).await.unwrap();
            assert!(part.to_string().len() <= 4096 && part.get("truncated").is_none());
            let content = part["content"].as_str().unwrap();
            whole.extend(match encoding {
                "text" => content.as_bytes().to_vec(),
                _ => base64::Engine::decode(&base64::engine::general_purpose::STANDARD, content).unwrap(),
            });
            offset = part["next_offset"].clone();
        }
        assert_eq!(whole, text.as_bytes(), "{encoding}");
    }
    let one = call(&cx, "file_read", json!({"name": "long.txt", "offset": 10, "limit": 1})).await.unwrap();
    assert_eq!((&one["content"], &one["next_offset"]), (&json!("Ü"), &json!(12)), "whole characters");
    let past = call(&cx, "file_read", json!({"name": "long.txt", "offset": 1_000_000})).await.unwrap();
    assert_eq!((&past["content"], past.get("next_offset")), (&json!(""), None));
    files::write(&cx.app, place(&cx), "a.png", Bytes::from_static(b"\x89PNG\r\n\x1a\n\xff"), "p").await.unwrap();
    assert_eq!(call(&cx, "file_read", json!({"name": "a.png"})).await.unwrap_err().code, "NOT_TEXT");
}
