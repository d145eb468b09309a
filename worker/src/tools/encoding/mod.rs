//! Bytes as text, digests, identifiers.
mod base64;
mod hash;
mod hmac;
mod jwt_decode;
mod url;
mod uuid;

use std::sync::Arc;

use ::base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose},
};
use serde::Deserialize;

use super::{Tool, ToolError};

/// Of a text to encode or to digest.
const MAX_TEXT: usize = 500_000;

pub fn all() -> Vec<Arc<dyn Tool>> {
    vec![
        base64::encode_tool(),
        base64::decode_tool(),
        url::encode_tool(),
        url::decode_tool(),
        hash::tool(),
        hmac::tool(),
        uuid::tool(),
        jwt_decode::tool(),
    ]
}

/// How bytes are written.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    Text,
    #[default]
    Hex,
    Base64,
}

impl Form {
    fn read(self, field: &str, text: String) -> Result<Vec<u8>, ToolError> {
        match self {
            Self::Text => Ok(text.into_bytes()),
            Self::Hex => hex::decode(&text).map_err(|e| ToolError::new("INVALID_HEX", format!("{field}: {e}"))),
            Self::Base64 => from_base64(&text).map_err(|e| ToolError::new("INVALID_BASE64", format!("{field}: {e}"))),
        }
    }

    /// Bytes that are no text cannot be written as one.
    fn write(self, bytes: Vec<u8>) -> Result<String, ToolError> {
        match self {
            Self::Text => String::from_utf8(bytes)
                .map_err(|_| ToolError::new("NOT_TEXT", "the bytes are no UTF-8 text; ask for them as hex")),
            Self::Hex => Ok(hex::encode(bytes)),
            Self::Base64 => Ok(general_purpose::STANDARD.encode(bytes)),
        }
    }
}

/// Of either alphabet, with or without padding and line breaks.
fn from_base64(text: &str) -> Result<Vec<u8>, ::base64::DecodeError> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let standard: String = text
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            c => c,
        })
        .collect();
    GeneralPurpose::new(&alphabet::STANDARD, lenient).decode(standard)
}
