//! `docket explain`: the page of a problem code, from this binary, without a server.

use clap::Args;
use comfy_table::Cell;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::house::pages;
use crate::output::{Column, Screen, text};

/// What the help shows.
pub(crate) const EXAMPLES: &str = "\
Examples:
  docket explain                                  all codes
  docket explain stock-insufficient";

/// What `docket explain` takes.
#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// The code, as problems name it
    code: Option<String>,
}

const COLUMNS: &[Column] = &[
    Column { title: "code", show: |page| Cell::new(text(&page["code"])) },
    Column { title: "status", show: |page| Cell::new(text(&page["status"])) },
    Column { title: "means", show: |page| Cell::new(text(&page["title"])) },
];

/// Does it.
pub(crate) fn run(arguments: &ExplainArguments, screen: Screen) -> Result<(), Failure> {
    let Some(name) = &arguments.code else {
        let pages = pages();
        let all = pages.iter().map(|code| json!({"code": code.name, "status": code.status, "title": code.title}));
        return screen.list(&json!({"items": all.collect::<Vec<_>>()}), COLUMNS);
    };
    let code = pages().find(name).ok_or_else(|| unknown(name))?;
    let page = json!({"code": code.name, "status": code.status, "title": code.title, "page": code.page});
    screen.item(&page, |page: &Value, _| text(&page["page"]))
}

fn unknown(name: &str) -> Failure {
    let pages = pages();
    let alike = pages.iter().map(|code| code.name).filter(|known| shared_words(known, name) > 0);
    let best = alike.max_by_key(|known| shared_words(known, name));
    let failure = Failure::plain(format!("no problem is named {name:?}"));
    match best {
        Some(best) => failure.next(format!("docket explain {best}")),
        None => failure.next("docket explain"),
    }
}

fn shared_words(known: &str, name: &str) -> usize {
    known.split('-').filter(|word| name.split(['-', '_', ' ']).any(|other| other == *word)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Format, Paint};

    #[test]
    fn every_code_of_the_chassis_and_of_the_shop_is_explained() {
        for name in ["stock-insufficient", "version-mismatch", "saga-not-actionable", "log-damaged"] {
            let page = pages().find(name).unwrap().page;
            assert!(page.starts_with("# "), "{name}");
        }
    }

    #[test]
    fn an_unknown_code_leads_to_one_that_is_alike() {
        let screen = Screen { format: Format::Json, paint: Paint::never() };
        let asked = ExplainArguments { code: Some("stock-missing".to_owned()) };
        let failure = run(&asked, screen).unwrap_err();
        assert!(failure.report(Paint::never()).contains("docket explain stock-"));
        assert!(unknown("xyz").report(Paint::never()).contains("next: docket explain\n"));
    }
}
