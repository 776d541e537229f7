//! Whether the brokers let this node in. A client that is turned away for its password or turns away itself for the
//! brokers' certificate goes on trying, and whoever waits for an answer learns of silence only. So before the first
//! question somebody knocks and listens to what is said at the door.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::admin::say;
use crate::fault::KafkaFault;
use crate::options::KafkaOptions;

/// How long an answer is waited for at first before what was said is looked at; twice as long each time.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How long is listened after each.
const LISTEN: Duration = Duration::from_millis(20);
/// The longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// Fails if the brokers do not take the password, or this node not their certificate. Any other silence is for whoever asks
/// the first question. Blocks for up to the options' patience.
pub(crate) fn knock(options: &KafkaOptions) -> Result<(), KafkaFault> {
    // OpenSSL does not say which file it could not read.
    let security = &options.security;
    for file in [&security.ca_file, &security.certificate_file, &security.key_file].into_iter().flatten() {
        let open = std::fs::File::open(file);
        open.map_err(|error| KafkaFault::Options(format!("{} cannot be read: {error}", file.display())))?;
    }
    let mut config = options.admin_config();
    // Needed to have a consumer at all: it joins nothing.
    config.set("group.id", "docket.door");
    let caller: BaseConsumer<Caller> = BaseConsumer::from_config_and_context(&config, Caller::default())
        .map_err(|error| KafkaFault::Options(error.to_string()))?;
    let deadline = Instant::now() + options.patience;
    let mut wait = FIRST_WAIT;
    loop {
        if caller.fetch_metadata(Some("docket.probe"), wait).is_ok() {
            return Ok(());
        }
        // Complaints, which the context hears as well. They lie behind lines for the log, of which a poll that does not wait
        // takes one.
        while caller.poll(LISTEN).is_some() {}
        let brokers = || options.brokers.clone();
        match caller.context().turned_away.lock().take() {
            Some(TurnedAway::Password(why)) => return Err(KafkaFault::Login { brokers: brokers(), why }),
            Some(TurnedAway::Certificate(why)) => return Err(KafkaFault::Certificate { brokers: brokers(), why }),
            None if Instant::now() >= deadline => return Ok(()),
            None => wait = (wait * 2).min(LONGEST_WAIT),
        }
    }
}

enum TurnedAway {
    Password(String),
    Certificate(String),
}

/// Remembers what is said at the door.
#[derive(Default)]
struct Caller {
    turned_away: Mutex<Option<TurnedAway>>,
}

impl ClientContext for Caller {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        say("door", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let turned_away = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication) => TurnedAway::Password(reason.to_owned()),
            Some(RDKafkaErrorCode::SSL) => TurnedAway::Certificate(reason.to_owned()),
            // Who shows no certificate, or one that is not trusted, learns of it only by an alert once the connection is
            // there (TLS 1.3), and that passes for a broken connection.
            _ if reason.contains("alert") => TurnedAway::Certificate(reason.to_owned()),
            _ => return,
        };
        // The first reason: those that follow may be of our own giving up.
        self.turned_away.lock().get_or_insert(turned_away);
    }
}

impl ConsumerContext for Caller {}
