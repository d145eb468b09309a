//! Multipart forms, read as they come in: what is too large is refused while it is read, whatever Content-Length says.
use std::{
    io,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use multer::{Constraints, Multipart, SizeLimit};
use poem::{Request, RequestBody, http::header};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    payload::Payload,
    registry::{MetaMediaType, MetaRequest, Registry},
};
use runmill_shared::{App, Error, ErrorKind, Result, config::Config};

use super::{body::drain, error::refuse};

/// What a form may have beside its file: other fields, headers, boundaries.
const OVERHEAD: u64 = 64 * 1024;
const MAX_TEXT: usize = 4096;

/// What the document says of a form, and how large its file may be.
pub trait Shape: Payload {
    /// In bytes.
    fn limit(config: &Config) -> u64;
}

pub struct Form<T> {
    multipart: Multipart<'static>,
    body: Shared,
    limit: u64,
    shape: PhantomData<fn() -> T>,
}

/// The body, of which the parser has one end and whoever drains it the other.
#[derive(Clone)]
struct Shared(Arc<Mutex<BoxStream<'static, io::Result<Bytes>>>>);

impl Stream for Shared {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(cx)
    }
}

/// One field of a form; it is read before the next one is asked for.
pub struct Part(multer::Field<'static>);

impl<T: Shape> Form<T> {
    async fn open(request: &Request, body: &mut RequestBody) -> Result<Self> {
        let app = request.data::<App>().ok_or_else(|| Error::internal("no App in the request's data"))?;
        let limit = T::limit(&app.config);
        let content_type = request.header(header::CONTENT_TYPE).unwrap_or_default();
        let body = body.take().map_err(|e| Error::internal(e.to_string()))?;
        let mut form = Self::over(content_type, body.into_bytes_stream().boxed(), limit)?;
        let declared = request.header(header::CONTENT_LENGTH).and_then(|l| l.parse::<u64>().ok());
        if declared.is_some_and(|length| length > limit + OVERHEAD) {
            // Whoever asks first is not sending yet.
            if request.header(header::EXPECT).is_none() {
                drain(&mut form.body).await;
            }
            return Err(too_large(limit));
        }
        Ok(form)
    }
}

impl<T> Form<T> {
    /// What `body` brings, whose file may have `limit` bytes.
    ///
    /// # Errors
    /// `Malformed` for a content type that is no form's.
    pub fn over(content_type: &str, body: BoxStream<'static, io::Result<Bytes>>, limit: u64) -> Result<Self> {
        let boundary = multer::parse_boundary(content_type)
            .map_err(|_| Error::malformed("the body is no form; multipart/form-data is wanted"))?;
        let body = Shared(Arc::new(Mutex::new(body)));
        let most = Constraints::new().size_limit(SizeLimit::new().whole_stream(limit + OVERHEAD));
        let multipart = Multipart::with_constraints(body.clone(), boundary, most);
        Ok(Self { multipart, body, limit, shape: PhantomData })
    }

    pub async fn next(&mut self) -> Result<Option<Part>> {
        Ok(self.multipart.next_field().await.map_err(|e| unreadable(e, self.limit))?.map(Part))
    }

    /// Bytes that the file may have.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// To be called with what became of the form: reads on a little after a refusal, so that a client which is busy sending gets
    /// to see the answer.
    pub async fn settle<O>(mut self, outcome: Result<O>) -> Result<O> {
        if outcome.is_err() {
            drain(&mut self.body).await;
        }
        outcome
    }
}

impl Part {
    pub fn name(&self) -> &str {
        self.0.name().unwrap_or_default()
    }

    pub fn file_name(&self) -> &str {
        self.0.file_name().unwrap_or_default()
    }

    /// Without its parameters.
    pub fn content_type(&self) -> Option<String> {
        self.0.content_type().map(|t| t.essence_str().to_owned())
    }

    /// A short text.
    pub async fn text(self) -> Result<String> {
        let name = self.name().to_owned();
        let bytes = self.bytes(MAX_TEXT as u64).await.map_err(|e| match e.kind {
            ErrorKind::TooLarge => Error::invalid(name.as_str(), format!("is longer than {MAX_TEXT} bytes")),
            _ => e,
        })?;
        let text = String::from_utf8(bytes).map_err(|_| Error::invalid(name, "is no UTF-8 text"))?;
        Ok(text.replace('\0', ""))
    }

    pub async fn bytes(self, limit: u64) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut body = self.stream(limit);
        while let Some(chunk) = body.try_next().await.map_err(|e| e.downcast().unwrap_or_else(Error::internal))? {
            all.extend_from_slice(&chunk);
            if all.len() as u64 > limit {
                return Err(too_large(limit));
            }
        }
        Ok(all)
    }

    /// The content as it comes in; what goes wrong on the way is one of our errors. `limit` is what the file may have.
    pub fn stream(self, limit: u64) -> BoxStream<'static, io::Result<Bytes>> {
        self.0.map_err(move |e| io::Error::other(unreadable(e, limit))).boxed()
    }
}

fn too_large(limit: u64) -> Error {
    Error::too_large(format!("the file is larger than {limit} bytes"))
}

fn unreadable(e: multer::Error, limit: u64) -> Error {
    match e {
        multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. } => too_large(limit),
        multer::Error::StreamReadFailed(_) | multer::Error::IncompleteStream | multer::Error::IncompleteFieldData { .. } => {
            Error::new(ErrorKind::Malformed, "UPLOAD_BROKEN_OFF", "the upload ended before it was complete").because(e)
        }
        _ => Error::malformed("the form could not be read").because(e),
    }
}

impl<'a, T: Shape> ApiExtractor<'a> for Form<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let content = vec![MetaMediaType { content_type: T::CONTENT_TYPE, schema: T::schema_ref() }];
        Some(MetaRequest { description: None, content, required: true })
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        Self::open(request, body).await.map_err(refuse)
    }
}
