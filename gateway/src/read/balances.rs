//! Trial balance and accounts.

use fanledger_domain::account::Account;
use fanledger_domain::money::Currency;
use fanledger_gateway_api::{AccountBalance, AccountBalances, AccountTurnover, CurrencyBalances, TrialBalance};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

use super::cut::Cut;
use super::query::{self, decoding, fetch, integer};
use super::{AsOf, By, Read, ReadError, Slice};

/// An account and currency, after which a list goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountKey {
    /// The account.
    pub account: String,
    /// The currency.
    pub currency: String,
}

/// Every account with turnover, by currency.
///
/// # Errors
/// A time or position before the first entry, a position that is not there yet, or Postgres.
pub async fn trial_balance<M: From<i128>>(
    pool: &PgPool,
    as_of: AsOf,
    by: By,
    currency: Option<Currency>,
) -> Result<Read<TrialBalance<M>>, ReadError> {
    const WHAT: &str = "the trial balance";
    let cut = Cut { as_of, by };
    let sql = format!(
        "WITH RECURSIVE keys AS (
             SELECT t.account, t.currency, t.debits, t.credits, t.lines FROM read.balance_totals AS t
             WHERE $2::text IS NULL OR t.currency = $2
         ), {turnover}
         SELECT p.position::bigint AS position, {firsts},
                t.account::text AS account, t.currency::text AS currency, t.debits::text AS debits, t.credits::text AS credits
         FROM read.positions AS p
         LEFT JOIN turnover AS t ON true
         WHERE p.name = 'balances'
         ORDER BY t.currency, t.account",
        turnover = cut.turnover("$1"),
        firsts = cut.firsts(),
    );
    let rows =
        fetch(pool, WHAT, &sql, |query| cut.bind(query).bind(currency.map(|currency| currency.to_string()))).await?;
    let position = position(WHAT, cut, &rows)?;
    let mut currencies: Vec<(CurrencyBalances<M>, i128, i128)> = Vec::new();
    for row in &rows {
        let Some(line) = decoding(WHAT, || Turnover::read(row))? else { continue };
        if currencies.last().is_none_or(|(last, ..)| last.currency != line.currency) {
            let empty = CurrencyBalances {
                currency: line.currency.clone(),
                debits_minor: 0.into(),
                credits_minor: 0.into(),
                imbalance_minor: None,
                accounts: Vec::new(),
            };
            currencies.push((empty, 0, 0));
        }
        if let Some((last, debits, credits)) = currencies.last_mut() {
            // `numeric(38)` sums fit an i128, and so do their sums: 2^127 is beyond 10^38.
            *debits += line.debits;
            *credits += line.credits;
            last.accounts.push(AccountTurnover {
                account: line.account,
                debits_minor: line.debits.into(),
                credits_minor: line.credits.into(),
                balance_minor: (line.debits - line.credits).into(),
            });
        }
    }
    let currencies = currencies
        .into_iter()
        .map(|(currency, debits, credits)| CurrencyBalances {
            debits_minor: debits.into(),
            credits_minor: credits.into(),
            imbalance_minor: (debits != credits).then(|| (debits - credits).into()),
            ..currency
        })
        .collect();
    Ok(Read { position, value: TrialBalance { position, as_of: as_of.on_the_wire(), currencies, closing: None } })
}

/// Accounts with turnover, each in each of its currencies, in the order of their names.
///
/// A part may hold fewer than `limit` while more follow: what had no turnover yet as of then is left out.
///
/// # Errors
/// As [`trial_balance`].
pub async fn accounts<M: From<i128>>(
    pool: &PgPool,
    as_of: AsOf,
    by: By,
    after: Option<&AccountKey>,
    limit: u32,
) -> Result<Read<Slice<AccountBalance<M>, AccountKey>>, ReadError> {
    let found = balances_of(pool, "accounts", Cut { as_of, by }, None, after, i64::from(limit)).await?;
    let value = Slice { items: found.lines.into_iter().map(Turnover::balance).collect(), next: found.next };
    Ok(Read { position: found.position, value })
}

/// One account in all its currencies.
///
/// # Errors
/// As [`trial_balance`], and for an account to which nothing was ever posted.
pub async fn account<M: From<i128>>(
    pool: &PgPool,
    account: &Account,
    as_of: AsOf,
    by: By,
) -> Result<Read<AccountBalances<M>>, ReadError> {
    let found = balances_of(pool, "an account", Cut { as_of, by }, Some(account), None, i64::MAX).await?;
    if !found.any_key {
        return Err(ReadError::UnknownAccount(account.clone()));
    }
    let value = AccountBalances {
        account: account.to_string(),
        position: found.position,
        as_of: as_of.on_the_wire(),
        currencies: found.lines.into_iter().map(Turnover::balance).collect(),
    };
    Ok(Read { position: found.position, value })
}

struct Found {
    position: u64,
    any_key: bool,
    lines: Vec<Turnover>,
    next: Option<AccountKey>,
}

async fn balances_of(
    pool: &PgPool,
    what: &'static str,
    cut: Cut,
    account: Option<&Account>,
    after: Option<&AccountKey>,
    limit: i64,
) -> Result<Found, ReadError> {
    let sql = format!(
        "WITH RECURSIVE keys AS (
             SELECT t.account, t.currency, t.debits, t.credits, t.lines FROM read.balance_totals AS t
             WHERE ($2::text IS NULL OR t.account = $2) AND (t.account, t.currency) > ($3::text, $4::text)
             ORDER BY t.account, t.currency LIMIT $5::bigint
         ), {turnover}
         SELECT p.position::bigint AS position, {firsts},
                k.account::text AS key_account, k.currency::text AS key_currency,
                CASE WHEN t.debits IS NOT NULL THEN k.account END::text AS account, k.currency::text AS currency,
                t.debits::text AS debits, t.credits::text AS credits
         FROM read.positions AS p
         LEFT JOIN keys AS k ON true
         LEFT JOIN turnover AS t ON t.account = k.account AND t.currency = k.currency
         WHERE p.name = 'balances'
         ORDER BY k.account, k.currency",
        firsts = cut.firsts(),
        turnover = cut.turnover("$1"),
    );
    let rows = fetch(pool, what, &sql, |query| {
        cut.bind(query)
            .bind(account.map(ToString::to_string))
            .bind(after.map_or("", |key| &key.account))
            .bind(after.map_or("", |key| &key.currency))
            .bind(limit)
    })
    .await?;
    let position = position(what, cut, &rows)?;
    decoding(what, || {
        let keys: Vec<Option<String>> = rows.iter().map(|row| row.try_get("key_account")).collect::<Result<_, _>>()?;
        let full = i64::try_from(keys.iter().flatten().count()).is_ok_and(|keys| keys >= limit);
        let next = match (rows.last(), keys.last()) {
            (Some(row), Some(Some(account))) if full => {
                Some(AccountKey { account: account.clone(), currency: row.try_get("key_currency")? })
            }
            _ => None,
        };
        let lines = rows.iter().filter_map(|row| Turnover::read(row).transpose()).collect::<Result<_, _>>()?;
        Ok(Found { position, any_key: keys.iter().any(Option::is_some), lines, next })
    })
}

/// The position of the answer, and whether there can be one. Every statement here has at least one row, unless nobody has
/// built the projection.
fn position(what: &'static str, cut: Cut, rows: &[PgRow]) -> Result<u64, ReadError> {
    let row = rows.first().ok_or(ReadError::NotBuilt { what })?;
    let position = decoding(what, || query::unsigned(row, "position"))?;
    cut.check(what, row, position)?;
    Ok(position)
}

struct Turnover {
    account: String,
    currency: String,
    debits: i128,
    credits: i128,
}

impl Turnover {
    fn read(row: &PgRow) -> Result<Option<Self>, sqlx::Error> {
        let Some(account) = row.try_get("account")? else { return Ok(None) };
        let (debits, credits) = (integer(row, "debits")?, integer(row, "credits")?);
        Ok(Some(Self { account, currency: row.try_get("currency")?, debits, credits }))
    }

    fn balance<M: From<i128>>(self) -> AccountBalance<M> {
        AccountBalance {
            account: self.account,
            currency: self.currency,
            debits_minor: self.debits.into(),
            credits_minor: self.credits.into(),
            balance_minor: (self.debits - self.credits).into(),
        }
    }
}
