//! JSON as a body: what [`engine::json`] takes, told as the problem that it is where it takes it not.

use engine::json::Document;

use crate::problem::Problem;

pub use engine::json::{DEPTH_MAX, NODES_MAX};

/// Parses one JSON value in UTF-8: 400 `malformed-body`, saying what is wrong and where, for anything else.
pub fn parse_json(bytes: &[u8]) -> Result<Document, Problem> {
    if bytes.trim_ascii().is_empty() {
        return Err(Problem::malformed_body("the body is empty; send a JSON object, {} at least"));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(Problem::malformed_body("the body is not UTF-8"));
    };
    Document::parse(text).map_err(Problem::malformed_body)
}
