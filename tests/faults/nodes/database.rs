//! The database is away or frozen: rows wait, commands go on, and afterwards rows are the fold of the log again.

use std::time::{Duration, Instant};

use super::{Trial, assert_as_a_rule};
use crate::house::spread;

/// How long it is away (the issue).
const AWAY: Duration = Duration::from_secs(30);
/// How long it is frozen.
const FROZEN: Duration = Duration::from_secs(8);
/// How long commands that call nobody outside take while the database is away, as a rule: as long as ever.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_commands_go_on_and_afterwards_rows_catch_up() {
    let _alone = crate::one_at_a_time().await;
    let Some(mut trial) = Trial::open(1, 3, 6).await else { return };
    let shoppers = trial.shoppers();
    trial.trade(1_000, 2_000).await;
    trial.cluster.postgres.kill();
    let (began, mut accepted) = (Instant::now(), Vec::new());
    while began.elapsed() < AWAY {
        accepted.push(trial.probe.wait_led(&trial.client).await);
        trial.trade(500, 1_000).await;
    }
    trial.cluster.postgres.start_again();
    trial.trade(2_000, 3_000).await;
    trial.cluster.postgres.pause();
    let began = Instant::now();
    while began.elapsed() < FROZEN {
        accepted.push(trial.probe.wait_led(&trial.client).await);
        trial.trade(500, 1_000).await;
    }
    trial.cluster.postgres.resume();
    println!("without its database every partition accepts: {}", spread(&accepted));
    assert_as_a_rule("accepted without a database", &accepted, ACCEPTED_WITHIN);
    trial.trade(1_000, 2_000).await;
    shoppers.go_home().await;
    trial.rest_and_judge("the database away", 2).await;
}
