//! What came of an operation, as the runner wrote it into its `outcome`.

use serde::Deserialize;
use serde_json::Value;

/// That two generations hold the same, or what differs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Proof {
    /// Where both stood.
    pub position: u64,
    /// The live one.
    pub live_generation: u32,
    /// The new one.
    pub new_generation: u32,
    /// Each table of either.
    pub tables: Vec<TableProof>,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TableProof {
    /// Its name.
    pub table: String,
    /// Columns that only the new one has.
    pub columns_added: Vec<String>,
    /// Columns that only the live one has.
    pub columns_removed: Vec<String>,
    /// Rows that are the same in both.
    pub equal: u64,
    /// Rows of one key and different content.
    pub changed: u64,
    /// Rows whose key only the live one has.
    pub only_live: u64,
    /// Rows whose key only the new one has.
    pub only_new: u64,
}

impl TableProof {
    /// Rows that differ.
    pub fn differing(&self) -> u64 {
        self.changed + self.only_live + self.only_new
    }
}

impl Proof {
    /// Whether every row of every table is the same.
    pub fn is_equal(&self) -> bool {
        self.tables
            .iter()
            .all(|table| table.differing() == 0 && table.columns_added.is_empty() && table.columns_removed.is_empty())
    }

    /// Of an operation's outcome: a rebuild's, where it was switched, or of one that was refused because of it.
    pub fn of_outcome(outcome: &Value) -> Option<Self> {
        let proof = outcome.get("proof").unwrap_or(outcome);
        serde_json::from_value(proof.clone()).ok()
    }
}

/// The generation that an operation made or brought back, where its outcome says so.
pub fn generation_of_outcome(outcome: &Value) -> Option<u64> {
    outcome.get("generation")?.as_u64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn proof(changed: u64) -> Value {
        json!({"position": 9, "live_generation": 1, "live_version": 1, "new_generation": 2, "new_version": 1, "tables": [
            {"table": "balances", "presence": "both", "columns_added": [], "columns_removed": [], "equal": 7,
             "changed": changed, "only_live": 0, "only_new": 0, "keys": []}]})
    }

    #[test]
    fn a_rebuilds_proof_is_found_whether_it_was_switched_or_refused() {
        let switched =
            json!({"generation": 2, "position": 9, "proof": proof(0), "halt": null, "loading_ms": 1, "indexing_ms": 1});
        let found = Proof::of_outcome(&switched).unwrap();
        assert!(found.is_equal());
        assert_eq!((found.new_generation, found.tables[0].equal), (2, 7));
        assert_eq!(generation_of_outcome(&switched), Some(2));
        let refused = Proof::of_outcome(&proof(1)).unwrap();
        assert!(!refused.is_equal());
        assert_eq!(refused.tables[0].differing(), 1);
    }

    #[test]
    fn other_outcomes_have_none() {
        assert_eq!(Proof::of_outcome(&json!({"generation": 1, "version": 1, "kept": 2, "position": 9})), None);
        assert_eq!(Proof::of_outcome(&json!({"generation": 1, "proof": null})), None);
        assert_eq!(Proof::of_outcome(&json!({"retired": [1]})), None);
    }
}
