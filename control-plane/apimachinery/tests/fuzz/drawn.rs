//! Random inputs of a fuzz target, the same in every run: what passed once passes again, and a
//! fault that was found is found again. `FUZZ_SEED` draws others, `FUZZ_SECONDS` goes on for so
//! long.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// Inputs of a target where nothing else is said.
const SOME: u64 = 200;
/// Bytes of an input, at most.
const LONGEST: usize = 400;

/// Says which input it was that failed.
struct Turn {
    seed: u64,
    turn: u64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { seed, turn } = self;
            eprintln!("input {turn} of FUZZ_SEED={seed} found this");
        }
    }
}

/// Gives random inputs to a target.
pub(crate) fn inputs(target: impl Fn(&[u8])) {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seed = number("FUZZ_SEED").unwrap_or(1);
    let until = number("FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut random = StdRng::seed_from_u64(seed);
    for turn in 0.. {
        if until.map_or(turn >= SOME, |until| Instant::now() >= until) {
            return;
        }
        let mut input = vec![0; random.random_range(0..LONGEST)];
        random.fill_bytes(&mut input);
        let _turn = Turn { seed, turn };
        target(&input);
    }
}
