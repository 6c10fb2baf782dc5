//! Whom a Pod has sent datagrams, and under which address it knows them.

use std::collections::HashMap;
use std::net::SocketAddr;

/// Peers of one generation.
const GENERATION: usize = 2048;

/// The apparent addresses of peers by their actual ones. Two generations: when the younger one is
/// full the older one is forgotten, so that whoever was sent to lately is known, and the memory
/// of a process has a bound.
#[derive(Default)]
pub(super) struct Dialled {
    young: HashMap<SocketAddr, SocketAddr>,
    old: HashMap<SocketAddr, SocketAddr>,
}

impl Dialled {
    pub(super) fn remember(&mut self, actual: SocketAddr, apparent: SocketAddr) {
        if self.young.len() >= GENERATION && !self.young.contains_key(&actual) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(actual, apparent);
    }

    pub(super) fn apparent(&self, actual: SocketAddr) -> Option<SocketAddr> {
        let known = self.young.get(&actual).or_else(|| self.old.get(&actual));
        known.copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_known_and_there_is_a_bound() {
        let address = |n: usize| {
            let port = u16::try_from(n % 60_000).unwrap();
            SocketAddr::from(([192, 0, 2, u8::try_from(n / 60_000).unwrap()], port))
        };
        let mut dialled = Dialled::default();
        for n in 0..5 * GENERATION {
            dialled.remember(address(n), address(n + 1));
            let oldest = n.saturating_sub(GENERATION - 1);
            for known in [n, oldest] {
                assert_eq!(dialled.apparent(address(known)), Some(address(known + 1)));
            }
            assert!(dialled.young.len() + dialled.old.len() <= 2 * GENERATION);
        }
        assert_eq!(dialled.apparent(address(0)), None);
        // What is said last holds.
        dialled.remember(address(7), address(8));
        dialled.remember(address(7), address(9));
        assert_eq!(dialled.apparent(address(7)), Some(address(9)));
    }
}
