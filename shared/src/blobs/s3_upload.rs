//! A multipart upload: parts sent one after the other, then completed, or else aborted, so that no part is left to be paid for.
use aws_sdk_s3::{
    Client,
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart},
};
use bytes::Bytes;

use super::s3_error::failed;
use crate::error::{Error, Result};

pub struct Upload {
    target: Target,
    parts: Vec<CompletedPart>,
    ended: bool,
}

#[derive(Clone)]
struct Target {
    client: Client,
    bucket: String,
    key: String,
    id: String,
}

impl Upload {
    pub async fn begin(client: &Client, bucket: &str, key: &str, content_type: &str) -> Result<Self> {
        let begin = client.create_multipart_upload().bucket(bucket).key(key).content_type(content_type);
        let begun = begin.send().await.map_err(failed)?;
        let id = begun.upload_id.ok_or_else(|| Error::internal("the S3 server began an upload without an id"))?;
        let target = Target { client: client.clone(), bucket: bucket.to_owned(), key: key.to_owned(), id };
        Ok(Self { target, parts: Vec::new(), ended: false })
    }

    pub async fn send(&mut self, part: Bytes) -> Result<()> {
        let Target { client, bucket, key, id } = &self.target;
        let number = i32::try_from(self.parts.len() + 1).map_err(Error::internal)?;
        let send = client.upload_part().bucket(bucket).key(key).upload_id(id).part_number(number);
        let sent = send.body(ByteStream::from(part)).send().await.map_err(failed)?;
        self.parts.push(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build());
        Ok(())
    }

    pub async fn complete(&mut self) -> Result<()> {
        let Target { client, bucket, key, id } = &self.target;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(std::mem::take(&mut self.parts))).build();
        let complete = client.complete_multipart_upload().bucket(bucket).key(key).upload_id(id);
        complete.multipart_upload(parts).send().await.map_err(failed)?;
        self.ended = true;
        Ok(())
    }

    pub async fn abort(&mut self) {
        self.ended = true;
        self.target.abort().await;
    }
}

impl Drop for Upload {
    /// A put that was dropped in the middle, as when its request was cancelled.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let target = self.target.clone();
            runtime.spawn(async move { target.abort().await });
        }
    }
}

impl Target {
    async fn abort(&self) {
        let abort = self.client.abort_multipart_upload().bucket(&self.bucket).key(&self.key).upload_id(&self.id);
        if let Err(e) = abort.send().await.map_err(failed) {
            tracing::warn!(key = self.key, error = %e, "an upload could not be aborted; the bucket's lifecycle rule must remove its parts");
        }
    }
}
