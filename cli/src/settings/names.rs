//! The names of all settings, and what is said of a name that is none.

/// What the name of each variable begins with.
const PREFIX: &str = "FANLEDGER_";

/// The contract's names, without [`PREFIX`].
pub(super) const NAMES: [&str; 31] = [
    "DATABASE_URL",
    "GATEWAY_DATABASE_URL",
    "COMMAND_DATABASE_URL",
    "PROJECTOR_DATABASE_URL",
    "OPERATOR_DATABASE_URL",
    "FINANCE_DATABASE_URL",
    "NATS_URL",
    "NATS_READER_URL",
    "LISTEN",
    "METRICS_LISTEN",
    "TRUSTED_HOPS",
    "RATE_LIMIT_PER_SECOND",
    "RATE_LIMIT_BURST",
    "IN_FLIGHT_MAX",
    "WEB_DIR",
    "STRIPE_WEBHOOK_SECRETS",
    "STRIPE_API_KEY",
    "STRIPE_API_BASE",
    "STRIPE_LIVEMODE",
    "GATEWAY_URL",
    "TOKEN",
    "JWT_KEY",
    "JWT_KEY_FILE",
    "VAULT_KEY",
    "CHECKPOINT_KEY",
    "OBJECT_STORE_URL",
    "DATA_DIR",
    "LOG",
    "ENV",
    // Read by the development kit, which looks at the environment itself.
    "POSTGRES_BIN",
    "NATS_BIN",
];

/// Variables of the build, of tests and their harness, which have nothing to say to a running program.
const OF_TESTS: [&str; 10] = [
    "CHROMIUM",
    "DEVKIT_OWNED",
    "FULL_COUNTS",
    "PROMTOOL",
    "SEED",
    "STRIPE_SDK",
    "STRIPE_SDK_PYTHON",
    // Whatever else begins so.
    "TEST_",
    "UPDATE_DOCS",
    "WASM_TOOLCHAIN",
];

/// A name that is less like any other than this is not worth a guess: it is most likely no slip of the fingers.
const LIKENESS_MIN_PERCENT: usize = 70;

/// Of the environment's `variables` those that look like settings and are none; a sentence each, in order of name.
pub(super) fn unknown(variables: impl Iterator<Item = String>) -> Vec<String> {
    let mut sentences: Vec<String> = variables
        .filter_map(|variable| {
            let name = variable.strip_prefix(PREFIX)?;
            let is_of_tests =
                OF_TESTS.iter().any(|known| *known == name || (known.ends_with('_') && name.starts_with(known)));
            if is_of_tests || NAMES.contains(&name) {
                return None;
            }
            let hint = hint(name, |meant| format!("{PREFIX}{meant}"));
            Some(format!("{variable} is set, and there is no such setting: it has no effect{hint}"))
        })
        .collect();
    sentences.sort();
    sentences
}

/// `; did you mean …?`, as `written`, where a setting has a name much like this one.
pub(super) fn hint(name: &str, written: impl Fn(&str) -> String) -> String {
    let likeness = |known: &str| {
        let longest = known.len().max(name.len());
        100 * (longest - strsim::damerau_levenshtein(known, name).min(longest)) / longest.max(1)
    };
    match NAMES.iter().map(|known| (likeness(known), known)).max_by_key(|(likeness, _)| *likeness) {
        Some((likeness, meant)) if likeness >= LIKENESS_MIN_PERCENT => format!("; did you mean {}?", written(meant)),
        Some(_) | None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_stands_in_the_readme() {
        let readme = include_str!("../../../README.md");
        let settings = readme.split("\n## Settings\n").nth(1).unwrap().split("\n## ").next().unwrap();
        let missing: Vec<&str> = NAMES.into_iter().filter(|name| !settings.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "README.md does not say what these are: {missing:?}");
    }

    #[test]
    fn a_variable_that_is_no_setting_is_named_with_what_was_meant() {
        let variables = [
            "FANLEDGER_LISTN",
            "FANLEDGER_LISTEN",
            "FANLEDGER_STRIPE_WEBHOOK_SECRET",
            "FANLEDGER_DATABSE_URL",
            "FANLEDGER_COLOUR",
            "FANLEDGER_TEST_POSTGRES",
            "FANLEDGER_FULL_COUNTS",
            "FANLEDGER",
            "PATH",
        ];
        let said = unknown(variables.into_iter().map(str::to_owned));
        let rest = " is set, and there is no such setting: it has no effect";
        assert_eq!(
            said,
            [
                format!("FANLEDGER_COLOUR{rest}"),
                format!("FANLEDGER_DATABSE_URL{rest}; did you mean FANLEDGER_DATABASE_URL?"),
                format!("FANLEDGER_LISTN{rest}; did you mean FANLEDGER_LISTEN?"),
                format!("FANLEDGER_STRIPE_WEBHOOK_SECRET{rest}; did you mean FANLEDGER_STRIPE_WEBHOOK_SECRETS?"),
            ]
        );
    }
}
