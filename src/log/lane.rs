//! The way of one partition into Kafka: records go in as they are, and every one must come to lie where it lay. Whatever
//! else happens ends the copy; what is there by then is the same as far as it goes, so the next try goes on from there.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use engine::log::{Appender, Delivery, DeliverySink, Log, Stored};
use engine::position::{Offset, Partition};

use crate::failure::Failure;

/// Records of one partition under way at once. 2,000: some requests' worth; more only takes memory.
const UNDER_WAY_MAX: u64 = 2_000;
/// Longest silence of the brokers: longer than the producer itself goes on trying.
const SILENCE_MAX: Duration = Duration::from_secs(330);

/// One partition on its way.
pub(super) struct Lane {
    partition: Partition,
    appender: Box<dyn Appender>,
    landing: Arc<Landing>,
    sent: u64,
}

/// Where deliveries arrive.
struct Landing {
    /// How many lie where they should, from the first on.
    state: Mutex<Result<u64, String>>,
    moved: Condvar,
}

impl DeliverySink for Landing {
    fn delivered(&self, deliveries: Vec<Delivery>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for Delivery { tag, result } in deliveries {
            let Ok(landed) = state.as_mut() else { break };
            match result {
                Ok(Some(Offset(offset))) if offset == tag && tag == *landed => *landed = tag + 1,
                // It is there, and where is read back in the end.
                Ok(None) if tag == *landed => *landed = tag + 1,
                Ok(Some(offset)) => *state = Err(format!("the record of offset {tag} came to lie at {offset}")),
                Ok(None) => *state = Err(format!("the record of offset {tag} came out of turn")),
                Err(error) => *state = Err(format!("the record of offset {tag}: {error}")),
            }
        }
        self.moved.notify_all();
    }
}

impl Lane {
    /// Goes on behind the records that are there.
    pub(super) fn open(to: &dyn Log, partition: Partition, there: Offset) -> Self {
        let landing = Arc::new(Landing { state: Mutex::new(Ok(there.0)), moved: Condvar::new() });
        let appender = to.appender(partition, Arc::<Landing>::clone(&landing));
        Self { partition, appender, landing, sent: there.0 }
    }

    /// Sends one record, once there is room.
    pub(super) fn send(&mut self, record: &Stored) -> Result<(), Failure> {
        if record.offset.0 != self.sent {
            return Err(Failure::plain(format!(
                "partition {} has a gap before offset {}",
                self.partition, record.offset
            )));
        }
        self.wait(self.sent.saturating_sub(UNDER_WAY_MAX))?;
        self.appender.append(self.sent, record.bytes.clone());
        self.sent += 1;
        Ok(())
    }

    /// Waits until all that was sent lies where it should.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        self.wait(self.sent)
    }

    fn wait(&self, until: u64) -> Result<(), Failure> {
        let state = self.landing.state.lock().unwrap_or_else(PoisonError::into_inner);
        let more = |state: &mut Result<u64, String>| state.as_ref().is_ok_and(|landed| *landed < until);
        let waited = self.landing.moved.wait_timeout_while(state, SILENCE_MAX, more);
        let (state, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
        let again = "type the same again: what is there is compared, and the rest is copied";
        match state.as_ref() {
            Err(why) => Err(Failure::plain(format!("partition {}: {why}", self.partition)).next(again)),
            Ok(_) if timed_out.timed_out() => {
                Err(Failure::plain(format!("partition {}: the brokers say nothing any more", self.partition))
                    .next(again))
            }
            Ok(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::log::AppendError;

    use super::*;

    fn landed(deliveries: &[(u64, Result<Option<u64>, AppendError>)]) -> Result<u64, String> {
        let landing = Landing { state: Mutex::new(Ok(0)), moved: Condvar::new() };
        let delivered = |&(tag, result): &(u64, Result<Option<u64>, AppendError>)| Delivery {
            tag,
            result: result.map(|offset| offset.map(Offset)),
        };
        landing.delivered(deliveries.iter().map(delivered).collect());
        landing.state.into_inner().unwrap()
    }

    #[test]
    fn every_record_lies_where_it_lay_or_the_copy_ends() {
        assert_eq!(landed(&[(0, Ok(Some(0))), (1, Ok(None)), (2, Ok(Some(2)))]), Ok(3));
        assert!(
            landed(&[(0, Ok(Some(0))), (1, Ok(Some(2))), (2, Ok(Some(2)))]).unwrap_err().contains("came to lie at 2")
        );
        assert!(landed(&[(0, Err(AppendError::Unknown)), (1, Ok(Some(1)))]).unwrap_err().contains("unknown"));
    }
}
