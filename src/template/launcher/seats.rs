//! Which worker runs on which host.

use std::sync::Arc;

/// Where one worker runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    /// The worker's number in the feed.
    pub(crate) id: usize,
    /// Its number on its host.
    pub(crate) slot: usize,
    /// Its host, where a launcher names one: its number among the hosts, and its name.
    pub(crate) host: Option<(usize, Arc<str>)>,
    /// It runs behind a launcher that leads to another machine or into a container.
    pub(crate) far: bool,
}

impl Seat {
    /// Of a worker that runs here.
    pub(crate) fn here(id: usize) -> Self {
        Self { id, slot: id, host: None, far: false }
    }

    /// What `{host}` stands for.
    pub(crate) fn host_name(&self) -> &str {
        self.host.as_ref().map_or("localhost", |(_, name)| name)
    }
}

/// `n` workers shared out by weight, by the method of the largest remainder: each host gets its share
/// rounded down, and those with the largest rests one more; of equal ones the heavier, then the earlier.
pub(crate) fn share(n: usize, weights: &[u32]) -> Vec<usize> {
    let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    if total == 0 {
        return vec![0; weights.len()];
    }
    let exact = |weight: u32| n as u128 * u128::from(weight);
    let mut shares: Vec<usize> =
        weights.iter().map(|&weight| (exact(weight) / total) as usize).collect();
    let given: usize = shares.iter().sum();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|&host| {
        let rest = exact(weights[host]) % total;
        (std::cmp::Reverse(rest), std::cmp::Reverse(weights[host]), host)
    });
    for &host in order.iter().take(n - given) {
        shares[host] += 1;
    }
    shares
}

/// The host of each worker, and its number there. Hosts take turns, so that the first to start are on
/// all of them.
pub(crate) fn deal(shares: &[usize]) -> Vec<(usize, usize)> {
    let n: usize = shares.iter().sum();
    let mut dealt = Vec::with_capacity(n);
    let mut round = 0;
    while dealt.len() < n {
        let here = shares.iter().enumerate().filter(|&(_, &share)| round < share);
        dealt.extend(here.map(|(host, _)| (host, round)));
        round += 1;
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_shared_by_weight_and_none_is_lost() {
        assert_eq!(share(10, &[8, 2]), [8, 2]);
        assert_eq!(share(5, &[8, 2]), [4, 1]);
        assert_eq!(share(4, &[1, 1, 1]), [2, 1, 1]);
        // With fewer workers than hosts the lightest idle.
        assert_eq!(share(2, &[1, 4, 2]), [0, 1, 1]);
        assert_eq!(share(1, &[1, 1]), [1, 0]);
        assert_eq!(share(0, &[1, 1]), [0, 0]);
        for n in 0..50 {
            for weights in [&[1][..], &[3, 7], &[1, 1, 1, 1, 5], &[u32::MAX, 1, u32::MAX]] {
                let shares = share(n, weights);
                assert_eq!(shares.iter().sum::<usize>(), n, "{n} {weights:?}");
                let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
                for (share, &weight) in shares.iter().zip(weights) {
                    let exact = n as f64 * f64::from(weight) / total;
                    assert!((*share as f64 - exact).abs() < 1.0, "{n} {weights:?}: {shares:?}");
                }
            }
        }
    }

    #[test]
    fn hosts_take_turns() {
        assert_eq!(deal(&[2, 0, 3]), [(0, 0), (2, 0), (0, 1), (2, 1), (2, 2)]);
        assert_eq!(deal(&[]), []);
    }
}
