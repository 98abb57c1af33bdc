//! What is watched: every metric is documented, every documented one is really exposed by a running system, and the alert
//! rules and the dashboard name nothing else and leave nothing out.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use e2e::load::{Gateways, Load};
use e2e::{Process, SECRET, Site, eventually, finish, gateway_url};
use fanledger_devkit::stripe::sign;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use promql_parser::label::Matchers;
use promql_parser::parser::{self, Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::{Value, json};

/// Prometheus makes this one itself.
const PROMETHEUS_OWN: &str = "up";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A metric as the code describes it.
#[derive(Clone, Debug)]
struct Described {
    kind: &'static str,
    description: String,
}

/// Keeps descriptions; measures nothing.
#[derive(Default)]
struct Catalogue(Arc<Mutex<BTreeMap<String, Described>>>);

impl Catalogue {
    fn add(&self, kind: &'static str, name: KeyName, description: SharedString) {
        let described = Described { kind, description: description.into_owned() };
        let twice = self.0.lock().unwrap().insert(name.as_str().to_owned(), described);
        assert!(twice.is_none(), "{} is described twice", name.as_str());
    }
}

impl Recorder for Catalogue {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, description: SharedString) {
        self.add("counter", name, description);
    }
    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, description: SharedString) {
        self.add("gauge", name, description);
    }
    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, description: SharedString) {
        self.add("histogram", name, description);
    }
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn described() -> BTreeMap<String, Described> {
    let catalogue = Catalogue::default();
    metrics::with_local_recorder(&catalogue, fanledger_gateway::metrics::describe);
    catalogue.0.lock().unwrap().clone()
}

/// The series names that a metric has when it is exposed.
fn series_of(name: &str, kind: &str) -> Vec<String> {
    match kind {
        "histogram" => ["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")).to_vec(),
        _ => vec![name.to_owned()],
    }
}

#[derive(Default)]
struct Selectors(Vec<(String, Matchers)>);

impl Selectors {
    fn add(&mut self, selector: &VectorSelector) {
        self.0.push((selector.name.clone().expect("a selector names its metric"), selector.matchers.clone()));
    }
}

impl ExprVisitor for Selectors {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Self::Error> {
        match expression {
            Expr::VectorSelector(selector) => self.add(selector),
            Expr::MatrixSelector(selector) => self.add(&selector.vs),
            // Not ours; the walk goes on below all others.
            _ => {}
        }
        Ok(true)
    }
}

/// The metrics of an expression, each with the labels that it is selected by.
fn selectors(expression: &str) -> Vec<(String, BTreeSet<String>)> {
    let expression = expression.replace("$__rate_interval", "5m");
    let parsed = parser::parse(&expression).unwrap_or_else(|error| panic!("{error}: {expression}"));
    let mut found = Selectors::default();
    walk_expr(&mut found, &parsed).unwrap();
    assert!(!found.0.is_empty(), "{expression} asks for no metric");
    let labels = |matchers: Matchers| matchers.matchers.into_iter().map(|matcher| matcher.name).collect();
    found.0.into_iter().map(|(name, matchers)| (name, labels(matchers))).collect()
}

struct Rule {
    alert: String,
    expression: String,
    rule: Value,
}

fn rules() -> Vec<Rule> {
    let rules: Value = serde_yaml_ng::from_str(&read("docs/monitoring/alerts.yml")).unwrap();
    let groups = rules["groups"].as_array().unwrap().iter();
    let rules: Vec<Rule> = groups
        .flat_map(|group| group["rules"].as_array().unwrap())
        .map(|rule| Rule {
            alert: rule["alert"].as_str().unwrap().to_owned(),
            expression: rule["expr"].as_str().unwrap().to_owned(),
            rule: rule.clone(),
        })
        .collect();
    assert!(rules.len() > 20);
    rules
}

/// The expressions of the dashboard's panels, with their titles.
fn panels() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("docs/monitoring/grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    let expressions: Vec<(String, String)> = panels
        .flat_map(|panel| {
            let title = panel["title"].as_str().unwrap();
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{title} shows nothing");
            targets.iter().map(|target| (title.to_owned(), target["expr"].as_str().unwrap().to_owned()))
        })
        .collect();
    assert!(expressions.len() > 30);
    expressions
}

#[test]
fn rules_and_dashboard_ask_for_what_there_is_and_leave_nothing_out() {
    let described = described();
    let known: BTreeMap<String, &Described> = described
        .iter()
        .flat_map(|(name, metric)| series_of(name, metric.kind).into_iter().map(move |series| (series, metric)))
        .collect();
    let mut used = BTreeSet::new();
    let rules = rules().into_iter().map(|rule| (rule.alert, rule.expression));
    for (place, expression) in rules.chain(panels()) {
        for (series, labels) in selectors(&expression) {
            if series == PROMETHEUS_OWN {
                continue;
            }
            let metric = known.get(&series).unwrap_or_else(|| panic!("{place}: there is no {series}"));
            for label in labels {
                assert!(metric.description.contains(&format!("`{label}`")), "{place}: {series} has no label {label}");
            }
            if metric.kind == "counter" {
                // A counter by itself says how long the process has run.
                assert!(expression.contains("rate(") || expression.contains("increase("), "{place}: {expression}");
            }
            used.insert(
                series.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count").to_owned(),
            );
        }
    }
    let unused: Vec<&String> = described.keys().filter(|name| !used.contains(*name)).collect();
    assert!(unused.is_empty(), "neither on the dashboard nor in a rule: {unused:?}");
}

#[test]
fn every_rule_says_what_to_do() {
    let runbook = read("docs/runbooks/alerts.md");
    let headings: BTreeSet<String> =
        runbook.lines().filter_map(|line| line.strip_prefix("## ")).map(|heading| heading.trim().to_owned()).collect();
    let mut alerts = BTreeSet::new();
    for Rule { alert, rule, .. } in rules() {
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("page" | "ticket")), "{alert}");
        for annotation in ["summary", "description"] {
            assert!(
                rule["annotations"][annotation].as_str().is_some_and(|text| text.len() > 15),
                "{alert}: {annotation}"
            );
        }
        let link = format!("docs/runbooks/alerts.md#{}", alert.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"].as_str(), Some(link.as_str()), "{alert}");
        assert!(headings.contains(&alert), "docs/runbooks/alerts.md has no section {alert}");
        assert!(alerts.insert(alert.clone()), "{alert} stands twice");
    }
    let left: Vec<&String> = headings.iter().filter(|heading| heading.starts_with("Fanledger")).collect();
    assert!(left.iter().all(|heading| alerts.contains(*heading)), "sections of rules that are gone: {left:?}");
}

#[test]
fn the_list_of_metrics_is_the_code_s() {
    const BEGIN: &str = "<!-- metrics: written by the test that compares this table with the code -->\n";
    const END: &str = "<!-- end of metrics -->";
    let mut table = String::from("| Name | Kind | What it says |\n|---|---|---|\n");
    for (name, metric) in described() {
        let conventional = match metric.kind {
            "counter" => name.ends_with("_total"),
            _ => !name.ends_with("_total"),
        };
        assert!(conventional, "{name} is a {}", metric.kind);
        table.push_str(&format!("| `{name}` | {} | {} |\n", metric.kind, metric.description));
    }
    let path = "docs/metrics.md";
    let page = read(path);
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{BEGIN}{table}{END}{after}");
    if std::env::var_os("FANLEDGER_UPDATE_DOCS").is_some() {
        std::fs::write(root().join(path), wanted).unwrap();
    } else {
        assert_eq!(page, wanted, "run the tests of fanledger once with FANLEDGER_UPDATE_DOCS=1");
    }
}

/// What `/metrics` exposes: each series' name, with the labels that it has besides the exposition's own.
fn exposed(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut series: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let labels = series.entry(name.to_owned()).or_default();
        let Some((_, rest)) = line.split_once('{') else { continue };
        let inside = rest.rsplit_once('}').unwrap().0;
        // No value of ours holds a quotation mark or a comma.
        labels.extend(
            inside.split(',').map(|pair| pair.split_once('=').unwrap().0.to_owned()).filter(|label| label != "le"),
        );
        assert!(!inside.contains("quantile="), "{name} is a summary, which cannot be added up: give it buckets");
    }
    series
}

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

async fn scrape(url: &str) -> String {
    reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap()
}

async fn metrics_url(process: &mut Process) -> String {
    let address = |line: &str| Some(format!("http://{}", line.split_once("serves /metrics address=")?.1));
    process.printed(address).await
}

const SUSPENSE: &str = "fanledger_suspense_items{account=\"liabilities:suspense:unattributed\"}";

#[tokio::test(flavor = "multi_thread")]
async fn a_running_system_exposes_what_is_documented_and_nothing_else() {
    let site = Site::start().await;
    let mut all = site.role("all");
    let (metrics_url, gateway) = (metrics_url(&mut all).await, gateway_url(&mut all).await);

    let history = fanledger_devkit::history::random(3, 12);
    let acknowledged = Load::start(&history.events, Gateways::new(vec![gateway.clone()].into())).finish().await;
    site.read(acknowledged.positions.values().max().copied().unwrap()).await;
    let http = reqwest::Client::new();
    let unsigned = http.post(format!("{gateway}/webhooks/stripe")).header("stripe-signature", "t=1,v1=00").body("{}");
    assert_eq!(unsigned.send().await.unwrap().status(), 400);
    // Money of nobody's: it stands in suspense, and its balance transaction is awaited.
    let charge = json!({
        "id": "evt_nobody", "object": "event", "type": "charge.succeeded", "api_version": "2026-10-28.endive",
        "created": 1_790_000_000, "livemode": false,
        "data": {"object": {
            "id": "ch_nobody", "object": "charge", "amount": 700, "amount_captured": 700, "amount_refunded": 0,
            "balance_transaction": null, "captured": true, "created": 1_790_000_000, "currency": "usd", "livemode": false,
            "paid": true, "refunded": false, "status": "succeeded", "metadata": {},
        }},
    })
    .to_string();
    let signature = sign(SECRET, fanledger_cli::clock::unix_seconds(), charge.as_bytes());
    let webhook = http.post(format!("{gateway}/webhooks/stripe")).header("stripe-signature", signature).body(charge);
    let position = webhook.send().await.unwrap().json::<Value>().await.unwrap()["position"].as_u64().unwrap();
    let head = site.read(position).await;

    // Until the gateway has taken its samples after all of that.
    let mut text = String::new();
    eventually("the gauges are of the head", async || {
        text = scrape(&metrics_url).await;
        value(&text, "fanledger_projection_position{projection=\"balances\"}").is_some_and(|at| at >= head as f64)
            && value(&text, "fanledger_awaited_items").is_some_and(|items| items >= 1.0)
            // Sampled apart from the positions.
            && value(&text, SUSPENSE).is_some_and(|items| items >= 1.0)
    })
    .await;

    let series = exposed(&text);
    let described = described();
    let documented: BTreeMap<String, &Described> = described
        .iter()
        .flat_map(|(name, metric)| series_of(name, metric.kind).into_iter().map(move |series| (series, metric)))
        .collect();
    let missing: Vec<&String> = documented.keys().filter(|name| !series.contains_key(*name)).collect();
    assert!(missing.is_empty(), "documented and not exposed: {missing:?}");
    for (name, labels) in &series {
        let metric = documented.get(name).unwrap_or_else(|| panic!("{name} is exposed and not documented"));
        for label in labels {
            assert!(metric.description.contains(&format!("`{label}`")), "{name}: its label {label} is not documented");
        }
    }

    let of = |series: &str| value(&text, series).unwrap_or_else(|| panic!("no {series} in {text}"));
    assert_eq!(of("fanledger_ledger_imbalance_minor_units{currency=\"usd\"}"), 0.0);
    assert_eq!(of("fanledger_journal_head_position"), head as f64);
    assert_eq!(of("fanledger_relay_position"), head as f64);
    assert_eq!(of("fanledger_journal_events_total"), head as f64);
    assert_eq!(of("fanledger_projection_lag_events{projection=\"balances\"}"), 0.0);
    assert_eq!(of("fanledger_projection_halted{projection=\"balances\"}"), 0.0);
    assert_eq!(of("fanledger_webhooks_total{verdict=\"bad_signature\"}"), 1.0);
    let accepted = acknowledged.positions.len() as f64 + 1.0;
    assert_eq!(of("fanledger_webhooks_total{verdict=\"accepted\"}"), accepted);
    assert_eq!(of("fanledger_webhooks_total{verdict=\"duplicate\"}"), acknowledged.duplicates as f64);
    assert!(of(SUSPENSE) >= 1.0);
    assert!(of("fanledger_suspense_oldest_age_seconds{account=\"liabilities:suspense:unattributed\"}") > 0.0);
    assert!(of("fanledger_awaited_oldest_age_seconds") > 0.0);
    assert!(of("fanledger_journal_append_seconds_count") >= accepted);
    assert!(all.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_tells_of_a_projector_that_is_gone_and_of_its_own_blindness() {
    let mut site = Site::start().await;
    let mut gateway = site.role("gateway");
    let (metrics_url, url) = (metrics_url(&mut gateway).await, gateway_url(&mut gateway).await);
    let projector = site.role("projector");
    let seen = async |series: &str, wanted: &dyn Fn(f64) -> bool| {
        eventually(series, async || value(&scrape(&metrics_url).await, series).is_some_and(wanted)).await;
    };
    seen("fanledger_projection_lag_events{projection=\"stripe_inbox\"}", &|lag| lag == 0.0).await;
    projector.kill().await;
    let history = fanledger_devkit::history::random(5, 3);
    let acknowledged = Load::start(&history.events, Gateways::new(vec![url].into())).finish().await;
    let behind = acknowledged.positions.len() as f64;
    seen("fanledger_projection_lag_events{projection=\"stripe_inbox\"}", &|lag| lag == behind).await;
    seen("fanledger_projection_lag_seconds{projection=\"stripe_inbox\"}", &|lag| lag > 0.0).await;

    site.servers.postgres().kill().await.unwrap();
    seen("fanledger_sample_failures_total{sample=\"runners\"}", &|failures| failures >= 1.0).await;
    seen("fanledger_projection_lag_events{projection=\"stripe_inbox\"}", &f64::is_nan).await;
    gateway.assert_running();
}

/// The rules' own unit tests, where Prometheus's tool is at hand: FANLEDGER_PROMTOOL, or on the path.
#[tokio::test]
async fn promtool_passes_the_rules() {
    let tool = std::env::var_os("FANLEDGER_PROMTOOL").unwrap_or_else(|| "promtool".into());
    let at_hand = std::process::Command::new(&tool).arg("--version").output();
    if !at_hand.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "skipped: there is no promtool (Debian: apt-get install prometheus), and FANLEDGER_PROMTOOL names none"
        );
        return;
    }
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let mut command = tokio::process::Command::new(&tool);
        command.args(arguments).current_dir(root().join("docs/monitoring"));
        let ended = finish(command).await;
        assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    }
}
