//! Several nodes on one log: who leads what, how it moves, and that nothing is lost or doubled by it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::log::{Delivery, DeliverySink};
use engine::message::{Answer, Envelope, NoAnswer};
use engine::ports::Clock;
use engine::position::{Epoch, Nonce, Partition, Seq};
use engine::record::{Body, Header, Kind, Record};
use engine::stream::Tenant;
use engine_embedded::{EmbeddedLog, Options};
use engine_runtime::node::PartitionStatus;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::business::{Wish, step};
use crate::house::{House, LONG, PARTITIONS, add, asked, decided, genesis, id, jar, of_main, trip, until};
use crate::street::{Neighbour, Street, all};

fn nothing() -> BTreeSet<Partition> {
    BTreeSet::new()
}

fn these(numbers: impl IntoIterator<Item = u16>) -> BTreeSet<Partition> {
    numbers.into_iter().map(Partition).collect()
}

/// Two nodes that share the partitions between them.
async fn two() -> (House, Street, Neighbour, Neighbour) {
    let (house, street) = (House::new(), Street::default());
    let left = Neighbour::new(&street, &house, "left", these([0, 1])).await;
    let right = Neighbour::new(&street, &house, "right", these([2, 3])).await;
    left.leads(&these([0, 1])).await;
    right.leads(&these([2, 3])).await;
    (house, street, left, right)
}

/// Callers that fill jars through a node until told to stop; each knows what it was told.
struct Load {
    callers: Vec<JoinHandle<(String, u64)>>,
    over: Arc<AtomicBool>,
    answered: watch::Sender<u64>,
}

impl Load {
    /// Half the callers through each node. Any answer but an acceptance ends the test, unless the caller's own node is
    /// draining.
    fn through(nodes: &[&Neighbour]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let answered = watch::channel(0).0;
        let callers = (0..16_usize).map(|caller| {
            let (node, over) = (nodes[caller % nodes.len()].node.clone(), over.clone());
            let answered = answered.clone();
            tokio::spawn(async move {
                let (mut filled, mut round) = (0, 0);
                let name = format!("{caller}-load");
                while !over.load(Ordering::SeqCst) {
                    // A jar holds a hundred: the next one then.
                    if filled % 100 == 0 {
                        round += 1;
                    }
                    let answer = node.submit(asked(id(), add(&format!("{name}-{round}"), 1))).await;
                    if matches!(answer, Err(NoAnswer::Draining)) {
                        break;
                    }
                    let answer = decided(answer);
                    answered.send_modify(|answered| *answered += 1);
                    filled += 1;
                    let before = (filled - 1) % 100;
                    assert_eq!(answer.state.unwrap().filled(), before + 1, "filled once for each command");
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
                (name, filled)
            })
        });
        Self { callers: callers.collect(), over, answered }
    }

    /// Waits until that many more commands are answered.
    async fn goes_on(&self, more: u64) {
        let mut answered = self.answered.subscribe();
        let until = *answered.borrow() + more;
        let reached = tokio::time::timeout(LONG, answered.wait_for(|answered| *answered >= until)).await;
        assert!(reached.is_ok(), "no command is answered any more");
    }

    /// Ends it, and looks whether `at` shows what everybody was told.
    async fn end(self, at: &Neighbour) -> u64 {
        self.over.store(true, Ordering::SeqCst);
        let mut sum = 0;
        for caller in self.callers {
            let (name, filled) = tokio::time::timeout(LONG, caller).await.unwrap().unwrap();
            sum += filled;
            if filled > 0 {
                let last = filled.div_ceil(100);
                let expected = filled - (last - 1) * 100;
                // Exactly as often as it was told, once the last is folded there.
                let found = until(&at.node, &jar(&format!("{name}-{last}")), |jar| jar.filled() >= expected).await;
                assert_eq!(found.filled(), expected);
            }
        }
        sum
    }
}

#[tokio::test]
async fn any_node_takes_any_command_and_shows_what_came_of_it() {
    let (_house, street, left, right) = two().await;
    for number in 0..20 {
        for neighbour in [&left, &right] {
            let command = asked(id(), add(&number.to_string(), 1));
            let answer = decided(neighbour.node.submit(command.clone()).await);
            assert!(!answer.replayed);
            // What a node was told of it shows, whoever leads.
            let watch = neighbour.node.watch(of_main(&jar(&number.to_string()))).await.unwrap();
            assert!(watch.current().unwrap().version >= answer.version);
            assert!(neighbour.node.acknowledged(answer.position.partition).unwrap() >= answer.position.offset);
            neighbour.node.wait_saved(&answer.position.into(), LONG).await.unwrap();
            // The same key through the other door: the same answer.
            let other = if neighbour.node.status() == left.node.status() { &right } else { &left };
            let again = decided(other.node.submit(command).await);
            assert_eq!((again.replayed, again.position, again.state), (true, answer.position, answer.state));
        }
    }
    assert!(*street.forwarded.lock() > 0);
    assert!(left.node.is_ready() && right.node.is_ready());
}

#[tokio::test]
async fn an_id_is_known_through_every_node_and_an_unheard_one_is_unheard() {
    let (_house, _street, left, right) = two().await;
    let mut asked_before = Vec::new();
    for number in 0..8 {
        let command = asked(id(), add(&number.to_string(), 1));
        let answer = decided(left.node.submit(command.clone()).await);
        asked_before.push((command, answer.position));
    }
    for (command, position) in asked_before {
        for neighbour in [&left, &right] {
            let known = neighbour.node.inquire(Tenant::default(), command.id).await.unwrap();
            assert_eq!(known.len(), 1);
            assert_eq!(known[0].commit.as_ref().unwrap().0, position);
            let question = Envelope { command: None, ..command.clone() };
            assert!(matches!(neighbour.node.submit(question).await, Ok(Answer::Decided(decided)) if decided.replayed));
        }
    }
    for neighbour in [&left, &right] {
        assert_eq!(neighbour.node.inquire(Tenant::default(), id()).await.unwrap(), []);
        let question = Envelope { command: None, ..asked(id(), add("never", 1)) };
        assert!(matches!(neighbour.node.submit(question).await, Ok(Answer::Unheard)));
    }
}

#[tokio::test]
async fn the_door_for_other_nodes_never_forwards() {
    let (_house, street, left, right) = two().await;
    let before = *street.forwarded.lock();
    for number in 0..8 {
        let command = asked(id(), add(&number.to_string(), 1));
        let partition = left.node.partition_of(&Tenant::default(), &command.resource);
        let (here, there) = if partition.0 < 2 { (&left, &right) } else { (&right, &left) };
        assert_eq!(there.node.submit_here(command.clone(), LONG).await.unwrap_err(), NoAnswer::NotOwner);
        let unheard = there.node.inquire_here(partition, Tenant::default(), command.id, LONG).await;
        assert_eq!(unheard.unwrap_err(), NoAnswer::NotOwner);
        decided(here.node.submit_here(command, LONG).await);
    }
    assert_eq!(*street.forwarded.lock(), before);
    let nowhere = left.node.inquire_here(Partition(PARTITIONS), Tenant::default(), id(), LONG).await;
    assert_eq!(nowhere.unwrap_err(), NoAnswer::NotOwner);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_move_to_and_fro_under_load_and_no_request_fails() {
    let (_house, _street, left, right) = two().await;
    move_to_and_fro(&left, &right).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_of_a_log_on_disk_move_to_and_fro_under_load_and_no_request_fails() {
    let (directory, genesis) = (tempfile::tempdir().unwrap(), genesis());
    let (log, _) = EmbeddedLog::open(directory.path().join("log"), Options::or_found(genesis)).unwrap();
    let (house, street) = (House::over(Arc::new(log), genesis), Street::default());
    let left = Neighbour::new(&street, &house, "left", these([0, 1])).await;
    let right = Neighbour::new(&street, &house, "right", these([2, 3])).await;
    move_to_and_fro(&left, &right).await;
}

async fn move_to_and_fro(left: &Neighbour, right: &Neighbour) {
    let load = Load::through(&[left, right]);
    for round in 0..6 {
        let (mine, others) = match round % 3 {
            0 => (all(), nothing()),
            1 => (nothing(), all()),
            _ => (these([0, 3]), these([1, 2])),
        };
        // Either may hear of it first.
        if round % 2 == 0 {
            left.wants(mine.clone());
            right.wants(others.clone());
        } else {
            right.wants(others.clone());
            left.wants(mine.clone());
        }
        load.goes_on(20).await;
        left.leads(&mine).await;
        right.leads(&others).await;
        load.goes_on(20).await;
    }
    assert!(load.end(right).await > 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_is_followed_by_whom_the_hint_names_and_no_request_of_the_others_fails() {
    let (_house, _street, left, right) = two().await;
    let load = Load::through(&[&right]);
    left.die().await;
    // Nothing happens by itself: nobody is told to lead these.
    assert!(right.node.status().partitions.iter().all(|status| matches!(status, PartitionStatus::Leading(_))
        || matches!(status, PartitionStatus::Following(Some(owner)) if &*owner.node == "left")));
    let began = Instant::now();
    right.wants(all());
    right.leads(&all()).await;
    assert!(began.elapsed() < Duration::from_secs(1), "a warm standby leads at once");
    assert!(load.end(&right).await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_both_want_everything_duel_and_both_get_on() {
    let (house, street) = (House::new(), Street::default());
    let left = Neighbour::new(&street, &house, "left", all()).await;
    let right = Neighbour::new(&street, &house, "right", all()).await;
    let load = Load::through(&[&left, &right]);
    // Each partition is taken from the one by the other and back again.
    let partition = Partition(0);
    for epoch in [3, 4] {
        let led = |all: &[PartitionStatus]| matches!(all[usize::from(partition.0)], PartitionStatus::Leading(Epoch(reached)) if reached >= epoch);
        let reached = async {
            tokio::select! {
                () = left.node.until_status(led) => {}
                () = right.node.until_status(led) => {}
            }
        };
        tokio::time::timeout(LONG, reached).await.unwrap();
    }
    load.goes_on(50).await;
    left.wants(nothing());
    right.leads(&all()).await;
    assert!(load.end(&left).await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_of_one_name_do_no_harm() {
    let (house, street) = (House::new(), Street::default());
    let one = Neighbour::namesake(&street, &house, "twin", "here", all()).await;
    let other = Neighbour::namesake(&street, &house, "twin", "there", all()).await;
    let load = Load::through(&[&one, &other]);
    load.goes_on(200).await;
    one.wants(nothing());
    other.leads(&all()).await;
    load.goes_on(200).await;
    assert!(load.end(&one).await >= 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_slept_says_nothing_of_what_others_did_meanwhile() {
    let (house, street) = (House::new(), Street::default());
    let sleeper = Neighbour::new(&street, &house, "sleeper", all()).await;
    let other = Neighbour::new(&street, &house, "other", nothing()).await;
    decided(sleeper.node.submit(asked(id(), add("a", 90))).await);
    sleeper.way.pause();
    let partition = sleeper.node.partition_of(&Tenant::default(), &jar("a"));
    // Meanwhile another one leads, and a command is done there.
    other.wants(all());
    other.leads(&all()).await;
    let done = asked(id(), add("a", 5));
    decided(other.node.submit(done.clone()).await);
    // The sleeper does not know: it takes a command that would be right, one that would be refused, and questions.
    let within = Duration::from_secs(10);
    let late = asked(id(), add("a", 10));
    let refused = asked(id(), add("a", 50));
    let question = Envelope { command: None, ..done.clone() };
    let asked_of_sleeper = [late.clone(), refused.clone(), question];
    let waiting = asked_of_sleeper.map(|command| tokio::spawn(sleeper.node.submit_here(command, within)));
    let node = sleeper.node.clone();
    let known = tokio::spawn(async move { node.inquire_here(partition, Tenant::default(), done.id, within).await });
    while sleeper.way.held() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(waiting.iter().all(|answer| !answer.is_finished()) && !known.is_finished());
    sleeper.wants(nothing());
    sleeper.way.resume();
    for answer in waiting {
        let answer = answer.await.unwrap();
        assert!(matches!(answer, Err(NoAnswer::Unconfirmed | NoAnswer::NotOwner)), "{answer:?}");
    }
    let known = known.await.unwrap();
    assert!(matches!(known, Err(NoAnswer::Unconfirmed | NoAnswer::NotOwner)), "{known:?}");
    sleeper.leads(&nothing()).await;
    // Whoever leads now says what is right, through either door.
    assert_eq!(decided(sleeper.node.submit(late).await).outcome.code.as_deref(), Some("jar-full"));
    assert_eq!(until(&sleeper.node, &jar("a"), |jar| jar.filled() >= 95).await.filled(), 95);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_sleeper_had_taken_for_its_own_clients_is_answered_by_its_successor() {
    let (house, street) = (House::new(), Street::default());
    let sleeper = Neighbour::new(&street, &house, "sleeper", all()).await;
    let other = Neighbour::new(&street, &house, "other", nothing()).await;
    sleeper.way.pause();
    other.wants(all());
    other.leads(&all()).await;
    let waiting = (0..40).map(|number| tokio::spawn(sleeper.node.submit(asked(id(), add(&number.to_string(), 1)))));
    let waiting = waiting.collect::<Vec<_>>();
    while sleeper.way.held() < usize::from(PARTITIONS) {
        tokio::task::yield_now().await;
    }
    sleeper.wants(nothing());
    sleeper.way.resume();
    for answer in waiting {
        assert_eq!(decided(answer.await.unwrap()).state.unwrap().filled(), 1);
    }
    for number in 0..40 {
        assert_eq!(until(&sleeper.node, &jar(&number.to_string()), |_| true).await.filled(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_on_its_way_to_an_owner_that_sleeps_is_answered_by_its_successor() {
    let (house, street) = (House::new(), Street::default());
    let sleeper = Neighbour::new(&street, &house, "sleeper", all()).await;
    let successor = Neighbour::new(&street, &house, "successor", nothing()).await;
    let third = Neighbour::new(&street, &house, "third", nothing()).await;
    sleeper.way.pause();
    let commands = (0..12).map(|number| asked(id(), add(&number.to_string(), 1))).collect::<Vec<_>>();
    let waiting = commands.iter().map(|command| tokio::spawn(third.node.submit(command.clone()))).collect::<Vec<_>>();
    // All of it is in the log, and nobody says so.
    while sleeper.way.held() < commands.len() {
        tokio::task::yield_now().await;
    }
    assert!(waiting.iter().all(|answer| !answer.is_finished()));
    let asking = third.node.clone();
    let known = tokio::spawn(async move { asking.inquire(Tenant::default(), id()).await });
    successor.wants(all());
    successor.leads(&all()).await;
    // The same record answers: it was effective before the successor claimed.
    for answer in waiting {
        let answer = decided(answer.await.unwrap());
        assert!(answer.replayed);
        assert_eq!(answer.state.unwrap().filled(), 1);
    }
    assert_eq!(known.await.unwrap().unwrap(), []);
    sleeper.wants(nothing());
    sleeper.way.resume();
    sleeper.leads(&nothing()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_whose_copy_lags_claims_when_it_has_caught_up() {
    let (house, street) = (House::new(), Street::default());
    let owner = Neighbour::new(&street, &house, "owner", all()).await;
    let standby = Neighbour::new(&street, &house, "standby", nothing()).await;
    standby.way.pause();
    let command = asked(id(), add("a", 60));
    decided(owner.node.submit(command.clone()).await);
    standby.wants(all());
    // It knows how far the log goes, and has not read that far: the owner goes on.
    let answer = decided(owner.node.submit(asked(id(), add("a", 30))).await);
    owner.leads(&all()).await;
    assert_eq!(answer.state.unwrap().filled(), 90);
    standby.way.resume();
    standby.leads(&all()).await;
    let again = decided(standby.node.submit(command).await);
    assert!(again.replayed);
    let refused = decided(standby.node.submit(asked(id(), add("a", 20))).await);
    assert_eq!(refused.outcome.code.as_deref(), Some("jar-full"));
}

#[tokio::test]
async fn an_idle_owner_notices_that_it_was_followed() {
    let (house, street) = (House::new(), Street::default());
    let left = Neighbour::new(&street, &house, "left", all()).await;
    let right = Neighbour::new(&street, &house, "right", all()).await;
    let contested = |all: &[PartitionStatus]| {
        all.iter().all(|status| matches!(status, PartitionStatus::Contested(owner) if &*owner.node == "right"))
    };
    tokio::time::timeout(LONG, left.node.until_status(contested)).await.unwrap();
    assert!(left.node.status().unready().unwrap().contains("taken by right"));
    right.drain().await;
    // It was given back: no reason to wait.
    left.leads(&all()).await;
}

#[tokio::test]
async fn what_streams_owe_is_carried_out_by_whoever_leads_them() {
    let (house, _street, left, right) = two().await;
    house.bell.be_silent();
    let names = (0..12).map(|number| number.to_string()).collect::<Vec<_>>();
    for name in &names {
        decided(left.node.submit(asked(id(), Wish::StartTrip { trip: trip(name), jar: jar(name) })).await);
    }
    let due = house.clock.now().plus_ms(3_600_000);
    decided(left.node.submit(asked(id(), Wish::SetAlarm { trip: trip("late"), due })).await);
    // All are filled, wherever their jars are, and ring at a silent bell.
    while (names.iter()).any(|name| !house.bell.calls.lock().contains(&step(&trip(name), "ring"))) {
        tokio::task::yield_now().await;
    }
    left.die().await;
    right.wants(all());
    right.leads(&all()).await;
    house.bell.answer_again();
    for name in &names {
        until(&right.node, &trip(name), |trip| trip.rung().is_some()).await;
        assert_eq!(until(&right.node, &jar(name), |_| true).await.filled(), 1);
    }
    house.clock.forward(Duration::from_secs(3_601));
    assert_eq!(until(&right.node, &trip("late"), |trip| trip.woken() > 0).await.woken(), 1);
}

#[tokio::test]
async fn a_follower_sees_a_saga_end_elsewhere() {
    let (house, street) = (House::new(), Street::default());
    let owner = Neighbour::new(&street, &house, "owner", all()).await;
    let other = Neighbour::new(&street, &house, "other", nothing()).await;
    for number in 0..10 {
        let name = number.to_string();
        decided(other.node.submit(asked(id(), Wish::StartTrip { trip: trip(&name), jar: jar(&name) })).await);
        let mut watch = other.node.watch(of_main(&trip(&name))).await.unwrap();
        assert!(watch.current().is_some(), "a command's effect shows where it was answered");
        let ended = tokio::time::timeout(LONG, watch.until(|trip| trip.state.rung().is_some())).await.unwrap().unwrap();
        assert!(other.node.acknowledged(ended.position.partition).unwrap() >= ended.position.offset);
        // Only who leads rings.
        assert_eq!(owner.node.partition_of(&Tenant::default(), &trip(&name)), ended.position.partition);
    }
    assert_eq!(house.bell.calls.lock().len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_replaced_one_by_one_under_load() {
    let (house, street, left, right) = two().await;
    let load = Load::through(&[&right]);
    let began = Instant::now();
    let (drained, ()) = futures::join!(left.drain(), async {
        right.wants(all());
        right.leads(&all()).await;
    });
    assert!(drained);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(left.node.submit(asked(id(), add("a", 1))).await.unwrap_err(), NoAnswer::Draining);
    let left = Neighbour::new(&street, &house, "left", these([0, 1])).await;
    right.wants(these([2, 3]));
    left.leads(&these([0, 1])).await;
    right.leads(&these([2, 3])).await;
    assert!(load.end(&left).await > 0);
}

#[tokio::test]
async fn where_nobody_leads_a_command_waits_for_whoever_will() {
    let (house, street) = (House::new(), Street::default());
    let left = Neighbour::new(&street, &house, "left", nothing()).await;
    let right = Neighbour::new(&street, &house, "right", nothing()).await;
    assert!(left.node.status().unready().unwrap().contains("led by nobody"));
    let no = left.node.submit_within(asked(id(), add("a", 1)), Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(no, NoAnswer::NotOwner | NoAnswer::TimedOut), "{no:?}");
    let waiting = tokio::spawn(left.node.submit(asked(id(), add("a", 2))));
    right.wants(all());
    assert_eq!(decided(waiting.await.unwrap()).state.unwrap().filled(), 2);
}

#[tokio::test]
async fn records_whose_place_nobody_knows_are_found_by_reading() {
    let (house, street) = (House::new(), Street::default());
    let left = Neighbour::new(&street, &house, "left", all()).await;
    left.way.forget_offsets(3);
    let commands = (0..60).map(|number| asked(id(), add(&(number % 7).to_string(), 1))).collect::<Vec<_>>();
    let answers = futures::future::join_all(commands.iter().map(|command| left.node.submit(command.clone()))).await;
    assert!(answers.into_iter().map(decided).all(|answer| !answer.replayed));
    for command in commands {
        assert!(decided(left.node.submit(command).await).replayed);
    }
    assert!(left.drain().await);
    // A claim whose place nobody knows leads all the same.
    let right = Neighbour::new(&street, &house, "right", nothing()).await;
    right.way.forget_offsets(1);
    right.wants(all());
    right.leads(&all()).await;
    decided(right.node.submit(asked(id(), add("a", 1))).await);
}

struct Nobody;

impl DeliverySink for Nobody {
    fn delivered(&self, _: Vec<Delivery>) {}
}

#[tokio::test]
async fn what_a_zombie_writes_leaves_a_gap_and_no_trace() {
    let (house, street) = (House::new(), Street::default());
    let left = Neighbour::new(&street, &house, "left", all()).await;
    let right = Neighbour::new(&street, &house, "right", nothing()).await;
    for number in 0..30 {
        // Of a term that is over, between any two records.
        for partition in all() {
            let header = Header { kind: Kind::Barrier, epoch: Epoch(0), nonce: Nonce(13), seq: Seq(number) };
            let record = Record::new(header, Body::Barrier).encode();
            house.log.appender(partition, Arc::new(Nobody)).append(0, record);
        }
        decided(left.node.submit(asked(id(), add("a", 1))).await);
        assert_eq!(until(&right.node, &jar("a"), |jar| jar.filled() > number).await.filled(), number + 1);
    }
    left.leads(&all()).await;
    right.leads(&nothing()).await;
    let epochs = left.node.status().partitions;
    assert!(epochs.iter().all(|status| *status == PartitionStatus::Leading(Epoch(1))), "{epochs:?}");
}

#[tokio::test]
async fn a_restarted_node_knows_from_its_store_who_leads() {
    let (house, street) = (House::new(), Street::default());
    let owner = Neighbour::new(&street, &house, "owner", all()).await;
    let other = Neighbour::new(&street, &house, "other", nothing()).await;
    other.leads(&nothing()).await;
    let directory = other.house.directory.clone();
    assert!(other.drain().await);
    drop(other);
    let mut like = House::over(house.log.clone(), house.genesis);
    like.directory = directory;
    let again = Neighbour::in_house(&street, like, "other", nothing()).await;
    assert!(again.node.is_ready(), "{:?}", again.node.status());
    decided(again.node.submit(asked(id(), add("a", 1))).await);
    owner.drain().await;
}
