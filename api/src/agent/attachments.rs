//! `/attachments`: files for messages, and URLs to fetch them.
use futures::{StreamExt, stream};
use poem::web::Data;
use poem_openapi::{Multipart, Object, OpenApi, param::Query, payload::Json, types::multipart::Upload};
use runmill_shared::{
    App, Error, FieldError, Result,
    config::Config,
    domain::caller::Caller,
    services::attachments::{self, Attachment, signed_url, upload},
};

use super::Reply;
use crate::http::{
    address::BaseUrl,
    auth::Auth,
    upload::{Form, Shape},
};

#[derive(Multipart)]
#[oai(rename_all = "camelCase")]
#[expect(dead_code, reason = "what the document says; the form is read as it comes in")]
struct UploadForm {
    thread_id: String,
    file: Upload,
}

impl Shape for UploadForm {
    fn limit(config: &Config) -> u64 {
        config.attachments.max_bytes
    }
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct AttachmentBody {
    bucket: String,
    path: String,
    mime_type: String,
    /// bytes
    size: i64,
    /// signed, for 15 minutes
    url: String,
}

#[derive(Object)]
struct UploadedBody {
    attachment: AttachmentBody,
}

#[derive(Object)]
struct SignedUrlBody {
    bucket: String,
    path: String,
    /// signed, for 15 minutes
    url: String,
}

/// Stores the file while it comes in. A file that comes before its `threadId` is kept in memory until that is known.
async fn receive(app: &App, caller: &Caller, form: &mut Form<UploadForm>) -> Result<Attachment> {
    let (mut thread, mut early) = (None, None);
    while let Some(part) = form.next().await? {
        let limit = form.limit();
        match (part.name(), &thread) {
            ("threadId", _) => thread = Some(part.text().await?),
            ("file", Some(thread)) => {
                let name = part.file_name().to_owned();
                return upload(app, caller, thread, &name, part.stream(limit)).await;
            }
            ("file", None) if early.is_none() => early = Some((part.file_name().to_owned(), part.bytes(limit).await?)),
            _ => {}
        }
        if let (Some(thread), Some((name, file))) = (&thread, early.take_if(|_| thread.is_some())) {
            return upload(app, caller, thread, &name, stream::iter([Ok(file.into())]).boxed()).await;
        }
    }
    let missing = [("threadId", thread.is_none()), ("file", early.is_none())].into_iter().filter(|(_, missing)| *missing);
    let missing = missing.map(|(field, _)| FieldError { field: field.into(), message: "is required".into() });
    Err(Error::invalid_fields(missing.collect()))
}

pub struct AttachmentsApi;

#[OpenApi]
impl AttachmentsApi {
    /// Stores a file, 5 MiB at most, of a type that is decided from its content and its name.
    #[oai(path = "/attachments", method = "post", operation_id = "uploadAttachment")]
    async fn upload(
        &self,
        app: Data<&App>,
        base: BaseUrl,
        caller: Auth,
        mut form: Form<UploadForm>,
    ) -> Reply<Json<UploadedBody>> {
        let received = receive(&app, &caller.0, &mut form).await;
        let Attachment { bucket, path, mime_type, size, .. } = form.settle(received).await?;
        let url = attachments::signed_url(&app, &caller.0, &bucket, &path, &base.0).await?;
        Ok(Json(UploadedBody { attachment: AttachmentBody { bucket, path, mime_type, size, url } }))
    }

    /// A fresh URL for an attachment of the caller's.
    #[oai(path = "/attachments/signed-url", method = "get", operation_id = "signAttachmentUrl")]
    async fn signed_url(
        &self,
        app: Data<&App>,
        base: BaseUrl,
        caller: Auth,
        bucket: Query<String>,
        path: Query<String>,
    ) -> Reply<Json<SignedUrlBody>> {
        let url = signed_url(&app, &caller.0, &bucket, &path, &base.0).await?;
        Ok(Json(SignedUrlBody { bucket: bucket.0, path: path.0, url }))
    }
}
