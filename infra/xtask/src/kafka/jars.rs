//! Apache Kafka's jars, fetched once by Maven into a cache that all working copies share, with an empty formatted directory
//! beside them: formatting anew for each broker would cost a second each time. A lock keeps two fetches apart, and nothing
//! is found there before it is whole.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{in_path, run};

/// The version that tests and people get.
pub const VERSION: &str = "4.3.1";

/// The jars that a broker and its tools need, and a logger that takes their words.
fn pom() -> String {
    let one = |(group, artifact, version): (&str, &str, &str)| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>\n"
        )
    };
    let jars = [
        ("org.apache.kafka", "kafka_2.13", VERSION),
        ("org.apache.kafka", "kafka-tools", VERSION),
        // Kafka speaks slf4j 1.7; this is what binds it.
        ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.24.3"),
    ];
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\n\
         <groupId>docket</groupId><artifactId>kafka</artifactId><version>1</version>\n\
         <dependencies>\n{}</dependencies></project>\n",
        jars.map(one).concat()
    )
}

/// What a broker is to be quick at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// To be there: for tests and for people.
    Start,
    /// To serve: for who measures it.
    Serve,
}

/// Where everything lies.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    /// What to start.
    pub(crate) java: PathBuf,
    /// For `-cp`.
    pub(crate) classes: String,
    /// A formatted log directory that nobody ever used.
    pub(crate) template: PathBuf,
    /// Tells the logger to say what matters.
    pub(crate) logging: PathBuf,
    /// The classes of a running broker, loaded: halves what a start costs. Java goes on without it where it does not fit.
    pub(crate) archive: PathBuf,
}

impl Home {
    /// How every broker's Java is started, up to its heap. The archive holds only for the same flags.
    pub(crate) fn java(&self, archive: &str, haste: Haste) -> Vec<String> {
        // Two cores: no collector that wants one for itself.
        let mut flags: Vec<String> = ["-XX:+UseSerialGC", "-Djava.awt.headless=true"].map(str::to_owned).into();
        if haste == Haste::Start {
            // Short lives: no compiler threads that work for a future which does not come.
            flags.push("-XX:TieredStopAtLevel=1".to_owned());
        }
        flags.push(format!("-XX:{archive}={}", self.archive.display()));
        flags.push(format!("-Dlog4j2.configurationFile=file:{}", self.logging.display()));
        flags
    }
}

/// Why there is no Kafka to be had here, and what to do about it; `None` if there is.
pub(crate) fn missing() -> Option<String> {
    if in_path("java").is_none() {
        return Some(
            "no `java` in PATH (Debian: apt-get install openjdk-17-jre-headless; Java 17 or newer)".to_owned(),
        );
    }
    if in_path("mvn").is_none() && !cache().join("whole").exists() {
        return Some(format!("no `mvn` in PATH to fetch Kafka {VERSION} with (Debian: apt-get install maven)"));
    }
    None
}

fn cache() -> PathBuf {
    let home = |name: &str, below: &str| {
        std::env::var_os(name).filter(|value| !value.is_empty()).map(|value| Path::new(&value).join(below))
    };
    home("XDG_CACHE_HOME", "docket")
        .or_else(|| home("HOME", ".cache/docket"))
        .unwrap_or_else(|| std::env::temp_dir().join("docket"))
        .join(format!("kafka-{VERSION}"))
}

/// Finds the jars, or fetches them first.
///
/// # Errors
/// What is missing, and how to get it.
pub(crate) fn home() -> Result<Home, String> {
    if let Some(missing) = missing() {
        return Err(missing);
    }
    let cache = cache();
    let fault = |error: std::io::Error| format!("cannot write to {}: {error}", cache.display());
    fs::create_dir_all(&cache).map_err(fault)?;
    let lock = File::options().create(true).truncate(false).write(true).open(cache.join("lock")).map_err(fault)?;
    lock.lock().map_err(fault)?;
    let home = Home {
        java: in_path("java").ok_or("no `java` in PATH")?,
        classes: format!("{}/*", cache.join("lib").display()),
        template: cache.join("template"),
        logging: cache.join("log4j2.properties"),
        archive: cache.join("classes.jsa"),
    };
    if !cache.join("whole").exists() {
        fetch(&cache)?;
        fs::write(&home.logging, LOGGING).map_err(fault)?;
        format(&home, &cache)?;
        if let Err(fault) = super::archive_classes(&home) {
            println!("xtask: brokers will start slower than they could: {fault}");
        }
        fs::write(cache.join("whole"), VERSION).map_err(fault)?;
    }
    Ok(home)
}

fn fetch(cache: &Path) -> Result<(), String> {
    println!("xtask: fetching Apache Kafka {VERSION} with Maven into {} (54 MB, once)", cache.display());
    fs::write(cache.join("pom.xml"), pom()).map_err(|error| format!("cannot write the pom: {error}"))?;
    // Half of an earlier fetch.
    let _ = fs::remove_dir_all(cache.join("lib"));
    let mvn = in_path("mvn").ok_or("no `mvn` in PATH")?;
    run(Command::new(mvn)
        .args(["-q", "-B", "dependency:copy-dependencies"])
        .arg(format!("-DoutputDirectory={}", cache.join("lib").display()))
        .current_dir(cache))
    .map_err(|fault| format!("{fault}\nMaven needs a way to a Maven repository; see ~/.m2/settings.xml for mirrors"))?;
    Ok(())
}

fn format(home: &Home, cache: &Path) -> Result<(), String> {
    let _ = fs::remove_dir_all(&home.template);
    let properties = cache.join("template.properties");
    let text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:1\n\
         listeners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1\ncontroller.listener.names=CONTROLLER\nlog.dirs={}\n",
        home.template.display()
    );
    fs::write(&properties, text).map_err(|error| format!("cannot write {}: {error}", properties.display()))?;
    run(Command::new(&home.java)
        .arg(format!("-Dlog4j2.configurationFile=file:{}", home.logging.display()))
        .args(["-cp", &home.classes, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
        .arg(&properties))
    .map(drop)
}

/// Names the template's cluster; each that is made from it has a name of its own.
pub(crate) const CLUSTER_ID: &str = "docketAAAAAAAAAAAAAAAA";

const LOGGING: &str = "rootLogger.level=info
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %m (%c{1})%n
";
