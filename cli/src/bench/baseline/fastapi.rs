//! A FastAPI handler under uvicorn, with a worker per core, in a virtual environment of its own.

use std::path::{Path, PathBuf};

use sqlx::{Connection, PgConnection};
use tokio::process::Command;

use crate::bench::ground::{Ground, GroundError, Served, WEBHOOK_SECRET, free_address};

const HANDLER: &str = include_str!("handler.py");
const REQUIREMENTS: &str = include_str!("requirements.txt");

#[derive(Debug, thiserror::Error)]
pub(in crate::bench) enum FastApiError {
    #[error("prepare the baseline's table")]
    Table(#[source] sqlx::Error),
    #[error("write the baseline's program into {}", dir.display())]
    Write {
        dir: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("run `{what}`; the baseline needs python3 with venv and pip, or leave it out with --no-baseline")]
    Run {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("`{what}` failed; the baseline needs PyPI, or leave it out with --no-baseline: {errors}")]
    Failed { what: String, errors: String },
    #[error(transparent)]
    Ground(#[from] GroundError),
}

/// The handler, ready to be started.
pub(in crate::bench) struct FastApi {
    venv: PathBuf,
    program_dir: PathBuf,
    url: String,
    workers: usize,
}

impl FastApi {
    /// Makes the table and, once per data directory, the virtual environment.
    pub(in crate::bench) async fn prepare(data_dir: &Path, ground: &Ground) -> Result<Self, FastApiError> {
        let url = ground.create_database("baseline").await?;
        let mut connection = PgConnection::connect(&url).await.map_err(FastApiError::Table)?;
        sqlx::raw_sql(
            "CREATE TABLE webhooks (position bigserial PRIMARY KEY, id text NOT NULL UNIQUE, type text NOT NULL, \
             api_version text, created bigint NOT NULL, livemode boolean NOT NULL, body text NOT NULL, \
             received_at timestamptz NOT NULL DEFAULT now())",
        )
        .execute(&mut connection)
        .await
        .map_err(FastApiError::Table)?;
        let program_dir = ground.dir().join("fastapi");
        let write = |dir: &Path, name: &str, text: &str| {
            std::fs::create_dir_all(dir)
                .and_then(|()| std::fs::write(dir.join(name), text))
                .map_err(|source| FastApiError::Write { dir: dir.to_owned(), source })
        };
        write(&program_dir, "handler.py", HANDLER)?;
        // The handler runs in a directory of its own, from where a relative path would lead elsewhere.
        let cache = std::path::absolute(data_dir.join("cache"))
            .map_err(|source| FastApiError::Write { dir: data_dir.to_owned(), source })?;
        let venv = cache.join("bench-fastapi");
        let installed = venv.join("requirements.txt");
        if std::fs::read_to_string(&installed).ok().as_deref() != Some(REQUIREMENTS) {
            write(&program_dir, "requirements.txt", REQUIREMENTS)?;
            std::fs::create_dir_all(&cache).map_err(|source| FastApiError::Write { dir: cache.clone(), source })?;
            run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv)).await?;
            let requirements = program_dir.join("requirements.txt");
            run(Command::new(venv.join("bin/python"))
                .args(["-m", "pip", "install", "--quiet", "-r"])
                .arg(requirements))
            .await?;
            // Written last: half an installation is begun anew.
            write(&venv, "requirements.txt", REQUIREMENTS)?;
        }
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { venv, program_dir, url, workers })
    }

    pub(in crate::bench) async fn start(&self, ground: &Ground) -> Result<Served, FastApiError> {
        let address = free_address()?;
        let mut command = Command::new(self.venv.join("bin/python"));
        command
            .args(["-m", "uvicorn", "handler:app", "--no-access-log", "--log-level", "warning"])
            .args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()])
            .args(["--workers", &self.workers.to_string()])
            .current_dir(&self.program_dir)
            .env("BENCH_WEBHOOK_SECRET", WEBHOOK_SECRET)
            .env("BENCH_DATABASE_URL", &self.url);
        Ok(Served::spawn("the FastAPI handler", command, address, "/healthz", ground.dir()).await?)
    }

    pub(in crate::bench) fn note(&self) -> String {
        let pins: Vec<&str> = REQUIREMENTS.lines().collect();
        format!("Baseline: {}; {} uvicorn workers, 16 connections each.", pins.join(", "), self.workers)
    }
}

async fn run(command: &mut Command) -> Result<(), FastApiError> {
    let what = format!("{:?}", command.as_std());
    let output = command.output().await.map_err(|source| FastApiError::Run { what: what.clone(), source })?;
    if output.status.success() {
        Ok(())
    } else {
        let errors = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(FastApiError::Failed { what, errors })
    }
}
