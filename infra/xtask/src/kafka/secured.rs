//! A broker that speaks TLS and asks who comes: at one door for a user, by password as it is or by a challenge, at another
//! for a certificate. Its own certificate is its own authority and is for 127.0.0.1 only; beside it lies another's, which did
//! not sign anything here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{Kafka, jars};
use crate::ports::{self, Port};
use crate::process::{Life, in_path, run};

/// Guards files that are gone with the test.
const STORE_PASSWORD: &str = "docket-store";

/// One broker with secured doors. Dropping it kills the broker and removes its files.
#[derive(Debug)]
pub struct Secured {
    _kafka: Kafka,
    door: Port,
    /// Opens to who shows the client's certificate.
    guarded: Port,
    // Last: files go after those who write them.
    scratch: TempDir,
}

impl Secured {
    /// The user.
    pub const USER: &str = "docket";
    /// The user's password, for PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
    pub const PASSWORD: &str = "docket-secret";

    /// Starts it and waits until it answers. It ends when this is dropped, and also when the calling process dies.
    ///
    /// # Panics
    /// When it does not come to answer: what to install, or the end of the broker's log.
    pub fn start() -> Self {
        Self::try_start().unwrap_or_else(|fault| panic!("{fault}"))
    }

    fn try_start() -> Result<Self, String> {
        let scratch =
            TempDir::with_prefix("docket-kafka-").map_err(|error| format!("no scratch directory: {error}"))?;
        let mut kafka = Kafka::start_in(scratch.path(), 1, Life::Ours)?;
        // Before anybody can come in secured, somebody has to make the user by the plain door.
        make_user(&kafka.address(1))?;
        let store = make_certificate(scratch.path(), "broker")?;
        for name in ["client", "stranger"] {
            let store = make_certificate(scratch.path(), name)?;
            write_key(&store, &scratch.path().join(format!("{name}.key")))?;
        }
        let mut doors = ports::take(2)?.into_iter();
        let (door, guarded) = doors.next().zip(doors.next()).ok_or("no ports")?;
        let properties = scratch.path().join("broker-1").join("broker.properties");
        let fault = |error: std::io::Error| format!("{}: {error}", properties.display());
        let before = fs::read_to_string(&properties).map_err(fault)?;
        let known = scratch.path().join("client.pem");
        let after = with_doors(&before, &door.address(), &guarded.address(), &store, &known);
        fs::write(&properties, after).map_err(fault)?;
        kafka.restart(1);
        Ok(Self { _kafka: kafka, door, guarded, scratch })
    }

    /// For `bootstrap.servers`, where a user is asked for.
    pub fn address(&self) -> String {
        self.door.address()
    }

    /// For `bootstrap.servers`, where a certificate is asked for.
    pub fn guarded_address(&self) -> String {
        self.guarded.address()
    }

    /// A certificate that the guarded door knows, and its key, PEM.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        self.pair("client")
    }

    /// A certificate that no door knows, and its key, PEM.
    pub fn stranger_pair(&self) -> (PathBuf, PathBuf) {
        self.pair("stranger")
    }

    fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.scratch.path().join(format!("{name}.pem")), self.scratch.path().join(format!("{name}.key")))
    }

    /// The authority that the broker's certificate goes back to, PEM.
    pub fn authority(&self) -> PathBuf {
        self.scratch.path().join("broker.pem")
    }

    /// An authority that signed nothing here, PEM.
    pub fn stranger(&self) -> PathBuf {
        self.scratch.path().join("stranger.pem")
    }
}

/// A broker's settings with two more listeners; `known` is the certificate that the guarded one lets in.
fn with_doors(before: &str, address: &str, guarded: &str, store: &Path, known: &Path) -> String {
    let mut text = String::new();
    for line in before.lines() {
        text += line;
        if line.starts_with("listeners=") || line.starts_with("advertised.listeners=") {
            text += &format!(",SECURED://{address},GUARDED://{guarded}");
        } else if line.starts_with("listener.security.protocol.map=") {
            text += ",SECURED:SASL_SSL,GUARDED:SSL";
        }
        text += "\n";
    }
    let (store, known, user, password) = (store.display(), known.display(), Secured::USER, Secured::PASSWORD);
    for door in ["secured", "guarded"] {
        text += &format!(
            "listener.name.{door}.ssl.keystore.type=PKCS12
listener.name.{door}.ssl.keystore.location={store}
listener.name.{door}.ssl.keystore.password={STORE_PASSWORD}
listener.name.{door}.ssl.key.password={STORE_PASSWORD}
"
        );
    }
    text += &format!(
        "listener.name.guarded.ssl.client.auth=required
listener.name.guarded.ssl.truststore.type=PEM
listener.name.guarded.ssl.truststore.location={known}
listener.name.secured.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.secured.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}=\"{password}\";
listener.name.secured.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secured.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
"
    );
    text
}

/// Makes the user for both challenges; PLAIN knows it from the settings.
fn make_user(plain_door: &str) -> Result<(), String> {
    let home = jars::home()?;
    // One at a time: the broker takes no two changes of a user in one request.
    for challenge in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        run(Command::new(&home.java)
            .arg(format!("-Dlog4j2.configurationFile=file:{}", home.logging.display()))
            .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &home.classes, "kafka.admin.ConfigCommand"])
            .args(["--bootstrap-server", plain_door, "--alter", "--entity-type", "users"])
            .args(["--entity-name", Secured::USER, "--add-config"])
            .arg(format!("{challenge}=[password={}]", Secured::PASSWORD)))?;
    }
    Ok(())
}

/// Makes a key with a certificate that signs itself, and writes that one for clients to trust. The store with the key.
fn make_certificate(directory: &Path, name: &str) -> Result<PathBuf, String> {
    let keytool = in_path("keytool").ok_or("no `keytool` in PATH; it comes with Java")?;
    let store = directory.join(format!("{name}.p12"));
    let tool = || {
        let mut command = Command::new(&keytool);
        command.args(["-alias", name, "-storetype", "PKCS12", "-storepass", STORE_PASSWORD, "-keystore"]).arg(&store);
        command
    };
    run(tool().args(["-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1", "-validity", "30"]).args([
        "-dname",
        &format!("CN={name}"),
        "-ext",
        "san=ip:127.0.0.1",
    ]))?;
    run(tool().args(["-exportcert", "-rfc", "-file"]).arg(directory.join(format!("{name}.pem"))))?;
    Ok(store)
}

/// Writes the private key of a store, for clients that take no store.
fn write_key(store: &Path, key: &Path) -> Result<(), String> {
    let openssl = in_path("openssl").ok_or("no `openssl` in PATH; install the package openssl")?;
    run(Command::new(openssl)
        .args(["pkcs12", "-nocerts", "-nodes", "-passin", &format!("pass:{STORE_PASSWORD}"), "-in"])
        .arg(store)
        .arg("-out")
        .arg(key))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secured_doors_are_two_more_and_the_others_stay() {
        let before = "listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2\nadvertised.listeners=PLAINTEXT://127.0.0.1:1\n\
                      listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nnode.id=1\n";
        let after = with_doors(before, "127.0.0.1:3", "127.0.0.1:4", Path::new("store.p12"), Path::new("known.pem"));
        for line in [
            "listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2,SECURED://127.0.0.1:3,GUARDED://127.0.0.1:4",
            "advertised.listeners=PLAINTEXT://127.0.0.1:1,SECURED://127.0.0.1:3,GUARDED://127.0.0.1:4",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL,GUARDED:SSL",
            "node.id=1",
            "listener.name.secured.ssl.keystore.location=store.p12",
            "listener.name.guarded.ssl.keystore.location=store.p12",
            "listener.name.guarded.ssl.truststore.location=known.pem",
        ] {
            assert!(after.lines().any(|found| found == line), "{line} is not in\n{after}");
        }
    }
}
