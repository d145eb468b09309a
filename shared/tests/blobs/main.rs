//! Blob storage: one suite over files, path-style S3 and virtual-host S3, then what is particular to each. The S3 server is
//! a real one that checks signatures.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod disk;
mod every_store;
mod s3;
mod s3_environment;

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns};
use bytes::Bytes;
use futures::{Stream, stream};
use runmill_shared::{
    blobs::{Blobs, S3Blobs, sdk_config},
    config::{Config, Secret},
};
use runmill_testkit::s3_server::S3Server;
use tempfile::TempDir;

const MIB: usize = 1024 * 1024;
const SIGNING_KEY: &[u8] = b"the signing key of this deployment";

struct Store {
    name: &'static str,
    blobs: Blobs,
    place: Place,
}

enum Place {
    Disk(TempDir),
    S3(S3Server),
}

impl Store {
    /// Every file that the store keeps: objects, and whatever a put may have left.
    fn files(&self) -> Vec<PathBuf> {
        match &self.place {
            Place::Disk(dir) => files_below(dir.path()),
            Place::S3(server) => server.files().unwrap(),
        }
    }
}

async fn every_store() -> Vec<Store> {
    vec![disk().await, path_style().await, virtual_host().await]
}

async fn disk() -> Store {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::defaults().unwrap();
    config.data_dir = dir.path().to_owned();
    let blobs = Blobs::open(&config, SIGNING_KEY).await.unwrap();
    assert_eq!(blobs.bucket(), "attachments");
    Store { name: "disk", blobs, place: Place::Disk(dir) }
}

async fn path_style() -> Store {
    let server = S3Server::start();
    let blobs = Blobs::open(&config_for(&server), SIGNING_KEY).await.unwrap();
    Store { name: "path-style S3", blobs, place: Place::S3(server) }
}

/// `attachments.localhost` need not be known to this machine's resolver, so that the client brings its own.
async fn virtual_host() -> Store {
    #[derive(Clone, Debug)]
    struct Loopback;
    impl ResolveDns for Loopback {
        fn resolve_dns<'a>(&'a self, _: &'a str) -> DnsFuture<'a> {
            DnsFuture::ready(Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]))
        }
    }
    let server = S3Server::start();
    let mut settings = config_for(&server).blobs;
    settings.endpoint = format!("http://localhost:{}", server.address.port());
    settings.path_style = false;
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
        .build_with_resolver(Loopback);
    let sdk = sdk_config(&settings).await.into_builder().http_client(http).build();
    Store { name: "virtual-host S3", blobs: Blobs::S3(S3Blobs::new(&sdk, &settings)), place: Place::S3(server) }
}

fn config_for(server: &S3Server) -> Config {
    let mut config = Config::defaults().unwrap();
    config.blobs.endpoint = server.endpoint.clone();
    config.blobs.bucket = server.bucket.clone();
    config.blobs.access_key = Secret::new(&server.access_key);
    config.blobs.secret_key = Secret::new(&server.secret_key);
    config
}

/// `size` bytes that differ from block to block.
fn content(size: usize) -> Bytes {
    (0..size).map(|i| (i / 251 + i) as u8).collect()
}

/// In chunks of 100,000 bytes, which no part ends with.
fn body(content: &Bytes) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin + use<> {
    let chunks: Vec<_> = content.chunks(100_000).map(Bytes::copy_from_slice).map(Ok).collect();
    stream::iter(chunks)
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut dirs, mut files) = (vec![dir.to_owned()], Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { &mut dirs } else { &mut files }.push(path);
        }
    }
    files.sort();
    files
}
