//! `docket doctor`: looks at all that a node rests on before it does, changes none of it (but for
//! two small records in the topic of the owners, which holds nothing: their stamps tell the brokers' time), and says of each
//! thing, under a name that stays, whether it is well; if not, how to mend it. Nothing here needs a running node.

use std::net::{SocketAddr, TcpListener};

use comfy_table::{Cell, Color};
use serde_json::{Value, json};

use crate::cli::Global;
use crate::config::{Config, ConfigArguments, LogKind};
use crate::failure::Failure;
use crate::house::log::blocking;
use crate::output::{Column, text};

mod clock;
mod data;
mod disk;
#[cfg(feature = "kafka")]
mod kafka;
mod limits;
mod postgres;

/// What the help shows.
pub(crate) const EXAMPLES: &str = "\
Examples:
  docket doctor                                   of ./docket-data, before `docket serve`
  docket doctor --config docket.toml              exits 1 if a check failed
  docket doctor --set data=/var/lib/docket --output table";

/// Clocks further apart are told: recorded times would seem to jump when a partition changes hands.
const CLOCKS_APART_S_MAX: f64 = 1.0;

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    check: &'static str,
    state: State,
    what: String,
    mend: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ok,
    Note,
    Failed,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, state: State::Ok, what: what.into(), mend: String::new() }
    }

    fn note(check: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, state: State::Note, what: what.into(), mend: mend.into() }
    }

    fn failed(check: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, state: State::Failed, what: what.into(), mend: mend.into() }
    }

    fn told(&self) -> Value {
        let state = match self.state {
            State::Ok => "ok",
            State::Note => "note",
            State::Failed => "failed",
        };
        let mend = (!self.mend.is_empty()).then_some(&self.mend);
        json!({"check": self.check, "state": state, "what": self.what, "mend": mend})
    }
}

const COLUMNS: &[Column] = &[
    Column { title: "check", show: |finding| Cell::new(text(&finding["check"])) },
    Column {
        title: "",
        show: |finding| {
            let state = text(&finding["state"]);
            let colour = match state.as_str() {
                "ok" => Color::Green,
                "note" => Color::Yellow,
                _ => Color::Red,
            };
            Cell::new(state).fg(colour)
        },
    },
    Column { title: "what", show: |finding| Cell::new(text(&finding["what"])) },
    Column { title: "mend", show: |finding| Cell::new(text(&finding["mend"])) },
];

/// Does it.
pub(crate) async fn run(arguments: &ConfigArguments, global: &Global) -> Result<(), Failure> {
    let (config, _) = Config::load(arguments)?;
    let mut findings = vec![Finding::ok("configuration", "can be used")];
    let data = config.data.0.clone();
    findings.extend(blocking(move || Ok(disk::look(&data))).await?);
    findings.extend(data::look(&config).await?);
    findings.extend(blocking(|| Ok(clock::look())).await?);
    findings.extend(limits::look(&config));
    findings.push(listening("listen.http", config.listen.http));
    if config.log.kind == LogKind::Kafka {
        findings.push(listening("listen.grpc", config.listen.grpc));
        findings.extend(look_at_kafka(&config).await?);
    }
    if let Some(url) = config.read_store.url.as_deref().filter(|url| !url.starts_with("sqlite:")) {
        findings.extend(postgres::look(url, &config).await);
    }
    let failed = findings.iter().filter(|finding| finding.state == State::Failed).count();
    let items: Vec<Value> = findings.iter().map(Finding::told).collect();
    global.screen().list(&json!({"items": items}), COLUMNS)?;
    match failed {
        0 => Ok(()),
        1 => Err(Failure::plain("1 check failed")),
        many => Err(Failure::plain(format!("{many} checks failed"))),
    }
}

#[cfg(feature = "kafka")]
async fn look_at_kafka(config: &Config) -> Result<Vec<Finding>, Failure> {
    let options = config.kafka_options(&config.data.0.join("copy"))?;
    blocking(move || Ok(kafka::look(&options))).await
}

#[cfg(not(feature = "kafka"))]
async fn look_at_kafka(_config: &Config) -> Result<Vec<Finding>, Failure> {
    Ok(Vec::new())
}

/// How far another machine's clock is from this one's.
fn clocks(whose: &str, apart_s: f64) -> Finding {
    let what = format!("this machine and {whose} are {:.3} s apart", apart_s.abs());
    if apart_s.abs() > CLOCKS_APART_S_MAX {
        Finding::note("clocks", what, "let NTP or chrony set the clocks of all machines")
    } else {
        Finding::ok("clocks", what)
    }
}

fn listening(key: &'static str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) if address.ip().to_canonical().is_loopback() || key == "listen.grpc" => {
            Finding::ok(key, format!("{address} is free"))
        }
        Ok(_) => Finding::note(
            key,
            format!("whoever reaches {address} may do everything: there is no TLS and no login yet"),
            "listen on 127.0.0.1 with a proxy in front that has both, or fence the network",
        ),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Finding::note(key, format!("{address} is taken"), "fine if that is this node; else choose another")
        }
        Err(error) => {
            Finding::failed(key, format!("cannot listen on {address}: {error}"), "choose an address of this machine")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_is_told_and_is_no_failure() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(listening("listen.http", address).state, State::Note);
        drop(taken);
        assert_eq!(listening("listen.http", address).state, State::Ok);
        assert_eq!(listening("listen.http", "192.0.2.1:1".parse().unwrap()).state, State::Failed);
    }

    #[test]
    fn clocks_that_are_apart_are_told() {
        assert_eq!(clocks("the database", 0.2).state, State::Ok);
        assert_eq!(clocks("the database", -30.0).state, State::Note);
    }
}
