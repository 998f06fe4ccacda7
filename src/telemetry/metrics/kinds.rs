//! Kinds of metrics: counters and gauges by a label, histograms, and families whose labels are names of the
//! configuration.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric, counter::Counter, family::Family, gauge::Gauge},
    registry::{Metric, Registry, Unit},
};

use super::labels::Label;

/// A counter for each value of a label, all of them there from the start.
#[derive(Clone, Debug)]
pub struct Counters<L>(Arc<[(L, Counter)]>);

impl<L: Label> Counters<L> {
    /// Registers the counters. To the name `_total` is added.
    pub(super) fn new(registry: &mut Registry, name: &str, help: &str) -> Self {
        Named::new(registry, name, help, &[L::NAME], Counter::default).each(&[])
    }

    /// Counts one.
    pub fn count(&self, value: L) {
        self.add(value, 1);
    }

    /// Counts several.
    pub fn add(&self, value: L, count: u64) {
        if let Some(counter) = self.find(value) {
            counter.inc_by(count);
        }
    }

    /// How many there were.
    pub fn total(&self, value: L) -> u64 {
        self.find(value).map_or(0, Counter::get)
    }

    /// How many there were of all values.
    pub fn sum(&self) -> u64 {
        self.0.iter().map(|(_, counter)| counter.get()).sum()
    }

    fn find(&self, value: L) -> Option<&Counter> {
        let found = self.0.iter().find(|(other, _)| *other == value);
        found.map(|(_, counter)| counter)
    }
}

/// A gauge for each value of a label, all of them there from the start.
#[derive(Clone, Debug)]
pub struct Gauges<L>(Arc<[(L, Gauge)]>);

impl<L: Label> Gauges<L> {
    /// Registers the gauges.
    pub(super) fn new(registry: &mut Registry, name: &str, help: &str) -> Self {
        let family = Named::new(registry, name, help, &[L::NAME], Gauge::default);
        Self(
            L::VALUES
                .iter()
                .map(|(value, spelt)| (*value, family.of(&[spelt])))
                .collect(),
        )
    }

    /// One more, until what is returned is dropped.
    pub fn hold(&self, value: L) -> Held {
        Held::new(&self.of(value))
    }

    /// All values together.
    pub fn total(&self) -> i64 {
        self.0.iter().map(|(_, gauge)| gauge.get()).sum()
    }

    /// The gauge of a value.
    pub fn of(&self, value: L) -> Gauge {
        let found = self.0.iter().find(|(other, _)| *other == value);
        found.map(|(_, gauge)| gauge.clone()).unwrap_or_default()
    }
}

/// Something that a gauge counts for as long as this lives.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    /// One more.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The labels of a series, in the order in which the family names them.
type Labels = Vec<(&'static str, String)>;

/// A family of metrics whose labels are names of the configuration: routes, upstreams, servers, files. A series is
/// made when the configuration is read, and stays when a later one does not have the name any more, unless it is
/// forgotten.
#[derive(Debug)]
pub struct Named<M> {
    labels: &'static [&'static str],
    family: Family<Labels, M, fn() -> M>,
}

impl<M> Named<M>
where
    M: Clone + TypedMetric + Metric,
{
    /// Registers the family, without a series yet.
    pub(super) fn new(
        registry: &mut Registry,
        name: &str,
        help: &str,
        labels: &'static [&'static str],
        make: fn() -> M,
    ) -> Self {
        let family = Family::new_with_constructor(make);
        registry.register(name, help, family.clone());
        Self { labels, family }
    }

    /// The series of these names, in the order of the labels. Ask once and keep it: this looks it up.
    pub fn of(&self, names: &[&str]) -> M {
        self.family.get_or_create_owned(&self.labels(names))
    }

    /// Takes the series of these names out; what was kept of it counts for nobody.
    pub fn forget(&self, names: &[&str]) {
        self.family.remove(&self.labels(names));
    }

    fn labels(&self, names: &[&str]) -> Labels {
        let names = names.iter().map(|name| (*name).to_owned());
        self.labels.iter().copied().zip(names).collect()
    }
}

impl Named<Counter> {
    /// A counter for each value of the last label, for these names of the others.
    pub fn each<L: Label>(&self, names: &[&str]) -> Counters<L> {
        let counter = |(value, spelt): &(L, &'static str)| {
            let names: Vec<&str> = names.iter().copied().chain([*spelt]).collect();
            (*value, self.of(&names))
        };
        Counters(L::VALUES.iter().map(counter).collect())
    }
}

impl Named<Histogram> {
    /// Registers a family of durations. To the name `_seconds` is added.
    pub(super) fn seconds(
        registry: &mut Registry,
        name: &str,
        help: &str,
        labels: &'static [&'static str],
        make: fn() -> Histogram,
    ) -> Self {
        let family = Family::new_with_constructor(make);
        registry.register_with_unit(name, help, Unit::Seconds, family.clone());
        Self { labels, family }
    }
}

/// How many observations fell where, and their sum. Whole numbers, so that observing takes no lock, as the
/// library's own histogram does.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    /// Upper bounds, rising; what is above the last one has a bucket too.
    bounds: &'static [u64],
    /// What is told for each whole number: a millionth for microseconds that are told as seconds.
    unit: f64,
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Registers a histogram of whole numbers.
    pub(super) fn new(
        registry: &mut Registry,
        name: &str,
        help: &str,
        bounds: &'static [u64],
    ) -> Self {
        let histogram = Self::with_unit(bounds, 1.0);
        registry.register(name, help, histogram.clone());
        histogram
    }

    /// Registers a histogram of durations; the bounds are microseconds. To the name `_seconds` is added.
    pub(super) fn seconds(
        registry: &mut Registry,
        name: &str,
        help: &str,
        bounds: &'static [u64],
    ) -> Self {
        let histogram = Self::of_durations(bounds);
        registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        histogram
    }

    /// A histogram of durations; the bounds are microseconds.
    pub(super) fn of_durations(bounds: &'static [u64]) -> Self {
        Self::with_unit(bounds, 1e-6)
    }

    fn with_unit(bounds: &'static [u64], unit: f64) -> Self {
        Self(Arc::new(Buckets {
            bounds,
            unit,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }))
    }

    /// Counts a value.
    pub fn observe(&self, value: usize) {
        self.add(u64::try_from(value).unwrap_or(u64::MAX));
    }

    /// Counts a duration.
    pub fn observe_duration(&self, duration: Duration) {
        self.add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    fn add(&self, value: u64) {
        let Buckets {
            bounds,
            counts,
            sum,
            ..
        } = &*self.0;
        let place = bounds.partition_point(|bound| *bound < value);
        counts[place].fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(value, Ordering::Relaxed);
    }

    /// The upper bounds, and how many observations fell below each and above the one before; the last bucket has
    /// no bound. Durations are microseconds here.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let Buckets { bounds, counts, .. } = &*self.0;
        let bounds = bounds.iter().copied().map(Some).chain([None]);
        bounds.zip(counts.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let unit = self.0.unit;
        // Divided, not multiplied: 2500 µs are to be told as 0.0025.
        let told = |value: u64| value as f64 / unit.recip();
        let buckets: Vec<_> = self
            .buckets()
            .map(|(bound, count)| (bound.map_or(f64::INFINITY, told), count))
            .collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = told(self.0.sum.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}
