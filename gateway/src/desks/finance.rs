//! Attribution, entries by hand, reversals, opening a webhook.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fanledger_commands::executor::ActError;
use fanledger_commands::finance::{AttributeError, Finance, OpenError};
use fanledger_commands::manual_entries::{ManualEntriesError, Standing};
use fanledger_domain::attribution::AttributionError;
use fanledger_domain::event::Event;
use fanledger_domain::facts::Attribution;
use fanledger_domain::id::{EntryId, StripeId, Subject};
use fanledger_domain::manual_entry::{DraftFault, DraftText, ManualEntryError, Stage};
use fanledger_domain::time::Timestamp;
use fanledger_gateway_api::{
    AttributionReceipt, FieldProblem, ManualEntryReceipt, ManualEntryState, OpenedStripeEvent,
};
use serde_json::value::RawValue;
use sqlx::PgPool;

use super::{failed, field, is_new_creator};
use crate::ports::{ActRefusal, Acted, FinanceDesk};

fn faults(faults: Vec<DraftFault>) -> ActRefusal {
    let of = |fault: DraftFault| FieldProblem { field: fault.field(), message: fault.to_string() };
    ActRefusal::Invalid(faults.into_iter().map(of).collect())
}

fn refused_attribution(error: AttributeError) -> ActRefusal {
    match error {
        AttributeError::Act(ActError::Refused(refused)) => match refused {
            AttributionError::Unknown { .. } => ActRefusal::Unknown(refused.to_string()),
            AttributionError::NotAttributable { .. } => field("object", refused),
            AttributionError::Stated { .. } => field("creator", refused),
            AttributionError::TaxAbovePayment { .. } => field("tax_minor", refused),
            AttributionError::Reason => field("reason", refused),
            AttributionError::Ledger(_) => ActRefusal::LedgerRefused(fanledger_commands::with_causes(&refused)),
        },
        AttributeError::Act(ActError::Failed(error)) => failed(error),
        error @ AttributeError::Clock(_) => ActRefusal::Failed(Box::new(error)),
    }
}

fn refused_entry(error: ManualEntriesError) -> ActRefusal {
    match error {
        ManualEntriesError::Faults(wrong) => faults(wrong),
        ManualEntriesError::Act(ActError::Refused(refused)) => {
            let text = refused.to_string();
            match refused {
                ManualEntryError::Unknown { .. } => ActRefusal::Unknown(text),
                ManualEntryError::SamePerson { .. } => ActRefusal::SecondPersonNeeded(text),
                ManualEntryError::Posted { .. } | ManualEntryError::Rejected { .. } => ActRefusal::AlreadyDecided(text),
                ManualEntryError::Other { .. } => ActRefusal::KeyReused(text),
                // The stream's refusal is the same while the first reversal waits, when the entry still stands.
                ManualEntryError::ReversedAlready { entry_id, id } => ActRefusal::AlreadyReversed(format!(
                    "{id} takes {entry_id} back already, or will once it is approved: an entry is taken back once, and by another \
                     only after that one was rejected"
                )),
                ManualEntryError::Reason => field("reason", text),
                ManualEntryError::Entry { .. } | ManualEntryError::EntryId { .. } => {
                    ActRefusal::LedgerRefused(fanledger_commands::with_causes(&refused))
                }
            }
        }
        ManualEntriesError::Act(ActError::Failed(error)) => failed(error),
        error @ ManualEntriesError::UnknownEntry(_) => ActRefusal::Unknown(error.to_string()),
        error @ ManualEntriesError::Reversal(_) => ActRefusal::NotByHand(error.to_string()),
        error @ ManualEntriesError::Read(_) => ActRefusal::Unavailable(Box::new(error)),
        error @ (ManualEntriesError::Decode { .. } | ManualEntriesError::Clock(_) | ManualEntriesError::Id(_)) => {
            ActRefusal::Failed(Box::new(error))
        }
    }
}

fn refused_opening(error: OpenError) -> ActRefusal {
    match error {
        error @ OpenError::Unknown(_) => ActRefusal::Unknown(error.to_string()),
        error @ OpenError::Reason => field("reason", error),
        error @ OpenError::Erased(_) => ActRefusal::Erased(error.to_string()),
        error @ OpenError::KeyMissing(_) => ActRefusal::KeyMissing(error.to_string()),
        OpenError::Execute(error) => failed(error),
        error @ (OpenError::Clock(_) | OpenError::Vault(_)) => ActRefusal::Failed(Box::new(error)),
    }
}

fn receipt(standing: Standing) -> Result<Acted<ManualEntryReceipt>, ActRefusal> {
    let Some((proposed, stage)) = standing.entry.proposed() else {
        return Err(ActRefusal::Unknown("there is no such manual entry".to_owned()));
    };
    let state = match stage {
        Stage::Proposed => ManualEntryState::Proposed,
        Stage::Posted => ManualEntryState::Posted,
        Stage::Rejected => ManualEntryState::Rejected,
    };
    let value = ManualEntryReceipt {
        id: proposed.id.to_string(),
        state,
        needs_approval: proposed.needs_approval,
        entry_id: standing.posted.as_ref().map(ToString::to_string),
    };
    Ok(Acted { position: standing.position.get(), value })
}

/// Where finance acts: what it may do, and the books, of which a receipt tells.
pub struct FinanceOffice {
    finance: Finance,
    queries: PgPool,
}

impl FinanceOffice {
    /// `queries` logs in as `fanledger_gateway`.
    pub const fn new(finance: Finance, queries: PgPool) -> Self {
        Self { finance, queries }
    }
}

#[async_trait]
impl FinanceDesk for FinanceOffice {
    async fn attribute(
        &self,
        by: Subject,
        object: StripeId,
        attribution: Attribution,
        reason: String,
    ) -> Result<Acted<AttributionReceipt>, ActRefusal> {
        let creator_is_new = is_new_creator(&self.queries, &attribution.creator).await;
        let executed = self.finance.attribute(by, &object, attribution, reason).await.map_err(refused_attribution)?;
        let position = match executed.last {
            Some(last) => last,
            None => self.finance.head().await.map_err(|error| ActRefusal::Unavailable(Box::new(error)))?,
        };
        let entry_id = |event: &Event| {
            if let Event::EntryPosted(entry) = event { Some(entry.entry_id.to_string()) } else { None }
        };
        let value = AttributionReceipt {
            object: object.to_string(),
            changed: !executed.events.is_empty(),
            creator_is_new,
            entries: executed.events.iter().filter_map(entry_id).collect(),
        };
        Ok(Acted { position: position.get(), value })
    }

    async fn propose(
        &self,
        by: Subject,
        draft: DraftText,
        key: Option<&str>,
    ) -> Result<Acted<ManualEntryReceipt>, ActRefusal> {
        receipt(self.finance.propose(by, draft, key).await.map_err(refused_entry)?)
    }

    async fn approve(&self, by: Subject, id: StripeId) -> Result<Acted<ManualEntryReceipt>, ActRefusal> {
        receipt(self.finance.approve(by, &id).await.map_err(refused_entry)?)
    }

    async fn reject(&self, by: Subject, id: StripeId, reason: String) -> Result<Acted<ManualEntryReceipt>, ActRefusal> {
        receipt(self.finance.reject(by, &id, reason).await.map_err(refused_entry)?)
    }

    async fn reverse(
        &self,
        by: Subject,
        entry_id: EntryId,
        reason: String,
        occurred_at: Option<Timestamp>,
    ) -> Result<Acted<ManualEntryReceipt>, ActRefusal> {
        receipt(self.finance.reverse(by, &entry_id, reason, occurred_at).await.map_err(refused_entry)?)
    }

    async fn open(&self, by: Subject, id: StripeId, reason: String) -> Result<Acted<OpenedStripeEvent>, ActRefusal> {
        let opened = self.finance.open(by.clone(), &id, reason).await.map_err(refused_opening)?;
        let body: Option<Box<RawValue>> = serde_json::from_slice(&opened.body).ok();
        let value = OpenedStripeEvent {
            id: id.to_string(),
            opened_at: opened.at.to_string(),
            opened_by: by.to_string(),
            sha256: opened.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            bytes: opened.body.len() as u64,
            body_base64: body.is_none().then(|| BASE64.encode(&opened.body)),
            body,
        };
        Ok(Acted { position: opened.position.get(), value })
    }
}
