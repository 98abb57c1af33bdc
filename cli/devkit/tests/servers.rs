//! The private servers start, answer, survive kills and stop.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use fanledger_devkit::servers::{Binaries, Servers, StartOptions, default_bin_dir};
use fanledger_devkit::{TestDatabase, TestNats};
use sqlx::Connection;
use tokio::io::AsyncBufReadExt;

#[tokio::test]
async fn two_test_databases_are_apart() {
    let (one, two) = tokio::join!(TestDatabase::create(), TestDatabase::create());
    let mut first = sqlx::PgConnection::connect(one.url()).await.unwrap();
    sqlx::query("CREATE TABLE only_here (n int)").execute(&mut first).await.unwrap();
    let mut second = sqlx::PgConnection::connect(two.url()).await.unwrap();
    let there: bool =
        sqlx::query_scalar("SELECT to_regclass('only_here') IS NOT NULL").fetch_one(&mut second).await.unwrap();
    assert!(!there);
}

#[tokio::test]
async fn a_dropped_test_database_is_gone() {
    let keeper = TestDatabase::create().await;
    let dropped = TestDatabase::create().await;
    let url = dropped.url().to_owned();
    drop(dropped);
    assert!(sqlx::PgConnection::connect(&url).await.is_err());
    assert!(sqlx::PgConnection::connect(keeper.url()).await.is_ok());
}

#[tokio::test]
async fn nats_comes_back_on_its_port_after_a_stop_and_after_a_wipe() {
    let mut nats = TestNats::start().await;
    let url = nats.url();
    assert!(greets(&url).await);
    nats.stop().await;
    assert!(!greets(&url).await);
    nats.restart().await;
    assert!(greets(&url).await);
    nats.wipe().await;
    assert!(!nats.store().exists());
    nats.restart().await;
    assert_eq!(nats.url(), url);
    assert!(greets(&url).await);
}

#[tokio::test]
async fn private_servers_keep_what_was_committed_over_a_kill_and_a_stop() {
    let dir = Scratch::new();
    let mut servers = Servers::start(StartOptions::new(&dir.0)).await.unwrap();
    let url = servers.database_url();
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::query("CREATE TABLE kept (n int)").execute(&mut connection).await.unwrap();
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        let value: String = sqlx::query_scalar(&format!("SHOW {setting}")).fetch_one(&mut connection).await.unwrap();
        assert_eq!(value, "on", "{setting}");
    }
    servers.postgres().kill().await.unwrap();
    servers.postgres().restart().await.unwrap();
    assert!(has_table(&servers.database_url()).await);
    assert!(Servers::start(StartOptions::new(&dir.0)).await.is_err(), "a second start over the same directory");
    servers.stop().await.unwrap();
    assert!(sqlx::PgConnection::connect(&url).await.is_err());
    let servers = Servers::start(StartOptions::new(&dir.0)).await.unwrap();
    assert_eq!(servers.database_url(), url, "the port and the password are kept");
    assert!(has_table(&url).await);
    servers.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_dies_is_started_again() {
    let dir = Scratch::new();
    let mut servers = Servers::start(StartOptions::new(&dir.0)).await.unwrap();
    let (postgres, nats) = (servers.database_url(), servers.nats_url());
    let postmaster = dir.0.join("postgres").join("cluster").join("postmaster.pid");
    let first_line = |path: &std::path::Path| {
        std::fs::read_to_string(path).ok().and_then(|text| Some(text.lines().next()?.trim().to_owned()))
    };
    let old = [first_line(&postmaster).unwrap(), first_line(&dir.0.join("nats").join("pid")).unwrap()];
    std::process::Command::new("kill").arg("-9").args(&old).status().unwrap();
    let both_answer = async {
        while first_line(&postmaster).is_none_or(|pid| pid == old[0])
            || sqlx::PgConnection::connect(&postgres).await.is_err()
            || !greets(&nats).await
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        error = servers.keep_running() => panic!("{error}"),
        answered = tokio::time::timeout(Duration::from_secs(60), both_answer) => answered.unwrap(),
    }
    servers.stop().await.unwrap();
}

/// Started by the test below as a process of its own, which that test kills.
#[tokio::test]
#[ignore = "needs the directory that its parent names"]
async fn owner_that_is_killed() {
    let dir = std::env::var("FANLEDGER_DEVKIT_OWNED").unwrap();
    let servers = Servers::start(StartOptions::new(&dir)).await.unwrap();
    let mut connection = sqlx::PgConnection::connect(&servers.database_url()).await.unwrap();
    sqlx::query("CREATE TABLE IF NOT EXISTS kept (n int)").execute(&mut connection).await.unwrap();
    println!("ready {} {}", servers.database_url(), servers.nats_url());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn servers_of_a_killed_owner_are_recovered_by_the_next_start() {
    let dir = Scratch::new();
    let mut owner = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner_that_is_killed", "--ignored", "--nocapture"])
        .env("FANLEDGER_DEVKIT_OWNED", &dir.0)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(owner.stdout.take().unwrap()).lines();
    let (postgres, nats) = loop {
        let line = lines.next_line().await.unwrap().expect("the owner ended before it was ready");
        if let Some((_, urls)) = line.split_once("ready ") {
            let (postgres, nats) = urls.split_once(' ').unwrap();
            break (postgres.to_owned(), nats.to_owned());
        }
    };
    assert!(greets(&nats).await);
    owner.start_kill().unwrap();
    owner.wait().await.unwrap();
    // Whatever still runs, or is just stopping, is taken over.
    let servers = Servers::start(StartOptions::new(&dir.0)).await.unwrap();
    assert_eq!(servers.database_url(), postgres);
    assert!(has_table(&postgres).await);
    assert!(greets(&servers.nats_url()).await);
    servers.stop().await.unwrap();
}

/// Started by the test below as a user that is not root.
#[tokio::test]
#[ignore = "needs the directory that its parent names"]
async fn servers_of_an_ordinary_user() {
    assert!(!rustix::process::geteuid().is_root());
    let dir = std::env::var("FANLEDGER_DEVKIT_OWNED").unwrap();
    let servers = Servers::start(StartOptions::new(&dir)).await.unwrap();
    let mut connection = sqlx::PgConnection::connect(&servers.database_url()).await.unwrap();
    sqlx::query("CREATE TABLE kept (n int)").execute(&mut connection).await.unwrap();
    assert!(greets(&servers.nats_url()).await);
    servers.stop().await.unwrap();
}

/// All other tests here show it for whoever runs them; where that is root, this one shows it for somebody else.
#[tokio::test]
async fn an_ordinary_user_starts_servers_too() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let programs = Binaries::locate(&default_bin_dir()).await.unwrap();
    let (uid, gid) = (id("-u"), id("-g"));
    let as_nobody = |program: &std::path::Path| {
        let mut command = std::process::Command::new("setpriv");
        command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
        command.arg(program).current_dir("/");
        command
    };
    for program in [programs.postgres.program("postgres"), programs.nats.program] {
        if !as_nobody(&program).arg("--version").output().unwrap().status.success() {
            eprintln!("skipped: nobody cannot reach {}, in a folder that only root may enter", program.display());
            return;
        }
    }
    let dir = Scratch::new();
    std::fs::create_dir(&dir.0).unwrap();
    std::os::unix::fs::chown(&dir.0, Some(uid), Some(gid)).unwrap();
    // Where it was built may be closed to others.
    let test = dir.0.join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &test).unwrap();
    let mut child = as_nobody(&test);
    child.args(["--exact", "servers_of_an_ordinary_user", "--ignored", "--nocapture"]);
    child.env("FANLEDGER_DEVKIT_OWNED", dir.0.join("data"));
    let output = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

/// Of the user nobody.
fn id(flag: &str) -> u32 {
    let output = std::process::Command::new("id").args([flag, "nobody"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

async fn has_table(url: &str) -> bool {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar("SELECT to_regclass('kept') IS NOT NULL").fetch_one(&mut connection).await.unwrap()
}

async fn greets(url: &str) -> bool {
    let Ok(stream) = tokio::net::TcpStream::connect(url.strip_prefix("nats://").unwrap()).await else { return false };
    let mut start = [0; 4];
    let read = tokio::time::timeout(Duration::from_secs(5), async {
        stream.readable().await.unwrap();
        stream.try_read(&mut start).unwrap_or(0)
    });
    read.await.is_ok_and(|n| n == 4) && &start == b"INFO"
}

struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("fanledger-devkit-{:016x}", rand::random::<u64>())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
