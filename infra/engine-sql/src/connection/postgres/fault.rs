//! What an error of PostgreSQL means for whoever asked, and what an operator can do about it.

use std::borrow::Cow;

use engine::read_store::StoreFault;

/// A key is there twice.
const THERE: &str = "23505";

/// An error that may pass, with its place and a next step.
#[derive(Debug)]
struct Trouble {
    what: String,
    error: sqlx::Error,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Trouble {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Whether the same transaction may well succeed at once: it met another (40001, 40P01) and was rolled back.
pub(crate) fn is_retryable(fault: &StoreFault) -> bool {
    matches!(code(fault).as_deref(), Some("40001" | "40P01"))
}

/// What an error of a copy means: a row that was there already is no damage there.
pub(super) fn copy_fault(error: sqlx::Error, shown: &str) -> StoreFault {
    match &error {
        sqlx::Error::Database(database) if database.code().as_deref() == Some(THERE) => {
            let what = format!("{shown}: {}", database.message());
            StoreFault::Unavailable(Box::new(Trouble { what, error }))
        }
        _ => fault(error, shown),
    }
}

/// Whether rows were copied of which one was there already.
pub(crate) fn was_there(fault: &StoreFault) -> bool {
    code(fault).is_some_and(|code| code == THERE)
}

fn code(fault: &StoreFault) -> Option<Cow<'_, str>> {
    let StoreFault::Unavailable(why) = fault else { return None };
    match why.downcast_ref::<Trouble>() {
        Some(Trouble { error: sqlx::Error::Database(error), .. }) => error.code(),
        _ => None,
    }
}

/// Whether the server was not there to be asked, rather than that it was asked and did not do it.
pub(crate) fn is_absent(fault: &StoreFault) -> bool {
    let StoreFault::Unavailable(why) = fault else { return false };
    match why.downcast_ref::<Trouble>() {
        Some(Trouble { error: sqlx::Error::Database(error), .. }) => {
            let code = error.code().unwrap_or_default();
            code.starts_with("57P") || code.starts_with("28") || matches!(&*code, "53300" | "3D000")
        }
        Some(_) => true,
        None => false,
    }
}

/// What an error means. `shown` has no password; nor has anything that the server or the driver says.
pub(super) fn fault(error: sqlx::Error, shown: &str) -> StoreFault {
    let unavailable = |hint: &str, error: sqlx::Error| {
        let what = if hint.is_empty() { format!("{shown}: {error}") } else { format!("{shown}: {error}; {hint}") };
        StoreFault::Unavailable(Box::new(Trouble { what, error }))
    };
    let damaged = |why: &str, hint: &str| StoreFault::Damaged(format!("{shown}: {why}; {hint}"));
    match &error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default().into_owned();
            let message = database.message().to_owned();
            match code.as_str() {
                "28000" | "28P01" => unavailable("check user and password of the store's URL, and pg_hba.conf", error),
                "3D000" => unavailable("create it (createdb), or correct the database in the store's URL", error),
                "42501" => {
                    unavailable("let this user create a schema in this database, or make it the schema's owner", error)
                }
                "53300" => unavailable("raise the server's max_connections, or lower this node's connections", error),
                "53100" => unavailable("the server's disk is full", error),
                "25006" => unavailable("this server only reads: name the primary in the store's URL", error),
                "57014" => unavailable("the statement took too long and was ended", error),
                "55P03" => unavailable("somebody else holds a lock for long: see pg_locks and pg_stat_activity", error),
                "54000" | "54001" | "22001" | "22021" | "22P05" => {
                    StoreFault::Misused(format!("a row does not fit the database: {message}"))
                }
                // A table or a column is missing or another: not as this program made them.
                "42P01" | "42703" | "42804" | "42883" | "3F000" => damaged(
                    &message,
                    "its tables are not as this program made them (another version of it may have made them anew): \
                     start this node again",
                ),
                code if code.starts_with("XX") => {
                    damaged(&message, "the server found damage; drop the schema, and it is folded anew from the log")
                }
                code if code.starts_with("23") => {
                    damaged(&message, "drop the schema, and it is folded anew from the log")
                }
                _ => unavailable("", error),
            }
        }
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. } => {
            damaged(&error.to_string(), "its tables are not as this program made them")
        }
        sqlx::Error::PoolTimedOut => {
            unavailable("no connection in time: is the server up, reachable, and below its max_connections?", error)
        }
        sqlx::Error::Io(_) => unavailable("is the server up and reachable?", error),
        sqlx::Error::Tls(_) => unavailable("check sslmode and sslrootcert of the store's URL", error),
        _ => unavailable("", error),
    }
}
