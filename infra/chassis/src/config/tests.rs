//! Configuration comes together in order, and every fault says which place it is in.

use serde::Deserialize;

use super::*;

const KEYS: &[Key] = &[
    Key { path: "name", kind: Kind::Text, doc: "Who." },
    Key { path: "roles", kind: Kind::ManyOf(&["command", "query"]), doc: "What." },
    Key { path: "log.kind", kind: Kind::OneOf(&["embedded", "kafka"]), doc: "Which log." },
    Key { path: "log.partitions", kind: Kind::Whole(1, 100), doc: "How many." },
    Key { path: "log.kafka.password", kind: Kind::Secret, doc: "Hush." },
    Key { path: "rows.url", kind: Kind::Url, doc: "Where." },
];

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    name: String,
    roles: Vec<String>,
    log: LogConfig,
    rows: Rows,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct LogConfig {
    kind: String,
    partitions: u16,
    kafka: Kafka,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { kind: "embedded".to_owned(), partitions: 12, kafka: Kafka::default() }
    }
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Kafka {
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Rows {
    url: String,
}

fn load(file: &str, environment: &[(&str, &str)], set: &[&str]) -> Result<Settings, Vec<String>> {
    let path = std::env::temp_dir().join(format!("config-{}.toml", uuid::Uuid::new_v4()));
    std::fs::write(&path, file).unwrap();
    let set: Vec<String> = set.iter().map(|&pair| pair.to_owned()).collect();
    let loaded = Settings::load(
        KEYS,
        &Config::default(),
        &Places {
            file: Some(&path),
            prefix: "DOCKET_",
            environment: environment.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect(),
            not_ours: &["SERVER"],
            set: &set,
        },
    );
    std::fs::remove_file(&path).unwrap();
    let named = path.display().to_string();
    loaded.map_err(|faults| faults.iter().map(|fault| fault.to_string().replace(&named, "docket.toml")).collect())
}

#[test]
fn each_place_is_over_the_one_before() {
    let file = "name = 'file'\nlog = { kind = 'kafka', partitions = 3 }\nrows = { url = 'sqlite:a' }";
    let environment = [("DOCKET_LOG__PARTITIONS", "4"), ("DOCKET_NAME", "env"), ("DOCKET_ROLES", "command, query")];
    let settings = load(file, &environment, &["name=17"]).unwrap();
    let config: Config = settings.extract().unwrap();
    assert_eq!((config.name.as_str(), config.log.partitions, config.log.kind.as_str()), ("17", 4, "kafka"));
    assert_eq!(config.roles, ["command", "query"]);
    assert_eq!(settings.source("name"), "--set name");
    assert_eq!(settings.source("log.partitions"), "DOCKET_LOG__PARTITIONS");
    assert!(settings.source("log.kind").starts_with("file "));
    assert_eq!(settings.source("log.kafka.password"), DEFAULT);
    assert_eq!(load("", &[], &[]).unwrap().source("log.kind"), DEFAULT);
}

#[test]
fn every_fault_is_told_with_the_place_that_set_it() {
    let faults = load(
        "log = { kind = 'rabbit', partition = 3 }\nnmae = 'x'",
        &[("DOCKET_LOG__PARTITIONS", "many"), ("DOCKET_LOG__KAFKA__PASWORD", "p"), ("DOCKET_LOG", "x")],
        &["log.partitions=0", "roles=cook", "oops"],
    )
    .unwrap_err();
    assert_eq!(
        faults,
        [
            "log.kafka.pasword: no such key; did you mean log.kafka.password? (set by DOCKET_LOG__KAFKA__PASWORD)",
            "log: is a table: set one of its keys (kafka, kind, partitions) (set by DOCKET_LOG)",
            "--set takes key=value, not \"oops\"",
            "log.kind: must be one of embedded, kafka, not \"rabbit\" (set by file docket.toml)",
            "log.partition: no such key; did you mean log.partitions? (set by file docket.toml)",
            "nmae: no such key; did you mean name? (set by file docket.toml)",
            "log.partitions: must be a whole number from 1 to 100, not \"many\" (set by DOCKET_LOG__PARTITIONS)",
            "log.partitions: must be a whole number from 1 to 100, not 0 (set by --set log.partitions)",
            "roles: must be a list of command, query, not [\"cook\"] (set by --set roles)",
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    assert!(load("name = ", &[], &[]).unwrap_err()[0].contains("the configuration docket.toml is no TOML"));
    let nowhere = Places { file: Some(Path::new("/nowhere/docket.toml")), prefix: "DOCKET_", ..Places::default() };
    let faults = Settings::load(KEYS, &Config::default(), &nowhere).unwrap_err();
    assert!(faults[0].to_string().starts_with("cannot read the configuration /nowhere/docket.toml"));
}

#[test]
fn variables_that_are_somebody_elses_are_left_alone() {
    let theirs = [
        ("DOCKET_SERVER", "http://x"),
        ("DOCKET_SERVICE_HOST", "10.0.0.1"),
        ("DOCKET_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("DOCKET_PORT", "tcp://10.0.0.1:8080"),
        ("PATH", "/bin"),
    ];
    assert!(load("", &theirs, &[]).is_ok());
    assert!(load("", &[("DOCKET_ROLE", "query")], &[]).unwrap_err()[0].contains("did you mean roles?"));
}

#[test]
fn secrets_are_shown_to_nobody() {
    let set = ["log.kafka.password=hush", "rows.url=postgres://me:hu%40sh@db:5432/docket?sslpassword=hush&a=1"];
    let settings = load("", &[], &set).unwrap();
    let all = serde_json::to_string(&settings.all()).unwrap();
    assert!(!all.contains("hush") && !all.contains("hu%40sh"), "{all}");
    assert!(all.contains("postgres://me:***@db:5432/docket?sslpassword=***&a=1"), "{all}");
    for wrong in ["[log.kafka]\npassword = ['hush']", "rows = { url = ['hush'] }"] {
        let faults = load(wrong, &[], &[]).unwrap_err();
        assert!(!faults[0].contains("hush"), "{faults:?}");
    }
    let plain = ["postgres://docket@127.0.0.1:5432/docket", "sqlite:var/views.db"];
    assert_eq!(plain.map(key::without_password), plain.map(str::to_owned));
    assert_eq!(key::without_password("postgres://me:p@ss@db/x"), "postgres://me:***@db/x");
}
