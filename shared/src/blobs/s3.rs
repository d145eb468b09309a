//! Any S3 server. Objects up to one part go up in one request, larger ones as a multipart upload; a part at a time is
//! held in memory.
use std::{
    io,
    time::{Duration, SystemTime},
};

use aws_config::{BehaviorVersion, Region, SdkConfig, default_provider::credentials::DefaultCredentialsChain, imds};
use aws_sdk_s3::{
    Client,
    config::{Credentials, RequestChecksumCalculation, ResponseChecksumValidation, retry::RetryConfig, timeout::TimeoutConfig},
    presigning::PresigningConfig,
    primitives::ByteStream,
    types::{BucketLocationConstraint, CreateBucketConfiguration},
};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};

use super::{
    BlobStream, Metered, Object, Stored,
    s3_error::{failed, status},
    s3_upload::Upload,
    unavailable,
};
use crate::{
    clock::Timestamp,
    config::Blobs as Settings,
    error::{Error, ErrorKind, Result},
};

/// The smallest part that S3 takes before the last.
const PART_BYTES: usize = 5 * 1024 * 1024;
/// How long a start waits for a server that is away before it goes on without having seen the bucket.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct S3Blobs {
    client: Client,
    /// Signs for the endpoint that clients reach; sends nothing.
    presigner: Client,
    bucket: String,
}

/// Endpoint, region, credentials, timeouts and retries as the settings say; where they say nothing, as AWS's own tools
/// find them.
pub async fn sdk_config(settings: &Settings) -> SdkConfig {
    let region = Region::new(settings.region.clone());
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(region.clone())
        .retry_config(RetryConfig::standard().with_max_attempts(3).with_initial_backoff(Duration::from_millis(100)))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(settings.connect_timeout)
                .operation_attempt_timeout(settings.timeout)
                .operation_timeout(settings.timeout * 2)
                .build(),
        )
        // Only AWS itself is sure to understand checksums in trailers.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if !settings.endpoint.is_empty() {
        loader = loader.endpoint_url(&settings.endpoint);
    }
    if !settings.access_key.is_empty() {
        let (access_key, secret_key) = (settings.access_key.expose(), settings.secret_key.expose());
        loader = loader.credentials_provider(Credentials::new(access_key, secret_key, None, None, "runmill settings"));
    } else if !settings.endpoint.is_empty() {
        // Beside a server of one's own there is seldom an instance metadata service: ask once, and briefly.
        let briefly = Duration::from_secs(1);
        let metadata = imds::Client::builder().max_attempts(1).connect_timeout(briefly).read_timeout(briefly).build();
        loader =
            loader.credentials_provider(DefaultCredentialsChain::builder().region(region).imds_client(metadata).build().await);
    }
    loader.load().await
}

impl S3Blobs {
    /// With an endpoint of one's own, a bucket that is missing is made. A server that is away is logged and no error:
    /// readiness tells, and the work that needs no blobs goes on.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let blobs = Self::new(&sdk_config(settings).await, settings);
        if !settings.endpoint.is_empty() {
            match tokio::time::timeout(OPEN_TIMEOUT, blobs.make_bucket(&settings.region)).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => tracing::warn!(bucket = blobs.bucket, error = %e, "the blob store is not usable yet"),
                Err(_) => tracing::warn!(bucket = blobs.bucket, "the blob store does not answer yet"),
            }
        }
        Ok(blobs)
    }

    /// Asks nothing of the server.
    pub fn new(sdk: &SdkConfig, settings: &Settings) -> Self {
        let own = aws_sdk_s3::config::Builder::from(sdk).force_path_style(settings.path_style);
        let public = match settings.public_endpoint.as_str() {
            "" => own.clone(),
            endpoint => own.clone().endpoint_url(endpoint),
        };
        Self {
            client: Client::from_conf(own.build()),
            presigner: Client::from_conf(public.build()),
            bucket: settings.bucket.clone(),
        }
    }

    pub(super) fn bucket(&self) -> &str {
        &self.bucket
    }

    pub(super) async fn put<S>(&self, key: &str, content_type: &str, body: Metered<S>) -> Result<Stored>
    where
        S: Stream<Item = io::Result<Bytes>> + Unpin,
    {
        let mut parts = Parts { body, pending: BytesMut::new(), ended: false };
        let first = parts.next().await?;
        if parts.ended {
            let put = self.client.put_object().bucket(&self.bucket).key(key).content_type(content_type);
            put.body(ByteStream::from(first)).send().await.map_err(failed)?;
            return Ok(parts.body.stored());
        }
        let mut upload = Upload::begin(&self.client, &self.bucket, key, content_type).await?;
        match send_all(&mut upload, first, &mut parts).await {
            Ok(()) => Ok(parts.body.stored()),
            Err(e) => {
                upload.abort().await;
                Err(e)
            }
        }
    }

    pub(super) async fn get(&self, key: &str) -> Result<BlobStream> {
        let found = self.client.get_object().bucket(&self.bucket).key(key).send().await.map_err(failed)?;
        let size = found.content_length().and_then(|n| u64::try_from(n).ok());
        let size = size.ok_or_else(|| unavailable("the blob store does not say how long the object is"))?;
        let body = stream::try_unfold(found.body, |mut body| async move {
            Ok::<_, io::Error>(body.try_next().await.map_err(io::Error::other)?.map(|chunk| (chunk, body)))
        });
        Ok(BlobStream { size, body: body.boxed() })
    }

    pub(super) async fn delete(&self, key: &str) -> Result<()> {
        match self.client.delete_object().bucket(&self.bucket).key(key).send().await {
            Err(e) => match failed(e) {
                e if e.kind == ErrorKind::NotFound => Ok(()),
                e => Err(e),
            },
            Ok(_) => Ok(()),
        }
    }

    pub(super) fn list(&self, prefix: &str) -> impl Stream<Item = Result<Object>> + Send + use<> {
        let pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        stream::unfold(pages, |mut pages| async move { pages.next().await.map(|page| (page, pages)) })
            .map(|page| {
                let objects = page.map_err(failed)?.contents.unwrap_or_default();
                Ok::<_, Error>(stream::iter(objects.into_iter().filter_map(object).map(Ok)))
            })
            .try_flatten()
    }

    pub(super) async fn signed_url(&self, key: &str, now: Timestamp, lifetime: Duration) -> Result<String> {
        let start = SystemTime::UNIX_EPOCH + now.since(Timestamp::default());
        let presigning = PresigningConfig::builder().start_time(start).expires_in(lifetime).build().map_err(Error::internal)?;
        let get = self.presigner.get_object().bucket(&self.bucket).key(key);
        Ok(get.presigned(presigning).await.map_err(failed)?.uri().to_owned())
    }

    pub(super) async fn check_bucket(&self) -> Result<()> {
        match self.client.head_bucket().bucket(&self.bucket).send().await {
            Err(e) if status(&e) == Some(404) => Err(unavailable("the bucket of the blob store does not exist")),
            Err(e) => Err(failed(e)),
            Ok(_) => Ok(()),
        }
    }

    async fn make_bucket(&self, region: &str) -> Result<()> {
        match self.client.head_bucket().bucket(&self.bucket).send().await {
            Err(e) if status(&e) == Some(404) => {}
            Err(e) => return Err(failed(e)),
            Ok(_) => return Ok(()),
        }
        // us-east-1 is the one region that must not be named.
        let place = (region != "us-east-1")
            .then(|| CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::from(region)).build());
        match self.client.create_bucket().bucket(&self.bucket).set_create_bucket_configuration(place).send().await {
            Err(e) if status(&e) == Some(409) => Ok(()), // another process was first
            Err(e) => Err(failed(e)),
            Ok(_) => {
                tracing::info!(bucket = self.bucket, "made the bucket");
                Ok(())
            }
        }
    }
}

/// A body cut into parts: all but the last are of `PART_BYTES`.
struct Parts<S> {
    body: Metered<S>,
    pending: BytesMut,
    /// The part given last was the last one.
    ended: bool,
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> Parts<S> {
    async fn next(&mut self) -> Result<Bytes> {
        // One byte beyond a part tells that there is another.
        while self.pending.len() <= PART_BYTES {
            match self.body.next().await? {
                Some(chunk) => self.pending.extend_from_slice(&chunk),
                None => {
                    self.ended = true;
                    break;
                }
            }
        }
        Ok(self.pending.split_to(self.pending.len().min(PART_BYTES)).freeze())
    }
}

async fn send_all<S>(upload: &mut Upload, first: Bytes, parts: &mut Parts<S>) -> Result<()>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    upload.send(first).await?;
    while !parts.ended {
        let part = parts.next().await?;
        upload.send(part).await?;
    }
    upload.complete().await
}

fn object(found: aws_sdk_s3::types::Object) -> Option<Object> {
    let modified = found.last_modified.and_then(|t| i64::try_from(t.as_nanos() / 1000).ok());
    let size = u64::try_from(found.size.unwrap_or_default()).unwrap_or_default();
    Some(Object { key: found.key?, size, modified: Timestamp(modified.unwrap_or_default()) })
}
