//! Checkpoints in a store that speaks S3: moto's server (<https://docs.getmoto.org>), from PyPI, as a process of its own.
//!
//! It is fetched once, with what it needs, beside the other programs of the tests. Where it cannot be had, the test says so.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::path::PathBuf;

use e2e::load::{Gateways, Load};
use e2e::{Finished, Process, Site, finish, gateway_url};
use fanledger_devkit::history;
use fanledger_devkit::servers::default_bin_dir;
use reqwest::StatusCode;
use tokio::process::Command;

/// What is fetched. Its other extras (a server for all of AWS) are twice the size.
const MOTO: &[&str] = &["moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5"];
const MOTO_DIRECTORY: &str = "moto-5.2.5";
const BUCKET: &str = "audit";

/// A server that speaks S3, with one empty bucket.
struct S3 {
    server: Process,
    url: String,
}

impl S3 {
    /// Or why it cannot be had.
    async fn start() -> Result<Self, String> {
        let mut command = Command::new("python3");
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]).env("PYTHONPATH", fetched().await?);
        let mut server = Process::spawn("moto", command);
        let url = server.printed(|line| Some(line.split_once("Running on ")?.1.trim().to_owned())).await;
        let made = reqwest::Client::new().put(format!("{url}/{BUCKET}")).send().await.unwrap();
        assert_eq!(made.status(), StatusCode::OK);
        Ok(Self { server, url })
    }

    /// Runs `fanledger` with this store, as with one of a cloud's.
    async fn run(&self, site: &Site, store: &str, line: &str) -> Finished {
        let mut command = site.command(line.split_whitespace().chain(["--json"]));
        command.env("FANLEDGER_OBJECT_STORE_URL", store).envs([
            ("AWS_ENDPOINT_URL", self.url.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "of-the-test"),
            ("AWS_SECRET_ACCESS_KEY", "of-the-test"),
        ]);
        finish(command).await
    }

    async fn object(&self, url: &str) -> String {
        let path = url.strip_prefix("s3://").unwrap();
        // Who comes without an authorization is turned away; whether it is a right one, moto does not ask.
        let authorization = "AWS4-HMAC-SHA256 Credential=of-the-test/20260101/eu-central-1/s3/aws4_request, \
                             SignedHeaders=host, Signature=0";
        let request = reqwest::Client::new().get(format!("{}/{path}", self.url));
        let answer = request.header("authorization", authorization).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{url}");
        answer.text().await.unwrap()
    }
}

/// The folder of the modules, which appears whole or not at all.
async fn fetched() -> Result<PathBuf, String> {
    let folder = default_bin_dir().join(MOTO_DIRECTORY);
    if folder.is_dir() {
        return Ok(folder);
    }
    let part = folder.with_extension(uuid::Uuid::now_v7().to_string());
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts", "--target"]);
    let output = pip.arg(&part).args(MOTO).output().await.map_err(|error| format!("python3: {error}"))?;
    if !output.status.success() {
        std::fs::remove_dir_all(&part).ok();
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    // Another run may have been first.
    if std::fs::rename(&part, &folder).is_err() {
        std::fs::remove_dir_all(&part).unwrap();
    }
    Ok(folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_kept_in_a_store_that_speaks_s3_and_verified_against_from_there() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let s3 = match S3::start().await {
        Ok(s3) => s3,
        Err(missing) => return println!("NOT RUN: moto cannot be had from PyPI: {missing}"),
    };
    let site = Site::start().await;
    let history = history::random(3, 12);
    let (first, second) = history.events.split_at(history.events.len() / 2);
    let mut gateway = site.role("gateway");
    let gateways = Gateways::new(vec![gateway_url(&mut gateway).await].into());
    Load::start(first, gateways.clone()).finish().await;

    let store = format!("s3://{BUCKET}/of-today");
    let checkpoint = async || s3.run(&site, &store, "journal checkpoint").await;
    let kept = checkpoint().await.json(0);
    let (kept, size) = (kept["kept_at"].as_str().unwrap().to_owned(), kept["size"].as_u64().unwrap());
    assert_eq!(size, site.head().await);
    assert!(kept.starts_with(&format!("{store}/checkpoints/")), "{kept}");
    assert!(kept.ends_with(&format!("{size:020}.checkpoint")), "{kept}");
    let text = s3.object(&kept).await;
    assert_eq!(text.lines().nth(1), Some(size.to_string().as_str()), "{text}");
    assert_eq!(checkpoint().await.json(0)["kept_at"], kept.as_str(), "the same one again is no change");
    s3.run(&site, &store, &format!("journal verify --against {kept}")).await.json(0);

    // A longer journal gets another object; both hold, and the first is as it was.
    Load::start(second, gateways).finish().await;
    assert!(gateway.terminate().await.success());
    let longer = checkpoint().await.json(0)["kept_at"].as_str().unwrap().to_owned();
    assert_ne!(longer, kept);
    for against in [&kept, &longer] {
        s3.run(&site, &store, &format!("journal verify --against {against}")).await.json(0);
    }
    assert_eq!(s3.object(&kept).await, text);

    // The journal loses what the store knows of.
    let superuser = site.superuser().await;
    sqlx::raw_sql(&format!(
        "ALTER TABLE journal.events DISABLE TRIGGER guard; ALTER TABLE journal.batches DISABLE TRIGGER guard; \
         DELETE FROM journal.events WHERE position > {size}; DELETE FROM journal.batches WHERE last_position > {size}; \
         ALTER TABLE journal.events ENABLE ALWAYS TRIGGER guard; ALTER TABLE journal.batches ENABLE ALWAYS TRIGGER guard"
    ))
    .execute(&superuser)
    .await
    .unwrap();
    superuser.close().await;
    s3.run(&site, &store, "journal verify").await.json(0);
    s3.run(&site, &store, &format!("journal verify --against {kept}")).await.json(0);
    s3.run(&site, &store, &format!("journal verify --against {longer}")).await.json(1);
    checkpoint().await.json(1);

    // What cannot be read or written is said with its name.
    let nowhere = format!("s3://nobodys-bucket/{size}.checkpoint");
    let absent = s3.run(&site, &store, &format!("journal verify --against {nowhere}")).await;
    assert_eq!(absent.code, 2, "{}", absent.stderr);
    assert!(absent.stderr.contains(&nowhere), "{}", absent.stderr);
    let unwritable = s3.run(&site, "s3://nobodys-bucket", "journal checkpoint").await;
    assert_eq!(unwritable.code, 3, "{}", unwritable.stderr);
    s3.server.kill().await;
}
