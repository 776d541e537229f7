//! The load: shoppers, warehouse hands and payment clerks, each with seeded dice, who do everything the API offers and
//! remember what they were told. A command that ended unknown is asked again under its key when the house is back; a few
//! are left unknown for ever, as some clients leave them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kit::shop::{card, count, euros, line, order, payment, reservation};
use kit::{Client, Dice, Reply};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::history::{Command, History, Verb};

/// Concurrent clients.
pub(crate) const CLIENTS: u64 = 10;
const LOCATIONS: [&str; 4] = ["shop-1", "shop-2", "shop-3", "shop-4"];
const SKUS: [&str; 8] = ["beans", "cups", "filters", "grinder", "kettle", "milk", "scale", "tamper"];
/// Counted once with few and never received: it runs out, and then checkouts fail on it.
const SCARCE: &str = "scarce";
/// How often each token pays. What is settled only at the end is rare.
const TOKENS: [(u64, &str); 11] = [
    (120, "tok_ok"),
    (8, "tok_declined"),
    (8, "tok_insufficient_funds"),
    (12, "tok_slow_50"),
    (10, "tok_flaky_2"),
    (8, "tok_lost_answer"),
    (10, "tok_twice"),
    (10, "tok_capture_fails_2"),
    (2, "tok_down"),
    (2, "tok_late"),
    (2, "tok_capture_late"),
];
/// What these ask for comes only when the gateway is healed.
pub(crate) const UNTIL_HEALED: [&str; 3] = ["tok_down", "tok_late", "tok_capture_late"];
/// Ids of each kind that shoppers remember: older ones are settled and of no more interest.
const REMEMBERED_MAX: usize = 400;

/// Every token there is.
pub(crate) fn tokens() -> impl Iterator<Item = &'static str> {
    TOKENS.iter().map(|(_, token)| *token)
}

/// What all shoppers know together. Clones are the same world.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) history: History,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    orders: Vec<String>,
    payments: Vec<String>,
    /// Location and id.
    reservations: Vec<(String, String)>,
    /// Commands whose outcome is unknown and that will be asked again.
    unfinished: Vec<usize>,
}

fn remember<T>(list: &mut Vec<T>, one: T) {
    list.push(one);
    if list.len() > REMEMBERED_MAX {
        list.drain(..REMEMBERED_MAX / 2);
    }
}

impl World {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("nobody panics with the lock")
    }

    /// Counts every stock, so that there is something to sell.
    pub(crate) async fn stock_shelves(&self, client: &Client, dice: &mut Dice) {
        for location in LOCATIONS {
            for (sku, on_hand) in SKUS.iter().map(|sku| (*sku, 200_000)).chain([(SCARCE, 60)]) {
                let command =
                    Command::new(dice.uuid(), Verb::Count, format!("/v1/stock/{location}/{sku}"), count(on_hand));
                self.tell(client, dice, command).await;
            }
        }
    }

    /// Runs shoppers until told to stop. The patient ones rest so long after everything they do, and stay whatever happens;
    /// the others leave when nobody answers.
    pub(crate) fn open(&self, client: &Client, seed: u64, round: u64, patience: Option<Duration>) -> Shoppers {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..CLIENTS)
            .map(|number| {
                let (world, client, stop) = (self.clone(), client.clone(), Arc::clone(&stop));
                let mut dice = Dice::new(seed, &[round, number]);
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let answered = world.step(&client, &mut dice).await;
                        match patience {
                            Some(rest) => tokio::time::sleep(rest).await,
                            None if answered => {}
                            None => break,
                        }
                    }
                })
            })
            .collect();
        Shoppers { stop, tasks }
    }

    /// One thing a shopper does; false once nobody answers.
    async fn step(&self, client: &Client, dice: &mut Dice) -> bool {
        let unfinished = self.known().unfinished.pop();
        if let Some(place) = unfinished {
            return self.finish(client, place).await;
        }
        match dice.between(1, 100) {
            1..=32 => self.place(client, dice).await,
            33..=54 => self.handle_order(client, dice).await,
            55..=62 => self.authorize(client, dice).await,
            63..=71 => self.handle_payment(client, dice).await,
            72..=80 => self.reserve(client, dice).await,
            81..=87 => self.close_reservation(client, dice).await,
            88..=96 => self.handle_stock(client, dice).await,
            _ => self.repeat(client, dice).await,
        }
    }

    /// Asks once more for what ended unknown; false if it still did.
    async fn finish(&self, client: &Client, place: usize) -> bool {
        let reply = self.history.send_again(client, place).await;
        match reply {
            Some(reply) => self.learn(client, &self.history.command(place), &reply).await,
            None => {
                self.known().unfinished.push(place);
                false
            }
        }
    }

    /// Asks until every command that was not left for ever has a definite answer.
    pub(crate) async fn finish_all(&self, client: &Client) {
        // Each is asked once more per round; a house at rest answers in the first.
        const ROUNDS_MAX: usize = 5;
        for _ in 0..ROUNDS_MAX {
            let unfinished = std::mem::take(&mut self.known().unfinished);
            for place in unfinished {
                self.finish(client, place).await;
            }
        }
        let left = self.known().unfinished.clone();
        for place in left {
            let command = self.history.command(place);
            self.history.finding(format!("{:?} {} stays unknown: {:?}", command.verb, command.path, command.answers));
        }
    }

    /// Asks again for some of what was decided long ago: the judge compares the answers.
    pub(crate) async fn ask_again(&self, client: &Client, dice: &mut Dice, times: usize) {
        let commands = self.history.len();
        for _ in 0..times.min(commands) {
            let place = usize::try_from(dice.between(0, commands as u64 - 1)).expect("an index");
            if self.history.command(place).definite().is_some() {
                self.history.send_again(client, place).await;
            }
        }
    }

    /// Sends a new command; false if nothing definite came back.
    async fn tell(&self, client: &Client, dice: &mut Dice, command: Command) -> bool {
        // Two in a hundred clients double-click.
        let twice = dice.percent(2);
        let left_for_ever = dice.percent(4);
        let (place, reply) = self.history.send(client, command).await;
        if twice {
            let (one, other) =
                tokio::join!(self.history.send_again(client, place), self.history.send_again(client, place));
            if one.or(other).is_none() && reply.is_none() {
                self.known().unfinished.push(place);
                return false;
            }
        }
        match reply {
            Some(reply) => self.learn(client, &self.history.command(place), &reply).await,
            None => {
                if !left_for_ever {
                    self.known().unfinished.push(place);
                }
                false
            }
        }
    }

    /// Remembers what came to be, and looks whether it can be found at once (http.md §1: what was answered 201 is found).
    async fn learn(&self, client: &Client, command: &Command, reply: &Reply) -> bool {
        if reply.status != 201 {
            return true;
        }
        let text = |field: &str| reply.body[field].as_str().unwrap_or_default().to_owned();
        match command.verb {
            Verb::Place => remember(&mut self.known().orders, text("order_id")),
            Verb::Authorize => remember(&mut self.known().payments, text("payment_id")),
            Verb::Reserve => {
                remember(&mut self.known().reservations, (text("location_id"), text("reservation_id")));
            }
            _ => return true,
        }
        let Some(location) = reply.header("location") else {
            self.history.finding(format!("{:?} {} answers 201 without Location", command.verb, command.key));
            return true;
        };
        // Whoever is asked: what was answered is not to be unheard of.
        let least = reply.header("docket-position").unwrap_or_default();
        let Some(found) = client.get_with(location, &[("docket-min-position", least)]).await else { return false };
        if found.status != 200 && found.status != 503 {
            self.history.finding(format!("{location} was answered 201 and then {} {}", found.status, found.body));
        }
        true
    }

    async fn place(&self, client: &Client, dice: &mut Dice) -> bool {
        let home = *dice.pick(&LOCATIONS);
        let mut lines = Vec::new();
        for _ in 0..dice.between(1, 3) {
            let sku = if dice.percent(3) { SCARCE } else { dice.pick(&SKUS) };
            let mut line = line(sku, dice.between(1, 4), i64::try_from(dice.between(1, 5_000)).expect("a price"));
            // A third of all orders are sent from several places.
            if dice.percent(25) {
                line["location_id"] = json!(dice.pick(&LOCATIONS));
            }
            lines.push(line);
        }
        let token = dice.percent(78).then(|| dice.weighted(&TOKENS));
        let mut body = order(&format!("c-{}", dice.between(1, 50)), home, lines, token);
        if dice.percent(50) {
            body["order_id"] = json!(dice.uuid());
        }
        let mut command = Command::new(dice.uuid(), Verb::Place, "/v1/orders", body);
        if dice.percent(10) {
            command = command.waiting(1);
        }
        self.tell(client, dice, command).await
    }

    /// Takes an order one step further, mostly one that it can take.
    async fn handle_order(&self, client: &Client, dice: &mut Dice) -> bool {
        let id = {
            let known = self.known();
            if known.orders.is_empty() {
                return true;
            }
            dice.pick(&known.orders).clone()
        };
        let Some(shown) = client.get(&format!("/v1/orders/{id}")).await else { return false };
        let total = shown.body["total"]["amount"].as_i64().unwrap_or(1).max(1);
        let cancel = (Verb::Cancel, "cancel", json!({"reason": "customer"}));
        let part = euros((total / i64::try_from(dice.between(2, 6)).expect("small")).max(1));
        let refund = (Verb::RefundOrder, "refund", json!({"amount": part, "reason": "broken"}));
        let (verb, word, body) = match shown.body["status"].as_str() {
            Some("placed") if shown.body["saga_id"].is_null() && dice.percent(75) => {
                (Verb::Checkout, "checkout", json!({"payment": card(dice.weighted(&TOKENS))}))
            }
            Some("placed") => cancel,
            Some("confirmed") => match dice.between(1, 10) {
                1..=2 => cancel,
                3..=4 => refund,
                _ => (Verb::Ship, "ship", json!({"carrier": "bike"})),
            },
            Some("shipped") if dice.percent(60) => (Verb::Deliver, "deliver", json!({})),
            Some("shipped" | "delivered") if dice.percent(50) => refund,
            // Nothing more to do with it; one in ten asks all the same.
            _ if dice.percent(90) => return true,
            _ => cancel,
        };
        let mut command = Command::new(dice.uuid(), verb, format!("/v1/orders/{id}/{word}"), body);
        if matches!(verb, Verb::Cancel | Verb::Checkout) && dice.percent(10) {
            command = command.waiting(1);
        }
        self.tell(client, dice, command).await
    }

    async fn authorize(&self, client: &Client, dice: &mut Dice) -> bool {
        let token = dice.weighted(&TOKENS);
        let amount = i64::try_from(dice.between(1, 90_000)).expect("an amount");
        let command = Command::new(dice.uuid(), Verb::Authorize, "/v1/payments", payment(amount, token));
        // Half do not wait for the gateway, so that many things are in flight when the house dies.
        let command = if dice.percent(50) || UNTIL_HEALED.contains(&token) { command.waiting(0) } else { command };
        self.tell(client, dice, command).await
    }

    async fn handle_payment(&self, client: &Client, dice: &mut Dice) -> bool {
        let id = {
            let known = self.known();
            if known.payments.is_empty() {
                return true;
            }
            dice.pick(&known.payments).clone()
        };
        let Some(shown) = client.get(&format!("/v1/payments/{id}")).await else { return false };
        let authorized = shown.body["authorized"]["amount"].as_i64().unwrap_or(1);
        let (verb, word, body) = match shown.body["status"].as_str() {
            Some("authorized") => match dice.between(1, 10) {
                1..=3 => (Verb::Void, "void", json!({})),
                4..=6 => (Verb::Capture, "capture", json!({"amount": euros((authorized / 2).max(1))})),
                _ => (Verb::Capture, "capture", json!({})),
            },
            Some("pending") if dice.percent(40) => (Verb::Void, "void", json!({})),
            Some("captured") => {
                let left = shown.body["captured"]["amount"].as_i64().unwrap_or(0)
                    - shown.body["refunded"]["amount"].as_i64().unwrap_or(0);
                // Nothing left to give back; now and then somebody captures again, which is harmless.
                if left < 1 && dice.percent(80) {
                    return true;
                }
                if left < 1 {
                    (Verb::Capture, "capture", json!({}))
                } else {
                    (Verb::RefundPayment, "refund", json!({"amount": euros((left / 2).max(1)), "reason": "returned"}))
                }
            }
            Some("voided") if dice.percent(10) => (Verb::Void, "void", json!({})),
            _ => return true,
        };
        let command = Command::new(dice.uuid(), verb, format!("/v1/payments/{id}/{word}"), body);
        let command = if dice.percent(50) { command.waiting(0) } else { command };
        self.tell(client, dice, command).await
    }

    async fn reserve(&self, client: &Client, dice: &mut Dice) -> bool {
        let location = *dice.pick(&LOCATIONS);
        let mut lines = Vec::new();
        for _ in 0..dice.between(1, 3) {
            let sku = if dice.percent(3) { SCARCE } else { *dice.pick(&SKUS) };
            lines.push((sku, dice.between(1, 5)));
        }
        // A third runs out within a second or three, often while the house is down.
        let body = reservation(&lines, dice.percent(33).then(|| dice.between(1, 3)));
        let path = format!("/v1/stock/{location}/reservations");
        let command = Command::new(dice.uuid(), Verb::Reserve, path, body);
        self.tell(client, dice, command).await
    }

    async fn close_reservation(&self, client: &Client, dice: &mut Dice) -> bool {
        let (location, id) = {
            let mut known = self.known();
            if known.reservations.is_empty() {
                return true;
            }
            let last = known.reservations.len() as u64 - 1;
            let place = usize::try_from(dice.between(0, last)).expect("an index");
            // Some stay, to be closed again or the other way.
            if dice.percent(85) { known.reservations.swap_remove(place) } else { known.reservations[place].clone() }
        };
        let (verb, word) = if dice.percent(55) { (Verb::Commit, "commit") } else { (Verb::Release, "release") };
        let path = format!("/v1/stock/{location}/reservations/{id}/{word}");
        let command = Command::new(dice.uuid(), verb, path, json!({}));
        self.tell(client, dice, command).await
    }

    async fn handle_stock(&self, client: &Client, dice: &mut Dice) -> bool {
        let path = format!("/v1/stock/{}/{}", dice.pick(&LOCATIONS), dice.pick(&SKUS));
        let command = match dice.between(1, 10) {
            1..=2 => {
                let on_hand = i64::try_from(dice.between(100_000, 300_000)).expect("a count");
                Command::new(dice.uuid(), Verb::Count, path, count(on_hand))
            }
            3..=7 => {
                let body = json!({"quantity": dice.between(1, 100)});
                Command::new(dice.uuid(), Verb::Receive, format!("{path}/receive"), body)
            }
            _ => {
                let delta = -i64::try_from(dice.between(1, 20)).expect("a few");
                Command::new(
                    dice.uuid(),
                    Verb::Adjust,
                    format!("{path}/adjust"),
                    json!({"delta": delta, "reason": "damaged"}),
                )
            }
        };
        self.tell(client, dice, command).await
    }

    /// Asks for something that was decided before, under its key.
    async fn repeat(&self, client: &Client, dice: &mut Dice) -> bool {
        let commands = self.history.len() as u64;
        if commands == 0 {
            return true;
        }
        let place = usize::try_from(dice.between(0, commands - 1)).expect("an index");
        // What nobody heard the end of may be on its way in another client's hands, or is left for ever.
        if self.history.command(place).definite().is_none() {
            return true;
        }
        self.history.send_again(client, place).await.is_some()
    }
}

/// Shoppers at work.
#[derive(Debug)]
pub(crate) struct Shoppers {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Shoppers {
    /// Lets each finish what it is doing, and waits for it.
    pub(crate) async fn go_home(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a shopper does not panic");
        }
    }
}

/// How active a run was: one that did nothing finds nothing.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    pub(crate) commands: usize,
    pub(crate) accepted: usize,
    pub(crate) rejected: usize,
    pub(crate) unknown_for_ever: usize,
    /// Unknown at first, definite when asked again.
    pub(crate) resolved: usize,
    /// Of those, what had been done already when it was asked again.
    pub(crate) replayed_after_unknown: usize,
}

impl Activity {
    pub(crate) fn of(history: &[Command]) -> Self {
        let mut activity = Self { commands: history.len(), ..Self::default() };
        for command in history {
            activity.accepted += usize::from(command.is_accepted());
            activity.rejected += usize::from(command.is_rejected());
            activity.unknown_for_ever += usize::from(command.definite().is_none());
            if let (Some(crate::history::Answer::Unknown(_)), Some(reply)) =
                (command.answers.first(), command.definite())
            {
                activity.resolved += 1;
                activity.replayed_after_unknown += usize::from(reply.is_replayed());
            }
        }
        activity
    }

    /// Fails the test if the run was idle.
    fn assert_busy(&self, faults: usize) {
        assert!(self.accepted * 2 >= self.commands, "less than half was accepted: {self:?}");
        assert!(self.resolved > 0 || faults < 10, "no command was ever cut off by a fault: {self:?}");
    }
}

/// Fails the test if this run was idle, or a token that shoppers drew again and again never paid.
pub(crate) fn assert_busy(history: &[Command], events: &[Value], faults: usize) {
    /// One order may fail before it comes to its money; not so many.
    const DRAWN: usize = 10;
    Activity::of(history).assert_busy(faults);
    for token in tokens() {
        let draws = |command: &&Command| command.body["token"] == token || command.body["payment"]["token"] == token;
        let drawn = history.iter().filter(draws).count();
        let paid = events.iter().any(|event| event["type"] == "PaymentRequested" && event["data"]["token"] == token);
        assert!(paid || drawn < DRAWN, "{token} was drawn {drawn} times and never paid");
    }
}

/// The commands' keys are drawn, so a key says nothing of what it is for; this names one for messages.
fn named(key: Uuid, history: &[Command]) -> String {
    history.iter().find(|command| command.key == key).map_or_else(
        || "a command of the house itself".to_owned(),
        |command| format!("{:?} {} {} {:?}", command.verb, command.path, command.body, command.answers),
    )
}

/// The commands that findings name, for messages.
pub(crate) fn named_in(findings: &[crate::judge::Finding], history: &[Command]) -> String {
    // 10: a broken run breaks a thousand promises alike.
    const NAMED_MAX: usize = 10;
    let words = findings.iter().flat_map(|finding| finding.what.split(|c: char| !c.is_ascii_hexdigit() && c != '-'));
    let keys = words.filter_map(|word| word.parse().ok()).take(NAMED_MAX);
    keys.map(|key| named(key, history)).collect::<Vec<_>>().join("\n")
}
