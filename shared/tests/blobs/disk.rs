use std::{fs, os::unix::fs::symlink, time::Duration};

use futures::{TryStreamExt, future::join_all};
use runmill_shared::{ErrorKind, blobs::Blobs, clock::Timestamp, config::Config, domain::file_name::blob_key};

use crate::{Place, SIGNING_KEY, Store, body, content, disk, files_below};

const NOW: Timestamp = Timestamp(1_773_655_200_000_000);
const QUARTER: Duration = Duration::from_secs(900);

fn root(store: &Store) -> std::path::PathBuf {
    match &store.place {
        Place::Disk(dir) => dir.path().join("blobs"),
        Place::S3(_) => unreachable!("a disk store"),
    }
}

/// What our own route would take out of a URL: key, expires, signature.
fn parts(url: &str) -> (String, i64, String) {
    let (path, query) = url.strip_prefix("http://h:1/blobs/").unwrap().split_once('?').unwrap();
    let (expires, signature) = query.strip_prefix("expires=").unwrap().split_once("&signature=").unwrap();
    let mut key = Vec::new();
    let mut bytes = path.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'%' => key.extend(hex::decode([bytes.next().unwrap(), bytes.next().unwrap()]).unwrap()),
            b => key.push(b),
        }
    }
    (String::from_utf8(key).unwrap(), expires.parse().unwrap(), signature.to_owned())
}

#[tokio::test]
async fn a_signed_url_is_good_for_its_key_and_its_time_only() {
    let store = disk().await;
    let key = blob_key("u", "a/b ?#%", uuid::Uuid::nil(), "Grüße 世界.txt");
    let url = store.blobs.signed_url(&key, "http://h:1/", NOW, QUARTER).await.unwrap();
    let parsed = reqwest::Url::parse(&url).unwrap();
    assert_eq!(parsed.as_str(), url, "a URL parser changes nothing in it");
    let (signed, expires, signature) = parts(&url);
    assert_eq!(signed, key);
    assert_eq!(expires, NOW.after(QUARTER).0 / 1_000_000);

    let verify = |key: &str, expires, signature: &str, now| store.blobs.verify(key, expires, signature, now).map_err(|e| e.kind);
    assert_eq!(verify(&key, expires, &signature, NOW), Ok(()));
    assert_eq!(verify(&key, expires, &signature, Timestamp(expires * 1_000_000 - 1)), Ok(()));
    for (what, key, expires, signature, now) in [
        ("expired", key.as_str(), expires, signature.as_str(), NOW.after(QUARTER)),
        ("altered key", "u/t/other", expires, &signature, NOW),
        ("altered expiry", &key, expires + 1, &signature, NOW),
        ("endless", &key, i64::MAX, &signature, NOW),
        ("no signature", &key, expires, "", NOW),
        ("cut signature", &key, expires, &signature[..signature.len() - 4], NOW),
        ("no base64", &key, expires, "%%%", NOW),
    ] {
        assert_eq!(verify(key, expires, signature, now), Err(ErrorKind::Forbidden), "{what}");
    }
}

#[tokio::test]
async fn another_deployments_signature_is_refused() {
    let store = disk().await;
    let url = store.blobs.signed_url("u/t/x", "http://h:1", NOW, QUARTER).await.unwrap();
    let (key, expires, signature) = parts(&url);
    let mut config = Config::defaults().unwrap();
    config.data_dir = root(&store).parent().unwrap().to_owned();
    let same = Blobs::open(&config, SIGNING_KEY).await.unwrap();
    same.verify(&key, expires, &signature, NOW).unwrap();
    let other = Blobs::open(&config, b"another key").await.unwrap();
    assert_eq!(other.verify(&key, expires, &signature, NOW).unwrap_err().kind, ErrorKind::Forbidden);
}

#[tokio::test]
async fn planted_links_lead_nowhere() {
    let store = disk().await;
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    store.blobs.put("u/t/x", "text/plain", body(&content(3)), 100).await.unwrap();
    symlink(outside.path(), root(&store).join("u/dir")).unwrap();
    symlink(outside.path().join("secret"), root(&store).join("u/t/file")).unwrap();

    for key in ["u/dir/secret", "u/t/file"] {
        assert_eq!(store.blobs.get(key).await.err().unwrap().kind, ErrorKind::NotFound, "{key}");
    }
    store.blobs.put("u/dir/new", "text/plain", body(&content(3)), 100).await.unwrap_err();
    store.blobs.delete("u/dir/secret").await.unwrap();
    store.blobs.put("u/t/file", "text/plain", body(&content(3)), 100).await.unwrap();
    let listed: Vec<_> = store.blobs.list("").map_ok(|object| object.key).try_collect().await.unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(files_below(outside.path()).len(), 1);
    assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "secret");
}

#[tokio::test]
async fn names_longer_than_a_file_system_takes_are_stored_and_listed() {
    let store = disk().await;
    let keys = [format!("u/{}/x", "界".repeat(120)), format!("u/t/{}", "é".repeat(400)), format!("{}/y", ".".repeat(900))];
    for key in &keys {
        store.blobs.put(key, "text/plain", body(&content(3)), 100).await.unwrap();
    }
    for key in &keys {
        for characters in (0..key.chars().count()).step_by(29) {
            let prefix: String = key.chars().take(characters).collect();
            let listed: Vec<_> = store.blobs.list(&prefix).try_collect().await.unwrap();
            assert!(listed.iter().any(|object| object.key == *key), "{prefix}");
        }
    }
    let mut listed: Vec<_> = store.blobs.list("").map_ok(|object| object.key).try_collect().await.unwrap();
    listed.sort();
    let mut keys = keys.to_vec();
    keys.sort();
    assert_eq!(listed, keys);
    for key in keys {
        store.blobs.delete(&key).await.unwrap();
    }
    let left: Vec<_> = fs::read_dir(root(&store)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".tmp"], "emptied directories go");
}

#[tokio::test]
async fn puts_and_deletes_in_one_directory_do_not_trip_each_other() {
    let store = disk().await;
    let blobs = &store.blobs;
    join_all((0..3).map(|i| async move {
        let key = format!("u/t/{i}");
        for _ in 0..400 {
            blobs.put(&key, "text/plain", body(&content(3)), 100).await.unwrap();
            blobs.delete(&key).await.unwrap();
        }
    }))
    .await;
    assert!(store.files().is_empty());
}

#[tokio::test]
async fn a_start_removes_what_a_crash_left_long_ago_and_nothing_else() {
    let store = disk().await;
    let (old, new) = (root(&store).join(".tmp/old"), root(&store).join(".tmp/new"));
    fs::write(&old, "part of an object").unwrap();
    fs::write(&new, "part of an object").unwrap();
    fs::File::options().write(true).open(&old).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let mut config = Config::defaults().unwrap();
    config.data_dir = root(&store).parent().unwrap().to_owned();
    Blobs::open(&config, SIGNING_KEY).await.unwrap();
    assert_eq!((old.exists(), new.exists()), (false, true));
}
