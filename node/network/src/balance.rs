//! Which endpoint of a Service takes a connection.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use rand::Rng;

/// Position of the endpoint for a connection; none where there are no endpoints.
///
/// Without affinity it is a random one. A `client` with affinity gets the endpoint that ranks
/// highest for it (rendezvous hashing): it stays there as long as the endpoint does, which is
/// longer than any timeout asks, needs no table, and moves nobody else when another endpoint
/// comes or goes.
pub(crate) fn pick(
    endpoints: impl ExactSizeIterator<Item = SocketAddr>,
    client: Option<IpAddr>,
) -> Option<usize> {
    let count = endpoints.len();
    if count <= 1 {
        return (count == 1).then_some(0);
    }
    match client {
        None => Some(rand::rng().random_range(0..count)),
        Some(client) => endpoints
            .enumerate()
            .max_by_key(|(_, endpoint)| {
                let mut hasher = DefaultHasher::new();
                (client, endpoint).hash(&mut hasher);
                hasher.finish()
            })
            .map(|(position, _)| position),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: u8) -> Vec<SocketAddr> {
        (0..count)
            .map(|n| SocketAddr::from(([10, 42, 0, n], 80)))
            .collect()
    }

    #[test]
    fn a_client_with_affinity_stays_when_others_go() {
        let all = endpoints(10);
        let client = Some(IpAddr::from([10, 42, 0, 77]));
        let chosen = all[pick(all.iter().copied(), client).unwrap()];
        for gone in all.iter().filter(|endpoint| **endpoint != chosen) {
            let left: Vec<_> = all.iter().copied().filter(|e| e != gone).collect();
            assert_eq!(left[pick(left.iter().copied(), client).unwrap()], chosen);
        }
    }

    #[test]
    fn without_affinity_every_endpoint_gets_its_part() {
        let all = endpoints(4);
        let mut counts = [0_u32; 4];
        for _ in 0..4000 {
            counts[pick(all.iter().copied(), None).unwrap()] += 1;
        }
        assert!(counts.iter().all(|&count| count > 700), "{counts:?}");
        assert_eq!(pick(endpoints(0).into_iter(), None), None);
    }
}
