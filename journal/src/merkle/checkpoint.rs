//! Checkpoints: a tree's size and root, signed, to be kept where whoever can rewrite the journal cannot rewrite them.
//!
//! The form is C2SP's `tlog-checkpoint`, a signed note (<https://c2sp.org/tlog-checkpoint>, <https://c2sp.org/signed-note>), with
//! Ed25519 (RFC 8032). The origin, which is also the key's name, holds the journal's id: a checkpoint of one journal says nothing
//! of another, and a key that signs for two journals has two names.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::NodeHash;

/// The byte that stands for Ed25519 among the signature types of signed notes.
const ED25519: u8 = 1;
/// Longer than any checkpoint with the sixteen signatures that must be taken.
const NOTE_BYTES_MAX: usize = 128 * 1024;

/// The origin of a journal's checkpoints.
pub fn origin_of(journal_id: Uuid) -> String {
    format!("fanledger/journal/{journal_id}")
}

/// Why a text is no checkpoint that can be relied on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CheckpointError {
    /// Not a signed note at all.
    #[error("not a checkpoint: {0}")]
    Form(&'static str),
    /// Signatures there are, none of them by the key that is trusted.
    #[error("signed by another key: by {signers}, and not by {trusted}")]
    OtherKey {
        /// Who signed: names and ids of keys.
        signers: String,
        /// The key that was expected.
        trusted: String,
    },
    /// It bears the trusted key's name, and the signature is not of this text.
    #[error("the signature of {0} is not of this text: the checkpoint was changed, or the signature was")]
    Signature(String),
    /// It is of another journal, or of no journal.
    #[error("a checkpoint of another journal: it is of {found}, and not of {expected}")]
    OtherOrigin {
        /// The origin that is named.
        found: String,
        /// The one that was expected.
        expected: String,
    },
}

/// Why a text is no public key.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "expected a public key as `fanledger journal checkpoint --public-key` prints it (<origin>+<id>+<base64>), or 32 bytes in hex or base64"
)]
pub struct KeyFormError;

/// A public key and the name that it signs under.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: VerifyingKey,
}

impl VerifierKey {
    /// The first four bytes of SHA-256(name ‖ newline ‖ type ‖ public key).
    pub fn id(&self) -> [u8; 4] {
        let mut digest = Sha256::new_with_prefix(self.name.as_bytes());
        digest.update([b'\n', ED25519]);
        digest.update(self.key.as_bytes());
        let [a, b, c, d, ..]: [u8; 32] = digest.finalize().into();
        [a, b, c, d]
    }

    /// The name: the origin of the journal that it signs for.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// `<name>+<id in hex>+<base64 of the type's byte and the key>`, as the tools of other transparency logs take it.
impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut typed = vec![ED25519];
        typed.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id()), BASE64.encode(typed))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VerifierKey {
    type Err = KeyFormError;
    fn from_str(text: &str) -> Result<Self, KeyFormError> {
        let (name, rest) = text.split_once('+').ok_or(KeyFormError)?;
        let (id, typed) = rest.split_once('+').ok_or(KeyFormError)?;
        let typed = BASE64.decode(typed).map_err(|_| KeyFormError)?;
        let (ED25519, key) = typed.split_first().map(|(first, rest)| (*first, rest)).ok_or(KeyFormError)? else {
            return Err(KeyFormError);
        };
        let key = key.try_into().ok().and_then(|key| VerifyingKey::from_bytes(key).ok()).ok_or(KeyFormError)?;
        let verifier = Self { name: name.to_owned(), key };
        if is_name(name) && hex::encode(verifier.id()) == id { Ok(verifier) } else { Err(KeyFormError) }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c == '+' || c.is_whitespace() || c.is_control())
}

/// A key that is trusted: with the name of the one journal that it is trusted for, or for whatever journal a text names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedKey {
    /// Key and journal.
    Named(VerifierKey),
    /// The key alone; whoever uses it looks at the origin.
    Bare(VerifyingKey),
}

impl TrustedKey {
    /// The public key that belongs to a secret seed.
    pub fn of_seed(seed: &[u8; 32]) -> Self {
        Self::Bare(SigningKey::from_bytes(seed).verifying_key())
    }

    /// As the key of this name, where it is not that of another one already.
    pub fn named(&self, name: &str) -> VerifierKey {
        match self {
            Self::Named(key) => key.clone(),
            Self::Bare(key) => VerifierKey { name: name.to_owned(), key: *key },
        }
    }
}

impl FromStr for TrustedKey {
    type Err = KeyFormError;
    fn from_str(text: &str) -> Result<Self, KeyFormError> {
        if let Ok(named) = text.parse() {
            return Ok(Self::Named(named));
        }
        let bytes = hex::decode(text).or_else(|_| BASE64.decode(text)).map_err(|_| KeyFormError)?;
        let key = bytes.as_slice().try_into().ok().and_then(|key| VerifyingKey::from_bytes(key).ok());
        key.map(Self::Bare).ok_or(KeyFormError)
    }
}

/// The state of a journal: what a checkpoint signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose state: see [`origin_of`].
    pub origin: String,
    /// How many events; also the position of the last of them.
    pub size: u64,
    /// The root of the tree of those events.
    pub root: NodeHash,
}

/// What signs the checkpoints of one journal.
pub struct CheckpointSigner {
    origin: String,
    key: SigningKey,
}

impl CheckpointSigner {
    /// From the secret seed of RFC 8032.
    pub fn new(journal_id: Uuid, seed: &[u8; 32]) -> Self {
        Self { origin: origin_of(journal_id), key: SigningKey::from_bytes(seed) }
    }

    /// What others need to check what it signs.
    pub fn verifier(&self) -> VerifierKey {
        VerifierKey { name: self.origin.clone(), key: self.key.verifying_key() }
    }

    /// The signed text. The same state always gives the same text.
    pub fn sign(&self, size: u64, root: NodeHash) -> String {
        let text = Checkpoint { origin: self.origin.clone(), size, root }.to_string();
        let mut signature = self.verifier().id().to_vec();
        signature.extend_from_slice(&self.key.sign(text.as_bytes()).to_bytes());
        format!("{text}\n\u{2014} {} {}\n", self.origin, BASE64.encode(signature))
    }
}

/// The text that is signed.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, BASE64.encode(self.root.0))
    }
}

/// A signature line: the key's name, and id and signature together.
type SignatureLine<'a> = (&'a str, Vec<u8>);

impl Checkpoint {
    /// Reads a signed text, and believes it only if the trusted key signed it. Signatures by other keys are passed over.
    ///
    /// # Errors
    /// What it is instead.
    pub fn open(note: &str, trusted: &TrustedKey) -> Result<Self, CheckpointError> {
        let (text, signatures) = parts(note)?;
        let checkpoint = Self::read(text)?;
        let key = trusted.named(&checkpoint.origin);
        if key.name() != checkpoint.origin {
            return Err(CheckpointError::OtherOrigin { found: checkpoint.origin, expected: key.name });
        }
        let mut is_signed = false;
        for (_, signature) in
            signatures.iter().filter(|(name, bytes)| *name == key.name && bytes.starts_with(&key.id()))
        {
            let signature = signature.get(4..).and_then(|bytes| Signature::from_slice(bytes).ok());
            let holds = signature.is_some_and(|signature| key.key.verify_strict(text.as_bytes(), &signature).is_ok());
            if !holds {
                return Err(CheckpointError::Signature(key.name));
            }
            is_signed = true;
        }
        if is_signed {
            return Ok(checkpoint);
        }
        let name_and_id = |name: &str, bytes: &[u8]| format!("{name}+{}", hex::encode(bytes.get(..4).unwrap_or(bytes)));
        let signers: Vec<String> = signatures.iter().map(|(name, bytes)| name_and_id(name, bytes)).collect();
        Err(CheckpointError::OtherKey { signers: signers.join(", "), trusted: name_and_id(&key.name, &key.id()) })
    }

    fn read(text: &str) -> Result<Self, CheckpointError> {
        let form = CheckpointError::Form;
        let mut lines = text.lines();
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(form("it needs lines for origin, size and root"));
        };
        if !is_name(origin) {
            return Err(form("its origin is not the name of a key"));
        }
        if lines.any(str::is_empty) {
            return Err(form("an extension line is empty"));
        }
        let is_decimal = size.bytes().all(|byte| byte.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        let size = size.parse().ok().filter(|_| is_decimal).ok_or(form("its size is not a decimal number"))?;
        let root = BASE64.decode(root).ok().and_then(|root| root.try_into().ok());
        let root = root.map(NodeHash).ok_or(form("its root is not 32 bytes in base64"))?;
        Ok(Self { origin: origin.to_owned(), size, root })
    }
}

/// The signed text, its last newline included, and the signatures.
fn parts(note: &str) -> Result<(&str, Vec<SignatureLine<'_>>), CheckpointError> {
    let form = CheckpointError::Form;
    if note.len() > NOTE_BYTES_MAX {
        return Err(form("it is longer than any checkpoint"));
    }
    if note.chars().any(|c| c < ' ' && c != '\n') {
        return Err(form("it holds control characters"));
    }
    let at = note.rfind("\n\n").ok_or(form("no empty line stands between text and signatures"))?;
    let (text, signatures) = (&note[..=at], &note[at + 2..]);
    if signatures.is_empty() || !signatures.ends_with('\n') {
        return Err(form("it does not end with a whole signature line"));
    }
    let lines = signatures.lines().map(signature_line);
    let signatures = lines.collect::<Option<Vec<_>>>().ok_or(form("a signature line is not one"))?;
    Ok((text, signatures))
}

fn signature_line(line: &str) -> Option<SignatureLine<'_>> {
    let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let signature = BASE64.decode(signature).ok().filter(|bytes| bytes.len() > 4)?;
    is_name(name).then_some((name, signature))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::EventRecord;
    use crate::merkle::Tree;

    const SEED: [u8; 32] = [7; 32];

    fn signer() -> CheckpointSigner {
        CheckpointSigner::new(Uuid::from_u128(0x0198_f3c2_0000_7000_8000_0000_0000_0001), &SEED)
    }

    fn root() -> NodeHash {
        NodeHash(Sha256::digest(b"a root").into())
    }

    /// The example of `docs/verify.md`, whose values were computed with the verifier beside it.
    #[test]
    fn the_documented_example_is_signed_as_documented() {
        let event = |position: i64, stream: &str, sequence: i64, at: i64| EventRecord {
            position,
            recorded_at_micros: at,
            aggregate_type: "stripe_event".into(),
            aggregate_id: stream.into(),
            sequence,
            event_type: "StripeEventReceived".into(),
            event_version: "1".into(),
            event_id: Uuid::from_u128(0x0198_f3c2_0000_7000_8000_0000_0000_0000 + position as u128),
            payload: format!(r#"{{"a": {position}}}"#),
            metadata: r#"{"actor":"system:test"}"#.into(),
        };
        let mut tree = Tree::default();
        let mut roots = Vec::new();
        for event in [
            event(1, "evt_1", 1, 1_767_323_045_678_901),
            event(2, "evt_1", 2, 1_767_323_045_678_901),
            event(3, "evt_2", 1, 1_767_323_045_678_902),
        ] {
            tree.push(NodeHash::of_event(event.position, event.recorded_at_micros, &event.leaf()));
            roots.push(tree.root().to_string());
        }
        assert_eq!(
            roots,
            [
                "dd01bb96029ffefe61185354d42130d119356e09e16fb0933a68ff96050613b2",
                "ff9960869a8bcb392c19ab0fdfcb655ebadc4e7ecb00b499077340f0b6133ce5",
                "213f1c14f1d391b12c370506d1ab268d76a233810217624400cc5715955b1a67",
            ]
        );
        let signer = signer();
        assert_eq!(
            signer.verifier().to_string(),
            "fanledger/journal/0198f3c2-0000-7000-8000-000000000001\
             +69bb0c9d+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs"
        );
        assert_eq!(
            signer.sign(3, tree.root()),
            "fanledger/journal/0198f3c2-0000-7000-8000-000000000001\n3\nIT8cFPHTkbEsNwUG0asmjXaiM4ECF2JEAMxXFZVbGmc=\n\n\
             \u{2014} fanledger/journal/0198f3c2-0000-7000-8000-000000000001 \
             absMnXnzCBDBYLUenvfYwTkoLO7CvBtA6JXH5vFYoGatpuZ0XkgWefXGsBU0ZUHPdSt1YOuVgw6ShroUU2kE/udqogc=\n"
        );
    }

    /// The example of the specification's own page, with a key of the Go checksum database's form.
    #[test]
    fn keys_have_the_form_that_other_logs_give_them() {
        // From the documentation of golang.org/x/mod/sumdb/note.
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key: VerifierKey = text.parse().unwrap();
        assert_eq!(
            (key.name(), hex::encode(key.id()), key.to_string()),
            ("PeterNeumann", "c74f20a3".into(), text.into())
        );
        for bad in
            ["PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "", "a+b", "a+00000000+AQ==", "zz"]
        {
            assert!(bad.parse::<VerifierKey>().is_err(), "{bad}");
            assert!(bad.parse::<TrustedKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_signed_opens_with_its_key_in_any_form() {
        let signer = signer();
        let note = signer.sign(42, root());
        let expected = Checkpoint {
            origin: origin_of(Uuid::from_u128(0x0198_f3c2_0000_7000_8000_0000_0000_0001)),
            size: 42,
            root: root(),
        };
        let public = signer.verifier().key.to_bytes();
        for key in [signer.verifier().to_string(), hex::encode(public), BASE64.encode(public)] {
            assert_eq!(Checkpoint::open(&note, &key.parse().unwrap()), Ok(expected.clone()), "{key}");
        }
        assert_eq!(Checkpoint::open(&note, &TrustedKey::of_seed(&SEED)), Ok(expected.clone()));
        // A witness's signature besides ours is no matter.
        let witnessed = format!("{note}\u{2014} witness.example/w AAAAAAAA\n");
        assert_eq!(Checkpoint::open(&witnessed, &TrustedKey::of_seed(&SEED)), Ok(expected));
    }

    #[test]
    fn other_keys_other_journals_and_changed_texts_are_told_apart() {
        let signer = signer();
        let note = signer.sign(42, root());
        let open = |note: &str, key: &TrustedKey| Checkpoint::open(note, key).unwrap_err();
        assert!(matches!(open(&note, &TrustedKey::of_seed(&[8; 32])), CheckpointError::OtherKey { .. }));
        let other_journal = CheckpointSigner::new(Uuid::from_u128(1), &SEED);
        assert!(matches!(
            open(&note, &TrustedKey::Named(other_journal.verifier())),
            CheckpointError::OtherOrigin { .. }
        ));
        // Any one changed character: never believed.
        for (at, _) in note.char_indices() {
            let mut changed: Vec<char> = note.chars().collect();
            let at = note[..at].chars().count();
            changed[at] = if changed[at] == 'A' { 'B' } else { 'A' };
            let changed: String = changed.into_iter().collect();
            assert!(Checkpoint::open(&changed, &TrustedKey::Named(signer.verifier())).is_err(), "{changed}");
        }
        assert!(matches!(
            open(&note.replace("\n42\n", "\n43\n"), &TrustedKey::of_seed(&SEED)),
            CheckpointError::Signature(_)
        ));
        for bad in ["", "\n\n", "a\n1\n", "a\n01\nx\n\n\u{2014} a AAAAAAAA\n", "a\r\n1\n", &note[..note.len() - 1]] {
            assert!(matches!(open(bad, &TrustedKey::of_seed(&SEED)), CheckpointError::Form(_)), "{bad:?}");
        }
    }
}
