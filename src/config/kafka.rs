//! What the log on Kafka is told, out of the settings.

use std::path::Path;
use std::time::Duration;

use engine_kafka::{KafkaOptions, Sasl, SaslMechanism, Secret, Security};

use super::{Config, KafkaConfig};
use crate::failure::Failure;

impl Config {
    /// How the log is reached, copied into `copy`.
    pub(crate) fn kafka_options(&self, copy: &Path) -> Result<KafkaOptions, Failure> {
        let kafka = &self.log.kafka;
        let ms = Duration::from_millis;
        Ok(KafkaOptions {
            client_id: format!("docket-{}", self.node_name()),
            replication: kafka.replication_factor,
            min_in_sync: kafka.min_insync_replicas,
            patience: ms(kafka.start_timeout_ms),
            delivery_timeout: ms(kafka.delivery_timeout_ms),
            request_timeout: ms(kafka.request_timeout_ms),
            session_timeout: ms(kafka.session_timeout_ms),
            cache_bytes: self.log.cache_mib << 20,
            security: security(kafka)?,
            ..KafkaOptions::new(kafka.bootstrap.clone().unwrap_or_default(), self.log.name.clone(), copy)
        })
    }
}

fn security(kafka: &KafkaConfig) -> Result<Security, Failure> {
    let sasl = match kafka.sasl_mechanism.as_deref() {
        None => None,
        Some(mechanism) => Some(Sasl {
            mechanism: match mechanism {
                "plain" => SaslMechanism::Plain,
                "scram-sha-256" => SaslMechanism::ScramSha256,
                _ => SaslMechanism::ScramSha512,
            },
            user: kafka.sasl_user.clone().unwrap_or_default(),
            password: Secret::new(password(kafka)?),
        }),
    };
    Ok(Security {
        tls: kafka.tls,
        ca_file: kafka.tls_ca_file.clone(),
        certificate_file: kafka.tls_certificate_file.clone(),
        key_file: kafka.tls_key_file.clone(),
        sasl,
    })
}

fn password(kafka: &KafkaConfig) -> Result<String, Failure> {
    match &kafka.sasl_password_file {
        None => Ok(kafka.sasl_password.clone().unwrap_or_default()),
        Some(file) => std::fs::read_to_string(file)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| Failure::of(format!("cannot read the password in {}", file.display()), &error)),
    }
}
