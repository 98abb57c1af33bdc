//! A running system, and people with tokens.

use serde_json::Value;

use super::load::{Gateways, Load};
use super::{Finished, Process, Site, finish, gateway_url};

/// Every role in one process, over servers of its own.
pub struct Platform {
    pub site: Site,
    pub all: Process,
    pub url: String,
}

impl Platform {
    pub async fn start(balance_transactions: &[Value]) -> Self {
        let site = Site::start().await;
        site.stand_in.put_all(balance_transactions.iter().cloned());
        let mut all = site.role("all");
        let url = gateway_url(&mut all).await;
        Self { site, all, url }
    }

    pub async fn token(&self, role: &str, person: &str) -> String {
        let minted = finish(self.site.command(["token", "mint", "--role", role, "--subject", person])).await;
        assert_eq!(minted.code, 0, "{}", minted.stderr);
        minted.stdout.trim().to_owned()
    }

    /// Runs a tool as a person of finance.
    pub async fn as_finance(&self, person: &str, arguments: &[&str]) -> Finished {
        let mut command = self.site.command(arguments);
        command.env("FANLEDGER_GATEWAY_URL", &self.url).env("FANLEDGER_TOKEN", self.token("finance", person).await);
        finish(command).await
    }

    /// Runs a tool that needs no token, for people to read.
    pub async fn run(&self, line: &str) -> Finished {
        finish(self.site.command(line.split_whitespace())).await
    }

    /// What such a tool answers to a program.
    pub async fn json(&self, line: &str) -> Value {
        self.site.run(line).await.json(0)
    }

    /// Sends webhooks, and waits until all that follows from them is read.
    pub async fn receive(&self, events: &[Value]) {
        let sent = Load::start(events, Gateways::new(vec![self.url.clone()].into())).finish().await;
        self.site.read(sent.positions.values().copied().max().unwrap()).await;
    }
}
