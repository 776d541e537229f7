//! What the operating system lets this process have: open files, memory (its own limit and that of the group it is in),
//! address space, and how large a file may grow.

use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::config::Config;
use crate::descriptors::FILES_BESIDE;

/// Memory that a node takes beside its caches, in MiB: under load, with views.
const MEMORY_BESIDE_MIB: u64 = 176;
/// What makes it take less.
const LOWER_CACHES: &str = "lower limits.state_cache_mib, log.cache_mib, state_store.cache_mib or read_store.cache_mib";
/// Address space that the allocator and mapped files may reserve, in MiB; hardly any of it is memory.
const ADDRESSES_MIB: u64 = 8 << 10;
/// Largest file that a log makes: a segment.
const FILE_BYTES: u64 = 64 << 20;

/// Looks at them, for the connections and caches that a node is to have.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    let connections = config.limits.connections as u64;
    let memory_mib = MEMORY_BESIDE_MIB + caches_mib(config);
    vec![
        // A node raises its own limit as far as it may.
        open_files(getrlimit(Resource::Nofile).maximum, connections),
        memory(group_limit(), available(), memory_mib << 20),
        address_space(getrlimit(Resource::As).current),
        file_size(getrlimit(Resource::Fsize).current),
    ]
}

/// All caches whose size can be set.
fn caches_mib(config: &Config) -> u64 {
    let (log, states) = (config.log.cache_mib as u64, config.limits.state_cache_mib);
    log + states + config.state_store.cache_mib + config.read_store.cache_mib
}

fn open_files(limit: Option<u64>, connections: u64) -> Finding {
    let needed = connections + FILES_BESIDE;
    match limit {
        Some(limit) if limit < needed => Finding::note(
            "open-files",
            format!("{limit} may be open; {connections} connections and what is beside them need {needed}"),
            format!("ulimit -n {needed}, LimitNOFILE={needed}, or a lower limits.connections"),
        ),
        Some(limit) => Finding::ok("open-files", format!("{limit} may be open")),
        None => Finding::ok("open-files", "no limit"),
    }
}

fn memory(group: Option<u64>, available: Option<u64>, needed: u64) -> Finding {
    let mib = |bytes: u64| bytes >> 20;
    let told = match (group, available) {
        (Some(group), Some(available)) => {
            format!("the group may have {} MiB, {} MiB are free", mib(group), mib(available))
        }
        (Some(group), None) => format!("the group may have {} MiB", mib(group)),
        (None, Some(available)) => format!("{} MiB are free, and no group limits them", mib(available)),
        (None, None) => return Finding::ok("memory", "this system does not say how much there is"),
    };
    let least = group.unwrap_or(u64::MAX).min(available.unwrap_or(u64::MAX));
    if least >= needed {
        return Finding::ok("memory", told);
    }
    let mend = match group {
        Some(group) if group < needed => {
            format!("allow {} MiB (memory.max), or {LOWER_CACHES}", mib(needed))
        }
        _ => format!("end what else runs here, or {LOWER_CACHES}"),
    };
    Finding::note("memory", format!("{told}; under load a node takes about {}", mib(needed)), mend)
}

fn address_space(limit: Option<u64>) -> Finding {
    match limit {
        Some(limit) if limit >> 20 < ADDRESSES_MIB => Finding::note(
            "address-space",
            format!("limited to {} MiB: the allocator reserves more than it uses", limit >> 20),
            "ulimit -v unlimited, LimitAS=infinity; limit memory with memory.max instead",
        ),
        Some(limit) => Finding::ok("address-space", format!("limited to {} MiB", limit >> 20)),
        None => Finding::ok("address-space", "no limit"),
    }
}

fn file_size(limit: Option<u64>) -> Finding {
    match limit {
        Some(limit) if limit < FILE_BYTES => Finding::failed(
            "file-size",
            format!("a file may have {} MiB, a segment of the log has {}", limit >> 20, FILE_BYTES >> 20),
            "ulimit -f unlimited, LimitFSIZE=infinity",
        ),
        Some(limit) => Finding::ok("file-size", format!("a file may have {} MiB", limit >> 20)),
        None => Finding::ok("file-size", "no limit"),
    }
}

/// The least that any group above this process allows, in bytes.
fn group_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_below(Path::new("/sys/fs/cgroup"), &groups)
}

fn limit_below(root: &Path, groups: &str) -> Option<u64> {
    let mut least = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (base, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        let own: PathBuf = base.join(path.trim_start_matches('/'));
        for group in own.ancestors().take_while(|group| group.starts_with(&base)) {
            let limit = std::fs::read_to_string(group.join(file)).ok().and_then(|text| text.trim().parse::<u64>().ok());
            // The older kind says "no limit" with a number beyond any memory.
            least = limit.filter(|limit| *limit < 1 << 60).into_iter().chain(least).min();
        }
    }
    least
}

fn available() -> Option<u64> {
    let told = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = told.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn too_few_files_come_with_how_many_are_needed() {
        assert_eq!(open_files(Some(1_000), 4_096).state, State::Note);
        assert!(open_files(Some(1_000), 4_096).mend.contains("4608"));
        assert_eq!(open_files(Some(1 << 20), 4_096).state, State::Ok);
        assert_eq!(open_files(None, 4_096).state, State::Ok);
    }

    #[test]
    fn little_memory_is_told_with_who_limits_it() {
        let mib = |mib: u64| Some(mib << 20);
        assert_eq!(memory(None, mib(4_096), 300 << 20).state, State::Ok);
        assert!(memory(mib(128), mib(4_096), 300 << 20).mend.contains("memory.max"));
        assert!(memory(mib(512), mib(100), 300 << 20).mend.contains("what else runs"));
        assert_eq!(memory(None, None, 300 << 20).state, State::Ok);
    }

    #[test]
    fn larger_caches_need_more_memory() {
        let mut config = Config::default();
        let usual = caches_mib(&config);
        config.log.cache_mib += 1;
        config.limits.state_cache_mib += 10;
        config.state_store.cache_mib += 100;
        config.read_store.cache_mib += 1_000;
        assert_eq!((usual, caches_mib(&config)), (88, 88 + 1_111));
    }

    #[test]
    fn files_that_may_not_hold_a_segment_are_a_failure() {
        assert_eq!(file_size(Some(1 << 20)).state, State::Failed);
        assert_eq!(file_size(None).state, State::Ok);
        assert_eq!(address_space(Some(1 << 30)).state, State::Note);
        assert_eq!(address_space(None).state, State::Ok);
    }

    #[test]
    fn the_tightest_group_above_counts_of_either_kind() {
        let root = std::env::temp_dir().join(format!("docket-limits-test-{}", uuid::Uuid::now_v7()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("a/memory.max", "1000\n");
        write("a/b/memory.max", "max\n");
        assert_eq!(limit_below(&root, "0::/a/b\n"), Some(1_000));
        assert_eq!(limit_below(&root, "0::/c\n"), None);
        write("memory/x/memory.limit_in_bytes", "2000\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit_below(&root, "4:cpu:/x\n3:memory:/x\n"), Some(2_000));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
