//! The vault, without cryptography: a body opens with its own key only, and nothing is random.

use std::collections::HashMap;

use fanledger_commands::vault::{Bodies, Sealed, VaultError, WrappedKeys};

use crate::world::Node;

/// See the module.
pub(crate) struct SimulatedVault {
    node: Node,
}

impl SimulatedVault {
    pub const fn new(node: Node) -> Self {
        Self { node }
    }
}

impl Bodies for SimulatedVault {
    fn seal(&self, stream: &str, body: &[u8]) -> Result<Sealed, VaultError> {
        let body = std::str::from_utf8(body).map_err(|_| VaultError::Seal)?;
        Ok(Sealed { ciphertext: format!("{stream}\n{body}"), wrapped_key: stream.as_bytes().to_vec() })
    }

    async fn keys(&self, stream_type: &str, stream_ids: &[&str]) -> Result<WrappedKeys, VaultError> {
        self.node
            .step("reads keys from the vault", |world| {
                if !world.postgres.is_up || world.goes_wrong(4) {
                    return Some(Err(VaultError::Read(sqlx::Error::PoolTimedOut)));
                }
                let found = stream_ids.iter().filter_map(|id| {
                    let key = world.vault.get(&format!("{stream_type}/{id}"))?;
                    Some(((*id).to_owned(), Some(key.clone())))
                });
                Some(Ok(WrappedKeys::new(stream_type, found.collect::<HashMap<_, _>>())))
            })
            .await
    }

    fn open(&self, keys: &WrappedKeys, stream_id: &str, ciphertext: &str) -> Result<Vec<u8>, VaultError> {
        let (stream, key) = keys.of(stream_id)?;
        let (sealed_for, body) = ciphertext.split_once('\n').ok_or(VaultError::Open)?;
        if sealed_for == stream && key == stream.as_bytes() {
            Ok(body.as_bytes().to_vec())
        } else {
            Err(VaultError::Open)
        }
    }

    fn body_digest(&self, body: &[u8]) -> String {
        let leaf = fanledger_journal::digest::leaf(&fanledger_journal::digest::Content {
            aggregate_type: b"",
            aggregate_id: b"",
            sequence: 0,
            event_type: b"",
            event_version: b"",
            event_id: uuid::Uuid::nil(),
            payload: body,
            metadata: b"",
        });
        leaf.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
