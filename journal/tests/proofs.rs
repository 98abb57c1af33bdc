//! Checkpoints and inclusion proofs over a real journal, checked by our code and by the second verifier.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use fanledger_journal::event::Position;
use fanledger_journal::merkle::checkpoint::{Checkpoint, CheckpointError, CheckpointSigner, TrustedKey};
use fanledger_journal::merkle::proof::{InclusionProof, ProofError, ProveError, prove};
use fanledger_journal::verify::VerifyOptions;
use serde_json::json;
use support::Journal;
use support::ledger::{fill, second_verifier, unguard, verify_with_books};
use uuid::Uuid;

const SEED: [u8; 32] = [7; 32];

struct Signed {
    journal: Journal,
    signer: CheckpointSigner,
    note: String,
    checkpoint: Checkpoint,
}

impl Signed {
    async fn start(events: u64) -> Self {
        Self::start_as(events, Uuid::from_u128(1)).await
    }

    /// Databases of tests are clones of one, so that their journals have one id; these are told apart.
    async fn start_as(events: u64, journal_id: Uuid) -> Self {
        let journal = Journal::start().await;
        fill(&journal, events).await;
        let signer = CheckpointSigner::new(journal_id, &SEED);
        let mut connection = journal.admin.acquire().await.unwrap();
        let report = verify_with_books(&mut connection, VerifyOptions::default()).await;
        let note = signer.sign(report.events, report.root.unwrap());
        let checkpoint = Checkpoint::open(&note, &TrustedKey::of_seed(&SEED)).unwrap();
        drop(connection);
        Self { journal, signer, note, checkpoint }
    }

    fn trusted(&self) -> TrustedKey {
        TrustedKey::Named(self.signer.verifier())
    }

    async fn prove(&self, position: u64) -> Result<InclusionProof, ProveError> {
        let mut connection = self.journal.admin.acquire().await.unwrap();
        let checkpoint = (self.note.as_str(), &self.checkpoint, &self.signer.verifier());
        prove(&mut connection, Position::new(position), checkpoint, &mut |_| {}).await
    }
}

#[tokio::test]
async fn every_event_is_proved_and_shown_by_its_proof() {
    let signed = Signed::start(40).await;
    let key = signed.signer.verifier().to_string();
    let (code, answer) = check_with_python(&signed.note, "checkpoint", &["--public-key", &key]);
    assert_eq!((code, &answer["size"]), (0, &json!(signed.checkpoint.size)), "{answer}");
    for position in 1..=signed.checkpoint.size {
        let proof = signed.prove(position).await.unwrap();
        let text = proof.to_string();
        let read = InclusionProof::read(&text).unwrap();
        assert_eq!(read, proof);
        let proved = read.check(&signed.trusted(), Some(&signed.checkpoint.origin)).unwrap();
        let event = signed.journal.reader.at(Position::new(position)).await.unwrap().unwrap();
        assert_eq!(proved.event.position.unsigned_abs(), position);
        assert_eq!((proved.event.payload.as_str(), proved.event.event_id), (&*event.payload, event.event_id));
        assert_eq!(read.enclosed_key(), Some(signed.trusted()));
        if position % 8 == 1 {
            let (code, answer) = check_with_python(&text, "proof", &["--public-key", &key]);
            assert_eq!((code, &answer["event"]["payload"]), (0, &json!(proved.event.payload)), "{answer}");
        }
    }
    assert!(matches!(signed.prove(signed.checkpoint.size + 1).await, Err(ProveError::Beyond { .. })));
    assert!(matches!(signed.prove(0).await, Err(ProveError::Beyond { .. })));
}

fn check_with_python(text: &str, what: &str, arguments: &[&str]) -> (i32, serde_json::Value) {
    let file = std::env::temp_dir().join(format!("fanledger-{what}-{:016x}", rand::random::<u64>()));
    std::fs::write(&file, text).unwrap();
    let answer = second_verifier(&[&[what, file.to_str().unwrap()], arguments].concat(), &[]);
    std::fs::remove_file(file).unwrap();
    answer
}

#[tokio::test]
async fn a_proof_that_was_changed_or_is_of_another_journal_proves_nothing() {
    let signed = Signed::start(20).await;
    let key = signed.signer.verifier().to_string();
    let text = signed.prove(7).await.unwrap().to_string();
    let check = |text: &str| InclusionProof::read(text).and_then(|proof| proof.check(&signed.trusted(), None));
    check(&text).unwrap();
    // Any one character that means something, in both verifiers' eyes.
    let characters: Vec<char> = text.chars().collect();
    for at in 0..characters.len() {
        let mut changed = characters.clone();
        changed[at] = match changed[at] {
            'A' => 'B',
            '\n' => ' ',
            _ => 'A',
        };
        let changed: String = changed.into_iter().collect();
        if let Ok(proved) = check(&changed) {
            // The key that came with it is not part of what is proved, nor is how its JSON was spelt.
            assert_eq!(Some(proved), check(&text).ok(), "{changed}");
        }
        if at % 97 == 0 {
            let (code, answer) = check_with_python(&changed, "proof", &["--public-key", &key]);
            assert!(code == 1 || check(&changed).is_ok(), "{changed}: {answer}");
        }
    }
    let proof = InclusionProof::read(&text).unwrap();
    let other_key = proof.check(&TrustedKey::of_seed(&[8; 32]), None).unwrap_err();
    assert!(matches!(other_key, ProofError::Checkpoint(CheckpointError::OtherKey { .. })), "{other_key}");
    let other = Signed::start_as(20, Uuid::now_v7()).await;
    let other_journal = proof.check(&other.trusted(), None).unwrap_err();
    assert!(matches!(other_journal, ProofError::Checkpoint(CheckpointError::OtherOrigin { .. })), "{other_journal}");
    let other_origin = proof.check(&TrustedKey::of_seed(&SEED), Some(&other.checkpoint.origin)).unwrap_err();
    assert!(matches!(other_origin, ProofError::OtherJournal { .. }), "{other_origin}");
    let other_key = other.signer.verifier().to_string();
    assert_eq!(check_with_python(&text, "proof", &["--public-key", &other_key]).0, 1);
    assert_eq!(check_with_python(&text, "proof", &["--public-key", &key, "--origin", &other.checkpoint.origin]).0, 1);
    // The other journal's event under this one's checkpoint.
    let (head, _) = text.split_once("\n\n").unwrap();
    let transplanted = format!("{head}\n\n{}", other.signer.sign(signed.checkpoint.size, other.checkpoint.root));
    let transplanted = InclusionProof::read(&transplanted).unwrap().check(&other.trusted(), None).unwrap_err();
    assert!(matches!(transplanted, ProofError::Root { .. }), "{transplanted}");
}

#[tokio::test]
async fn a_journal_that_was_changed_gives_no_proof() {
    let signed = Signed::start(20).await;
    let mut connection = signed.journal.admin.acquire().await.unwrap();
    unguard(&mut connection).await;
    sqlx::raw_sql("UPDATE journal.events SET metadata = '{}' WHERE position = 7")
        .execute(&mut *connection)
        .await
        .unwrap();
    assert!(matches!(signed.prove(7).await, Err(ProveError::Content { .. })));
    signed.prove(8).await.unwrap();
    sqlx::raw_sql("SELECT public.forge(7, true)").execute(&mut *connection).await.unwrap();
    assert!(matches!(signed.prove(8).await, Err(ProveError::Diverged { .. })));
}
