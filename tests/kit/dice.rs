//! Choices that a seed repeats. What a test does is drawn from these; when it happens is the machine's affair.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use uuid::Uuid;

/// Seeded dice.
#[derive(Clone, Debug)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// Dice for one thrower: the same seed and the same place give the same throws.
    pub fn new(seed: u64, place: &[u64]) -> Self {
        // Places are mixed in by multiplication with an odd constant, so that (1, 2) and (2, 1) differ.
        let mixed = place.iter().fold(seed, |mixed, part| {
            (mixed ^ part.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
        });
        Self(ChaCha8Rng::seed_from_u64(mixed))
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
