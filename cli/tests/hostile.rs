//! What strangers send and users name, changed at will: nothing panics, and nothing that was signed is taken for something else.
//!
//! `make fuzz` runs these, and those of `domain/` over webhooks, with many cases.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use fanledger_cli::reconcile::file;
use fanledger_commands::stripe::signature::{Secret, sign, verify};
use fanledger_journal::merkle::NodeHash;
use fanledger_journal::merkle::checkpoint::{Checkpoint, CheckpointSigner, TrustedKey};
use fanledger_journal::merkle::proof::InclusionProof;
use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;

const SEED: [u8; 32] = [7; 32];
const LIST: [&str; 2] = [
    "id,Type,Amount,Fee,Net,Currency,Created (UTC)\ntxn_1,charge,10.00,0.59,9.41,usd,2026-01-31 12:34\ntxn_2,charge,-5,0,-5,jpy,2026-01-31\n",
    r#"{"object": "list", "data": [{"id": "txn_1", "object": "balance_transaction", "amount": 1000, "fee": 59, "net": 941,
        "currency": "usd", "created": 1769862840, "available_on": 1769862840, "type": "charge", "source": "ch_1"}]}"#,
];

/// Some characters replaced, or the text cut.
#[derive(Clone, Debug)]
struct Change {
    replaced: Vec<(Index, char)>,
    cut: Option<Index>,
}

fn change() -> impl Strategy<Value = Change> {
    let character = prop_oneof![any::<char>(), prop::char::range(' ', '~'), Just('\n'), Just('"'), Just(',')];
    let replaced = prop::collection::vec((any::<Index>(), character), 0..6);
    (replaced, prop::option::weighted(0.2, any::<Index>())).prop_map(|(replaced, cut)| Change { replaced, cut })
}

impl Change {
    fn of(&self, text: &str) -> String {
        let mut characters: Vec<char> = text.chars().collect();
        for (place, character) in &self.replaced {
            let place = place.index(characters.len());
            characters[place] = *character;
        }
        let length = self.cut.map_or(characters.len(), |cut| cut.index(characters.len()));
        characters[..length].iter().collect()
    }
}

proptest! {
    // A failing case belongs into a test of its own, not into a file beside this one.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_signature_headers_sign_nothing_else(header in change(), body in change(), bytes in any::<Vec<u8>>()) {
        let (secret, now, sent) = (Secret::new("whsec_hostile_hostile").unwrap(), 1_769_862_840, r#"{"id":"evt_1"}"#);
        let signed = sign(&secret, sent.as_bytes(), now);
        let received = body.of(sent);
        let verified = verify(Some(header.of(&signed).as_bytes()), received.as_bytes(), &[secret], now);
        prop_assert!(verified.is_err() || received == sent);
        let secret = Secret::new("whsec_hostile_hostile").unwrap();
        prop_assert!(verify(Some(&bytes), sent.as_bytes(), &[secret], now).is_err());
    }

    #[test]
    fn hostile_checkpoints_say_what_was_signed_or_nothing(change in change()) {
        let note = CheckpointSigner::new(Uuid::from_u128(1), &SEED).sign(17, NodeHash([5; 32]));
        let key = TrustedKey::of_seed(&SEED);
        let signed = Checkpoint::open(&note, &key).unwrap();
        if let Ok(opened) = Checkpoint::open(&change.of(&note), &key) {
            prop_assert_eq!(opened, signed);
        }
    }

    #[test]
    fn hostile_proofs_prove_nothing(event in change(), whole in change()) {
        use base64::Engine as _;
        let note = CheckpointSigner::new(Uuid::from_u128(1), &SEED).sign(1, NodeHash([5; 32]));
        let extra = r#"{"event":{"position":1,"event_id":"00000000-0000-0000-0000-000000000001","aggregate_type":"a","aggregate_id":"b",
            "sequence":1,"event_type":"X","event_version":"1","payload":"{}","metadata":"{}","recorded_at_micros":5},"verifier_key":""}"#;
        let with = |extra: &str| {
            let extra = base64::engine::general_purpose::STANDARD.encode(extra);
            format!("c2sp.org/tlog-proof@v1\nextra {extra}\nindex 0\n\n{note}")
        };
        prop_assert!(InclusionProof::read(&with(extra)).is_ok(), "of the form, and of another event than was signed");
        let changed = with(&event.of(extra));
        for text in [whole.of(&changed), changed] {
            let proved = InclusionProof::read(&text).map(|proof| proof.check(&TrustedKey::of_seed(&SEED), None).is_ok());
            prop_assert!(!matches!(proved, Ok(true)), "{}", text);
        }
    }

    #[test]
    fn hostile_lists_add_up_or_are_refused(change in change(), which in 0_usize..2) {
        let path = std::env::temp_dir().join(format!("fanledger-hostile-{}-{which}", std::process::id()));
        std::fs::write(&path, change.of(LIST[which])).unwrap();
        let mut rows = Vec::new();
        // Refused or read to its end, each is one of the two.
        file::read(&path, &mut |row| { rows.push(row); true }).ok();
        std::fs::remove_file(&path).unwrap();
        for row in rows {
            prop_assert_eq!(i128::from(row.amount) - i128::from(row.fee), i128::from(row.net));
        }
    }
}
