//! The single-page app. For now its first component, the trial balance, which finance's first page is built around; the pages,
//! routes and the build to wasm come with it.
//!
//! Invariant: holds no rule that the gateway does not enforce. Amounts come as strings of minor units and are shown with their
//! currency's decimals by the domain's own code, never by floating point.

use fanledger_domain::money::{Currency, Money};
use fanledger_gateway_api::{CurrencyBalances, TrialBalance};
use yew::prelude::*;

/// What the trial balance shows.
#[derive(Clone, PartialEq, Properties)]
pub struct TrialBalanceProps {
    /// As the gateway answered.
    pub balance: TrialBalance,
}

/// The trial balance: one table for each currency, debits and credits apart, as an accountant reads it.
#[component]
pub fn TrialBalanceTable(props: &TrialBalanceProps) -> Html {
    let balance = &props.balance;
    if balance.currencies.is_empty() {
        return html! { <p class="empty">{ "The ledger is empty. Balances appear with the first webhook." }</p> };
    }
    html! {
        <section aria-label="Trial balance">
            <p>{ format!("As of journal position {}.", balance.position) }</p>
            { for balance.currencies.iter().map(currency_table) }
        </section>
    }
}

fn currency_table(balances: &CurrencyBalances) -> Html {
    let code = balances.currency.clone();
    let rows = balances.accounts.iter().map(|account| {
        let minor = account.balance_minor.0;
        let (debit, credit) = if minor >= 0 { (Some(minor), None) } else { (None, Some(-minor)) };
        html! {
            <tr>
                <th scope="row">{ &account.account }</th>
                <td>{ debit.map(|minor| amount(minor, &code)).unwrap_or_default() }</td>
                <td>{ credit.map(|minor| amount(minor, &code)).unwrap_or_default() }</td>
            </tr>
        }
    });
    html! {
        <table>
            <caption>{ balances.currency.to_uppercase() }</caption>
            <thead><tr><th scope="col">{ "Account" }</th><th scope="col">{ "Debit" }</th><th scope="col">{ "Credit" }</th></tr></thead>
            <tbody>{ for rows }</tbody>
        </table>
    }
}

/// With the currency's decimals; as minor units where the currency is unknown or the amount beyond what one posting holds.
fn amount(minor: i128, currency: &str) -> String {
    match (i64::try_from(minor), currency.parse::<Currency>()) {
        (Ok(minor), Ok(currency)) => Money::new(minor, currency).to_string(),
        (Ok(_) | Err(_), _) => format!("{minor} {currency} (minor units)"),
    }
}

#[cfg(test)]
mod tests {
    use fanledger_gateway_api::{AccountTurnover, Minor};
    use yew::ServerRenderer;

    use super::*;

    fn rendered(balance: TrialBalance) -> impl Future<Output = String> {
        ServerRenderer::<TrialBalanceTable>::with_props(move || TrialBalanceProps { balance })
            .hydratable(false)
            .render()
    }

    #[tokio::test]
    async fn an_empty_ledger_says_so() {
        let html = rendered(TrialBalance { position: 0, as_of: None, currencies: vec![] }).await;
        assert!(html.contains("The ledger is empty"), "{html}");
    }

    #[tokio::test]
    async fn amounts_stand_on_their_side_with_their_currencys_decimals() {
        let account = |name: &str, minor: i128| AccountTurnover {
            account: name.to_owned(),
            debits_minor: Minor::from(minor.max(0)),
            credits_minor: Minor::from((-minor).max(0)),
            balance_minor: Minor::from(minor),
        };
        let balance = TrialBalance {
            position: 7,
            as_of: None,
            currencies: vec![CurrencyBalances {
                currency: "kwd".to_owned(),
                debits_minor: Minor::from(12_340),
                credits_minor: Minor::from(12_340),
                accounts: vec![account("assets:stripe:clearing", 12_340), account("income:platform-fees", -12_340)],
            }],
        };
        let html = rendered(balance).await;
        assert!(html.contains("<td>12.340 kwd</td><td></td>"), "{html}");
        assert!(html.contains("<td></td><td>12.340 kwd</td>"), "{html}");
        assert!(html.contains("As of journal position 7."), "{html}");
    }
}
