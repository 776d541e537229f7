//! One process of a cluster: who it is, how it was started, and what it is doing; and how all of them are kept in a file.

use std::ffi::OsString;
use std::net::TcpStream;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::node;
use crate::process::{Name, Recipe};

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A Kafka broker.
    Broker,
    /// The database.
    Postgres,
    /// A node of the product.
    Node,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Broker, Self::Postgres, Self::Node];

    /// As it is shown and kept.
    pub fn word(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Postgres => "postgres",
            Self::Node => "node",
        }
    }
}

/// What a member is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It takes requests.
    Serving,
    /// It runs and does not take requests, or not yet.
    Running,
    /// It is frozen.
    Paused,
    /// It is not there.
    Dead,
}

impl State {
    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Running => "not ready",
            Self::Paused => "paused",
            Self::Dead => "dead",
        }
    }
}

/// One process of a cluster.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it is called: `broker-1`, `postgres`, `node-1`.
    pub who: String,
    /// What it is.
    pub kind: Kind,
    /// Where it takes requests.
    pub address: String,
    /// Its process.
    pub name: Name,
    /// How it was started.
    pub recipe: Recipe,
}

impl Member {
    /// What it is doing now.
    pub fn state(&self) -> State {
        if !self.name.is_alive() {
            return State::Dead;
        }
        if self.name.is_paused() {
            return State::Paused;
        }
        let serves = match self.kind {
            Kind::Node => node::ready(&self.address) == Ok(200),
            Kind::Broker | Kind::Postgres => TcpStream::connect(&self.address).is_ok(),
        };
        if serves { State::Serving } else { State::Running }
    }
}

/// All members as text.
pub(super) fn write(members: &[Member]) -> String {
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let one = |member: &Member| {
        let recipe = &member.recipe;
        json!({
            "who": member.who,
            "kind": member.kind.word(),
            "address": member.address,
            "pid": member.name.pid,
            "began": member.name.began,
            "program": text(&recipe.program),
            "arguments": recipe.arguments.iter().map(|one| one.to_string_lossy()).collect::<Vec<_>>(),
            "environment": recipe.environment,
            "directory": text(&recipe.directory),
            "log": text(&recipe.log),
            "user": recipe.user,
        })
    };
    format!("{:#}\n", Value::from(members.iter().map(one).collect::<Vec<_>>()))
}

/// What [`write`] wrote; `None` if it is something else.
pub(super) fn read(text: &str) -> Option<Vec<Member>> {
    let known: Value = serde_json::from_str(text).ok()?;
    let one = |known: &Value| {
        let text = |name: &str| known[name].as_str().map(str::to_owned);
        let path = |name: &str| text(name).map(PathBuf::from);
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let arguments = known["arguments"].as_array()?.iter().map(|one| one.as_str().map(OsString::from));
        let environment = known["environment"].as_array()?.iter();
        let recipe = Recipe {
            program: path("program")?,
            arguments: arguments.collect::<Option<_>>()?,
            environment: environment
                .map(|pair| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned())))
                .collect::<Option<_>>()?,
            directory: path("directory")?,
            log: path("log")?,
            user: id(&known["user"][0]).zip(id(&known["user"][1])),
            left_behind: None,
        };
        Some(Member {
            who: text("who")?,
            kind: Kind::ALL.into_iter().find(|kind| known["kind"] == kind.word())?,
            address: text("address")?,
            name: Name { pid: i32::try_from(known["pid"].as_i64()?).ok()?, began: known["began"].as_u64()? },
            recipe,
        })
    };
    known.as_array()?.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    //! That a later command finds exactly what an earlier one started.

    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_kept_is_found_again() {
        let mut recipe = Recipe::new("/bin/sleep", Path::new("/tmp"), Path::new("/tmp/log")).arguments(["600"]);
        recipe.environment.push(("NAME".to_owned(), "value".to_owned()));
        recipe.user = Some((7, 8));
        let name = Name { pid: 4711, began: 99 };
        let member =
            Member { who: "node-1".to_owned(), kind: Kind::Node, address: "127.0.0.1:1".to_owned(), name, recipe };
        let found = read(&write(std::slice::from_ref(&member))).expect("it was written");
        assert_eq!(format!("{found:?}"), format!("{:?}", [member]));
    }
}
