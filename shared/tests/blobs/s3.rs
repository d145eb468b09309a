use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use reqwest::{StatusCode, Url};
use runmill_shared::{
    ErrorKind,
    blobs::{Blobs, S3Blobs, sdk_config},
    clock::{Clock, Timestamp},
    config::{Config, Secret},
};
use runmill_testkit::s3_server::S3Server;

use crate::{Place, SIGNING_KEY, body, config_for, content, path_style, virtual_host};

const QUARTER: Duration = Duration::from_secs(900);

fn now() -> Timestamp {
    Clock::real().now()
}

/// Asks the server at its real address, whatever host the URL names.
async fn http_get(server: &S3Server, url: &str) -> (StatusCode, Option<String>, bytes::Bytes) {
    let client = reqwest::Client::builder().resolve("attachments.localhost", server.address).no_proxy().build().unwrap();
    let answer = client.get(url).send().await.unwrap();
    let content_type = answer.headers().get("content-type").map(|v| v.to_str().unwrap().to_owned());
    (answer.status(), content_type, answer.bytes().await.unwrap())
}

fn altered(url: &str, parameter: &str, value: &str) -> String {
    let mut url = Url::parse(url).unwrap();
    let pairs: Vec<_> = url.query_pairs().into_owned().collect();
    assert!(pairs.iter().any(|(name, _)| name == parameter));
    url.query_pairs_mut().clear().extend_pairs(pairs.iter().map(|(n, v)| (n, if n == parameter { value } else { v.as_str() })));
    url.into()
}

#[tokio::test]
async fn a_presigned_url_is_good_for_its_key_and_its_time_only() {
    for store in [path_style().await, virtual_host().await] {
        let Place::S3(server) = &store.place else { unreachable!("an S3 store") };
        let (blobs, name) = (&store.blobs, store.name);
        let key = "u/a b+世界?#/x%2F.png";
        blobs.put(key, "image/png", body(&content(1000)), 1000).await.unwrap();
        blobs.put("u/t/other", "image/png", body(&content(3)), 1000).await.unwrap();

        let url = blobs.signed_url(key, "http://ignored", now(), QUARTER).await.unwrap();
        let (status, content_type, bytes) = http_get(server, &url).await;
        assert_eq!((status, content_type.as_deref()), (StatusCode::OK, Some("image/png")), "{name}: {url}");
        assert_eq!(bytes, content(1000), "{name}");

        let other = blobs.signed_url("u/t/other", "http://ignored", now(), QUARTER).await.unwrap();
        let elsewhere = format!("{}?{}", other.split_once('?').unwrap().0, url.split_once('?').unwrap().1);
        let past = now().before(Duration::from_secs(1000));
        let expired = blobs.signed_url(key, "http://ignored", past, QUARTER).await.unwrap();
        for (what, url) in [
            ("altered key", elsewhere),
            ("expired", expired.clone()),
            ("altered expiry", altered(&expired, "X-Amz-Expires", "90000")),
            ("altered signature", altered(&url, "X-Amz-Signature", &"0".repeat(64))),
            ("no signature", url.split_once('?').unwrap().0.to_owned()),
        ] {
            let (status, _, bytes) = http_get(server, &url).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{name}: {what}: {bytes:?}");
        }
        assert_eq!(blobs.verify(key, i64::MAX, "", now()).unwrap_err().kind, ErrorKind::NotFound, "S3 checks its own");
    }
}

#[tokio::test]
async fn a_signature_with_foreign_credentials_is_refused() {
    let store = path_style().await;
    let Place::S3(server) = &store.place else { unreachable!("an S3 store") };
    store.blobs.put("u/t/x", "text/plain", body(&content(3)), 100).await.unwrap();
    for (access_key, secret_key) in [(server.access_key.as_str(), "guessed"), ("AKIASOMEBODY", server.secret_key.as_str())] {
        let mut config = config_for(server);
        config.blobs.access_key = Secret::new(access_key);
        config.blobs.secret_key = Secret::new(secret_key);
        let foreign = Blobs::open(&config, SIGNING_KEY).await.unwrap();
        let url = foreign.signed_url("u/t/x", "", now(), QUARTER).await.unwrap();
        assert_eq!(http_get(server, &url).await.0, StatusCode::FORBIDDEN);

        for result in [
            foreign.check().await,
            foreign.get("u/t/x").await.map(|_| ()),
            foreign.put("u/t/y", "text/plain", body(&content(3)), 100).await.map(|_| ()),
            foreign.delete("u/t/x").await,
            foreign.list("").try_collect::<Vec<_>>().await.map(|_| ()),
        ] {
            let e = result.unwrap_err();
            assert_eq!((e.kind, e.code), (ErrorKind::Unavailable, "BLOBS_UNAVAILABLE"), "{e}");
            assert_eq!(e.message, "the blob store refuses our credentials", "{e}");
        }
    }
    assert_eq!(store.blobs.get_bytes("u/t/x", 100).await.unwrap(), content(3));
}

#[tokio::test]
async fn urls_are_signed_for_the_public_endpoint_without_a_request() {
    // Nothing listens at the endpoint: a request would fail.
    let mut settings = Config::defaults().unwrap().blobs;
    settings.endpoint = "http://127.0.0.1:1".to_owned();
    settings.public_endpoint = "https://files.example.org".to_owned();
    settings.bucket = "attachments".to_owned();
    settings.access_key = Secret::new("AKIA");
    settings.secret_key = Secret::new("secret");
    for (path_style, expected) in
        [(true, "https://files.example.org/attachments/u/t/x?"), (false, "https://attachments.files.example.org/u/t/x?")]
    {
        settings.path_style = path_style;
        let blobs = Blobs::S3(S3Blobs::new(&sdk_config(&settings).await, &settings));
        let url = blobs.signed_url("u/t/x", "http://ignored", Timestamp(1_773_655_200_000_000), QUARTER).await.unwrap();
        assert!(url.starts_with(expected), "{url}");
        for part in ["X-Amz-Date=20260316T100000Z", "X-Amz-Expires=900", "X-Amz-SignedHeaders=host&"] {
            assert!(url.contains(part), "{part} is not in {url}");
        }
        assert!(!url.contains("checksum"), "{url}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable_until_it_is_back() {
    let mut store = path_style().await;
    store.blobs.put("u/t/x", "text/plain", body(&content(3)), 100).await.unwrap();
    let Place::S3(server) = &mut store.place else { unreachable!("an S3 store") };
    server.stop();
    let started = Instant::now();
    for result in [
        store.blobs.check().await,
        store.blobs.get("u/t/x").await.map(|_| ()),
        store.blobs.put("u/t/y", "text/plain", body(&content(3)), 100).await.map(|_| ()),
        store.blobs.delete("u/t/x").await,
        store.blobs.list("").try_collect::<Vec<_>>().await.map(|_| ()),
    ] {
        let e = result.unwrap_err();
        assert_eq!((e.kind, e.code), (ErrorKind::Unavailable, "BLOBS_UNAVAILABLE"), "{e}");
        assert_eq!(e.message, "the blob store does not answer", "{e}");
    }
    let reopened = Blobs::open(&config_for(server), SIGNING_KEY).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    server.restart().unwrap();
    assert_eq!(store.blobs.get_bytes("u/t/x", 100).await.unwrap(), content(3));
    reopened.check().await.unwrap();
}

#[tokio::test]
async fn a_server_that_never_answers_is_unavailable_within_the_timeout() {
    // The kernel accepts; nobody reads.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut settings = Config::defaults().unwrap().blobs;
    settings.endpoint = format!("http://{}", silent.local_addr().unwrap());
    settings.bucket = "attachments".to_owned();
    settings.access_key = Secret::new("AKIA");
    settings.secret_key = Secret::new("secret");
    settings.timeout = Duration::from_millis(200);
    let blobs = Blobs::S3(S3Blobs::new(&sdk_config(&settings).await, &settings));
    let started = Instant::now();
    let e = blobs.put("u/t/x", "text/plain", body(&content(3)), 100).await.unwrap_err();
    assert_eq!((e.kind, e.code), (ErrorKind::Unavailable, "BLOBS_UNAVAILABLE"), "{e}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_missing_bucket_is_made_at_the_start_and_named_by_the_check() {
    let server = S3Server::start();
    let mut config = config_for(&server);
    config.blobs.bucket = "not-there-yet".to_owned();
    let unopened = Blobs::S3(S3Blobs::new(&sdk_config(&config.blobs).await, &config.blobs));
    let e = unopened.check().await.unwrap_err();
    assert_eq!((e.kind, &*e.message), (ErrorKind::Unavailable, "the bucket of the blob store does not exist"));
    for _ in 0..2 {
        let opened = Blobs::open(&config, SIGNING_KEY).await.unwrap();
        assert_eq!(opened.bucket(), "not-there-yet");
        opened.check().await.unwrap();
    }
}

#[tokio::test]
async fn lists_more_objects_than_fit_on_a_page() {
    let store = path_style().await;
    let Place::S3(server) = &store.place else { unreachable!("an S3 store") };
    let folder = server.dir.path().join("attachments/u/t");
    std::fs::create_dir_all(&folder).unwrap();
    let mut expected: Vec<_> = (0..2345).map(|i| format!("u/t/{i}")).collect();
    for i in 0..2345 {
        std::fs::write(folder.join(i.to_string()), "").unwrap();
    }
    let mut listed: Vec<_> = store.blobs.list("u/").map_ok(|object| object.key).try_collect().await.unwrap();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
}
