//! Sealing: each raw webhook under a key of its own, which the vault key wraps.
//!
//! The body is encrypted with ChaCha20-Poly1305 under a random key that is used once, so the nonce is zero; that key is wrapped
//! with XChaCha20-Poly1305 under the vault key, with a random 24-byte nonce in front. Both bind the stream's name, so that
//! neither can be moved to another event. Destroying the wrapped key erases the body for good, and the chain stays intact.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, XChaCha20Poly1305};
use hmac::{Hmac, Mac as _};
use rand::RngCore as _;
use sha2::Sha256;
use sqlx::PgPool;
use zeroize::{Zeroize as _, Zeroizing};

use crate::executor::STRIPE_EVENT;

/// Bytes of the vault key, and of each body's own.
pub const KEY_BYTES: usize = 32;
const WRAP_NONCE_BYTES: usize = 24;

/// The key that wraps all others. Never shown.
#[derive(Clone)]
pub struct VaultKey(Zeroizing<[u8; KEY_BYTES]>);

impl VaultKey {
    /// From its bytes.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VaultKey(…)")
    }
}

/// Why a body could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// Encryption failed; the library says no more.
    #[error("seal a body")]
    Seal,
    /// The database could not be asked for the key.
    #[error("read the wrapped key from the vault")]
    Read(#[source] sqlx::Error),
    /// The key was destroyed: the vault says so.
    #[error("the body is erased: its key was destroyed")]
    Erased,
    /// The vault does not know of the key, not even that it was destroyed. A body is sealed and its key kept in one transaction, so
    /// the vault has lost something.
    #[error(
        "the vault has no trace of the key of {stream}, not even that it was destroyed: was the vault restored to an earlier time than the \
         journal? Restore the vault from its newest backup, then run `fanledger projections resume stripe_translator`"
    )]
    Missing {
        /// Whose body it is.
        stream: String,
    },
    /// The stored form is broken, or another vault key wrapped it.
    #[error("open a sealed body: is FANLEDGER_VAULT_KEY the key that it was sealed with?")]
    Open,
}

/// Why a vault is not to be used.
#[derive(Debug, thiserror::Error)]
pub enum VaultCheckError {
    /// None of the keys that were looked at is wrapped by this vault key.
    #[error(
        "FANLEDGER_VAULT_KEY is not the key of this vault: none of the {0} keys that were tried opens with it. Set the key that the \
         webhooks here were sealed with"
    )]
    OtherKey(usize),
    /// The keys could not be read.
    #[error("it cannot be seen whether FANLEDGER_VAULT_KEY is the key of this vault")]
    Read(#[from] VaultError),
}

/// A sealed body and its wrapped key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Base64 of the ciphertext with its tag.
    pub ciphertext: String,
    /// Nonce and wrapped key, for `vault.keys`.
    pub wrapped_key: Vec<u8>,
}

/// Wrapped keys, as they were when they were read.
#[derive(Clone, Debug)]
pub struct WrappedKeys {
    stream_type: String,
    by_id: HashMap<String, Option<Vec<u8>>>,
}

impl WrappedKeys {
    /// The wrapped keys of streams of a type, by id; `None` is one that was destroyed.
    pub fn new(stream_type: impl Into<String>, by_id: HashMap<String, Option<Vec<u8>>>) -> Self {
        Self { stream_type: stream_type.into(), by_id }
    }

    /// The name of the stream, and its wrapped key.
    ///
    /// # Errors
    /// Where it was destroyed, and, which is another matter, where nothing is known of it.
    pub fn of(&self, stream_id: &str) -> Result<(String, &[u8]), VaultError> {
        let stream = format!("{}/{stream_id}", self.stream_type);
        match self.by_id.get(stream_id) {
            Some(Some(wrapped)) => Ok((stream, wrapped)),
            Some(None) => Err(VaultError::Erased),
            None => Err(VaultError::Missing { stream }),
        }
    }
}

/// Who seals bodies and opens them: [`Vault`], or what stands in for it where a run must depend on its seed alone.
pub trait Bodies: Send + Sync + 'static {
    /// Seals `body` for the stream of this name.
    ///
    /// # Errors
    /// When encryption fails.
    fn seal(&self, stream: &str, body: &[u8]) -> Result<Sealed, VaultError>;

    /// The wrapped keys of these streams, in one query.
    ///
    /// # Errors
    /// When they cannot be asked for.
    fn keys(
        &self,
        stream_type: &str,
        stream_ids: &[&str],
    ) -> impl Future<Output = Result<WrappedKeys, VaultError>> + Send;

    /// Opens the body that was sealed for this stream.
    ///
    /// # Errors
    /// When it is erased, its key is lost, or it was not sealed for this stream and by this vault.
    fn open(&self, keys: &WrappedKeys, stream_id: &str, ciphertext: &str) -> Result<Vec<u8>, VaultError>;

    /// A keyed digest of a body, hex: tells the same body from another after it was erased, and tells nobody without the key anything.
    fn body_digest(&self, body: &[u8]) -> String;
}

/// Seals and opens; cheap to clone.
#[derive(Clone, Debug)]
pub struct Vault {
    key: VaultKey,
    pool: PgPool,
}

impl Vault {
    /// A vault over the command role's pool.
    pub const fn new(key: VaultKey, pool: PgPool) -> Self {
        Self { key, pool }
    }

    /// Whether this is the key of what is in the vault already: webhooks sealed with another would be opened by nobody. One that
    /// opens is enough, and an empty vault takes any key.
    ///
    /// # Errors
    /// Where keys are there and none opens, or they cannot be read.
    pub async fn check(&self) -> Result<(), VaultCheckError> {
        let first: Vec<String> = sqlx::query_scalar(
            "SELECT aggregate_id FROM journal.events WHERE aggregate_type = $1 AND sequence = 1 ORDER BY aggregate_id LIMIT 50",
        )
        .bind(STRIPE_EVENT)
        .fetch_all(&self.pool)
        .await
        .map_err(VaultError::Read)?;
        let ids: Vec<&str> = first.iter().map(String::as_str).collect();
        let keys = self.keys(STRIPE_EVENT, &ids).await?;
        let mut tried = 0;
        for id in ids {
            // One that was destroyed or lost tells nothing.
            let Ok((stream, wrapped)) = keys.of(id) else { continue };
            if self.unwrap_key(&stream, wrapped).is_ok() {
                return Ok(());
            }
            tried += 1;
        }
        if tried == 0 { Ok(()) } else { Err(VaultCheckError::OtherKey(tried)) }
    }

    fn unwrap_key(&self, stream: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let (nonce, wrapped) = wrapped.split_first_chunk::<WRAP_NONCE_BYTES>().ok_or(VaultError::Open)?;
        let payload = Payload { msg: wrapped, aad: stream.as_bytes() };
        let key = XChaCha20Poly1305::new((&*self.key.0).into()).decrypt(&(*nonce).into(), payload);
        key.map(Zeroizing::new).map_err(|_| VaultError::Open)
    }

    fn unseal(&self, stream: &str, wrapped: &[u8], ciphertext: &str) -> Result<Vec<u8>, VaultError> {
        let body_key = self.unwrap_key(stream, wrapped)?;
        let ciphertext = BASE64.decode(ciphertext).map_err(|_| VaultError::Open)?;
        let cipher = ChaCha20Poly1305::new_from_slice(&body_key).map_err(|_| VaultError::Open)?;
        let payload = Payload { msg: &ciphertext, aad: stream.as_bytes() };
        cipher.decrypt(&[0; 12].into(), payload).map_err(|_| VaultError::Open)
    }
}

impl Bodies for Vault {
    fn seal(&self, stream: &str, body: &[u8]) -> Result<Sealed, VaultError> {
        let mut body_key = [0_u8; KEY_BYTES];
        rand::rng().fill_bytes(&mut body_key);
        let mut nonce = [0_u8; WRAP_NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let aad = stream.as_bytes();
        let sealed = ChaCha20Poly1305::new(&body_key.into()).encrypt(&[0; 12].into(), Payload { msg: body, aad });
        let wrapped =
            XChaCha20Poly1305::new((&*self.key.0).into()).encrypt(&nonce.into(), Payload { msg: &body_key, aad });
        body_key.zeroize();
        let (Ok(ciphertext), Ok(wrapped)) = (sealed, wrapped) else { return Err(VaultError::Seal) };
        Ok(Sealed { ciphertext: BASE64.encode(ciphertext), wrapped_key: [nonce.as_slice(), &wrapped].concat() })
    }

    async fn keys(&self, stream_type: &str, stream_ids: &[&str]) -> Result<WrappedKeys, VaultError> {
        let types = vec![stream_type; stream_ids.len()];
        let rows: Vec<(String, Option<Vec<u8>>)> =
            sqlx::query_as("SELECT stream_id, wrapped_key FROM vault.open($1::text[], $2::text[])")
                .bind(types)
                .bind(stream_ids)
                .fetch_all(&self.pool)
                .await
                .map_err(VaultError::Read)?;
        Ok(WrappedKeys::new(stream_type, rows.into_iter().collect()))
    }

    fn open(&self, keys: &WrappedKeys, stream_id: &str, ciphertext: &str) -> Result<Vec<u8>, VaultError> {
        let (stream, wrapped) = keys.of(stream_id)?;
        self.unseal(&stream, wrapped, ciphertext)
    }

    fn body_digest(&self, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new(&hmac_key(&self.key.0));
        mac.update(body);
        hex::encode(mac.finalize().into_bytes())
    }
}

/// HMAC's block, with a label in front, so that the vault key itself is used for one thing only.
fn hmac_key(key: &[u8; KEY_BYTES]) -> hmac::digest::Key<Hmac<Sha256>> {
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    let label = b"fanledger body digest v1";
    block[..label.len()].copy_from_slice(label);
    block[label.len()..label.len() + KEY_BYTES].copy_from_slice(key);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault() -> Vault {
        let pool = sqlx::postgres::PgPoolOptions::new().connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap();
        Vault::new(VaultKey::new([7; KEY_BYTES]), pool)
    }

    #[tokio::test]
    async fn opens_only_what_it_sealed_for_this_stream() {
        let vault = vault();
        let sealed = vault.seal("stripe_event/evt_1", b"{\"name\":\"Jane\"}").unwrap();
        assert_eq!(
            vault.unseal("stripe_event/evt_1", &sealed.wrapped_key, &sealed.ciphertext).unwrap(),
            b"{\"name\":\"Jane\"}"
        );
        assert!(matches!(
            vault.unseal("stripe_event/evt_2", &sealed.wrapped_key, &sealed.ciphertext),
            Err(VaultError::Open)
        ));
        let other = Vault::new(VaultKey::new([8; KEY_BYTES]), vault.pool.clone());
        assert!(matches!(
            other.unseal("stripe_event/evt_1", &sealed.wrapped_key, &sealed.ciphertext),
            Err(VaultError::Open)
        ));
        assert!(matches!(vault.unseal("stripe_event/evt_1", &[1, 2, 3], &sealed.ciphertext), Err(VaultError::Open)));
    }

    #[tokio::test]
    async fn the_same_body_has_the_same_digest_and_another_ciphertext() {
        let vault = vault();
        assert_eq!(vault.body_digest(b"a"), vault.body_digest(b"a"));
        assert_ne!(vault.body_digest(b"a"), vault.body_digest(b"b"));
        assert_ne!(vault.seal("s/1", b"a").unwrap().ciphertext, vault.seal("s/1", b"a").unwrap().ciphertext);
    }
}
