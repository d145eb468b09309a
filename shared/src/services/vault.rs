//! What has to be kept and must not be read: provider keys, credentials of plugins, secrets of tools. Sealed with XChaCha20-Poly1305
//! under a key that is derived from `security.encryption_key`, else from the secret that signs tokens. The sealed text names its
//! key, so that what was sealed under a previous one still opens, and is bound to its owner, so that a row that is moved does not.
use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use sha2::{Digest, Sha256};

use super::tokens::{Tokens, derive};
use crate::{
    config::{Config, Secret},
    error::{Error, Result},
};

const VERSION: &str = "v1";

/// A cheap clone.
#[derive(Clone)]
pub struct Vault(Arc<Vec<Key>>);

struct Key {
    id: String,
    cipher: XChaCha20Poly1305,
}

impl Vault {
    /// The first key seals, all open.
    pub fn open(config: &Config, tokens: &Tokens) -> Result<Self> {
        let mut keys = Vec::new();
        let own = std::iter::once(&config.security.encryption_key).chain(&config.security.previous_encryption_keys);
        for secret in own.filter(|s| !s.is_empty()) {
            keys.push(Key::new(&derive(secret.expose(), b"runmill sealed secrets")?)?);
        }
        for derived in tokens.sealing_keys() {
            keys.push(Key::new(derived)?);
        }
        Ok(Self(Arc::new(keys)))
    }

    /// `owner` has to be named again to open it.
    pub fn seal(&self, owner: &str, secret: &Secret) -> Result<String> {
        let key = &self.0[0];
        let nonce: [u8; 24] = rand::random();
        let payload = Payload { msg: secret.expose().as_bytes(), aad: owner.as_bytes() };
        let sealed = key.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|e| Error::internal(e.to_string()))?;
        let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        Ok(format!("{VERSION}.{}.{}.{}", key.id, text(&nonce), text(&sealed)))
    }

    /// # Errors
    /// `SECRET_UNREADABLE` when its key is not among ours any more, or the row was changed.
    pub fn unseal(&self, owner: &str, sealed: &str) -> Result<Secret> {
        self.try_unseal(owner, sealed).ok_or_else(|| {
            Error::conflict("SECRET_UNREADABLE", "a stored secret cannot be read with the keys of this start; store it again")
        })
    }

    fn try_unseal(&self, owner: &str, sealed: &str) -> Option<Secret> {
        let mut parts = sealed.split('.');
        let (VERSION, id, nonce, text, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
            return None;
        };
        let key = self.0.iter().find(|key| key.id == id)?;
        let nonce: [u8; 24] = BASE64_URL_SAFE_NO_PAD.decode(nonce).ok()?.try_into().ok()?;
        let text = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let payload = Payload { msg: &text, aad: owner.as_bytes() };
        let bytes = key.cipher.decrypt(&XNonce::from(nonce), payload).ok()?;
        String::from_utf8(bytes).ok().map(Secret::new)
    }
}

impl Key {
    fn new(key: &[u8; 32]) -> Result<Self> {
        let cipher = XChaCha20Poly1305::new_from_slice(key).map_err(|e| Error::internal(e.to_string()))?;
        Ok(Self { id: hex::encode(Sha256::digest(key))[..8].to_owned(), cipher })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(keys: &[&str], jwt: &str) -> Vault {
        let mut config = Config::defaults().unwrap();
        config.auth.mode = crate::config::AuthMode::Required;
        config.auth.jwt_secret = Secret::new(jwt);
        config.security.encryption_key = Secret::new(*keys.first().unwrap_or(&""));
        config.security.previous_encryption_keys = keys.iter().skip(1).map(|k| Secret::new(*k)).collect();
        Vault::open(&config, &Tokens::open(&config).unwrap()).unwrap()
    }

    const JWT: &str = "a token secret of more than 32 bytes";

    #[test]
    fn what_is_sealed_opens_for_its_owner_and_says_nothing() {
        let vault = vault(&[], JWT);
        let sealed = vault.seal("ann", &Secret::new("sk-123")).unwrap();
        assert!(!sealed.contains("sk-123"));
        assert_eq!(vault.unseal("ann", &sealed).unwrap().expose(), "sk-123");
        assert_eq!(vault.unseal("bob", &sealed).unwrap_err().code, "SECRET_UNREADABLE");
        let cut = &sealed[..sealed.len() - 2];
        for broken in ["", "v1", "v1.x.y.z", "v2.a.b.c", cut] {
            assert!(vault.unseal("ann", broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_key_that_was_replaced_still_opens() {
        let sealed = vault(&["one"], JWT).seal("ann", &Secret::new("x")).unwrap();
        assert_eq!(vault(&["two", "one"], JWT).unseal("ann", &sealed).unwrap().expose(), "x");
        assert!(vault(&["two"], JWT).unseal("ann", &sealed).is_err());
        let early = vault(&[], JWT).seal("ann", &Secret::new("y")).unwrap();
        assert_eq!(vault(&["one"], JWT).unseal("ann", &early).unwrap().expose(), "y");
    }
}
