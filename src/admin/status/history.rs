//! What was counted in the last two minutes, for rates and their lines.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    gateway::Gateway,
    telemetry::metrics::{Class, Histogram, NO_ROUTE, RouteMetrics},
};

/// How often the counters are looked at.
pub const EVERY: Duration = Duration::from_secs(2);

/// How many looks are kept: two minutes.
const KEPT: usize = 61;

/// What counts as now: short enough to see a change, long enough for quiet sites.
const NOW: usize = 5;

/// The counters as they were, oldest first.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<Sample>>);

/// All counters at one moment.
#[derive(Clone, Debug)]
struct Sample {
    at: Instant,
    routes: Vec<(String, Counted)>,
    lookups: Counted,
    changes: Counted,
}

/// What is counted of one thing: how many, how many of them failed, and how long they took.
#[derive(Clone, Debug, Default)]
struct Counted {
    all: u64,
    failed: u64,
    buckets: Vec<(Option<u64>, u64)>,
}

/// What a page tells of one thing.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// A second, now.
    pub rate: f64,
    /// Failures a second, now.
    pub failures: f64,
    /// A second, in each interval of the last two minutes.
    pub rates: Vec<f64>,
    /// Failures a second, likewise.
    pub failure_rates: Vec<f64>,
    /// What half of them took at most, in the last two minutes; microseconds.
    pub half: Option<f64>,
    /// What 99 of 100 took at most.
    pub most: Option<f64>,
    /// Since the process began.
    pub total: u64,
}

impl History {
    /// Looks at the counters.
    pub fn sample(&self, gateway: &Gateway) {
        let sample = Sample::of(gateway);
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == KEPT {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// What was counted up to this moment: of each route by its name, of lookups and of changes.
    pub fn recent(&self, gateway: &Gateway) -> Recents {
        let mut samples: Vec<Sample> = {
            let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.iter().cloned().collect()
        };
        if samples.is_empty() {
            samples.push(Sample::of(gateway));
        }
        Recents(samples)
    }
}

/// The samples of a page.
#[derive(Debug)]
pub struct Recents(Vec<Sample>);

impl Recents {
    /// Of a route.
    pub fn route(&self, name: &str) -> Recent {
        self.of(|sample| {
            let found = sample.routes.iter().find(|(other, _)| other == name);
            found
                .map(|(_, counted)| counted.clone())
                .unwrap_or_default()
        })
    }

    /// Of all requests.
    pub fn requests(&self) -> Recent {
        self.of(|sample| {
            let mut all = Counted::default();
            for (_, counted) in &sample.routes {
                all.add(counted);
            }
            all
        })
    }

    /// Of session lookups.
    pub fn lookups(&self) -> Recent {
        self.of(|sample| sample.lookups.clone())
    }

    /// Of session changes.
    pub fn changes(&self) -> Recent {
        self.of(|sample| sample.changes.clone())
    }

    fn of(&self, counted: impl Fn(&Sample) -> Counted) -> Recent {
        let points: Vec<(Instant, Counted)> = self
            .0
            .iter()
            .map(|sample| (sample.at, counted(sample)))
            .collect();
        let (Some((first_at, first)), Some((last_at, last))) = (points.first(), points.last())
        else {
            return Recent::default();
        };
        let per_second = |count: u64, from: Instant, to: Instant| {
            let seconds = to.saturating_duration_since(from).as_secs_f64();
            if seconds > 0.0 {
                count as f64 / seconds
            } else {
                0.0
            }
        };
        let step = |pair: &[(Instant, Counted)], count: fn(&Counted) -> u64| match pair {
            [(from, before), (to, after)] => {
                per_second(count(after).saturating_sub(count(before)), *from, *to)
            }
            _ => 0.0,
        };
        let (now_at, now) = &points[points.len().saturating_sub(NOW + 1)];
        let taken: Vec<(Option<u64>, u64)> = last
            .buckets
            .iter()
            .enumerate()
            .map(|(place, (bound, count))| {
                let before = first.buckets.get(place).map_or(0, |(_, count)| *count);
                // With one look there is nothing before: all since the start.
                let before = if first_at == last_at { 0 } else { before };
                (*bound, count.saturating_sub(before))
            })
            .collect();
        Recent {
            rate: per_second(last.all.saturating_sub(now.all), *now_at, *last_at),
            failures: per_second(last.failed.saturating_sub(now.failed), *now_at, *last_at),
            rates: points
                .windows(2)
                .map(|pair| step(pair, |counted| counted.all))
                .collect(),
            failure_rates: points
                .windows(2)
                .map(|pair| step(pair, |counted| counted.failed))
                .collect(),
            half: quantile(&taken, 0.5),
            most: quantile(&taken, 0.99),
            total: last.all,
        }
    }
}

impl Sample {
    fn of(gateway: &Gateway) -> Self {
        use crate::telemetry::metrics::{Change, Lookup};
        let metrics = gateway.metrics();
        let of_route = |counted: &RouteMetrics| Counted {
            all: counted.requests.sum(),
            failed: counted.requests.total(Class::ServerError),
            buckets: counted.duration.buckets().collect(),
        };
        let mut routes: Vec<(String, Counted)> = gateway
            .config()
            .routes
            .iter()
            .map(|route| {
                let name = route.name();
                let counted = of_route(&metrics.route(&name));
                (name, counted)
            })
            .collect();
        routes.push((NO_ROUTE.to_owned(), of_route(&metrics.no_route)));
        let sum = |counts: &[u64]| counts.iter().sum();
        let lookups = &metrics.session_lookups;
        let changes = &metrics.session_changes;
        Self {
            at: Instant::now(),
            routes,
            lookups: Counted {
                all: lookups.sum(),
                failed: sum(&[
                    Lookup::Unavailable,
                    Lookup::Overloaded,
                    Lookup::Unverifiable,
                ]
                .map(|result| lookups.total(result))),
                buckets: buckets(&metrics.session_lookup_duration),
            },
            changes: Counted {
                all: changes.sum(),
                failed: sum(&[
                    Change::NotSaved,
                    Change::Unknown,
                    Change::Busy,
                    Change::Unreadable,
                ]
                .map(|outcome| changes.total(outcome))),
                buckets: buckets(&metrics.session_change_duration),
            },
        }
    }
}

fn buckets(histogram: &Histogram) -> Vec<(Option<u64>, u64)> {
    histogram.buckets().collect()
}

impl Counted {
    fn add(&mut self, other: &Self) {
        self.all += other.all;
        self.failed += other.failed;
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
            return;
        }
        for ((_, count), (_, more)) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
    }
}

/// Which value this part of the observations does not exceed, as if those of a bucket were spread evenly over it. Above
/// the last bound nothing is known but the bound.
fn quantile(buckets: &[(Option<u64>, u64)], part: f64) -> Option<f64> {
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    if all == 0 {
        return None;
    }
    let wanted = part * all as f64;
    let (mut seen, mut lower) = (0.0, 0.0);
    for (bound, count) in buckets {
        let upper = bound.map_or(lower, |bound| bound as f64);
        let count = *count as f64;
        if seen + count >= wanted && count > 0.0 {
            return Some(lower + (upper - lower) * (wanted - seen) / count);
        }
        seen += count;
        lower = upper;
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recents(counts: &[(u64, u64)]) -> Recents {
        let start = Instant::now();
        let sample = |(place, (all, failed)): (usize, &(u64, u64))| Sample {
            at: start + EVERY * u32::try_from(place).unwrap(),
            routes: Vec::new(),
            lookups: Counted {
                all: *all,
                failed: *failed,
                buckets: vec![(Some(1000), *all), (None, 0)],
            },
            changes: Counted::default(),
        };
        Recents(counts.iter().enumerate().map(sample).collect())
    }

    #[test]
    fn rates_are_those_between_two_looks() {
        let recent = recents(&[(0, 0), (100, 2), (100, 2), (300, 2)]).lookups();
        assert_eq!(recent.rates, [50.0, 0.0, 100.0]);
        assert_eq!(recent.failure_rates, [1.0, 0.0, 0.0]);
        assert_eq!((recent.rate, recent.total), (50.0, 300));
        assert_eq!(recent.half, Some(500.0));
        // A counter that a reload has left out begins anew.
        assert_eq!(recents(&[(100, 0), (0, 0)]).lookups().rate, 0.0);
        assert_eq!(recents(&[(7, 0)]).lookups().rate, 0.0);
        assert_eq!(recents(&[]).lookups().total, 0);
    }

    #[test]
    fn quantiles_are_read_off_the_buckets() {
        let buckets = [(Some(10), 50), (Some(20), 49), (Some(40), 0), (None, 1)];
        assert_eq!(quantile(&buckets, 0.5), Some(10.0));
        assert_eq!(quantile(&buckets, 0.99), Some(20.0));
        assert_eq!(quantile(&buckets, 1.0), Some(40.0));
        assert_eq!(quantile(&[(Some(10), 0)], 0.5), None);
    }
}
