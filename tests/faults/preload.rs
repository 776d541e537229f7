//! A disk and a clock that go wrong to order, for the real binary: `preload/faulty.c` is built with the C compiler that the
//! product itself needs, put between the process and the C library, and steered through a file that both have in memory.
//! It counts what it saw and what it did; a test that does not look at those counts has shown nothing.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// The library's source.
const SOURCE: &str = include_str!("preload/faulty.c");
/// As often as there are calls.
pub(crate) const ALWAYS: u32 = u32::MAX;
/// The file's layout, as the library has it.
const HEADER_BYTES: u64 = 128;
const RULE_BYTES: u64 = 128;
const RULES: u64 = 8;
const SEEN_AT: u64 = 16;
const FIRED_AT: u64 = 20;
const WORDS_AT: u64 = 24;
const WORDS_MAX: usize = 103;
/// How long a fault may take to happen once it is armed.
const FIRES_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Which calls go wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Calls {
    /// `write`, `pwrite`, `writev`.
    Writes = 1,
    /// `fsync`, `fdatasync`.
    Flushes = 2,
    /// `read`, `pread`.
    Reads = 4,
    /// `mmap` of a file.
    Maps = 8,
    /// Writes and flushes.
    Changes = 3,
}

/// How they go wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wrong {
    /// With this error, and nothing done.
    Error(Errno),
    /// Half of it is done, which is no error.
    Half,
    /// The process is killed in its stead.
    Kill,
    /// It waits until the rule is lifted, and goes well then. Before the next rule of this kind is in force this one must
    /// not be lifted: who waits looks only now and then.
    Wait,
}

/// A rule that is in force until it is lifted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule(u64);

/// What goes wrong for one or several processes, one after the other.
#[derive(Debug)]
pub(crate) struct Faults {
    folder: tempfile::TempDir,
    page: File,
}

/// The library, built once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    &LIBRARY
        .get_or_init(|| {
            let folder = tempfile::tempdir().expect("a scratch directory");
            let (source, library) = (folder.path().join("faulty.c"), folder.path().join("faulty.so"));
            std::fs::write(&source, SOURCE).expect("a scratch file");
            let built = Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).output();
            let built = built.expect("whoever builds the product has a C compiler");
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            (folder, library)
        })
        .1
}

impl Faults {
    /// None so far.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let path = folder.path().join("faults");
        let page = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path);
        let page = page.expect("a scratch file");
        page.set_len(HEADER_BYTES + RULES * RULE_BYTES).expect("a scratch file");
        Self { folder, page }
    }

    /// What a process needs in its environment to meet them.
    pub(crate) fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![("LD_PRELOAD", library().to_owned()), ("DOCKET_TEST_FAULTS", self.folder.path().join("faults"))]
    }

    /// From now on these calls on files with these words in their path (at its end, if the words end with `$`) go wrong, so
    /// many times, after so many went well.
    pub(crate) fn arm(&self, calls: Calls, words: &str, wrong: Wrong, pass: u32, times: u32) -> Rule {
        let number = (0..RULES).find(|number| self.number(rule_at(*number)) == 0).expect("a rule is free");
        let at = rule_at(number);
        let error = match wrong {
            Wrong::Error(errno) => errno.raw_os_error(),
            Wrong::Half => -1,
            Wrong::Kill => -2,
            Wrong::Wait => -3,
        };
        let mut rule = Vec::new();
        for field in [error.to_ne_bytes(), pass.to_ne_bytes(), times.to_ne_bytes(), [0; 4], [0; 4]] {
            rule.extend(field);
        }
        assert!(words.len() <= WORDS_MAX, "{words} is too long");
        rule.extend(words.bytes());
        rule.resize(usize::try_from(RULE_BYTES).expect("small") - 4, 0);
        self.page.write_all_at(&rule, at + 4).expect("a scratch file");
        // Last: it is in force from here on.
        self.page.write_all_at(&(calls as u32).to_ne_bytes(), at).expect("a scratch file");
        Rule(number)
    }

    /// From now on they go well again; how often they went wrong.
    pub(crate) fn lift(&self, rule: Rule) -> u32 {
        self.page.write_all_at(&[0; 4], rule_at(rule.0)).expect("a scratch file");
        self.fired(rule)
    }

    /// How often it went wrong.
    pub(crate) fn fired(&self, rule: Rule) -> u32 {
        self.number(rule_at(rule.0) + FIRED_AT)
    }

    /// How many calls were looked at, those that went wrong among them.
    pub(crate) fn seen(&self, rule: Rule) -> u32 {
        self.number(rule_at(rule.0) + SEEN_AT)
    }

    /// Waits until it went wrong so often.
    ///
    /// # Panics
    /// When it does not.
    pub(crate) async fn until_fired(&self, rule: Rule, times: u32) {
        let began = Instant::now();
        while self.fired(rule) < times {
            let (fired, seen) = (self.fired(rule), self.seen(rule));
            assert!(began.elapsed() < FIRES_WITHIN, "the fault happened {fired} times of {times}; {seen} calls seen");
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    /// Sets the wall clock so much ahead of the machine's, or behind it, from the next look at it on.
    pub(crate) fn set_clock(&self, ahead_seconds: i64) {
        self.page.write_all_at(&(ahead_seconds * 1_000_000_000).to_ne_bytes(), 0).expect("a scratch file");
    }

    /// How often the wall clock was looked at.
    pub(crate) fn looks_at_clock(&self) -> u64 {
        let mut looked = [0; 8];
        self.page.read_exact_at(&mut looked, 8).expect("a scratch file");
        u64::from_ne_bytes(looked)
    }

    fn number(&self, at: u64) -> u32 {
        let mut number = [0; 4];
        self.page.read_exact_at(&mut number, at).expect("a scratch file");
        u32::from_ne_bytes(number)
    }
}

fn rule_at(number: u64) -> u64 {
    HEADER_BYTES + number * RULE_BYTES
}

#[test]
fn the_layout_is_the_library_s() {
    // 6 fields of 4 bytes, then the words.
    assert_eq!(WORDS_AT, 24);
    assert!(SOURCE.contains("#define RULES 8") && SOURCE.contains("char words[104];"));
}
