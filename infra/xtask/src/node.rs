//! How a node of the product is set up for a cluster on loopback: its configuration file, how it is started, and whether it
//! serves. Used by tests and by `cargo xtask cluster` alike, so that both start what an operator would.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::Recipe;

/// How long a node may take to say whether it serves.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// Most of an answer that is read: it is one line.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;

/// What a node is to be.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name; a claim in the log tells it.
    pub name: String,
    /// Where it takes HTTP: `127.0.0.1:8101`.
    pub http: String,
    /// Where it takes what other nodes hand over.
    pub grpc: String,
    /// Where others are told to reach it, if somebody stands between.
    pub advertise: Option<String>,
    /// Its own directory.
    pub data: PathBuf,
    /// What it does; nothing is everything.
    pub roles: Vec<String>,
    /// `kafka` as `bootstrap.servers` and the topic's replication factor; without it a log of its own in `data`.
    pub kafka: Option<(String, u8)>,
    /// The log's name.
    pub log: String,
    /// Partitions of a log that is not there yet.
    pub partitions: u16,
    /// Where rows are kept: `postgres://…` or `sqlite:…`.
    pub read_store: String,
    /// More `key = "value"` lines for the top of the file, as they are.
    pub more: Vec<String>,
}

impl Node {
    /// Its configuration, as `docket serve --config` reads it.
    pub fn configuration(&self) -> String {
        let quoted = |text: &str| format!("{text:?}");
        let mut lines = vec![
            format!(
                "node = {{ name = {}, advertise = {} }}",
                quoted(&self.name),
                quoted(self.advertise.as_ref().unwrap_or(&self.grpc))
            ),
            format!("listen = {{ http = {}, grpc = {} }}", quoted(&self.http), quoted(&self.grpc)),
            format!("data = {}", quoted(&self.data.to_string_lossy())),
            "gateway = \"simulator\"".to_owned(),
        ];
        if !self.roles.is_empty() {
            let roles: Vec<String> = self.roles.iter().map(|role| quoted(role)).collect();
            lines.push(format!("roles = [{}]", roles.join(", ")));
        }
        lines.extend(self.more.iter().cloned());
        lines.push("[log]".to_owned());
        lines.push(format!("kind = {}", quoted(if self.kafka.is_some() { "kafka" } else { "embedded" })));
        lines.push(format!("name = {}", quoted(&self.log)));
        lines.push(format!("partitions = {}", self.partitions));
        if let Some((bootstrap, replicas)) = &self.kafka {
            lines.push(format!("kafka = {{ bootstrap = {}, replication_factor = {replicas} }}", quoted(bootstrap)));
        }
        lines.push("[read_store]".to_owned());
        lines.push(format!("url = {}", quoted(&self.read_store)));
        lines.join("\n") + "\n"
    }

    /// Writes its configuration to `directory` and tells how to start it; its output goes there too.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn recipe(&self, binary: &Path, directory: &Path) -> Result<Recipe, String> {
        let file = directory.join(format!("{}.toml", self.name));
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(&file, self.configuration()))
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
        let recipe = Recipe::new(binary, directory, &directory.join(format!("{}.log", self.name)));
        Ok(recipe.arguments(["serve", "--config"]).arguments([&file]))
    }
}

/// Asks `/readyz`: the status, or why there was no answer.
///
/// # Errors
/// When it does not answer in time.
pub fn ready(http: &str) -> Result<u16, String> {
    let told = |error: std::io::Error| format!("{http} does not answer: {error}");
    let address = http.parse().map_err(|_| format!("{http} is no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWERS_WITHIN).map_err(told)?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN)).map_err(told)?;
    stream.set_write_timeout(Some(ANSWERS_WITHIN)).map_err(told)?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n").map_err(told)?;
    let mut answer = Vec::new();
    // What came before a reset counts.
    let _ = stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer);
    let first = String::from_utf8_lossy(&answer);
    first.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| format!("{http} does not answer"))
}

#[cfg(test)]
mod tests {
    //! The keys that http.md §8 promises.

    use super::*;

    #[test]
    fn a_configuration_names_the_log_the_store_and_both_doors() {
        let node = Node {
            name: "node-1".to_owned(),
            http: "127.0.0.1:8101".to_owned(),
            grpc: "127.0.0.1:7101".to_owned(),
            advertise: None,
            data: "/tmp/\"n1\"".into(),
            roles: vec!["command".to_owned()],
            kafka: Some(("127.0.0.1:19192".to_owned(), 1)),
            log: "shop".to_owned(),
            partitions: 12,
            read_store: "postgres://docket@127.0.0.1:15432/docket".to_owned(),
            more: Vec::new(),
        };
        let text = node.configuration();
        for line in [
            r#"node = { name = "node-1", advertise = "127.0.0.1:7101" }"#,
            r#"listen = { http = "127.0.0.1:8101", grpc = "127.0.0.1:7101" }"#,
            r#"data = "/tmp/\"n1\"""#,
            r#"roles = ["command"]"#,
            r#"kafka = { bootstrap = "127.0.0.1:19192", replication_factor = 1 }"#,
            r#"url = "postgres://docket@127.0.0.1:15432/docket""#,
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
