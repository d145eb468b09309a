//! Request bodies: read while counting, parsed with a position for what is malformed (400), and checked against the schema of
//! their type so that every bad field is named at once (422).
use std::{
    any::TypeId,
    collections::HashMap,
    marker::PhantomData,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use jsonschema::{Draft, Validator, error::ValidationErrorKind};
use poem::{Body as HttpBody, FromRequest, Request, RequestBody, http::header, web::Form};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaMediaType, MetaRequest, Registry},
    types::{ParseFromJSON, Type},
};
use runmill_shared::{App, Error, FieldError, Result};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::refuse;

/// Of a body that is too large so much is still read and thrown away, that a client which is busy sending gets to see the answer.
const DRAINED: usize = 16 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// A JSON body, checked against `T`'s schema.
pub struct Body<T>(pub T);

/// As `Body`; a request without a body has none.
pub struct OptionalBody<T>(pub Option<T>);

/// A JSON body that the handler checks itself; `T` is what the document says of it.
pub struct Unchecked<T>(pub Value, PhantomData<fn() -> T>);

/// A form (`application/x-www-form-urlencoded`), checked as a JSON object of strings would be.
pub struct FormBody<T>(pub T);

/// The whole body, at most `limit` bytes of it. `TOO_LARGE` comes as soon as that is known, whatever Content-Length says or leaves out.
pub async fn read(request: &Request, body: &mut RequestBody, limit: usize) -> Result<Bytes> {
    let body = body.take().map_err(|e| Error::internal(e.to_string()))?;
    let too_large = || Error::too_large(format!("the body is larger than {limit} bytes"));
    let declared = request.header(header::CONTENT_LENGTH).and_then(|l| l.parse::<usize>().ok());
    let mut stream = body.into_bytes_stream();
    if declared.is_some_and(|length| length > limit) {
        // Whoever asks first is not sending yet.
        if request.header(header::EXPECT).is_none() {
            drain(&mut stream).await;
        }
        return Err(too_large());
    }
    let mut all = BytesMut::with_capacity(declared.unwrap_or(0));
    while let Some(part) = stream.next().await {
        let part = part.map_err(|e| Error::malformed("the body ended too early").because(e))?;
        if all.len() + part.len() > limit {
            drain(&mut stream).await;
            return Err(too_large());
        }
        all.extend_from_slice(&part);
    }
    Ok(all.freeze())
}

/// Reads on for a moment what nobody wants.
pub async fn drain(stream: &mut (impl Stream<Item = std::io::Result<Bytes>> + Unpin)) {
    let mut left = DRAINED;
    let reading = async {
        while let Some(Ok(part)) = stream.next().await {
            left = left.saturating_sub(part.len());
            if left == 0 {
                break;
            }
        }
    };
    tokio::time::timeout(DRAIN_TIME, reading).await.ok();
}

/// Reads and parses a JSON body, up to `http.max_body_bytes`. NUL characters, which no database takes, are left out.
pub async fn read_json(request: &Request, body: &mut RequestBody) -> Result<Value> {
    let bytes = read(request, body, limit(request)?).await?;
    if bytes.is_empty() {
        return Err(Error::malformed("the body is empty; JSON is wanted"));
    }
    parsed(&bytes)
}

/// JSON without NUL characters.
///
/// # Errors
/// `Malformed`, with the position.
pub fn parsed(bytes: &[u8]) -> Result<Value> {
    let mut value = serde_json::from_slice(bytes).map_err(|e| Error::malformed(format!("the body is no JSON: {e}")))?;
    if bytes.windows(6).any(|w| w == br"\u0000") {
        without_nul(&mut value);
    }
    Ok(value)
}

fn limit(request: &Request) -> Result<usize> {
    let app = request.data::<App>().ok_or_else(|| Error::internal("no App in the request's data"))?;
    Ok(app.config.http.max_body_bytes)
}

fn without_nul(value: &mut Value) {
    match value {
        Value::String(text) => text.retain(|c| c != '\0'),
        Value::Array(items) => items.iter_mut().for_each(without_nul),
        Value::Object(map) => {
            *map = std::mem::take(map).into_iter().map(|(key, value)| (key.replace('\0', ""), value)).collect();
            map.values_mut().for_each(without_nul);
        }
        _ => {}
    }
}

/// `T` from a value that may have anything in it: 422 names every field that breaks `T`'s schema.
pub fn checked<T: Type + ParseFromJSON + 'static>(value: Value) -> Result<T> {
    let shape = without_null(&value);
    let fields: Vec<_> = validator::<T>()?.iter_errors(&shape).map(|e| field_error(&e)).collect();
    if !fields.is_empty() {
        return Err(Error::invalid_fields(fields));
    }
    T::parse_from_json(Some(value)).map_err(|e| Error::invalid("body", e.into_message()))
}

/// A member that is null counts as left out, as it does for `Option` fields.
fn without_null(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_null(v))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(without_null).collect(),
        other => other.clone(),
    }
}

fn field_error(e: &jsonschema::ValidationError<'_>) -> FieldError {
    let mut path: Vec<String> = e.instance_path().into_iter().map(|segment| segment.to_string()).collect();
    let message = match e.kind() {
        ValidationErrorKind::Required { property } => {
            path.push(property.as_str().unwrap_or_default().to_owned());
            "is required".to_owned()
        }
        ValidationErrorKind::Pattern { .. } => "has the wrong form".to_owned(),
        // Masked: what was sent may be a secret, and answers are logged by others.
        _ => e.masked().to_string(),
    };
    let field = if path.is_empty() { "body".to_owned() } else { path.join(".") };
    FieldError { field, message }
}

/// Compiled once a type.
fn validator<T: Type + 'static>() -> Result<Arc<Validator>> {
    static COMPILED: LazyLock<Mutex<HashMap<TypeId, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let compiled = || COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = compiled().get(&TypeId::of::<T>()) {
        return Ok(found.clone());
    }
    let mut registry = Registry::new();
    T::register(&mut registry);
    let schema = json!({
        "allOf": [serde_json::to_value(T::schema_ref())?],
        "components": { "schemas": serde_json::to_value(&registry.schemas)? },
    });
    // OpenAPI 3.0 says exclusiveMinimum as draft 4 does, which knows no UUIDs.
    let options = jsonschema::options().with_draft(Draft::Draft4);
    let options = options.should_validate_formats(true).with_format("uuid", |text| Uuid::parse_str(text).is_ok());
    let made = options.build(&schema).map_err(|e| Error::internal(e.to_string()))?;
    let made = Arc::new(made);
    compiled().insert(TypeId::of::<T>(), made.clone());
    Ok(made)
}

fn request_meta<T: Type>(content_type: &'static str) -> Option<MetaRequest> {
    let content = vec![MetaMediaType { content_type, schema: T::schema_ref() }];
    Some(MetaRequest { description: None, content, required: true })
}

impl<'a, T: Type + ParseFromJSON + 'static> ApiExtractor<'a> for Body<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        request_meta::<T>("application/json")
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        read_json(request, body).await.and_then(checked).map(Self).map_err(refuse)
    }
}

impl<'a, T: Type + ParseFromJSON + 'static> ApiExtractor<'a> for OptionalBody<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        request_meta::<T>("application/json").map(|meta| MetaRequest { required: false, ..meta })
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let bytes = match limit(request) {
            Ok(limit) => read(request, body, limit).await,
            Err(e) => Err(e),
        };
        match bytes.map_err(refuse)? {
            bytes if bytes.is_empty() => Ok(Self(None)),
            bytes => parsed(&bytes).and_then(checked).map(|body| Self(Some(body))).map_err(refuse),
        }
    }
}

impl<'a, T: Type> ApiExtractor<'a> for Unchecked<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        request_meta::<T>("application/json")
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        read_json(request, body).await.map(|value| Self(value, PhantomData)).map_err(refuse)
    }
}

impl<'a, T: Type + ParseFromJSON + 'static> ApiExtractor<'a> for FormBody<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        request_meta::<T>("application/x-www-form-urlencoded")
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let bytes = read(request, body, limit(request).map_err(refuse)?).await.map_err(refuse)?;
        let mut read = RequestBody::new(HttpBody::from_bytes(bytes));
        let form = <Form<Vec<(String, String)>> as FromRequest>::from_request(request, &mut read).await;
        let wanted = "the body is no form; application/x-www-form-urlencoded is wanted";
        let Form(pairs) = form.map_err(|_| refuse(Error::malformed(wanted)))?;
        let mut value = Value::Object(pairs.into_iter().map(|(name, value)| (name, Value::String(value))).collect());
        without_nul(&mut value);
        checked(value).map(Self).map_err(refuse)
    }
}

#[cfg(test)]
mod tests {
    use poem_openapi::Object;

    use super::*;

    #[derive(Debug, Object)]
    struct Model {
        #[oai(validator(minimum(value = "0", exclusive)))]
        temperature: Option<f64>,
        name: String,
    }

    #[derive(Debug, Object)]
    struct Pair {
        first: Option<Uuid>,
        second: Uuid,
    }

    #[test]
    fn an_id_that_is_none_is_a_bad_field() {
        let fields = checked::<Pair>(json!({ "first": "x", "second": "y" })).unwrap_err().fields;
        assert_eq!(fields.iter().map(|f| f.field.as_str()).collect::<Vec<_>>(), ["first", "second"]);
        let good = checked::<Pair>(json!({ "second": Uuid::nil() })).unwrap();
        assert_eq!((good.first, good.second), (None, Uuid::nil()));
    }

    #[derive(Debug, Object)]
    struct Agent {
        model_config: Model,
        tools: Vec<Model>,
        extra: Option<Value>,
    }

    #[test]
    fn every_bad_field_is_named_by_its_dotted_path() {
        let bad = json!({ "model_config": { "temperature": 0 }, "tools": [{ "name": "a" }, { "name": 5, "temperature": "x" }] });
        let fields = checked::<Agent>(bad).unwrap_err().fields;
        let mut named: Vec<_> = fields.iter().map(|f| f.field.as_str()).collect();
        named.sort_unstable();
        assert_eq!(named, ["model_config.name", "model_config.temperature", "tools.1.name", "tools.1.temperature"]);
    }

    #[test]
    fn null_is_as_good_as_left_out_and_free_values_are_kept_as_they_are() {
        let free = json!({ "a": null });
        let good = json!({ "model_config": { "temperature": null, "name": "m" }, "tools": [], "extra": free, "unknown": 1 });
        let agent = checked::<Agent>(good).unwrap();
        assert_eq!((agent.model_config.temperature, agent.extra), (None, Some(free)));
        assert_eq!((agent.model_config.name.as_str(), agent.tools.len()), ("m", 0));
    }

    #[test]
    fn nul_is_taken_out_of_names_and_values() {
        let mut value = json!({ "a\0": ["b\0", { "c": "\0" }] });
        without_nul(&mut value);
        assert_eq!(value, json!({ "a": ["b", { "c": "" }] }));
    }
}
