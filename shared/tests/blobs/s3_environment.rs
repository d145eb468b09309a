//! The environment names that others rely on, read by a process of their own: a test cannot change its own environment.
use std::process::{Command, Output};

use runmill_shared::{ErrorKind, blobs::Blobs, config::Config};
use runmill_testkit::s3_server::S3Server;

use crate::SIGNING_KEY;

fn run_child(test: &str, environment: &[(&str, String)]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env_clear()
        .env("HOME", home.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap()
}

#[test]
fn another_process_reaches_the_store_by_the_named_environment() {
    let server = S3Server::start();
    let output = run_child("s3_environment::child_with_credentials", &server.environment());
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");

    let without: Vec<_> = server.environment().into_iter().filter(|(name, _)| !name.starts_with("AWS_")).collect();
    let output = run_child("s3_environment::child_without_credentials", &without);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

#[tokio::test]
#[ignore = "the test above runs it, in a process of its own"]
async fn child_with_credentials() {
    let config = Config::load(None, &[]).unwrap();
    let blobs = Blobs::open(&config, SIGNING_KEY).await.unwrap();
    assert_eq!(blobs.bucket(), "attachments");
    blobs.check().await.unwrap();
}

#[tokio::test]
#[ignore = "the test above runs it, in a process of its own"]
async fn child_without_credentials() {
    let config = Config::load(None, &[]).unwrap();
    let blobs = Blobs::open(&config, SIGNING_KEY).await.unwrap();
    let e = blobs.check().await.unwrap_err();
    assert_eq!(e.kind, ErrorKind::Unavailable);
    assert_eq!(e.message, "there are no credentials for the blob store", "{e}");
}
