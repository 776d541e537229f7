//! Where a log lies: the directory that was named, or the one in it that a node's data directory has for its log.

use std::path::{Path, PathBuf};

use engine_embedded::OpenFault;

use crate::failure::{Exit, Failure};

/// The directory with the segments: `named` itself, its `log`, or its `copy` of a log in Kafka.
pub(super) fn find(named: &Path) -> Result<PathBuf, Failure> {
    if has_segments(named) {
        return Ok(named.to_owned());
    }
    let within = ["log", "copy"].map(|name| named.join(name));
    match within.iter().filter(|path| has_segments(path)).collect::<Vec<_>>().as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let failure = Failure::plain(format!("there is no log in {}", named.display())).exit(Exit::Usage);
            Err(failure.next("name a data directory, or the directory in it that holds *.segment"))
        }
        many => {
            let failure = Failure::plain(format!("{} holds a log and the copy of one", named.display()));
            Err(many
                .iter()
                .fold(failure, |failure, one| failure.next(format!("name {}", one.display())))
                .exit(Exit::Usage))
        }
    }
}

fn has_segments(directory: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(directory) else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".segment").or_else(|| name.strip_suffix(".index")));
        name.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// Why a log could not be looked at, or not to its end.
pub(super) fn cannot_read(fault: &OpenFault) -> Failure {
    let failure = Failure::of("cannot read the log", fault);
    match fault {
        OpenFault::Damaged { .. } => failure.next("docket log verify DIR tells all that is damaged"),
        OpenFault::TooNew { .. } => {
            failure.next("use the version of docket that wrote it, or a newer one").exit(Exit::Usage)
        }
        _ => failure.exit(Exit::Usage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_found_in_its_data_directory_and_two_are_not_guessed_at() {
        let data = std::env::temp_dir().join(format!("docket-place-test-{}", uuid::Uuid::now_v7()));
        let make = |name: &str| {
            std::fs::create_dir_all(data.join(name)).unwrap();
            std::fs::write(data.join(name).join("0000000000.segment"), b"").unwrap();
        };
        std::fs::create_dir_all(&data).unwrap();
        assert_eq!(find(&data).unwrap_err().code(), Exit::Usage);
        make("log");
        assert_eq!(find(&data).unwrap(), data.join("log"));
        assert_eq!(find(&data.join("log")).unwrap(), data.join("log"));
        make("copy");
        assert_eq!(find(&data).unwrap_err().code(), Exit::Usage);
        assert_eq!(find(&data.join("copy")).unwrap(), data.join("copy"));
        std::fs::remove_dir_all(&data).unwrap();
    }
}
