//! `hash`: the digest of a text.
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use sha2::Digest;

use super::{Form, MAX_TEXT};
use crate::tools::{
    Tool,
    function::{Spec, function, object, text},
};

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Algorithm {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

#[derive(Deserialize)]
struct Arguments {
    text: String,
    #[serde(default = "sha256")]
    algorithm: Algorithm,
    #[serde(default)]
    r#as: Form,
}

fn sha256() -> Algorithm {
    Algorithm::Sha256
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "hash",
        category: "encoding",
        description: "The digest of a text (its UTF-8 bytes). md5 and sha1 are broken: to compare with what others computed, not to protect.",
        parameters: object(
            json!({
                "text": text(MAX_TEXT, "what to digest"),
                "algorithm": {
                    "type": "string", "enum": ["sha256", "sha512", "sha384", "sha224", "sha1", "md5"],
                    "description": "sha256 when left out",
                },
                "as": {"type": "string", "enum": ["hex", "base64"], "description": "hex when left out"},
            }),
            &["text"],
        ),
        output: object(json!({"result": {"type": "string"}}), &["result"]),
    };
    function(spec, |arguments: Arguments| Ok(json!({"result": arguments.r#as.write(digest(&arguments))?})))
}

fn digest(arguments: &Arguments) -> Vec<u8> {
    let text = &arguments.text;
    match arguments.algorithm {
        Algorithm::Md5 => md5::Md5::digest(text).to_vec(),
        Algorithm::Sha1 => sha1::Sha1::digest(text).to_vec(),
        Algorithm::Sha224 => sha2::Sha224::digest(text).to_vec(),
        Algorithm::Sha256 => sha2::Sha256::digest(text).to_vec(),
        Algorithm::Sha384 => sha2::Sha384::digest(text).to_vec(),
        Algorithm::Sha512 => sha2::Sha512::digest(text).to_vec(),
    }
}
