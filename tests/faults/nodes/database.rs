//! The database is away or frozen: rows wait, commands go on, and afterwards rows are the fold of the log again.

use std::time::{Duration, Instant};

use super::Trial;

/// How long it is away (the issue).
const AWAY: Duration = Duration::from_secs(30);
/// How long it is frozen.
const FROZEN: Duration = Duration::from_secs(8);
/// How long a command that calls nobody outside may take while the database is away: as long as ever.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_commands_go_on_and_afterwards_rows_catch_up() {
    let _alone = crate::one_at_a_time().await;
    let Some(mut trial) = Trial::open(1, 3, 6).await else { return };
    let shoppers = trial.shoppers();
    trial.trade(1_000, 2_000).await;
    trial.cluster.postgres.kill();
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < AWAY {
        slowest = slowest.max(trial.probe.wait_led(&trial.client, ACCEPTED_WITHIN).await);
        trial.trade(500, 1_000).await;
    }
    trial.cluster.postgres.start_again();
    trial.trade(2_000, 3_000).await;
    trial.cluster.postgres.pause();
    let began = Instant::now();
    while began.elapsed() < FROZEN {
        slowest = slowest.max(trial.probe.wait_led(&trial.client, ACCEPTED_WITHIN).await);
        trial.trade(500, 1_000).await;
    }
    trial.cluster.postgres.resume();
    println!("without its database every partition accepts within {slowest:?}");
    trial.trade(1_000, 2_000).await;
    shoppers.go_home().await;
    trial.rest_and_judge("the database away", 2).await;
}
