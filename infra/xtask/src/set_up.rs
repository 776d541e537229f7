//! Sets a machine up for the tests: what they need beyond Rust and a C compiler is installed where we may, and named with
//! what is skipped without it where we may not.

use std::path::Path;
use std::process::Command;

use crate::process::{in_path, is_root};
use crate::{kafka, postgres};

/// Something the tests want, the Debian packages it comes in (the first that can be installed wins), and what is skipped
/// without it.
struct Want {
    what: &'static str,
    packages: &'static [&'static str],
    without: &'static str,
    is_there: fn() -> bool,
}

/// Where distributions put it.
const FAKETIME: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

const WANTS: &[Want] = &[
    Want {
        what: "make, a C++ compiler and perl, with which the Kafka client and its TLS are built",
        packages: &["build-essential"],
        without: "nothing: it will not build, unless with --no-default-features",
        is_there: || ["make", "c++", "perl"].into_iter().all(|tool| in_path(tool).is_some()),
    },
    Want {
        what: "mkfs.xfs, to cut the power under a real file system",
        packages: &["xfsprogs"],
        without: "the power-cut tests",
        is_there: || ["/usr/sbin/mkfs.xfs", "/sbin/mkfs.xfs"].iter().any(|path| Path::new(path).exists()),
    },
    Want {
        what: "libfaketime, to set a server's clock ahead",
        packages: &["faketime"],
        without: "nothing: a test that waits five minutes will do so",
        is_there: || faketime().is_some(),
    },
    Want {
        what: "Java 17 or newer, to run Apache Kafka",
        packages: &["openjdk-17-jre-headless", "openjdk-21-jre-headless", "default-jre-headless"],
        without: "the tests on Kafka",
        is_there: || in_path("java").is_some(),
    },
    Want {
        what: "Maven, to fetch Apache Kafka",
        packages: &["maven"],
        without: "the tests on Kafka",
        is_there: || kafka::missing().is_none(),
    },
    Want {
        what: "openssl, to make the key of a client whom brokers ask for a certificate",
        packages: &["openssl"],
        without: "nothing: the test of certificates will fail",
        is_there: || in_path("openssl").is_some(),
    },
    Want {
        what: "PostgreSQL 15 or newer",
        packages: &["postgresql-15", "postgresql"],
        without: "the tests on PostgreSQL",
        is_there: || postgres::missing().is_none(),
    },
];

/// The library that sets the clock of one process, where it is installed.
pub fn faketime() -> Option<&'static Path> {
    FAKETIME.iter().map(Path::new).find(|path| path.exists())
}

/// Installs what is missing if we are root on a Debian, and says what is skipped if it is still missing. Never fails: every
/// test that needs one of these says so itself.
pub fn set_up() {
    let missing = || WANTS.iter().filter(|want| !(want.is_there)()).collect::<Vec<_>>();
    if !missing().is_empty() && is_root() && Path::new("/usr/bin/apt-get").exists() {
        apt_get(&["update", "-qq"]);
        for want in missing() {
            // Java may have come with Maven meanwhile.
            let _ = (want.is_there)()
                || want.packages.iter().any(|package| {
                    apt_get(&["install", "-qq", "--yes", "--no-install-recommends", package]) && (want.is_there)()
                });
        }
    }
    if kafka::missing().is_none()
        && let Err(fault) = kafka::prepare()
    {
        println!("xtask: Kafka cannot be fetched; the tests on Kafka will fail: {fault}");
    }
    for want in missing() {
        let packages = want.packages[0];
        println!("xtask: missing: {} (Debian: apt-get install {packages}); skipped: {}", want.what, want.without);
    }
}

fn apt_get(arguments: &[&str]) -> bool {
    println!("xtask: apt-get {}", arguments.join(" "));
    let status = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status();
    status.is_ok_and(|status| status.success())
}
