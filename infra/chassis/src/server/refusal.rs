//! What hyper says by itself, in our words. A head that it cannot read never reaches a service: it answers with a bare
//! status and closes. Those few bytes are recognised on their way to the socket, and a problem that says why goes out in
//! their place. Where they share a write with the end of another answer (rubbish pipelined behind a good request) they
//! stay as they are: cutting an answer of ours to pieces would be worse than one without a body.

use bytes::Bytes;

use crate::problem::{Problem, codes};

/// Longer is nothing that hyper says by itself: a status line, `connection`, `content-length` and `date`.
const BARE_BYTES_MAX: usize = 256;

/// The answer to send instead of these bytes, if they are all of one of hyper's own.
pub(super) fn instead_of(written: &[u8]) -> Option<Bytes> {
    // Nearly every write ends here.
    let status = written.strip_prefix(b"HTTP/1.1 4")?.get(..2)?;
    if written.len() > BARE_BYTES_MAX {
        return None;
    }
    let fields = std::str::from_utf8(written).ok()?.strip_suffix("\r\n\r\n")?.split("\r\n").skip(1);
    let mut bare = false;
    for field in fields {
        match field.split_once(": ")? {
            ("content-length", "0") => bare = true,
            ("connection" | "date", _) => {}
            // One of ours: they have an id.
            _ => return None,
        }
    }
    let problem = match status {
        b"00" => Problem::new(codes::MALFORMED_HEAD, codes::MALFORMED_HEAD.title),
        b"31" | b"14" => Problem::head_too_large(),
        _ => return None,
    };
    bare.then(|| whole(&problem))
}

/// A problem as all of an answer, after which the connection closes.
fn whole(problem: &Problem) -> Bytes {
    let status = problem.status();
    let body = problem.to_json(None);
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    );
    [head.as_bytes(), &body].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_hyper_says_by_itself_is_replaced() {
        let bare = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\
                     date: Sat, 21 Nov 2026 20:00:00 GMT\r\n\r\n";
        let told = String::from_utf8(instead_of(bare).unwrap().to_vec()).unwrap();
        assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("\"malformed-head\""), "{told}");
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\nrequest-id: 1\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 400 Bad Request\r\n",
            "HTTP/1.1 4",
            "",
        ] {
            assert!(instead_of(other.as_bytes()).is_none(), "{other}");
        }
    }
}
