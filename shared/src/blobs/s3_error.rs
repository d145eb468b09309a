//! What S3 answers, as one of our errors. The caller learns the kind, the log the whole chain of causes.
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

use super::{missing, unavailable};
use crate::error::Error;

pub fn failed<E>(e: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let error = match (e.code(), status(&e)) {
        (Some("NoSuchKey" | "NotFound"), _) => missing(),
        (Some("NoSuchBucket"), _) => unavailable("the bucket of the blob store does not exist"),
        (_, Some(401 | 403)) | (Some("NotSignedUp" | "InvalidAccessKeyId" | "SignatureDoesNotMatch"), _) => {
            unavailable("the blob store refuses our credentials")
        }
        (_, Some(429 | 500..)) => unavailable("the blob store is not well"),
        // A request that S3 understood and refused is a fault of ours.
        (_, Some(_)) => return Error::internal(chain(&e)),
        (_, None) if has_no_credentials(&e) => unavailable("there are no credentials for the blob store"),
        (_, None) => unavailable("the blob store does not answer"),
    };
    error.because(chain(&e))
}

/// The HTTP status, where an answer came at all.
pub fn status<E>(e: &SdkError<E, HttpResponse>) -> Option<u16> {
    e.raw_response().map(|answer| answer.status().as_u16())
}

fn has_no_credentials<E>(e: &SdkError<E, HttpResponse>) -> bool
where
    E: std::error::Error + 'static,
{
    causes(e).any(|cause| cause.is::<CredentialsError>())
}

fn chain<E>(e: &SdkError<E, HttpResponse>) -> String
where
    E: std::error::Error + 'static,
{
    causes(e).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn causes<'a>(e: &'a (dyn std::error::Error + 'static)) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(e), |e| e.source())
}
