//! What a release is made of: the program with TLS to Kafka, its papers and examples in one archive, and the checksum of it.
//! The same sources give the same archive but for what the compiler itself does: names are sorted, times and owners left out.

use std::path::Path;
use std::process::Command;

use crate::{Done, root, step, target};

/// Beside the program.
const PAPERS: [&str; 6] = ["README.md", "CHANGELOG.md", "ARCHITECTURE.md", "LICENSE-MIT", "LICENSE-APACHE", "examples"];

/// Builds the archive in `<target>/dist`.
pub(crate) fn dist() -> Done {
    step("cargo", &["build", "--release", "--locked", "--package", "docket", "--features", "kafka-tls"])?;
    let name = format!("docket-{}-{}", env!("CARGO_PKG_VERSION"), host()?);
    let (dist, folder) = (target().join("dist"), target().join("dist").join(&name));
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let shown = folder.display().to_string();
    step("cp", &[&target().join("release/docket").display().to_string(), &shown])?;
    for paper in PAPERS {
        step("cp", &["--recursive", &root().join(paper).display().to_string(), &shown])?;
    }
    let (archive, dist) = (format!("{name}.tar.gz"), dist.display().to_string());
    let path = Path::new(&dist).join(&archive).display().to_string();
    let plain = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"];
    step("tar", &[&["--create", "--gzip", "--file", &path, "--directory", &dist][..], &plain, &[&name]].concat())?;
    let sum = Command::new("sha256sum").arg(&archive).current_dir(&dist).output();
    let sum = sum.ok().filter(|sum| sum.status.success()).ok_or("sha256sum")?;
    std::fs::write(format!("{path}.sha256"), &sum.stdout).map_err(failed)?;
    println!("xtask: {path}\nxtask: {}", String::from_utf8_lossy(&sum.stdout).trim_end());
    Ok(())
}

/// What this machine is to the compiler, and so to the program.
fn host() -> Result<String, String> {
    let told = Command::new("rustc").arg("-vV").output().map_err(|error| format!("rustc -vV ({error})"))?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    told.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned).ok_or_else(|| "rustc -vV".to_owned())
}
