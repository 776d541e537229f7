//! What the README shows is run as it stands: every line of its transcript, literally, by a shell that knows `docket`.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::platform::{Server, repository};

/// The lines behind `$ ` in the first console block after the transcript's mark.
fn transcript() -> Vec<String> {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("a README");
    let (_, after) = readme.split_once("<!-- transcript").expect("the README marks its transcript");
    let (_, block) = after.split_once("```console\n").expect("a console block");
    let (block, _) = block.split_once("\n```").expect("its end");
    block.lines().filter_map(|line| line.strip_prefix("$ ")).map(ToOwned::to_owned).collect()
}

fn run(line: &str, path: &std::path::Path, server: &str) -> Output {
    let search = format!("{}:{}", path.display(), std::env::var("PATH").unwrap_or_default());
    Command::new("sh")
        .args(["-c", line])
        .env("PATH", search)
        .env("DOCKET_SERVER", server)
        .stdin(Stdio::null())
        .output()
        .expect("a shell")
}

#[tokio::test]
async fn every_line_of_the_transcript_works_as_it_stands() {
    let tools = TempDir::new().expect("a folder");
    let docket = tools.path().join("docket");
    let binary = kit::docket::binary().canonicalize().expect("the binary is there");
    std::fs::write(&docket, format!("#!/bin/sh\nexec '{}' \"$@\"\n", binary.display())).expect("a script");
    std::fs::set_permissions(&docket, std::fs::Permissions::from_mode(0o755)).expect("an executable");
    let lines = transcript();
    assert!(lines.len() >= 4 && lines[0] == "docket dev", "{lines:?}");
    // The first line is the server: here on a port that nobody else has, and with its data out of the way.
    let server = Server::start(&[]).await;
    for line in &lines[1..] {
        let address = server.docket.address().to_owned();
        let output = run(line, tools.path(), &address);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "$ {line}\n{out}{err}");
        assert!(!out.trim().is_empty(), "$ {line} says nothing\n{err}");
    }
    let orders = server.docket.client().list("/v1/orders").await.expect("a list");
    assert_eq!(orders.len(), 1);
    assert_eq!(orders[0]["status"], "confirmed", "{}", orders[0]);
}
