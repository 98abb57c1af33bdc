use super::*;

fn environment(pairs: &[(&'static str, &str)]) -> BTreeMap<&'static str, String> {
    pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

#[test]
fn the_environment_wins_over_the_file() {
    let file =
        "listen = \"127.0.0.1:1000\"\nstripe_livemode = true\nstripe_webhook_secrets = [\"whsec_0123456789abcdef\"]\n";
    let settings = Settings::parse(file, environment(&[("LISTEN", "127.0.0.1:2000")])).unwrap();
    assert_eq!(settings.listen, Some("127.0.0.1:2000".parse().unwrap()));
    assert!(settings.stripe_livemode);
    assert_eq!(settings.webhook_secrets[0].reveal(), "whsec_0123456789abcdef");
}

#[test]
fn every_bad_value_is_named_at_once_and_no_secret_is_shown() {
    let bad = environment(&[
        ("LISTEN", "everywhere"),
        ("DATABASE_URL", "mysql://root:hunter2@db/x"),
        ("JWT_KEY", "hunter2"),
        ("VAULT_KEY", "hunter2"),
        ("STRIPE_API_BASE", "https://api.stripe.com/v1"),
        ("STRIPE_WEBHOOK_SECRETS", "hunter2"),
        ("STRIPE_LIVEMODE", "perhaps"),
        ("ENV", "staging"),
        ("TRUSTED_HOPS", "-1"),
        ("RATE_LIMIT_PER_SECOND", "0"),
        ("RATE_LIMIT_BURST", "1.5"),
        ("IN_FLIGHT_MAX", "many"),
    ]);
    let error = Settings::parse("wings = 2", bad).unwrap_err();
    assert_eq!(error.problems.len(), 13, "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn a_key_of_the_file_that_is_no_setting_is_named_with_what_was_meant() {
    let error = Settings::parse("listn = \"127.0.0.1:80\"\nwings = 2\n", BTreeMap::new()).unwrap_err();
    assert_eq!(
        error.problems,
        [
            "fanledger.toml: there is no setting `listn`; did you mean listen?",
            "fanledger.toml: there is no setting `wings`",
        ]
    );
}

#[test]
fn a_broken_file_is_placed_and_not_quoted() {
    let error = Settings::parse("listen = \"127.0.0.1:80\"\njwt_key = hunter2\n", BTreeMap::new()).unwrap_err();
    assert_eq!(error.problems, ["fanledger.toml is not valid TOML near line 2"]);
}

#[test]
fn production_makes_nothing_up() {
    let settings = Settings::parse("env = \"production\"", BTreeMap::new()).unwrap();
    let needs = [
        Need::Database(Role::Gateway),
        Need::Nats,
        Need::WebhookSecrets,
        Need::JwtKey,
        Need::VaultKey,
        Need::CheckpointKey,
        Need::Livemode,
    ];
    assert_eq!(settings.require(&needs).unwrap_err().problems.len(), needs.len());
    assert!(matches!(settings.jwt_key(), Err(KeyError::Refused { setting: "JWT_KEY" })));
    assert!(matches!(settings.webhook_secrets(), Err(KeyError::Refused { .. })));
}

#[test]
fn development_keys_are_made_once_and_are_their_owner_s_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = std::env::temp_dir().join(format!("fanledger-settings-{}", uuid::Uuid::now_v7()));
    let settings = Settings::parse("", environment(&[("DATA_DIR", dir.to_str().unwrap())])).unwrap();
    assert_eq!(settings.vault_key().unwrap(), settings.vault_key().unwrap());
    assert_eq!(settings.jwt_key().unwrap(), settings.jwt_key().unwrap());
    // Whoever only checks signatures makes no key; once there is one, it is found.
    assert_eq!(settings.checkpoint_key_if_known().unwrap(), None);
    assert_ne!(settings.vault_key().unwrap(), settings.checkpoint_key().unwrap());
    assert_eq!(settings.checkpoint_key_if_known().unwrap(), Some(settings.checkpoint_key().unwrap()));
    assert!(settings.webhook_secrets().unwrap()[0].reveal().starts_with("whsec_"));
    let mode = std::fs::metadata(dir.join("keys/vault")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn roles_have_their_own_login_or_one_derived_from_the_superuser_s() {
    let settings = Settings::parse(
        "",
        environment(&[
            ("DATABASE_URL", "postgres://postgres:secret@127.0.0.1:5432/fanledger"),
            ("COMMAND_DATABASE_URL", "postgres://someone:else@db/fanledger"),
        ]),
    )
    .unwrap();
    assert_eq!(settings.database_url_for(Role::Command).unwrap(), "postgres://someone:else@db/fanledger");
    assert!(settings.database_url_for(Role::Gateway).unwrap().starts_with("postgres://fanledger_gateway:"));
    assert!(!format!("{settings:?}").contains("secret@"));
}

#[test]
fn a_running_dev_s_servers_are_never_production_s() {
    let url = || "postgres://u:p@127.0.0.1:1/d".to_owned();
    let running = DevState {
        pid: 1,
        database_url: url(),
        superuser_url: url(),
        nats_url: "nats://127.0.0.1:1".to_owned(),
        nats_reader_url: "nats://127.0.0.1:1".to_owned(),
        gateway_url: "http://127.0.0.1:1".to_owned(),
        metrics_url: "http://127.0.0.1:1".to_owned(),
        stripe_api_base: "http://127.0.0.1:1".to_owned(),
        stripe_api_key: Some("sk_test_stand_in".to_owned()),
        stand_in: true,
    };
    let adopted = |file: &str| {
        let mut settings = Settings::parse(file, BTreeMap::new()).unwrap();
        settings.adopt(Some(running.clone()));
        settings
    };
    assert!(adopted("").require(&[Need::Superuser, Need::Nats]).is_ok());
    let production = adopted("env = \"production\"");
    assert_eq!(production.require(&[Need::Superuser, Need::Nats]).unwrap_err().problems.len(), 2);
    assert!(production.stripe_api_base.is_none() && production.stripe_api_key.is_none() && production.dev.is_none());
}
