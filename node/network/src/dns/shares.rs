//! What clients share, so that one of them leaves something for the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// How many places each client has.
#[derive(Clone)]
pub(super) struct Shares {
    of_one: usize,
    /// Of those who have any.
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place of a client, until it is dropped.
pub(super) struct Share {
    client: IpAddr,
    shares: Shares,
}

impl Shares {
    pub(super) fn new(of_one: usize) -> Self {
        Self {
            of_one,
            taken: Arc::default(),
        }
    }

    /// A place, if the client does not have all of its own. Who calls by loopback may be any Pod,
    /// where these have virtual addresses: they have no places of their own, and none is refused.
    pub(super) fn take(&self, client: IpAddr) -> Option<Share> {
        let client = client.to_canonical();
        let mut taken = self.taken.lock();
        let of_client = taken.get(&client).copied().unwrap_or_default();
        if of_client >= self.of_one && !client.is_loopback() {
            return None;
        }
        taken.insert(client, of_client + 1);
        Some(Share {
            client,
            shares: self.clone(),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock();
        if let Some(of_client) = taken.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_leaves_the_others_theirs() {
        let shares = Shares::new(2);
        let [greedy, other] = [[10, 42, 0, 2], [10, 42, 0, 3]].map(IpAddr::from);
        let held: Vec<Share> = (0..2).filter_map(|_| shares.take(greedy)).collect();
        assert_eq!(held.len(), 2);
        assert!(shares.take(greedy).is_none());
        assert!(shares.take("::ffff:10.42.0.2".parse().unwrap()).is_none());
        assert!(shares.take(other).is_some());
        drop(held);
        assert!(shares.take(greedy).is_some());
        // Who has nothing leaves nothing behind.
        assert!(shares.taken.lock().is_empty());
    }

    #[test]
    fn who_may_be_anybody_is_not_counted_out() {
        let shares = Shares::new(1);
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let held: Vec<Share> = (0..3).filter_map(|_| shares.take(loopback)).collect();
        assert_eq!(held.len(), 3);
    }
}
