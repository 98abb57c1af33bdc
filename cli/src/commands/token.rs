//! `fanledger token mint`.

use std::time::Duration;

use clap::{Args, Subcommand};
use fanledger_domain::id::Subject;
use fanledger_gateway::auth::{self, JwtKey, Role, TokenError};
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::settings::{Need, Settings};

/// Tokens for the HTTP API.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Mint a token and print it, bare
    #[command(
        after_help = "Example:\n  curl -H \"authorization: Bearer $(fanledger token mint --role finance)\" \\\n    \
        http://127.0.0.1:8080/api/v1/ledger/trial-balance"
    )]
    Mint(MintArgs),
}

/// What the token says.
#[derive(Debug, Args)]
pub struct MintArgs {
    /// fan, creator, moderator, finance, operator or admin; may be repeated.
    #[arg(long = "role", required = true, value_parser = parse_role)]
    roles: Vec<Role>,
    /// Whom it speaks for.
    #[arg(long, default_value = "operator:cli", value_parser = parse_subject)]
    subject: String,
    /// How long it holds: 30s, 15m, 1h, 7d.
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
}

fn parse_role(text: &str) -> Result<Role, String> {
    Role::ALL.iter().copied().find(|role| role.as_str() == text).ok_or_else(|| {
        let names: Vec<_> = Role::ALL.iter().map(|role| role.as_str()).collect();
        format!("there is no role `{text}`: expected one of {}", names.join(", "))
    })
}

/// As the gateway takes it.
fn parse_subject(text: &str) -> Result<String, TokenError> {
    if text.parse::<Subject>().is_ok() { Ok(text.to_owned()) } else { Err(TokenError::Subject) }
}

/// `30s`, `15m`, `1h`, `7d`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let seconds_per_unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("expected a duration such as 30s, 15m, 1h or 7d".to_owned()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds_per_unit));
    match seconds {
        Some(seconds @ 1..=31_536_000) => Ok(Duration::from_secs(seconds)),
        Some(_) | None => Err("expected a duration from 1s to 365d".to_owned()),
    }
}

#[derive(Serialize)]
struct Minted {
    token: String,
}

/// Mints and prints.
///
/// # Errors
/// When there is no key to sign with.
pub fn run(command: TokenCommand, settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    let TokenCommand::Mint(args) = command;
    settings.require(&[Need::JwtKey])?;
    let key = JwtKey::new(settings.jwt_key()?.reveal().as_bytes())?;
    let token = auth::mint(&key, &args.roles, &args.subject, args.ttl)?;
    if output.is_json() {
        output.json(&Minted { token })?;
    } else {
        output.line(token)?;
    }
    Ok(Outcome::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_bounds() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "0", "h", "-1h", "1w", "400d", "1.5h", "99999999999999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
