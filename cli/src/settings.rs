//! One typed struct of settings from `fanledger.toml` and the environment, which wins.
//!
//! Every bad value is named at once, and so is every missing one that a command needs ([`Settings::require`]).
//! Architecture Invariant: a secret is a [`Secret`], whose `Debug` says nothing; no error here quotes a value of one.

mod keys;
mod names;

use std::collections::BTreeMap;
use std::env::VarError;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use base64::Engine;
use fanledger_journal::database::{Role, role_url};

use crate::state::DevState;

pub use keys::KeyError;
use names::NAMES;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for whoever must use it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Where this runs, which decides whether development defaults are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// A laptop, a test: keys are made where none are given.
    Development,
    /// Nothing is made up.
    Production,
}

/// What a command cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A login for this role: its own URL, or the superuser's to derive it from.
    Database(Role),
    /// The superuser's URL itself, for migrations.
    Superuser,
    /// NATS.
    Nats,
    /// At least one secret that Stripe signs webhooks with.
    WebhookSecrets,
    /// What tokens are signed with.
    JwtKey,
    /// What the keys of raw events are wrapped with.
    VaultKey,
    /// What checkpoints of the journal are signed with.
    CheckpointKey,
    /// Which of Stripe's modes is ours, said and not assumed: events of the other one are never booked.
    Livemode,
}

/// Everything that can be set. Units and forms are at each field; names are the contract's, lowercase in `fanledger.toml`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `ENV`: `development` or `production`.
    pub environment: Environment,
    /// `DATA_DIR`: where `dev` keeps its servers, keys and state.
    pub data_dir: PathBuf,
    /// `DATABASE_URL`: a superuser's in development; in production it may be absent where each role has its own.
    pub database_url: Option<Secret>,
    /// `GATEWAY_DATABASE_URL` and so on, by role.
    role_database_urls: BTreeMap<&'static str, Secret>,
    /// `NATS_URL`, as the relay's user.
    pub nats_url: Option<Secret>,
    /// `NATS_READER_URL`: NATS as a user that may only subscribe; the relay's where absent.
    pub nats_reader_url: Option<Secret>,
    /// `LISTEN`: where the gateway listens; `None` is the default, which `dev` may move when it is taken.
    pub listen: Option<SocketAddr>,
    /// `METRICS_LISTEN`, likewise.
    pub metrics_listen: Option<SocketAddr>,
    /// `TRUSTED_HOPS`: how many proxies before the gateway append to `X-Forwarded-For`; none where absent.
    pub trusted_hops: Option<usize>,
    /// `RATE_LIMIT_PER_SECOND`: requests of one client under `/api/v1`; the gateway's default where absent, as of the next two.
    pub rate_limit_per_second: Option<u32>,
    /// `RATE_LIMIT_BURST`: at once, after a pause.
    pub rate_limit_burst: Option<u32>,
    /// `IN_FLIGHT_MAX`: requests under way under `/api/v1`, of all clients.
    pub in_flight_max: Option<usize>,
    /// `WEB_DIR`: where `cargo xtask web` put the web app; without it the gateway serves no pages, except under `dev`.
    pub web_dir: Option<PathBuf>,
    /// `GATEWAY_URL`: where commands find the gateway; the running `dev`'s where absent.
    gateway_url: Option<String>,
    /// `TOKEN`: who acts through the gateway, where a command is not told.
    pub token: Option<Secret>,
    /// `STRIPE_WEBHOOK_SECRETS`, used as written, `whsec_` included.
    pub webhook_secrets: Vec<Secret>,
    /// `STRIPE_API_KEY`; without it balance transactions known by id alone are awaited.
    pub stripe_api_key: Option<Secret>,
    /// `STRIPE_API_BASE`, without `/v1`.
    pub stripe_api_base: Option<String>,
    /// `STRIPE_LIVEMODE`; events of the other mode are stored and not translated.
    pub stripe_livemode: bool,
    livemode_is_set: bool,
    jwt_key: Option<Secret>,
    vault_key: Option<[u8; 32]>,
    checkpoint_key: Option<[u8; 32]>,
    /// `OBJECT_STORE_URL`.
    pub object_store_url: Option<String>,
    /// `LOG`: a filter such as `info,fanledger_journal=debug`.
    pub log: Option<String>,
    /// What `fanledger dev` over the same data directory left for us, while it runs.
    pub dev: Option<DevState>,
    /// Variables of the environment that look like settings and are none, each with the name that may have been meant.
    pub unknown: Vec<String>,
}

/// Every bad or missing setting at once.
#[derive(Debug, thiserror::Error)]
#[error("{} to mend, in the environment or in fanledger.toml:{}", count(.problems.len()), list(.problems))]
pub struct SettingsError {
    /// One sentence each.
    pub problems: Vec<String>,
}

fn count(n: usize) -> String {
    if n == 1 { "one setting".to_owned() } else { format!("{n} settings") }
}

fn list(problems: &[String]) -> String {
    problems.iter().map(|problem| format!("\n  - {problem}")).collect()
}

/// The gateway's address where none is set.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// The address of `/metrics` where none is set.
pub const METRICS_LISTEN_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464);

/// The setting that names a role's own login.
const fn role_setting(role: Role) -> &'static str {
    match role {
        Role::Gateway => "GATEWAY_DATABASE_URL",
        Role::Command => "COMMAND_DATABASE_URL",
        Role::Projector => "PROJECTOR_DATABASE_URL",
        Role::Operator => "OPERATOR_DATABASE_URL",
        Role::Finance => "FINANCE_DATABASE_URL",
    }
}

impl Settings {
    /// Reads the text of the file that was named, else `fanledger.toml`, the process's environment, and what a running
    /// `fanledger dev` left in the data directory.
    ///
    /// # Errors
    /// Names every value that is bad, and what cannot be read.
    pub fn load(named: Option<&str>) -> Result<Self, SettingsError> {
        let mut problems = Vec::new();
        let mut environment = BTreeMap::new();
        for name in NAMES {
            match std::env::var(format!("FANLEDGER_{name}")) {
                Ok(value) if !value.is_empty() => drop(environment.insert(name, value)),
                Ok(_) | Err(VarError::NotPresent) => {}
                // Guessing at what was meant would be to run with another setting.
                Err(VarError::NotUnicode(_)) => problems.push(format!("FANLEDGER_{name} is not text in UTF-8")),
            }
        }
        let text = match named.map_or_else(|| std::fs::read_to_string("fanledger.toml"), |text| Ok(text.to_owned())) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            // One that is there and cannot be read says something that would not be done.
            Err(error) => {
                problems.push(format!("fanledger.toml cannot be read: {error}"));
                String::new()
            }
        };
        let mut settings = match Self::parse(&text, environment) {
            Ok(settings) if problems.is_empty() => settings,
            Ok(_) => return Err(SettingsError { problems }),
            Err(error) => {
                problems.extend(error.problems);
                return Err(SettingsError { problems });
            }
        };
        settings.unknown = names::unknown(std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()));
        settings.adopt(DevState::of_running(&settings.data_dir));
        Ok(settings)
    }

    /// Fills what is not set from a running `fanledger dev`: development defaults, so none of them counts in production.
    fn adopt(&mut self, running: Option<DevState>) {
        self.dev = running.filter(|_| self.environment == Environment::Development);
        if let Some(dev) = &self.dev {
            self.database_url.get_or_insert_with(|| Secret::new(dev.superuser_url.clone()));
            self.nats_url.get_or_insert_with(|| Secret::new(dev.nats_url.clone()));
            self.nats_reader_url.get_or_insert_with(|| Secret::new(dev.nats_reader_url.clone()));
            self.stripe_api_base.get_or_insert_with(|| dev.stripe_api_base.clone());
            if self.stripe_api_key.is_none() {
                self.stripe_api_key = dev.stripe_api_key.clone().map(Secret::new);
            }
        }
    }

    /// Reads the two sources as given; the environment by names without `FANLEDGER_`.
    ///
    /// # Errors
    /// Names every value that is bad.
    pub fn parse(file: &str, environment: BTreeMap<&'static str, String>) -> Result<Self, SettingsError> {
        let mut reader = Reader { values: environment, problems: Vec::new() };
        reader.add_file(file);
        let settings = Self {
            livemode_is_set: reader.values.contains_key("STRIPE_LIVEMODE"),
            environment: reader
                .read("ENV", "`development` or `production`", |text| match text {
                    "development" | "test" => Some(Environment::Development),
                    "production" => Some(Environment::Production),
                    _ => None,
                })
                .unwrap_or(Environment::Development),
            data_dir: reader.text("DATA_DIR").map_or_else(|| PathBuf::from(".fanledger"), PathBuf::from),
            database_url: reader.database_url("DATABASE_URL"),
            role_database_urls: Role::ALL
                .into_iter()
                .map(role_setting)
                .filter_map(|name| Some((name, reader.database_url(name)?)))
                .collect(),
            nats_url: reader.nats_url("NATS_URL"),
            nats_reader_url: reader.nats_url("NATS_READER_URL"),
            web_dir: reader.text("WEB_DIR").map(PathBuf::from),
            gateway_url: reader.read("GATEWAY_URL", "an http or https URL such as http://127.0.0.1:8080", |text| {
                let url = text.trim_end_matches('/');
                (url.starts_with("http://") || url.starts_with("https://")).then(|| url.to_owned())
            }),
            // From a file it comes with the file's line end.
            token: reader.text("TOKEN").map(|token| Secret::new(token.trim().to_owned())),
            listen: reader.read("LISTEN", "an address such as 127.0.0.1:8080", |text| text.parse().ok()),
            metrics_listen: reader
                .read("METRICS_LISTEN", "an address such as 127.0.0.1:9464", |text| text.parse().ok()),
            trusted_hops: reader.read("TRUSTED_HOPS", "a number of proxies from 0 to 16", |text| {
                text.parse().ok().filter(|hops| *hops <= 16)
            }),
            rate_limit_per_second: reader.read("RATE_LIMIT_PER_SECOND", "a number from 1 to 1000000", at_least_one),
            rate_limit_burst: reader.read("RATE_LIMIT_BURST", "a number from 1 to 1000000", at_least_one),
            in_flight_max: reader
                .read("IN_FLIGHT_MAX", "a number from 1 to 1000000", |text| at_least_one(text).map(|max| max as usize)),
            webhook_secrets: reader
                .read(
                    "STRIPE_WEBHOOK_SECRETS",
                    "one or more secrets of at least 16 characters, separated by commas",
                    |text| {
                        let secrets: Vec<_> = text.split(',').map(str::trim).map(str::to_owned).collect();
                        secrets
                            .iter()
                            .all(|secret| secret.len() >= 16)
                            .then(|| secrets.into_iter().map(Secret::new).collect())
                    },
                )
                .unwrap_or_default(),
            stripe_api_key: reader.text("STRIPE_API_KEY").map(Secret::new),
            stripe_api_base: reader.read("STRIPE_API_BASE", "an http or https URL without /v1", |text| {
                let base = text.trim_end_matches('/');
                let valid = (base.starts_with("http://") || base.starts_with("https://")) && !base.ends_with("/v1");
                valid.then(|| base.to_owned())
            }),
            stripe_livemode: reader
                .read("STRIPE_LIVEMODE", "`true` or `false`", |text| match text {
                    "true" | "1" => Some(true),
                    "false" | "0" => Some(false),
                    _ => None,
                })
                .unwrap_or(false),
            jwt_key: reader.jwt_key(),
            vault_key: reader.read("VAULT_KEY", "32 bytes in hex or base64", key_bytes),
            checkpoint_key: reader.read("CHECKPOINT_KEY", "an Ed25519 seed: 32 bytes in hex or base64", key_bytes),
            object_store_url: reader.read("OBJECT_STORE_URL", "file:///… or s3://bucket", |text| {
                (text.starts_with("file:///") || text.starts_with("s3://")).then(|| text.to_owned())
            }),
            log: reader.text("LOG"),
            dev: None,
            unknown: Vec::new(),
        };
        if reader.problems.is_empty() { Ok(settings) } else { Err(SettingsError { problems: reader.problems }) }
    }

    /// Names every one of `needs` that is missing. In development, keys that can be made are never missing.
    ///
    /// # Errors
    /// One problem for each missing setting.
    pub fn require(&self, needs: &[Need]) -> Result<(), SettingsError> {
        let problems: Vec<String> = needs.iter().filter_map(|need| self.missing(*need)).collect();
        if problems.is_empty() { Ok(()) } else { Err(SettingsError { problems }) }
    }

    fn missing(&self, need: Need) -> Option<String> {
        let made_here = self.environment == Environment::Development;
        let no_dev = || {
            if made_here {
                format!(", or start `fanledger dev` with the same FANLEDGER_DATA_DIR ({})", self.data_dir.display())
            } else {
                String::new()
            }
        };
        match need {
            Need::Database(role) => (self.database_url.is_none() && !self.role_database_urls.contains_key(role_setting(role)))
                .then(|| {
                    format!("FANLEDGER_{} (or FANLEDGER_DATABASE_URL) is missing: set it{}", role_setting(role), no_dev())
                }),
            Need::Superuser => {
                self.database_url.is_none().then(|| format!("FANLEDGER_DATABASE_URL is missing: set it{}", no_dev()))
            }
            Need::Nats => self.nats_url.is_none().then(|| format!("FANLEDGER_NATS_URL is missing: set it{}", no_dev())),
            Need::WebhookSecrets => (self.webhook_secrets.is_empty() && !made_here).then(|| {
                "FANLEDGER_STRIPE_WEBHOOK_SECRETS is missing: copy the endpoint's signing secret from Stripe's dashboard"
                    .to_owned()
            }),
            Need::JwtKey => (self.jwt_key.is_none() && !made_here)
                .then(|| "FANLEDGER_JWT_KEY (or _FILE) is missing: at least 32 random bytes, `openssl rand -hex 32`".to_owned()),
            Need::VaultKey => (self.vault_key.is_none() && !made_here)
                .then(|| "FANLEDGER_VAULT_KEY is missing: 32 random bytes in hex, `openssl rand -hex 32`".to_owned()),
            Need::Livemode => (!self.livemode_is_set && !made_here).then(|| {
                "FANLEDGER_STRIPE_LIVEMODE is missing: `true` for real money; events of the other mode are stored and never booked"
                    .to_owned()
            }),
            Need::CheckpointKey => (self.checkpoint_key.is_none() && !made_here)
                .then(|| "FANLEDGER_CHECKPOINT_KEY is missing: 32 random bytes in hex, `openssl rand -hex 32`".to_owned()),
        }
    }

    /// The login of one role.
    ///
    /// # Errors
    /// When there is neither its own URL nor one to derive it from.
    pub fn database_url_for(&self, role: Role) -> Result<String, SettingsError> {
        if let Some(url) = self.role_database_urls.get(role_setting(role)) {
            return Ok(url.reveal().to_owned());
        }
        self.require(&[Need::Database(role)])?;
        let url = self.database_url.as_ref().map_or("", Secret::reveal);
        role_url(url, role)
            .map_err(|error| SettingsError { problems: vec![format!("FANLEDGER_DATABASE_URL: {error}")] })
    }

    /// Where the gateway is to be reached: where it is said to be, else the running `dev`'s, else where it would listen.
    pub fn gateway_url(&self) -> String {
        match (&self.gateway_url, &self.dev) {
            (Some(url), _) => url.clone(),
            (None, Some(dev)) => dev.gateway_url.clone(),
            (None, None) => format!("http://{}", self.listen.unwrap_or(LISTEN_DEFAULT)),
        }
    }

    /// What tokens are signed with; made and kept in the data directory in development.
    ///
    /// # Errors
    /// When it is missing in production, or cannot be kept.
    pub fn jwt_key(&self) -> Result<Secret, KeyError> {
        match &self.jwt_key {
            Some(key) => Ok(key.clone()),
            None => self.made("jwt", "JWT_KEY").map(Secret::new),
        }
    }

    /// What the keys of raw events are wrapped with, likewise.
    ///
    /// # Errors
    /// As [`Settings::jwt_key`].
    pub fn vault_key(&self) -> Result<[u8; 32], KeyError> {
        match self.vault_key {
            Some(key) => Ok(key),
            None => keys::parse(&self.made("vault", "VAULT_KEY")?, "vault"),
        }
    }

    /// The Ed25519 seed that checkpoints are signed with, likewise.
    ///
    /// # Errors
    /// As [`Settings::jwt_key`].
    pub fn checkpoint_key(&self) -> Result<[u8; 32], KeyError> {
        match self.checkpoint_key {
            Some(key) => Ok(key),
            None => keys::parse(&self.made("checkpoint", "CHECKPOINT_KEY")?, "checkpoint"),
        }
    }

    /// The same where there is one already: whoever only checks signatures must not make a key that nobody signed with.
    ///
    /// # Errors
    /// When the kept one cannot be read.
    pub fn checkpoint_key_if_known(&self) -> Result<Option<[u8; 32]>, KeyError> {
        let is_kept = self.environment == Environment::Development && keys::is_kept(&self.data_dir, "checkpoint");
        if self.checkpoint_key.is_some() || is_kept { self.checkpoint_key().map(Some) } else { Ok(None) }
    }

    /// The secrets that webhooks may be signed with; one is made in development where none is set.
    ///
    /// # Errors
    /// As [`Settings::jwt_key`].
    pub fn webhook_secrets(&self) -> Result<Vec<Secret>, KeyError> {
        if self.webhook_secrets.is_empty() {
            Ok(vec![Secret::new(format!("whsec_{}", self.made("webhook", "STRIPE_WEBHOOK_SECRETS")?))])
        } else {
            Ok(self.webhook_secrets.clone())
        }
    }

    fn made(&self, name: &'static str, setting: &'static str) -> Result<String, KeyError> {
        match self.environment {
            Environment::Development => keys::kept(&self.data_dir, name),
            Environment::Production => Err(KeyError::Refused { setting }),
        }
    }
}

/// A bound. More than a million bounds nothing.
fn at_least_one(text: &str) -> Option<u32> {
    text.parse().ok().filter(|bound| (1..=1_000_000).contains(bound))
}

/// 32 bytes from hex or base64.
pub(crate) fn key_bytes(text: &str) -> Option<[u8; 32]> {
    let bytes = match hex::decode(text) {
        Ok(bytes) => bytes,
        Err(_) => base64::engine::general_purpose::STANDARD.decode(text).ok()?,
    };
    bytes.try_into().ok()
}

struct Reader {
    values: BTreeMap<&'static str, String>,
    problems: Vec<String>,
}

impl Reader {
    fn add_file(&mut self, text: &str) {
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                // The message quotes the line, which may hold a secret; its place is enough.
                let place = toml::de::Error::span(&error)
                    .map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
                self.problems.push(format!("fanledger.toml is not valid TOML near line {place}"));
                return;
            }
        };
        for (key, value) in table {
            let Some(name) = NAMES.iter().find(|name| name.to_ascii_lowercase() == key) else {
                let hint = names::hint(&key.to_ascii_uppercase(), str::to_ascii_lowercase);
                self.problems.push(format!("fanledger.toml: there is no setting `{key}`{hint}"));
                continue;
            };
            match plain_text(&value) {
                Some(text) => {
                    self.values.entry(name).or_insert(text);
                }
                None => self
                    .problems
                    .push(format!("fanledger.toml: `{key}` must be a text, a number, a boolean or a list of texts")),
            }
        }
    }

    fn text(&self, name: &'static str) -> Option<String> {
        self.values.get(name).cloned()
    }

    fn read<T>(&mut self, name: &'static str, form: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.values.get(name)?;
        let value = parse(text.trim());
        if value.is_none() {
            self.problems.push(format!("FANLEDGER_{name} must be {form}"));
        }
        value
    }

    fn database_url(&mut self, name: &'static str) -> Option<Secret> {
        self.read(name, "of the form postgres://user:password@host:port/database", |text| {
            let valid = text.starts_with("postgres://") || text.starts_with("postgresql://");
            (valid && text.contains('@')).then(|| Secret::new(text.to_owned()))
        })
    }

    fn nats_url(&mut self, name: &'static str) -> Option<Secret> {
        self.read(name, "of the form nats://[user:password@]host:port", |text| {
            (text.starts_with("nats://") || text.starts_with("tls://")).then(|| Secret::new(text.to_owned()))
        })
    }

    fn jwt_key(&mut self) -> Option<Secret> {
        let key = match (self.text("JWT_KEY"), self.text("JWT_KEY_FILE")) {
            (Some(key), _) => key,
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) => text.trim_end().to_owned(),
                Err(error) => {
                    self.problems.push(format!("FANLEDGER_JWT_KEY_FILE {path}: {error}"));
                    return None;
                }
            },
            (None, None) => return None,
        };
        if key.len() < 32 {
            self.problems.push("FANLEDGER_JWT_KEY must be at least 32 bytes long".to_owned());
            return None;
        }
        Some(Secret::new(key))
    }
}

fn plain_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Array(items) => {
            items.iter().map(toml::Value::as_str).collect::<Option<Vec<_>>>().map(|texts| texts.join(","))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests;
