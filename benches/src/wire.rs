//! Asks a server for one thing over a connection of its own, for looks and probes; or for one after the other over a
//! connection that stays open.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Done;

/// How long a look may take.
const LOOKS_WITHIN: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: u16,
    head: String,
    /// Its body.
    pub(crate) body: String,
}

impl Reply {
    /// A header, by its name in small letters.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Asks, with a body if there is one, and waits so long for each part of the answer.
pub(crate) fn ask(
    server: SocketAddr,
    what: &str,
    headers: &[(&str, &str)],
    body: &str,
    within: Duration,
) -> Done<Reply> {
    let mut stream = TcpStream::connect_timeout(&server, within)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    let mut request = format!("{what} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    stream.write_all(format!("{request}\r\n{body}").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("half an answer")?;
    Ok(Reply { status, head: head.to_owned(), body: body.to_owned() })
}

/// Reads something.
pub(crate) fn get(server: SocketAddr, path: &str) -> Done<Reply> {
    ask(server, &format!("GET {path}"), &[], "", LOOKS_WITHIN)
}

/// A connection that stays open.
pub(crate) struct Kept {
    server: SocketAddr,
    asking: TcpStream,
    answers: BufReader<TcpStream>,
    line: String,
    body: Vec<u8>,
}

impl Kept {
    pub(crate) fn open(server: SocketAddr) -> Done<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOKS_WITHIN))?;
        let (asking, answers) = (stream.try_clone()?, BufReader::new(stream));
        Ok(Self { server, asking, answers, line: String::new(), body: Vec::new() })
    }

    /// Reads something; anything but 200 is an error.
    pub(crate) fn get(&mut self, path: &str) -> Done<()> {
        self.ask(&format!("GET {path}"), "")
    }

    /// Commands something under a new key; anything but 200 is an error.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> Done<()> {
        let (key, length) = (uuid::Uuid::now_v7(), body.len());
        let json = "Content-Type: application/json";
        self.ask(
            &format!("POST {path}"),
            &format!("Idempotency-Key: {key}\r\n{json}\r\nContent-Length: {length}\r\n\r\n{body}"),
        )
    }

    /// `rest` is what follows the request's first headers, with the blank line before its body; nothing if it has none.
    fn ask(&mut self, what: &str, rest: &str) -> Done<()> {
        let rest = if rest.is_empty() { "\r\n" } else { rest };
        self.asking.write_all(format!("{what} HTTP/1.1\r\nHost: {}\r\n{rest}", self.server).as_bytes())?;
        self.next_line()?;
        if !self.line.contains(" 200 ") {
            return Err(format!("{what}: {}", self.line.trim()).into());
        }
        let mut length = 0;
        loop {
            self.next_line()?;
            match self.line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
                Some(_) => {}
                None => break,
            }
        }
        self.body.resize(length, 0);
        self.answers.read_exact(&mut self.body)?;
        Ok(())
    }

    fn next_line(&mut self) -> Done<()> {
        self.line.clear();
        match self.answers.read_line(&mut self.line)? {
            0 => Err("the server hung up".into()),
            _ => Ok(()),
        }
    }
}

/// A figure of `/metrics`: the sum of all lines of that name.
pub(crate) fn metric(page: &str, name: &str) -> f64 {
    let lines = page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_sum_of_its_lines_and_of_no_other() {
        let page = "# HELP a\na{of=\"x\"} 1\na{of=\"y\"} 2.5\na_more 100\na 4\n";
        assert_eq!(metric(page, "a"), 7.5);
    }

    #[test]
    fn a_header_is_found_however_it_is_written() {
        let head = "HTTP/1.1 200 OK\r\nDocket-Position: 3:14, 4:15".to_owned();
        let reply = Reply { status: 200, head, body: String::new() };
        assert_eq!(reply.header("docket-position"), Some("3:14, 4:15"));
        assert_eq!(reply.header("etag"), None);
    }
}
