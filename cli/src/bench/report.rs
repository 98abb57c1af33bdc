//! What a bench prints: the machine, the versions, the raw figures of each round, and the figures beside their baselines.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::{Connection, PgConnection};

use crate::bench::ground::GroundError;
use crate::output::{Align, Output, OutputError};

/// Where it was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
    /// One 8 KiB write and fdatasync on the data directory's disk, median.
    pub fsync_us: u64,
    pub fanledger: String,
    pub postgres: String,
}

impl Machine {
    pub(super) async fn look(superuser_url: &str, dir: &Path) -> Result<Self, GroundError> {
        let mut connection = PgConnection::connect(superuser_url).await.map_err(GroundError::Version)?;
        let postgres: String = sqlx::query_scalar(
            "SELECT current_setting('server_version') || ', fsync ' || current_setting('fsync') \
             || ', synchronous_commit ' || current_setting('synchronous_commit')",
        )
        .fetch_one(&mut connection)
        .await
        .map_err(GroundError::Version)?;
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| -> Option<String> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory_kib = field(&file("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split(' ').next().and_then(|number| number.parse::<u64>().ok()))
            .unwrap_or_default();
        let profile = if cfg!(debug_assertions) { "debug build: NOT for comparison" } else { "release build" };
        Ok(Self {
            processor: field(&file("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: memory_kib >> 20,
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            fsync_us: fsync_us(dir).map_err(|source| GroundError::Directory { dir: dir.to_owned(), source })?,
            fanledger: format!("{} ({profile})", env!("CARGO_PKG_VERSION")),
            postgres,
        })
    }
}

fn fsync_us(dir: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let path = dir.join("fsync.probe");
    let file = std::fs::File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        file.write_all_at(&[7; 8192], 0)?;
        file.sync_data()?;
        times.push(micros(begun.elapsed()));
    }
    std::fs::remove_file(path)?;
    Ok(percentile(&mut times, 50))
}

/// Whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The value below which `percent` of the values lie; 0 of none.
pub(super) fn percentile(values: &mut [u64], percent: usize) -> u64 {
    if values.is_empty() {
        return 0;
    }
    values.sort_unstable();
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

/// The middle of `values`.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// One measurement of one round.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Raw {
    pub round: u32,
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
}

/// What it comes to.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    /// Its number in the list of targets.
    pub target: &'static str,
    pub what: String,
    pub ours: f64,
    pub baseline: Option<f64>,
    pub ratio: Option<f64>,
    pub unit: &'static str,
    pub wanted: &'static str,
}

impl Figure {
    /// A figure beside its baseline.
    pub(super) fn beside(
        target: &'static str,
        what: String,
        ours: f64,
        baseline: f64,
        unit: &'static str,
        wanted: &'static str,
    ) -> Self {
        Self { target, what, ours, baseline: Some(baseline), ratio: Some(ours / baseline), unit, wanted }
    }

    /// A figure that stands alone.
    pub(super) fn alone(
        target: &'static str,
        what: String,
        ours: f64,
        unit: &'static str,
        wanted: &'static str,
    ) -> Self {
        Self { target, what, ours, baseline: None, ratio: None, unit, wanted }
    }
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub bench: &'static str,
    pub machine: Machine,
    /// Programs and libraries besides Postgres, and what else a reader must know.
    pub notes: Vec<String>,
    pub rounds: Vec<Raw>,
    pub figures: Vec<Figure>,
}

impl Report {
    /// The median over the rounds of one measurement.
    pub(super) fn median_of(rounds: &[Raw], what: &str) -> f64 {
        median(rounds.iter().filter(|raw| raw.what == what).map(|raw| raw.value))
    }

    pub(super) fn print(&self, output: Output) -> Result<(), OutputError> {
        if output.is_json() {
            return output.json(self);
        }
        let machine = &self.machine;
        output.line(format_args!(
            "{}, {} cores, {} GiB, Linux {}, fsync {} µs",
            machine.processor, machine.cores, machine.memory_gib, machine.kernel, machine.fsync_us
        ))?;
        output.line(format_args!("fanledger {}; Postgres {}", machine.fanledger, machine.postgres))?;
        for note in &self.notes {
            output.line(note)?;
        }
        output.line("")?;
        let mut names: Vec<&str> = Vec::new();
        for raw in &self.rounds {
            if !names.contains(&raw.what.as_str()) {
                names.push(&raw.what);
            }
        }
        let rows = names.iter().map(|name| {
            let of_name: Vec<&Raw> = self.rounds.iter().filter(|raw| raw.what == **name).collect();
            let values: Vec<String> = of_name.iter().map(|raw| number(raw.value)).collect();
            vec![(*name).to_owned(), of_name.first().map_or("", |raw| raw.unit).to_owned(), values.join("  ")]
        });
        output
            .table(&[("measured", Align::Left), ("unit", Align::Left), ("each round", Align::Left)], rows.collect())?;
        output.line("")?;
        let rows = self.figures.iter().map(|figure| {
            let or_dash = |value: Option<f64>, text: fn(f64) -> String| value.map_or_else(|| "–".to_owned(), text);
            vec![
                figure.target.to_owned(),
                figure.what.clone(),
                number(figure.ours),
                or_dash(figure.baseline, number),
                or_dash(figure.ratio, |ratio| format!("{ratio:.2}")),
                figure.unit.to_owned(),
                figure.wanted.to_owned(),
            ]
        });
        let columns = [
            ("", Align::Left),
            ("median", Align::Left),
            ("ours", Align::Right),
            ("baseline", Align::Right),
            ("ratio", Align::Right),
            ("unit", Align::Left),
            ("wanted", Align::Left),
        ];
        output.table(&columns, rows.collect())
    }
}

fn number(value: f64) -> String {
    if value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        let mut values: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(percentile(&mut values, 50), 51);
        assert_eq!(percentile(&mut values, 99), 100);
        assert_eq!(percentile(&mut [], 99), 0);
    }
}
