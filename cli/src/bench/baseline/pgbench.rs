//! pgbench with one client: BEGIN, INSERT of one such row, COMMIT.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fanledger_devkit::servers::{self, PostgresBinaries, default_bin_dir};
use tokio::process::Command;

use crate::bench::append::PAYLOAD;

#[derive(Debug, thiserror::Error)]
pub(in crate::bench) enum PgbenchError {
    #[error("find pgbench beside Postgres")]
    Find(#[source] servers::Error),
    #[error("write pgbench's script")]
    Script(#[source] std::io::Error),
    #[error("run pgbench")]
    Run(#[source] std::io::Error),
    #[error("pgbench failed: {0}")]
    Failed(String),
    #[error("pgbench printed no `latency average`")]
    Output,
}

/// pgbench, ready to run against the table of the postgres-es baseline.
pub(in crate::bench) struct Alone {
    program: PathBuf,
    script: PathBuf,
    url: String,
}

impl Alone {
    pub(in crate::bench) async fn prepare(url: &str, dir: &Path) -> Result<Self, PgbenchError> {
        let programs = PostgresBinaries::locate(&default_bin_dir()).await.map_err(PgbenchError::Find)?;
        let script = dir.join("alone.sql");
        let text = format!(
            "\\set id random(1, 9000000000000000)\nBEGIN;\nINSERT INTO events (aggregate_type, aggregate_id, sequence, \
             event_type, event_version, payload, metadata) VALUES ('received', 'evt_alone_' || :id, 1, 'Recorded', '1', \
             '{PAYLOAD}', '{{\"actor\": \"the bench\"}}');\nCOMMIT;\n"
        );
        std::fs::write(&script, text).map_err(PgbenchError::Script)?;
        Ok(Self { program: programs.program("pgbench"), script, url: url.to_owned() })
    }

    /// The mean latency in microseconds.
    pub(in crate::bench) async fn measure(&self, duration: Duration) -> Result<f64, PgbenchError> {
        let output = Command::new(&self.program)
            .args(["-n", "-c", "1", "-j", "1", "-M", "prepared", "-T", &duration.as_secs().to_string(), "-f"])
            .arg(&self.script)
            .arg(&self.url)
            .output()
            .await
            .map_err(PgbenchError::Run)?;
        if !output.status.success() {
            return Err(PgbenchError::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        latency_us(&String::from_utf8_lossy(&output.stdout)).ok_or(PgbenchError::Output)
    }
}

fn latency_us(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("latency average = "))?;
    Some(line.trim_end_matches(" ms").parse::<f64>().ok()? * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_read() {
        let text =
            "number of failed transactions: 0 (0.000%)\nlatency average = 0.125 ms\ninitial connection time = 2 ms\n";
        assert!((latency_us(text).unwrap() - 125.0).abs() < 0.001);
        assert!(latency_us("nothing").is_none());
    }
}
