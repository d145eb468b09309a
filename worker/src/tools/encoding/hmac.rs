//! `hmac`: a text's authentication code under a key (RFC 2104).
use std::sync::Arc;

use ::hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::json;

use super::{Form, MAX_TEXT};
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object, text},
};

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Algorithm {
    Md5,
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

#[derive(Deserialize)]
struct Arguments {
    text: String,
    key: String,
    #[serde(default = "as_text")]
    key_as: Form,
    #[serde(default = "sha256")]
    algorithm: Algorithm,
    #[serde(default)]
    r#as: Form,
}

fn as_text() -> Form {
    Form::Text
}

fn sha256() -> Algorithm {
    Algorithm::Sha256
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "hmac",
        category: "encoding",
        description: "The keyed authentication code (HMAC) of a text, as webhooks and signed requests use it.",
        parameters: object(
            json!({
                "text": text(MAX_TEXT, "what to sign"),
                "key": text(10_000, "the secret"),
                "key_as": {"type": "string", "enum": ["text", "hex", "base64"], "description": "how the key is written; text when left out"},
                "algorithm": {
                    "type": "string", "enum": ["sha256", "sha512", "sha384", "sha1", "md5"], "description": "sha256 when left out",
                },
                "as": {"type": "string", "enum": ["hex", "base64"], "description": "hex when left out"},
            }),
            &["text", "key"],
        ),
        output: object(json!({"result": {"type": "string"}}), &["result"]),
    };
    function(spec, |arguments: Arguments| {
        let key = arguments.key_as.read("key", arguments.key)?;
        let code = match arguments.algorithm {
            Algorithm::Md5 => sign::<Hmac<md5::Md5>>(&key, &arguments.text),
            Algorithm::Sha1 => sign::<Hmac<sha1::Sha1>>(&key, &arguments.text),
            Algorithm::Sha256 => sign::<Hmac<sha2::Sha256>>(&key, &arguments.text),
            Algorithm::Sha384 => sign::<Hmac<sha2::Sha384>>(&key, &arguments.text),
            Algorithm::Sha512 => sign::<Hmac<sha2::Sha512>>(&key, &arguments.text),
        };
        Ok(json!({"result": arguments.r#as.write(code?)?}))
    })
}

fn sign<M: Mac + KeyInit>(key: &[u8], text: &str) -> Result<Vec<u8>, ToolError> {
    let mac = <M as KeyInit>::new_from_slice(key).map_err(|e| ToolError::invalid(format!("key: {e}")))?;
    Ok(mac.chain_update(text).finalize().into_bytes().to_vec())
}
