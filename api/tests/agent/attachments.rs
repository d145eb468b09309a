use std::time::Duration;

use futures::stream;
use reqwest::{Body, Method, multipart};
use runmill_shared::{
    domain::caller::{Caller, Scope},
    services::files::{self, Place},
    store::threads,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{TestApi, content, each, file, read, soon};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR-and-more";

async fn fetch(api: &TestApi, url: &str) -> reqwest::Response {
    let path = url.strip_prefix(&format!("http://{}", api.address)).unwrap_or_else(|| panic!("{url}"));
    api.request(Method::GET, path).send().await.unwrap()
}

#[tokio::test]
async fn a_file_is_stored_and_served_by_its_signed_url() {
    for api in each(|_| {}).await {
        let (status, body) = api.upload("t 1", "Räksmörgås 1.png", PNG).await;
        assert_eq!(status, 200, "{body}");
        let a = &body["attachment"];
        assert_eq!((&a["bucket"], &a["mimeType"], &a["size"]), (&json!("attachments"), &json!("image/png"), &json!(PNG.len())));
        let path = a["path"].as_str().unwrap();
        assert!(path.starts_with("local/t 1/") && path.ends_with("-Räksmörgås_1.png"), "{path}");

        let served = fetch(&api, a["url"].as_str().unwrap()).await;
        assert_eq!(served.status(), 200);
        let header = |name: &str| served.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((header("content-type"), header("x-content-type-options")), ("image/png".into(), "nosniff".into()));
        assert_eq!(header("content-disposition"), "inline; filename*=UTF-8''R%C3%A4ksm%C3%B6rg%C3%A5s_1.png");
        assert!(header("content-security-policy").contains("sandbox"));
        assert_eq!(served.bytes().await.unwrap(), PNG);

        let query = [("bucket", "attachments"), ("path", path)];
        let (status, signed) = read(api.get("/attachments/signed-url").query(&query)).await;
        assert_eq!((status, &signed["path"]), (200, &json!(path)));
        let url = signed["url"].as_str().unwrap();
        let path = url.strip_prefix(&format!("http://{}", api.address)).unwrap();
        let part = api.request(Method::GET, path).header("Range", "bytes=1-3").send().await.unwrap();
        assert_eq!((part.status().as_u16(), part.headers()["content-range"].to_str().unwrap()), (206, "bytes 1-3/25"));
        assert_eq!(part.bytes().await.unwrap(), "PNG");
        let head = api.request(Method::HEAD, path).send().await.unwrap();
        assert_eq!((head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()), (200, "25"));
    }
}

#[tokio::test]
async fn a_signature_that_is_altered_foreign_or_expired_is_refused() {
    for api in each(|_| {}).await {
        let (_, body) = api.upload("t1", "a.txt", b"words").await;
        let other = api.upload("t1", "b.txt", b"other").await.1;
        let url = body["attachment"]["url"].as_str().unwrap().to_owned();
        assert_eq!(fetch(&api, &url).await.text().await.unwrap(), "words");
        let (bare, query) = url.split_once('?').unwrap();
        let expires = query.split_once('&').unwrap().0.strip_prefix("expires=").unwrap();
        let longer = url.replace(expires, &format!("{expires}0"));
        let foreign = format!("{}?{query}", other["attachment"]["url"].as_str().unwrap().split_once('?').unwrap().0);
        let last = if url.ends_with('A') { "B" } else { "A" };
        let altered = format!("{}{last}", &url[..url.len() - 3]);
        for bad in [longer, foreign, altered, bare.to_owned(), format!("{bare}?expires=x&signature=y")] {
            let (status, body) = content(fetch(&api, &bad).await).await;
            assert_eq!((status, body), (403, json!({ "detail": "the link's signature is not valid" })), "{bad}");
        }
        api.app.clock.advance(Duration::from_secs(899));
        assert_eq!(fetch(&api, &url).await.status(), 200);
        api.app.clock.advance(Duration::from_secs(1));
        assert_eq!(content(fetch(&api, &url).await).await, (403, json!({ "detail": "the link has expired" })));
        let ask =
            |bucket: &str, path: &str| read(api.get("/attachments/signed-url").query(&[("bucket", bucket), ("path", path)]));
        assert_eq!(ask("elsewhere", "x").await.0, 403);
        assert_eq!(ask("attachments", "local/t1/nothing").await.0, 404);
    }
}

#[tokio::test]
async fn types_come_from_the_content_and_must_be_on_the_list() {
    for api in each(|_| {}).await {
        let cases: [(&str, &[u8], u16, &str); 6] = [
            ("a.csv", b"a,b\n1,2\n", 200, "text/csv"),
            ("a.md", b"# Title", 200, "text/markdown"),
            ("", b"words", 200, "text/plain"),
            ("a.png", b"words", 400, "Unsupported file type"),
            ("a.png", b"MZ\x90\0\x03\0\0\0\x04", 400, "Unsupported file type"),
            ("a.txt", b"", 422, "file: is empty"),
        ];
        for (name, bytes, status, expected) in cases {
            let (got, body) = api.upload("t1", name, bytes).await;
            let said = if status == 200 { &body["attachment"]["mimeType"] } else { &body["detail"] };
            assert_eq!((got, said), (status, &json!(expected)), "{name}");
        }
    }
}

#[tokio::test]
async fn the_form_may_come_in_any_order_and_must_be_whole() {
    for api in each(|_| {}).await {
        let form = multipart::Form::new().part("file", file("a.txt", b"words")).text("other", "x").text("threadId", "t1");
        let (status, body) = read(api.post("/attachments").multipart(form)).await;
        assert_eq!((status, &body["attachment"]["size"]), (200, &json!(5)), "{body}");
        let detail = |detail: &str| json!({ "detail": detail });
        let form = || multipart::Form::new().text("other", "x");
        let send = |form| read(api.post("/attachments").multipart(form));
        assert_eq!(send(form()).await, (422, detail("threadId: is required; file: is required")));
        assert_eq!(send(form().text("threadId", "t1")).await, (422, detail("file: is required")));
        assert_eq!(send(form().part("file", file("a", b"b"))).await, (422, detail("threadId: is required")));
        let long = form().text("threadId", "t".repeat(129)).part("file", file("a", b"b"));
        assert_eq!(send(long).await.0, 422);
        let cut = "--b\r\nContent-Disposition: form-data; name=\"threadId\"\r\n\r\nt1\r\n--b\r\n\
                   Content-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nhalf";
        let request = api.post("/attachments").header("Content-Type", "multipart/form-data; boundary=b").body(cut);
        assert_eq!(read(request).await, (400, detail("the upload ended before it was complete")));
    }
}

/// A file of `size` bytes that begins as text, sent in pieces and without a Content-Length.
fn chunked(first: &'static str, size: usize) -> Body {
    const PIECE: usize = 64 * 1024;
    let pieces = (0..size.div_ceil(PIECE)).map(move |i| Ok::<_, std::io::Error>(vec![b'a'; PIECE.min(size - i * PIECE)]));
    let head = std::iter::once(Ok(first.as_bytes().to_vec()));
    let tail = std::iter::once(Ok(b"\r\n--b--\r\n".to_vec()));
    Body::wrap_stream(stream::iter(head.chain(pieces).chain(tail)))
}

const THREAD_FIRST: &str = "--b\r\nContent-Disposition: form-data; name=\"threadId\"\r\n\r\nt1\r\n--b\r\n\
    Content-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n";
const FILE_FIRST: &str = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n";

#[tokio::test]
async fn five_mebibytes_are_taken_and_a_byte_more_is_not() {
    const MOST: usize = 5 * 1024 * 1024;
    for api in each(|_| {}).await {
        let send = |head, size| {
            let request = api.post("/attachments").header("Content-Type", "multipart/form-data; boundary=b");
            read(request.body(chunked(head, size)))
        };
        let (status, body) = send(THREAD_FIRST, MOST).await;
        assert_eq!((status, &body["attachment"]["size"]), (200, &json!(MOST)), "{body}");
        for head in [THREAD_FIRST, FILE_FIRST] {
            for size in [MOST + 1, 2 * MOST] {
                assert_eq!(send(head, size).await.0, 413, "{size}");
            }
        }
        assert_eq!(api.upload("t1", "a.txt", &vec![b'a'; 2 * MOST]).await.0, 413, "with a Content-Length");
    }
}

/// Reads an answer's status line from a socket whose request never ends.
async fn status_line(api: &TestApi, head: &str, piece: &[u8], pieces: usize) -> String {
    let mut socket = TcpStream::connect(api.address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..pieces {
        socket.write_all(piece).await.unwrap();
    }
    let mut answer = vec![0; 12];
    soon("an answer before the body's end", socket.read_exact(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn too_much_is_refused_before_it_has_all_come() {
    for api in each(|_| {}).await {
        let head = |extra: &str| {
            format!(
                "POST /api/v1/agent/attachments HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n{extra}\r\n\r\n"
            )
        };
        let declared = head("Content-Length: 1000000000000");
        assert_eq!(status_line(&api, &declared, b"", 0).await, "HTTP/1.1 413");
        let piece = [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b'a'; 1 << 20], b"\r\n".to_vec()].concat();
        let first = format!("{:x}\r\n{THREAD_FIRST}\r\n", THREAD_FIRST.len());
        let endless = head("Transfer-Encoding: chunked") + &first;
        assert_eq!(status_line(&api, &endless, &piece, 7).await, "HTTP/1.1 413");
    }
}

#[tokio::test]
async fn a_message_may_name_what_was_uploaded() {
    for api in each(|_| {}).await {
        let (_, body) = api.upload("t1", "a.png", PNG).await;
        let source = |path: &Value| json!({ "type": "attachment", "bucket": "attachments", "path": path });
        let run = |run: &str, path: &Value| {
            let part = json!({ "type": "image", "source": source(path) });
            json!({ "threadId": "t1", "runId": run, "messages": [{ "id": run, "role": "user", "content": [part] }] })
        };
        let path = &body["attachment"]["path"];
        assert_eq!(read(api.post("/runs").json(&run("r1", path))).await.0, 200);
        let (status, refused) = read(api.post("/runs").json(&run("r2", &json!("local/t1/none")))).await;
        assert_eq!((status, refused), (404, json!({ "detail": "no such attachment: local/t1/none" })));
        let url = api.history("t1").await["messages"][0]["url"].as_str().unwrap().to_owned();
        assert_eq!(fetch(&api, &url).await.bytes().await.unwrap(), PNG);
    }
}

#[tokio::test]
async fn what_a_tool_writes_is_fetched_and_what_is_uploaded_a_tool_reads() {
    for api in each(|_| {}).await {
        let (_, body) = api.upload("t1", "from me.txt", b"of the user").await;
        let uploaded = body["attachment"]["path"].as_str().unwrap().to_owned();
        let owner = Caller::local().can(Scope::Write).unwrap().clone();
        let thread = threads::by_name(&api.app.db, &owner, "t1").await.unwrap().unwrap();
        let place = Place { owner: &owner, thread_id: thread.id, thread: "t1" };
        let (_, content) = files::read(&api.app, place, "from me.txt", 100).await.unwrap();
        assert_eq!(&content[..], b"of the user", "{}", api.name());

        let written = files::write(&api.app, place, "report.md", "# Done".into(), "step-1").await.unwrap();
        let query = [("bucket", written.bucket.as_str()), ("path", written.path.as_str())];
        let (status, signed) = read(api.get("/attachments/signed-url").query(&query)).await;
        assert_eq!(status, 200, "{signed}");
        let served = fetch(&api, signed["url"].as_str().unwrap()).await;
        assert_eq!(served.headers()["content-type"], "text/markdown");
        assert_eq!(served.text().await.unwrap(), "# Done");

        // One that takes the uploaded one's place, and its end.
        files::write(&api.app, place, "from_me.txt", "of the tool".into(), "step-2").await.unwrap();
        let query = [("bucket", "attachments"), ("path", uploaded.as_str())];
        assert_eq!(read(api.get("/attachments/signed-url").query(&query)).await.0, 404);
        assert_eq!(files::list(&api.app, place).await.unwrap().len(), 2);
    }
}
