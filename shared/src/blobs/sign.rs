//! Signed URLs of the disk store: HMAC-SHA256 over `key \n expires`, base64url. A key holds no newline, so that no two
//! pairs share a text.
use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::key;
use crate::{
    clock::Timestamp,
    error::{Error, Result},
};

#[derive(Clone)]
pub struct Signer(Hmac<Sha256>);

impl Signer {
    /// The key is derived from `secret`, so that what else is signed with that secret never passes for a URL.
    pub fn new(secret: &[u8]) -> Result<Self> {
        let derived = keyed(secret)?.chain_update(b"runmill signed blob urls").finalize().into_bytes();
        Ok(Self(keyed(&derived)?))
    }

    /// `{base_url}/blobs/{key}?expires={unix seconds}&signature={base64url}`
    pub fn url(&self, blob: &str, base_url: &str, now: Timestamp, lifetime: Duration) -> String {
        let expires = now.after(lifetime).0.div_euclid(1_000_000);
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.mac(blob, expires).finalize().into_bytes());
        format!("{}/blobs/{}?expires={expires}&signature={signature}", base_url.trim_end_matches('/'), key::url_path(blob))
    }

    /// In constant time. Forbidden when the signature is not ours or its time has passed.
    pub fn verify(&self, blob: &str, expires: i64, signature: &str, now: Timestamp) -> Result<()> {
        let forged = || Error::forbidden("the link's signature is not valid");
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| forged())?;
        self.mac(blob, expires).verify_slice(&signature).map_err(|_| forged())?;
        if now.0 >= expires.saturating_mul(1_000_000) {
            return Err(Error::forbidden("the link has expired"));
        }
        Ok(())
    }

    fn mac(&self, blob: &str, expires: i64) -> Hmac<Sha256> {
        self.0.clone().chain_update(blob).chain_update(b"\n").chain_update(expires.to_string())
    }
}

fn keyed(secret: &[u8]) -> Result<Hmac<Sha256>> {
    Hmac::new_from_slice(secret).map_err(|e| Error::internal(e.to_string()))
}
