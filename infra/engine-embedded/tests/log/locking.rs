//! Two processes never have one log.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use engine_embedded::OpenFault;

use crate::support::{contents, must_append, open, record, refuse, small};

const HELD: &str = "DOCKET_TEST_LOG_HELD";

/// Not a test by itself: run by the one below in a process of its own, with the directory in the environment.
#[test]
fn another_process_holds_the_log() {
    let Some(directory) = std::env::var_os(HELD) else { return };
    let (log, _) = open(directory.as_ref(), small(2));
    must_append(&log, 0, record(1, 10));
    println!("\nheld");
    std::io::stdout().flush().expect("a pipe");
    // Until it is killed.
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing).expect("a pipe");
}

#[test]
fn a_second_process_is_refused_with_the_pid_of_the_first() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut first = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "locking::another_process_holds_the_log", "--nocapture"])
        .env(HELD, directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let lines = BufReader::new(first.stdout.take().expect("a pipe")).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "held"), "the first process has the log");

    let fault = refuse(directory.path(), small(2));
    match &fault {
        OpenFault::InUse { pid, .. } => assert_eq!(*pid, first.id().to_string()),
        other => panic!("{other}"),
    }
    assert!(fault.to_string().contains(&format!("in use by process {}", first.id())), "{fault}");

    // Nothing is left of the lock when its holder is killed, and nothing is lost of what it appended.
    first.kill().expect("killed");
    first.wait().expect("ended");
    let (log, report) = open(directory.path(), small(2));
    assert!(report.torn.is_none());
    assert_eq!(contents(&log)[&0][1], record(1, 10));
}

#[test]
fn a_second_handle_in_one_process_is_refused_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let (log, _) = open(directory.path(), small(2));
    assert!(matches!(
        refuse(directory.path(), small(2)),
        OpenFault::InUse { pid, .. } if pid == std::process::id().to_string()
    ));
    drop(log);
    open(directory.path(), small(2));
}
