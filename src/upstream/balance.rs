//! Which of several servers takes a request. Pure.
//!
//! Servers are given by their place, those that may be asked only.

use std::net::IpAddr;

/// Takes turns by weight, evenly spread: of the weights 5, 1, 1 comes a a b a c a a, not a a a a a b c. As nginx's
/// smooth weighted round robin; with equal weights each in turn.
#[derive(Debug, Default)]
pub struct Turns(Vec<i64>);

impl Turns {
    /// Turns of this many servers.
    pub fn new(servers: usize) -> Self {
        Self(vec![0; servers])
    }

    /// The next one of these places and weights.
    pub fn next(&mut self, servers: impl Iterator<Item = (usize, u32)>) -> Option<usize> {
        let (mut total, mut best) = (0, None);
        for (place, weight) in servers {
            let current = self.0.get_mut(place)?;
            *current += i64::from(weight);
            total += i64::from(weight);
            if best.is_none_or(|(_, most)| *current > most) {
                best = Some((place, *current));
            }
        }
        let (place, _) = best?;
        self.0[place] -= total;
        Some(place)
    }
}

/// The place with the fewest requests in flight for its weight: (place, weight, in flight). Of several the first one
/// from `start` on, so that a moving `start` makes them take turns.
pub fn least_requests(
    servers: impl Iterator<Item = (usize, u32, usize)>,
    start: usize,
) -> Option<usize> {
    let mut best: Option<(usize, u128, u128)> = None;
    for (place, weight, in_flight) in servers {
        // (in_flight + 1) / weight, compared without a division.
        let (load, weight) = (in_flight as u128 + 1, u128::from(weight));
        let is_better = match best {
            None => true,
            Some((other, other_load, other_weight)) => {
                let (mine, its) = (load * other_weight, other_load * weight);
                let comes_first = place >= start && other < start;
                mine < its || mine == its && comes_first
            }
        };
        if is_better {
            best = Some((place, load, weight));
        }
    }
    best.map(|(place, ..)| place)
}

/// Of (place, weight, seed) the one that this key belongs to: highest random weight ("rendezvous") hashing. When a
/// server leaves, only its keys move; when one comes, it takes its share of each.
pub fn rendezvous(servers: impl Iterator<Item = (usize, u64, u64)>, key: u64) -> Option<usize> {
    let score = |weight: u64, seed: u64| {
        // Uniform in (0, 1]: 53 bits are what a double holds.
        let uniform = ((mixed(key ^ seed) >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        // The logarithmic method of weighted rendezvous hashing: its share is its weight.
        -(weight as f64) / uniform.ln()
    };
    let scored = servers.map(|(place, weight, seed)| (place, score(weight, seed)));
    let best = scored.reduce(|best, other| if other.1 > best.1 { other } else { best });
    best.map(|(place, _)| place)
}

/// A key or seed of some bytes: FNV-1a. The same in every process, so that several gateways agree.
pub fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mixed(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Every bit of the input changes half of the output (the finalizer of SplitMix64).
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Whose request it is, for `balance = "hash"`.
#[derive(Clone, Copy, Debug)]
pub struct Affinity<'a> {
    /// The opaque id of the session, where one is known.
    pub sid: Option<&'a str>,
    /// The client's address, where it is known.
    pub client: Option<IpAddr>,
}

impl Affinity<'_> {
    /// What is hashed; `None` where nothing is known.
    pub fn key(&self) -> Option<u64> {
        if let Some(sid) = self.sid {
            return Some(hash(sid.as_bytes()));
        }
        let key = match self.client? {
            IpAddr::V4(client) => hash(&client.octets()),
            // A household has a network of its own, and its devices change addresses in there (RFC 8981).
            IpAddr::V6(client) => hash(&client.octets()[..8]),
        };
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weights() -> impl Strategy<Value = Vec<u32>> {
        prop::collection::vec(1_u32..20, 1..8)
    }

    proptest! {
        #[test]
        fn in_each_round_every_server_has_as_many_turns_as_its_weight(weights in weights()) {
            let total: u32 = weights.iter().sum();
            let mut turns = Turns::new(weights.len());
            for _ in 0..3 {
                let mut had = vec![0; weights.len()];
                for _ in 0..total {
                    had[turns.next(weights.iter().copied().enumerate()).unwrap()] += 1;
                }
                prop_assert_eq!(&had, &weights);
            }
        }

        #[test]
        fn the_share_of_a_server_that_is_out_goes_to_all_others(
            weights in prop::collection::vec(1_u32..20, 2..8),
            out in 0_usize..8,
            before in 0_usize..50,
        ) {
            let out = out % weights.len();
            let all = || weights.iter().copied().enumerate();
            let mut turns = Turns::new(weights.len());
            for _ in 0..before {
                turns.next(all());
            }
            let rest = || all().filter(|(place, _)| *place != out);
            let total: u32 = rest().map(|(_, weight)| weight).sum();
            let rounds = 50;
            let mut had = vec![0_u32; weights.len()];
            for _ in 0..total * rounds {
                had[turns.next(rest()).unwrap()] += 1;
            }
            prop_assert_eq!(had[out], 0);
            for (place, weight) in rest() {
                // What it was owed from before is at most one round of all.
                let fair = weight * rounds;
                prop_assert!(had[place].abs_diff(fair) <= weights.iter().sum::<u32>(), "{:?}", had);
            }
        }

        #[test]
        fn no_other_server_has_fewer_requests_for_its_weight(
            servers in prop::collection::vec((1_u32..20, 0_usize..50), 1..8),
            start in 0_usize..8,
        ) {
            let rows = || servers.iter().enumerate().map(|(place, (weight, load))| (place, *weight, *load));
            let chosen = least_requests(rows(), start % servers.len()).unwrap();
            let (weight, load) = servers[chosen];
            for (other_weight, other_load) in &servers {
                let mine = (load as u64 + 1) * u64::from(*other_weight);
                prop_assert!(mine <= (*other_load as u64 + 1) * u64::from(weight));
            }
        }

        #[test]
        fn only_the_keys_of_a_server_that_leaves_move(
            weights in prop::collection::vec(1_u64..5, 2..8),
            leaves in 0_usize..8,
            key in any::<u64>(),
        ) {
            let leaves = leaves % weights.len();
            let rows = || weights.iter().enumerate().map(|(place, weight)| (place, *weight, hash(&[place as u8])));
            let before = rendezvous(rows(), key).unwrap();
            let after = rendezvous(rows().filter(|(place, ..)| *place != leaves), key).unwrap();
            prop_assert!(before == leaves || before == after);
        }
    }

    #[test]
    fn turns_are_spread() {
        let mut turns = Turns::new(3);
        let order: String = (0..7)
            .map(|_| turns.next([(0, 5), (1, 1), (2, 1)].into_iter()).unwrap())
            .map(|place| ["a", "b", "c"][place])
            .collect();
        assert_eq!(order, "aabacaa");
    }

    #[test]
    fn servers_with_as_many_requests_take_turns() {
        let rows = || (0..3).map(|place| (place, 1, 7));
        let order: Vec<_> = (0..6)
            .map(|turn| least_requests(rows(), turn % 3))
            .collect();
        let [a, b, c] = [Some(0), Some(1), Some(2)];
        assert_eq!(order, [a, b, c, a, b, c]);
    }

    #[test]
    fn keys_are_spread_by_weight() {
        let servers = [
            (0, 1, hash(b"a:1")),
            (1, 2, hash(b"b:1")),
            (2, 1, hash(b"c:1")),
        ];
        let mut had = [0_u32; 3];
        for number in 0..40_000_u32 {
            let key = hash(number.to_string().as_bytes());
            had[rendezvous(servers.into_iter(), key).unwrap()] += 1;
        }
        for (had, fair) in had.into_iter().zip([10_000_u32, 20_000, 10_000]) {
            assert!(had.abs_diff(fair) < 500, "{had} of {fair}");
        }
    }

    #[test]
    fn several_gateways_agree() {
        // Other releases of the gateway, too.
        assert_eq!(hash(b"127.0.0.1:3001"), 4_468_492_993_053_224_304);
        let affinity = |sid, client: &str| Affinity {
            sid,
            client: Some(client.parse().unwrap()),
        };
        assert_eq!(
            affinity(Some("s"), "10.0.0.1").key(),
            affinity(Some("s"), "10.0.0.2").key()
        );
        assert_ne!(
            affinity(None, "10.0.0.1").key(),
            affinity(None, "10.0.0.2").key()
        );
        assert_eq!(
            affinity(None, "2001:db8::1").key(),
            affinity(None, "2001:db8::2").key()
        );
    }
}
