use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::join_all, stream};
use runmill_shared::{
    Error, ErrorKind,
    clock::Clock,
    domain::{file_name::blob_key, new_id},
};
use sha2::{Digest, Sha256};

use crate::{MIB, body, content, every_store};

#[tokio::test]
async fn what_was_put_is_read_back_until_it_is_deleted() {
    for store in every_store().await {
        let (blobs, name) = (&store.blobs, store.name);
        let key = blob_key("local", "t1", new_id(), "Grüße 世界.txt");
        for size in [0, 1, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 10 * MIB, 10 * MIB + 3] {
            let content = content(size);
            let stored = blobs.put(&key, "text/plain", body(&content), size as u64).await.unwrap();
            assert_eq!(stored.size, size as u64, "{name}");
            assert_eq!(stored.sha256, hex::encode(Sha256::digest(&content)), "{name}");
            let blob = blobs.get(&key).await.unwrap();
            assert_eq!(blob.size, size as u64, "{name}");
            let chunks: Vec<Bytes> = blob.body.try_collect().await.unwrap();
            assert!(chunks.concat() == content, "{name}: {size} bytes came back otherwise");
        }
        assert_eq!(blobs.get_bytes(&key, MIB as u64).await.unwrap_err().kind, ErrorKind::TooLarge, "{name}");
        blobs.delete(&key).await.unwrap();
        blobs.delete(&key).await.unwrap();
        let gone = blobs.get(&key).await.err().unwrap();
        assert_eq!((gone.kind, gone.code), (ErrorKind::NotFound, "BLOB_NOT_FOUND"), "{name}");
        assert!(store.files().is_empty(), "{name}: {:?}", store.files());
        blobs.check().await.unwrap();
    }
}

#[tokio::test]
async fn lists_what_starts_with_a_prefix() {
    for store in every_store().await {
        let (blobs, name) = (&store.blobs, store.name);
        let before = Clock::real().now().before(Duration::from_secs(10));
        let keys = ["ann/t1/a b.txt", "ann/t1/世界.txt", "ann/t10/c.txt", "bob/t1/d.txt"];
        for key in keys {
            blobs.put(key, "text/plain", body(&content(key.len())), 100).await.unwrap();
        }
        for (prefix, expected) in [
            ("", &keys[..]),
            ("ann/", &keys[..3]),
            ("ann/t1", &keys[..3]),
            ("ann/t1/", &keys[..2]),
            ("bob/t1/d.txt", &keys[3..]),
            ("x", &[]),
        ] {
            let mut found: Vec<_> = blobs.list(prefix).try_collect().await.unwrap();
            found.sort_by(|a, b| a.key.cmp(&b.key));
            assert_eq!(found.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), expected, "{name}: {prefix}");
            for object in found {
                assert_eq!(object.size, object.key.len() as u64, "{name}");
                assert!(object.modified > before && object.modified < before.after(Duration::from_secs(600)), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn an_endless_body_is_cut_off_at_the_limit_and_leaves_nothing() {
    for store in every_store().await {
        let (blobs, name) = (&store.blobs, store.name);
        blobs.put("u/t/kept", "text/plain", body(&content(7)), 100).await.unwrap();
        let before = store.files();
        for limit in [0, 100_000, MIB, 11 * MIB] {
            let read = Arc::new(AtomicU64::new(0));
            let counted = read.clone();
            let endless = stream::repeat_with(move || {
                counted.fetch_add(65_536, Ordering::Relaxed);
                io::Result::Ok(Bytes::from_static(&[7; 65_536]))
            });
            for key in ["u/t/endless", "u/t/kept"] {
                read.store(0, Ordering::Relaxed);
                let e = blobs.put(key, "text/plain", endless.clone(), limit as u64).await.unwrap_err();
                assert_eq!(e.kind, ErrorKind::TooLarge, "{name}: {e}");
                let read = read.load(Ordering::Relaxed);
                assert!(read <= limit as u64 + 65_536, "{name}: read {read} bytes with a limit of {limit}");
            }
        }
        assert_eq!(store.files(), before, "{name}");
        assert_eq!(blobs.get_bytes("u/t/kept", 100).await.unwrap(), content(7), "{name}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing() {
    for store in every_store().await {
        for size in [10, 6 * MIB] {
            let broken = body(&content(size)).chain(stream::iter([Err(io::ErrorKind::ConnectionReset.into())]));
            let e = store.blobs.put("u/t/x", "text/plain", broken, u64::MAX).await.unwrap_err();
            assert_eq!((e.kind, e.code), (ErrorKind::Malformed, "UPLOAD_BROKEN_OFF"), "{}", store.name);

            let ours = body(&content(size)).chain(stream::iter([Err(io::Error::other(Error::forbidden("no")))]));
            let e = store.blobs.put("u/t/x", "text/plain", ours, u64::MAX).await.unwrap_err();
            assert_eq!(e.kind, ErrorKind::Forbidden, "{}", store.name);
            assert!(store.files().is_empty(), "{}: {:?}", store.name, store.files());
        }
    }
}

#[tokio::test]
async fn a_put_that_is_dropped_leaves_nothing() {
    for store in every_store().await {
        for size in [10, 6 * MIB] {
            let (stuck, reached) = tokio::sync::oneshot::channel();
            let stall = Box::pin(stream::once(async move {
                stuck.send(()).unwrap();
                std::future::pending().await
            }));
            let put = store.blobs.put("u/t/x", "text/plain", body(&content(size)).chain(stall), u64::MAX);
            tokio::select! {
                done = put => panic!("{}: the put ended: {done:?}", store.name),
                reached = reached => reached.unwrap(),
            }
            let deadline = Instant::now() + Duration::from_secs(20);
            while !store.files().is_empty() {
                assert!(Instant::now() < deadline, "{}: {:?} is left", store.name, store.files());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

#[tokio::test]
async fn no_key_leads_out_of_the_store() {
    for store in every_store().await {
        let (blobs, name) = (&store.blobs, store.name);
        let long = "k".repeat(1025);
        for key in ["", "/etc/passwd", "..", "../x", "u/../../x", "u/./x", "u//x", "u/x/", "nul\0", "line\nfeed", long.as_str()] {
            let e = blobs.put(key, "text/plain", body(&content(3)), 100).await.unwrap_err();
            assert_eq!(e.kind, ErrorKind::Invalid, "{name}: {key:?}");
            assert_eq!(blobs.get(key).await.err().unwrap().kind, ErrorKind::NotFound, "{name}: {key:?}");
            blobs.delete(key).await.unwrap();
            let url = blobs.signed_url(key, "http://h", Clock::real().now(), Duration::from_secs(60)).await;
            assert_eq!(url.unwrap_err().kind, ErrorKind::Invalid, "{name}: {key:?}");
        }
        assert!(store.files().is_empty(), "{name}: {:?}", store.files());
    }
}

#[tokio::test]
async fn every_thread_and_file_name_can_be_stored() {
    for store in every_store().await {
        let (blobs, name) = (&store.blobs, store.name);
        let threads = ["..", "../../etc", "a/b", "a\\b", "nul\0", "", ".", "100%", "%2e%2e%2f", "a b+c", "t?x=1#f", "ünï", "😀"];
        let mut keys = Vec::new();
        for (i, thread) in threads.into_iter().enumerate() {
            let key = blob_key("u", thread, new_id(), "../.x\u{202E}y&z.md");
            let content = content(i + 1);
            blobs.put(&key, "text/markdown", body(&content), 100).await.unwrap();
            assert_eq!(blobs.get_bytes(&key, 100).await.unwrap(), content, "{name}: {key}");
            keys.push(key);
        }
        let mut listed: Vec<_> = blobs.list("u/").map_ok(|object| object.key).try_collect().await.unwrap();
        listed.sort();
        keys.sort();
        assert_eq!(listed, keys, "{name}");
        for key in keys {
            blobs.delete(&key).await.unwrap();
        }
        assert!(store.files().is_empty(), "{name}: {:?}", store.files());
    }
}

#[tokio::test]
async fn of_puts_at_once_of_one_key_one_wins_whole() {
    for store in every_store().await {
        let (blobs, name) = (&store.blobs, store.name);
        let all: Vec<_> = (0..8).map(|i| content(6 * MIB + i)).collect();
        for result in join_all(all.iter().map(|c| blobs.put("u/t/x", "text/plain", body(c), u64::MAX))).await {
            result.unwrap();
        }
        let winner = blobs.get_bytes("u/t/x", u64::MAX).await.unwrap();
        assert!(all.contains(&winner), "{name}: {} bytes of no single put", winner.len());
        assert_eq!(store.files().len(), 1, "{name}: {:?}", store.files());
    }
}
