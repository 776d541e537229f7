//! The PostgreSQL of the read models: whether it can be reached, is new enough, lets this user do what is needed, keeps
//! what it acknowledges, has connections to spare, and tells the same time as this machine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection, Row};
use tokio::time::timeout;

use super::{Finding, clocks};
use crate::config::{Config, Role};

/// Longest wait for the server.
const WAIT: Duration = Duration::from_secs(5);
/// The oldest version that is tested, as the server numbers them.
const VERSION_LEAST: i32 = 130_000;
/// Connections beside those that read and write: leases, listening, the gateway's books.
const CONNECTIONS_BESIDE: i64 = 4;

/// Looks at it. The URL's password is in none of what is told.
pub(super) async fn look(url: &str, config: &Config) -> Vec<Finding> {
    let (server, schema) = split(url);
    let mend = "see that it runs, can be reached from here, and lets this user in";
    let options = match server.parse::<sqlx::postgres::PgConnectOptions>() {
        Ok(options) => options.application_name("docket-doctor").disable_statement_logging(),
        Err(_) => {
            let form = "write postgres://user:password@host:port/database";
            return vec![Finding::failed("postgres", "read_store.url is no URL of a PostgreSQL", form)];
        }
    };
    let looked = timeout(WAIT, async {
        let mut connection = options.connect().await?;
        let findings = ask(&mut connection, &schema, config).await;
        connection.close().await.ok();
        findings
    });
    match looked.await {
        Ok(Ok(findings)) => findings,
        Ok(Err(error)) => vec![Finding::failed("postgres", format!("does not answer: {error}"), mend)],
        Err(_) => vec![Finding::failed("postgres", format!("does not answer within {} s", WAIT.as_secs()), mend)],
    }
}

/// The URL as the driver takes it, and the schema that is ours.
fn split(url: &str) -> (String, String) {
    let (server, parameters) = url.split_once('?').unwrap_or((url, ""));
    let (ours, others): (Vec<_>, Vec<_>) =
        parameters.split('&').filter(|pair| !pair.is_empty()).partition(|pair| pair.starts_with("schema="));
    let schema = ours.last().map_or("docket", |pair| &pair["schema=".len()..]).to_owned();
    let server = if others.is_empty() { server.to_owned() } else { format!("{server}?{}", others.join("&")) };
    (server, schema)
}

async fn ask(connection: &mut PgConnection, schema: &str, config: &Config) -> Result<Vec<Finding>, sqlx::Error> {
    let mut findings = Vec::new();
    let asked_at = now();
    let row = sqlx::query(
        "SELECT current_setting('server_version_num')::int4, current_setting('server_version'),
                extract(epoch FROM clock_timestamp())::float8, current_setting('fsync'),
                current_setting('full_page_writes'), current_setting('synchronous_commit'),
                current_setting('max_connections')::int8,
                (SELECT count(*) FROM pg_stat_activity)::int8, pg_is_in_recovery(),
                has_database_privilege(current_database(), 'CREATE'),
                coalesce((SELECT has_schema_privilege(oid, 'USAGE, CREATE') FROM pg_namespace WHERE nspname = $1), false),
                current_user::text, current_database()::text",
    )
    .bind(schema)
    .fetch_one(&mut *connection)
    .await?;
    let answered_at = now();
    let version: i32 = row.try_get(0)?;
    let called: String = row.try_get(1)?;
    findings.push(if version >= VERSION_LEAST {
        Finding::ok("postgres", format!("version {called} answers"))
    } else {
        Finding::note("postgres", format!("version {called} is older than what is tested"), "use 13 or newer")
    });
    let theirs: f64 = row.try_get(2)?;
    findings.push(clocks("the database", theirs - f64::midpoint(asked_at, answered_at)));
    for (at, name) in [(3, "fsync"), (4, "full_page_writes")] {
        let value: String = row.try_get(at)?;
        if value != "on" {
            let what = format!("{name} is {value}: a power cut may damage the whole database");
            findings.push(Finding::note(
                "postgres",
                what,
                format!("set {name} = on; rows can be folded again, books not"),
            ));
        }
    }
    let commit: String = row.try_get(5)?;
    if commit == "off" {
        let what = "synchronous_commit is off: rows may go back after a power cut, and are then folded again";
        findings.push(Finding::note("postgres", what, "set synchronous_commit = on if reads must never go back"));
    }
    let (most, used): (i64, i64) = (row.try_get(6)?, row.try_get(7)?);
    let wanted = i64::from(config.read_store.readers + config.read_store.writers) + CONNECTIONS_BESIDE;
    findings.push(if most - used < wanted {
        let what = format!("{used} of {most} connections are taken, and a node wants {wanted}");
        Finding::note("postgres", what, "raise max_connections, or lower read_store.readers")
    } else {
        Finding::ok("postgres", format!("{used} of {most} connections are taken; a node wants {wanted}"))
    });
    if row.try_get(8)? {
        findings.push(Finding::failed("postgres", "it is a standby: it can only be read", "use the primary's address"));
    }
    let (may_create, may_use): (bool, bool) = (row.try_get(9)?, row.try_get(10)?);
    let (user, database): (String, String) = (row.try_get(11)?, row.try_get(12)?);
    findings.push(if may_use || may_create {
        Finding::ok("postgres", format!("{user} may keep schema {schema} in {database}"))
    } else {
        let grant = format!("GRANT CREATE ON DATABASE {database} TO {user}");
        Finding::failed("postgres", format!("{user} may not make schema {schema} in {database}"), grant)
    });
    findings.extend(kept(connection, schema, config).await?);
    Ok(findings)
}

/// What the read store says of itself.
async fn kept(connection: &mut PgConnection, schema: &str, config: &Config) -> Result<Option<Finding>, sqlx::Error> {
    let there: bool = sqlx::query("SELECT to_regclass(quote_ident($1) || '.meta') IS NOT NULL")
        .bind(schema)
        .fetch_one(&mut *connection)
        .await?
        .try_get(0)?;
    if !there {
        let does = config.does(Role::Projection);
        let what = if does { "no read models yet: they will be made" } else { "no read models yet" };
        return Ok(Some(Finding::ok("read models", what)));
    }
    let text = format!("SELECT format, coalesce(log_id, '') FROM {}.meta", quoted(schema));
    let row = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_one(connection).await?;
    let (format, log): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
    let of = if log.is_empty() { "of no log yet".to_owned() } else { format!("of log {log}") };
    Ok(Some(Finding::ok("read models", format!("format {format}, {of}"))))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn our_own_parameter_is_not_the_drivers() {
        let (server, schema) = split("postgres://a@b/c?sslmode=require&schema=x");
        assert_eq!((server.as_str(), schema.as_str()), ("postgres://a@b/c?sslmode=require", "x"));
        assert_eq!(split("postgres://a@b/c").1, "docket");
    }

    #[tokio::test]
    async fn a_database_that_is_not_there_fails_without_its_password() {
        let findings = look("postgres://me:hush@127.0.0.1:1/x", &Config::default()).await;
        assert_eq!(findings[0].state, State::Failed);
        assert!(!findings[0].what.contains("hush"), "{findings:?}");
    }
}
