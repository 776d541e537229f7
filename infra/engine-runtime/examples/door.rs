//! How many commands go through a node's door in a second, in process: each creates a stream with one small event. Over the
//! log in memory and, with a directory as argument, over the embedded one. `cargo run --release --example door [DIR]`.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code, reason = "a measurement may panic")]

#[path = "../tests/node_tests/business.rs"]
mod business;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::log::Log;
use engine::memory::MemoryLog;
use engine::message::{Answer, CommandId, Envelope, Fingerprint, Precondition, Provenance};
use engine::position::LogId;
use engine::record::{FORMAT, Genesis, PLACEMENT_RULE};
use engine::stream::{StreamName, Tenant};
use engine::time::Timestamp;
use engine_runtime::node::{Node, NodeOptions, Parts};
use engine_runtime::outside::NoOutside;
use engine_runtime::store::{StateStore, StoreOptions};
use engine_runtime::system::{SystemChance, SystemClock};
use uuid::Uuid;

use business::{Business, Wish};

const SECONDS: u64 = 4;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let directory = std::env::args().nth(1);
    for callers in [1, 16, 128, 512] {
        let genesis = Genesis {
            log: LogId(Uuid::new_v4()),
            partitions: 12,
            placement_rule: PLACEMENT_RULE,
            format: FORMAT,
            fingerprint_key: [0; 32],
            created_at: Timestamp(0),
        };
        let scratch = match &directory {
            Some(directory) => tempfile::tempdir_in(directory).unwrap(),
            None => tempfile::tempdir().unwrap(),
        };
        let log: Arc<dyn Log> = if directory.is_some() {
            let options = engine_embedded::Options::or_found(genesis);
            Arc::new(engine_embedded::EmbeddedLog::open(scratch.path().join("log"), options).unwrap().0)
        } else {
            Arc::new(MemoryLog::new(genesis))
        };
        let decider = Arc::new(Business);
        let state = scratch.path().join("state");
        let store = StateStore::open(&state, genesis.log, 12, decider.clone(), StoreOptions::default()).unwrap().0;
        let parts = Parts {
            log,
            genesis,
            store: Arc::new(store),
            decider,
            outside: Arc::new(NoOutside),
            clock: Arc::new(SystemClock),
            chance: Arc::new(SystemChance),
            node_name: "door".to_owned(),
            address: String::new(),
            options: NodeOptions::default(),
        };
        let node = Node::start(parts).await.unwrap();
        measure(&node, callers).await;
        let drained = Instant::now();
        assert!(node.drain(Duration::from_secs(20)).await);
        println!("      drained in {:.3} s", drained.elapsed().as_secs_f64());
    }
}

async fn measure(node: &Node<Business>, callers: u64) {
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let work = (0..callers).map(|caller| {
        let (node, over, done) = (node.clone(), over.clone(), done.clone());
        tokio::spawn(async move {
            let mut waits = Vec::new();
            let mut number = 0_u64;
            while !over.load(Ordering::Relaxed) {
                number += 1;
                let key = Uuid::from_u64_pair(caller, number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let jar = StreamName::new(&format!("jar-{key}")).unwrap();
                let envelope = Envelope {
                    id: CommandId(key),
                    tenant: Tenant::default(),
                    resource: jar.clone(),
                    fingerprint: Fingerprint([1; 16]),
                    precondition: Precondition::None,
                    provenance: Provenance::default(),
                    command: Some(Wish::Add { jar, amount: 1 }),
                };
                let asked = Instant::now();
                match node.submit(envelope).await {
                    Ok(Answer::Decided(_)) => done.fetch_add(1, Ordering::Relaxed),
                    other => panic!("{other:?}"),
                };
                waits.push(asked.elapsed());
            }
            waits
        })
    });
    let work = work.collect::<Vec<_>>();
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    over.store(true, Ordering::Relaxed);
    let rate = done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    let mut waits = Vec::new();
    for caller in work {
        waits.extend(caller.await.unwrap());
    }
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("{callers:>4} callers: {rate:>9.0}/s   p50 {:.3} ms   p99 {:.3} ms", at(0.5), at(0.99));
}
