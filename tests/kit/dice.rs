//! Choices that a seed repeats. What a test does is drawn from these; when it happens is the machine's affair.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use uuid::Uuid;

/// Seeded dice.
#[derive(Clone, Debug)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// Dice for one thrower: the same seed and the same place, of up to three numbers, give the same throws, and others
    /// give others.
    ///
    /// # Panics
    /// On a longer place.
    pub fn new(seed: u64, place: &[u64]) -> Self {
        assert!(place.len() <= 3, "a place has up to three numbers");
        // Laid side by side, not mixed: two throwers never share their dice.
        let mut whole = [0; 32];
        whole[..8].copy_from_slice(&seed.to_le_bytes());
        for (bytes, part) in whole[8..].chunks_exact_mut(8).zip(place) {
            // One more, so that a place of zeros is not the empty place.
            bytes.copy_from_slice(&part.wrapping_add(1).to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(whole))
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// Whether something that happens `percent` times in a hundred happens now.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.between(1, 100) <= percent
    }

    /// One of these.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        assert!(!choices.is_empty(), "nothing to choose from");
        let last = choices.len() as u64 - 1;
        &choices[usize::try_from(self.between(0, last)).expect("an index of a slice")]
    }

    /// One of these, each as often as its weight says.
    ///
    /// # Panics
    /// If the weights add up to nothing.
    pub fn weighted<T: Copy>(&mut self, choices: &[(u64, T)]) -> T {
        let mut left = self.between(1, choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            if left <= *weight {
                return *choice;
            }
            left -= weight;
        }
        unreachable!("the throw is at most the sum of the weights")
    }

    /// A random UUID (version 4).
    pub fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        self.0.fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}
