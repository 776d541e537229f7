//! How far the store is, for nodes that do not feed it. Whoever feeds says so in the same transaction (`NOTIFY` is sent
//! with the commit or not at all); whoever listens hears it at once. Notifications are lost with a connection, so the
//! store is also looked at, now and then, and ten times as often while nobody can be heard.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use engine::position::{Offset, Partition};
use engine::read_store::{Batch, Progress, StoreFault};
use sqlx::postgres::PgListener;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::connection::postgres::PostgresDatabase;
use crate::connection::{Access, Bind, Database, Session, Statement};
use crate::sets::Meta;
use crate::store::{Inner, jittered};
use crate::work;

/// Says that leases have changed hands.
pub(super) const LEASES: &str = "leases";
/// Says only: look.
const LOOK: &str = "look";
/// Ends a notification after which watched tables are to be looked at.
const WATCHED: char = '!';
/// 7,000 bytes: Postgres takes less than 8,000 in a notification.
const TOLD_BYTES_MAX: usize = 7_000;
/// 500 ms and more before the next try to listen.
const LISTEN_AGAIN_MS: u64 = 500;
/// 3 looks that find what nobody told of: then the connection that listens is dead without having said so.
const UNTOLD_MAX: u32 = 3;

/// What the listener hears.
pub(super) enum Heard {
    /// It listens from now on: what was said before was lost.
    Listening,
    /// It does not, for now.
    Deaf,
    /// This was said.
    Told(String),
}

/// Says, as part of the batch's transaction, where the batch moves the checkpoints.
pub(crate) async fn tell(
    session: &mut impl Session,
    postgres: &PostgresDatabase,
    batch: &Batch,
    watched: &[&str],
) -> Result<(), StoreFault> {
    let changed = batch.rows.iter().any(|(key, _)| watched.contains(&key.table));
    if batch.checkpoints.is_empty() && !changed {
        return Ok(());
    }
    let mut told = String::new();
    for (at, _, next) in &batch.checkpoints {
        let _ = write!(told, "{}{at}:{}", if told.is_empty() { "" } else { "," }, next.next_offset);
    }
    if changed {
        told.push(WATCHED);
    }
    if told.len() > TOLD_BYTES_MAX {
        told = LOOK.to_owned();
    }
    let binds = vec![Bind::Text(postgres.place().channel()), Bind::Text(told)];
    session.execute(Statement::new("SELECT pg_notify($1, $2)", binds)).await.map(|_| ())
}

/// Says, as part of a transaction, that everybody should look: other tables come into use.
pub(crate) async fn tell_to_look(session: &mut impl Session, postgres: &PostgresDatabase) -> Result<(), StoreFault> {
    let binds = vec![Bind::Text(postgres.place().channel()), Bind::Text(LOOK.to_owned())];
    session.execute(Statement::new("SELECT pg_notify($1, $2)", binds)).await.map(|_| ())
}

/// Listens until it is stopped or nobody wants to hear, on a connection of its own, made again when it breaks.
pub(super) async fn listen(inner: Arc<Inner>, heard: mpsc::Sender<Heard>, mut stopped: watch::Receiver<bool>) {
    let Database::Postgres(postgres) = &inner.database else { return };
    let channel = postgres.place().channel();
    while !heard.is_closed() && !*stopped.borrow_and_update() {
        // Bounded: connecting waits no longer than the pool does.
        let listener = async {
            let mut listener = PgListener::connect_with(postgres.listener()).await?;
            listener.eager_reconnect(false);
            listener.listen(&channel).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        if let Ok(mut listener) = listener.await {
            let _ = heard.send(Heard::Listening).await;
            loop {
                let said = tokio::select! {
                    said = listener.try_recv() => said,
                    _ = stopped.changed() => return,
                    () = heard.closed() => return,
                };
                match said {
                    Ok(Some(said)) => drop(heard.send(Heard::Told(said.payload().to_owned())).await),
                    Ok(None) | Err(_) => break,
                }
            }
            let _ = heard.send(Heard::Deaf).await;
        }
        tokio::select! {
            _ = stopped.changed() => return,
            () = tokio::time::sleep(jittered(LISTEN_AGAIN_MS)) => {}
        }
    }
}

/// Publishes how far the store is, until it is stopped or nobody wants to know.
pub(super) async fn follow(
    inner: Arc<Inner>,
    mut heard: mpsc::Receiver<Heard>,
    telling: watch::Sender<Arc<Progress>>,
    nudge: watch::Sender<()>,
    poll: Duration,
    mut stopped: watch::Receiver<bool>,
) {
    let mut listening = false;
    let mut untold = 0;
    let mut look_at = Instant::now();
    while !*stopped.borrow_and_update() {
        tokio::select! {
            _ = stopped.changed() => return,
            said = heard.recv() => match said {
                None => look_at = look_at.min(Instant::now() + poll / 10),
                Some(Heard::Deaf) => listening = false,
                Some(Heard::Listening) => {
                    listening = true;
                    look_at = Instant::now();
                    nudge.send_replace(());
                }
                Some(Heard::Told(told)) if told == LEASES => nudge.send_replace(()),
                Some(Heard::Told(told)) => {
                    untold = 0;
                    if !apply(&told, &telling) {
                        look_at = Instant::now();
                    }
                }
            },
            () = tokio::time::sleep_until(look_at) => {
                // One after the other with what is heard: an older look never overtakes newer news.
                let moved = look(&inner, &telling).await;
                untold = if moved && listening { untold + 1 } else { 0 };
                if untold >= UNTOLD_MAX {
                    listening = false;
                }
                look_at = Instant::now() + if listening { poll } else { poll / 10 };
            }
        }
    }
}

/// Takes news. False if they cannot be read: then it is better to look.
fn apply(told: &str, telling: &watch::Sender<Arc<Progress>>) -> bool {
    let (moves, changed) = told.strip_suffix(WATCHED).map_or((told, false), |moves| (moves, true));
    let mut next = Vec::new();
    for moved in moves.split(',').filter(|moved| !moved.is_empty()) {
        let read = moved.split_once(':').and_then(|(at, to)| Some((at.parse().ok()?, to.parse().ok()?)));
        let Some((at, to)) = read else { return false };
        next.push((Partition(at), Offset(to)));
    }
    telling.send_modify(|progress| {
        let progress = Arc::make_mut(progress);
        progress.next.extend(next);
        progress.watched += u64::from(changed);
    });
    true
}

/// Looks how far the store is. True if it is not where it was known to be.
async fn look(inner: &Inner, telling: &watch::Sender<Arc<Progress>>) -> bool {
    let looked = async {
        inner.in_use()?;
        let mut session = inner.database.begin(Access::Snapshot).await?;
        let meta = Meta::read(&mut session).await?;
        let checkpoints = work::checkpoints(&mut session, inner.tables(meta.in_use.set)).await?;
        session.commit().await?;
        let switched = inner.adopt(&meta)?;
        Ok::<_, StoreFault>((checkpoints, switched))
    };
    // What is dropped here closes its connection.
    let looked = tokio::time::timeout(Duration::from_secs(5), looked).await;
    let looked = looked.unwrap_or_else(|_| Err(StoreFault::Unavailable("it does not answer".into())));
    match looked {
        Ok((checkpoints, switched)) => {
            let next = checkpoints.into_iter().map(|(at, checkpoint)| (at, checkpoint.next_offset)).collect();
            let mut moved = false;
            telling.send_if_modified(|progress| {
                moved = progress.next != next;
                let recovered = progress.trouble.is_some();
                if moved || recovered || switched {
                    let progress = Arc::make_mut(progress);
                    progress.next = next;
                    progress.trouble = None;
                    // Nobody told what changed.
                    progress.watched += 1;
                }
                moved || recovered || switched
            });
            moved || switched
        }
        Err(fault) => {
            let why = match &fault {
                StoreFault::Unavailable(why) => why.to_string(),
                other => other.to_string(),
            };
            telling.send_if_modified(|progress| {
                let news = progress.trouble.as_ref() != Some(&why);
                if news {
                    Arc::make_mut(progress).trouble = Some(why);
                }
                news
            });
            false
        }
    }
}
