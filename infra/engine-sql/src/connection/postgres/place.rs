//! Where a store in PostgreSQL is: server, database and schema, out of a URL. The password goes into the connect options
//! and nowhere else; what is shown to people has none.

use engine::read_store::StoreFault;
use sqlx::postgres::PgConnectOptions;

use crate::tables::{is_plain, misused};

/// The schema that holds a store's tables unless the URL says otherwise. One of its own: the database may be shared.
const SCHEMA: &str = "docket";

/// A store's place.
pub(crate) struct PostgresPlace {
    pub(crate) connect: PgConnectOptions,
    /// Plain: can stand in a statement's text.
    pub(crate) schema: String,
    /// For people: user, server, database and schema.
    pub(crate) shown: String,
}

impl PostgresPlace {
    /// From `postgres://user:password@host:port/database?schema=name`, and all parameters that libpq knows.
    ///
    /// # Errors
    /// `Misused`, without repeating the URL, which may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self, StoreFault> {
        let (url, schema) = take_schema(url);
        let schema = schema.unwrap_or_else(|| SCHEMA.to_owned());
        if !is_plain(&schema) || schema.starts_with("pg_") {
            return Err(misused(format!(
                "{schema:?} cannot be a schema's name: small letters, digits and _ only, a letter first"
            )));
        }
        let connect = url.parse::<PgConnectOptions>().map_err(|_| {
            misused(
                "the store's URL is not of the form postgres://user:password@host:port/database \
                 (escape special characters of the password as %XX)"
                    .to_owned(),
            )
        })?;
        let named = connect.get_application_name().is_some();
        let connect = if named { connect } else { connect.application_name("docket") };
        let server = match connect.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => connect.get_host().to_owned(),
        };
        let database = connect.get_database().unwrap_or(connect.get_username());
        let shown = format!(
            "postgres://{}@{server}:{}/{database} (schema {schema})",
            connect.get_username(),
            connect.get_port()
        );
        Ok(Self { connect, schema, shown })
    }

    /// A key for advisory locks of this store and for this purpose. Locks are the database's, so the schema counts.
    pub(crate) fn lock_key(&self, purpose: &str) -> i64 {
        // FNV-1a, 64 bits: it must be the same in every version of this program.
        let bytes = b"docket".iter().chain(self.schema.as_bytes()).chain(b"/").chain(purpose.as_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        hash.cast_signed()
    }

    /// The channel that tells how far the store is.
    pub(crate) fn channel(&self) -> String {
        format!("docket_{}", self.schema)
    }
}

/// Our own parameter out of the URL: the driver would not know it.
fn take_schema(url: &str) -> (String, Option<String>) {
    let Some((before, parameters)) = url.split_once('?') else { return (url.to_owned(), None) };
    let (ours, others): (Vec<_>, Vec<_>) = parameters.split('&').partition(|pair| pair.starts_with("schema="));
    let schema = ours.last().and_then(|pair| pair.split_once('=')).map(|(_, schema)| schema.to_owned());
    let url = if others.is_empty() { before.to_owned() } else { format!("{before}?{}", others.join("&")) };
    (url, schema)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::PostgresPlace;

    #[test]
    fn what_is_shown_names_the_place_and_no_password() {
        let place =
            PostgresPlace::parse("postgres://ann:se%63ret@db.example:6432/shop?schema=tea&sslmode=disable").unwrap();
        assert_eq!(place.shown, "postgres://ann@db.example:6432/shop (schema tea)");
        assert_eq!(PostgresPlace::parse("postgres://ann@db/shop").unwrap().schema, "docket");
    }

    #[test]
    fn a_url_that_cannot_be_is_refused_without_repeating_it() {
        for url in ["postgres://ann:secret@db:port/shop", "postgres://ann:secret@db/shop?schema=a\"b"] {
            let Err(refused) = PostgresPlace::parse(url) else { panic!("{url}") };
            assert!(!refused.to_string().contains("secret"), "{refused}");
        }
    }

    #[test]
    fn schemas_and_purposes_have_locks_of_their_own() {
        let tea = PostgresPlace::parse("postgres://db/shop?schema=tea").unwrap();
        let milk = PostgresPlace::parse("postgres://db/shop?schema=milk").unwrap();
        assert_ne!(tea.lock_key("tables"), milk.lock_key("tables"));
        assert_ne!(tea.lock_key("tables"), tea.lock_key("leases"));
    }
}
