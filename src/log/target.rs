//! Where a log is copied to: `kafka://host:port,host:port/name?replication_factor=3`.

use crate::config::Config;
use crate::failure::Failure;

/// Brokers, name and settings of the topic if it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) brokers: String,
    pub(super) name: String,
    settings: Vec<(String, u16)>,
}

impl Target {
    pub(super) fn read(url: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            Failure::plain(format!("--to {url}: {why}"))
                .next("write kafka://HOST:PORT/NAME, for example kafka://127.0.0.1:9092/shop")
        };
        let rest = url.strip_prefix("kafka://").ok_or_else(|| wrong("must begin with kafka://"))?;
        let (brokers, path) = rest.split_once('/').ok_or_else(|| wrong("names no log"))?;
        let (name, parameters) = path.split_once('?').unwrap_or((path, ""));
        if brokers.is_empty() || !brokers.split(',').all(|broker| broker.contains(':')) {
            return Err(wrong("names brokers without ports"));
        }
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 100 || !name.chars().all(fits) {
            return Err(wrong("a log's name is 1 to 100 of a-z, 0-9, - and _"));
        }
        let mut settings = Vec::new();
        for pair in parameters.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !matches!(key, "replication_factor" | "min_insync_replicas") {
                return Err(wrong("takes replication_factor and min_insync_replicas only"));
            }
            let value = value.parse::<u16>().ok().filter(|value| (1..=16).contains(value));
            settings.push((key.to_owned(), value.ok_or_else(|| wrong("a number of copies is 1 to 16"))?));
        }
        Ok(Self { brokers: brokers.to_owned(), name: name.to_owned(), settings })
    }

    /// Puts it into settings that say the rest, such as passwords.
    pub(super) fn put_into(&self, config: &mut Config) {
        config.log.kafka.bootstrap = Some(self.brokers.clone());
        config.log.name.clone_from(&self.name);
        for (key, value) in &self.settings {
            match key.as_str() {
                "replication_factor" => config.log.kafka.replication_factor = *value,
                _ => config.log.kafka.min_insync_replicas = Some(*value),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_name_and_copies_are_read() {
        let target = Target::read("kafka://a:1,b:2/shop?replication_factor=1&min_insync_replicas=1").unwrap();
        let mut config = Config::default();
        target.put_into(&mut config);
        assert_eq!(config.log.kafka.bootstrap.as_deref(), Some("a:1,b:2"));
        assert_eq!((config.log.name.as_str(), config.log.kafka.replication_factor), ("shop", 1));
        assert_eq!(config.log.kafka.min_insync_replicas, Some(1));
    }

    #[test]
    fn what_is_none_is_refused_with_an_example() {
        for wrong in [
            "a:1/shop",
            "kafka://a:1",
            "kafka://a/shop",
            "kafka://a:1/",
            "kafka://a:1/My",
            "kafka://a:1/x?y=1",
            "kafka://a:1/x?replication_factor=0",
        ] {
            let failure = Target::read(wrong).unwrap_err();
            assert!(failure.report(crate::output::Paint::never()).contains("next: write kafka://"), "{wrong}");
        }
    }
}
