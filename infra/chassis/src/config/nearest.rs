//! The known key that an unknown one was probably meant to be.

/// How many letters may be wrong, at most a third of them.
const WRONG_MAX: usize = 4;

/// The known key that is most like `asked`: the same but for a few letters, or one whose last word is.
pub(super) fn nearest<'a>(asked: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    let asked_last = last(asked);
    let far = |known: &&str| {
        let whole = distance(asked, known);
        // In the wrong table: a word's worth of letters off, yet certainly what was meant.
        let of_last = distance(&asked_last, &last(known));
        whole.min(if of_last <= 1 { of_last + 1 } else { usize::MAX })
    };
    let nearest = known.min_by_key(far)?;
    (far(&nearest) <= WRONG_MAX.min(asked.len().div_ceil(3))).then_some(nearest)
}

/// How many letters must be put in, left out or changed to make one of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (at, theirs) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *theirs);
            diagonal = row[at + 1];
            row[at + 1] = changed.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_found() {
        let known = ["log.kind", "log.kafka.bootstrap", "log.partitions", "roles", "read_store.url"];
        let near = |asked| nearest(asked, known.into_iter());
        assert_eq!(near("log.knd"), Some("log.kind"));
        assert_eq!(near("role"), Some("roles"));
        assert_eq!(near("log.bootstrap"), Some("log.kafka.bootstrap"));
        assert_eq!(near("log.partition"), Some("log.partitions"));
        assert_eq!(near("readstore.url"), Some("read_store.url"));
        assert_eq!(near("colour"), None);
    }
}
