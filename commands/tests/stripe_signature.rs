//! Our verdicts on `Stripe-Signature` headers against those of Stripe's own SDKs.
//!
//! `stripe_sdk/vectors.json` holds the webhooks (made by `make_vectors.py`), `stripe_sdk/verdicts.json` what the Python and Node
//! SDKs said of them, with the SDKs' versions. With `FANLEDGER_STRIPE_SDK=1` the SDKs are asked again; that needs `pip install
//! stripe` for `python3` (or `FANLEDGER_STRIPE_SDK_PYTHON`), and `npm install stripe` where `NODE_PATH` points.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic as the test may")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use fanledger_commands::stripe::signature::{Secret, verify};
use serde::Deserialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Accepted,
    Refused,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    header: Option<String>,
    secrets: Vec<String>,
    now: i64,
    body: Option<String>,
    body_hex: Option<String>,
    /// Where we knowingly decide otherwise, by a `rule`.
    ours: Option<Verdict>,
    rule: Option<String>,
}

#[derive(Deserialize)]
struct Sdk {
    sdk: String,
    verdicts: BTreeMap<String, Verdict>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stripe_sdk")
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(&std::fs::read_to_string(folder().join("vectors.json")).unwrap()).unwrap()
}

fn recorded() -> Vec<Sdk> {
    serde_json::from_str(&std::fs::read_to_string(folder().join("verdicts.json")).unwrap()).unwrap()
}

fn our_verdict(vector: &Vector) -> Verdict {
    let body = match (&vector.body, &vector.body_hex) {
        (Some(text), None) => text.clone().into_bytes(),
        (None, Some(digits)) => hex::decode(digits).unwrap(),
        (None, None) | (Some(_), Some(_)) => panic!("{} must have one body", vector.name),
    };
    let secrets: Vec<Secret> = vector.secrets.iter().map(|secret| Secret::new(secret).unwrap()).collect();
    match verify(vector.header.as_deref().map(str::as_bytes), &body, &secrets, vector.now) {
        Ok(()) => Verdict::Accepted,
        Err(_) => Verdict::Refused,
    }
}

/// Equal where the SDKs agree; refused where they do not; otherwise only by a rule that the vector names.
fn compare(sdks: &[Sdk]) {
    let vectors = vectors();
    assert!(vectors.len() > 80 && sdks.len() == 2);
    for vector in &vectors {
        let theirs: Vec<Verdict> = sdks.iter().map(|sdk| sdk.verdicts[&vector.name]).collect();
        let by_sdks = if theirs[0] == theirs[1] { theirs[0] } else { Verdict::Refused };
        match (vector.ours, &vector.rule) {
            (None, None) => assert_eq!(our_verdict(vector), by_sdks, "{}: the SDKs say {theirs:?}", vector.name),
            (Some(ours), Some(rule)) => assert_eq!(our_verdict(vector), ours, "{}: {rule}", vector.name),
            (None, Some(_)) | (Some(_), None) => {
                panic!("{}: a verdict of our own needs a rule, and a rule a verdict", vector.name)
            }
        }
    }
}

#[test]
fn our_verdicts_are_the_recorded_ones_of_stripes_sdks() {
    compare(&recorded());
}

#[test]
fn our_verdicts_are_those_of_the_sdks_that_are_installed() {
    if std::env::var_os("FANLEDGER_STRIPE_SDK").is_none() {
        println!("skipped: set FANLEDGER_STRIPE_SDK=1 to ask the SDKs themselves");
        return;
    }
    let python = std::env::var("FANLEDGER_STRIPE_SDK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let ask = |program: &str, script: &str| -> Sdk {
        let output = Command::new(program)
            .arg(script)
            .arg("vectors.json")
            .current_dir(folder())
            .output()
            .expect("the SDK's interpreter runs");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("the script prints verdicts")
    };
    let sdks = [ask(&python, "verdicts.py"), ask("node", "verdicts.cjs")];
    for (asked, recorded) in sdks.iter().zip(recorded()) {
        println!("asked {}, recorded {}", asked.sdk, recorded.sdk);
        assert_eq!(
            asked.verdicts, recorded.verdicts,
            "{} says otherwise than {}: record it anew",
            asked.sdk, recorded.sdk
        );
    }
    compare(&sdks);
}
