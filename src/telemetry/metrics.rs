//! What is counted, and how Prometheus reads it.
//!
//! Every metric is a field of [`Metrics`] and is listed once, in [`Metrics::default`]; docs/operations.md has the
//! same list, and a test compares them. Labels are enums, so that no request can make a new series. To count is an
//! atomic addition, without a lock or a look-up by name.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet, text},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

/// The media type of [`Metrics::text`] (OpenMetrics 1.0, "Overall Structure").
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the buckets of [`Metrics::batch_questions`]: up to the largest batch.
const BATCH_SIZES: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128];

/// All counters of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// What was found out about session keys.
    pub session_lookups: Counters<Lookup>,
    /// What became of session changes.
    pub session_changes: Counters<Change>,
    /// Questions that went to the database in one statement.
    pub batch_questions: Histogram,
    /// The memo of what rows mean.
    pub memo: CacheMetrics,
    /// The bounded cache of session rows.
    pub session_cache: CacheMetrics,
    /// The bounded cache of users.
    pub user_cache: CacheMetrics,
}

/// What is counted of a cache.
#[derive(Debug)]
pub struct CacheMetrics {
    /// Whether what was asked for was there, and young enough.
    pub lookups: Counters<Cached>,
    entries: Gauge,
    bytes: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("session_gateway");
        let to = &mut registry;
        Self {
            session_lookups: Counters::new(
                to,
                "session_lookups",
                "Session keys that requests came with, by what was found",
            ),
            session_changes: Counters::new(
                to,
                "session_changes",
                "Changes of sessions that were carried out or refused, by outcome",
            ),
            batch_questions: Histogram::new(
                to,
                "batch_questions",
                "Questions in one lookup of the database",
                BATCH_SIZES,
            ),
            memo: CacheMetrics::new(to, "memo", "memo of what session rows mean"),
            session_cache: CacheMetrics::new(to, "session_cache", "cache of session rows"),
            user_cache: CacheMetrics::new(to, "user_cache", "cache of users"),
            registry,
        }
    }
}

impl Metrics {
    /// Everything, as OpenMetrics text: see [`MEDIA_TYPE`].
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

impl CacheMetrics {
    fn new(registry: &mut Registry, name: &str, what: &str) -> Self {
        let (entries, bytes) = (Gauge::default(), Gauge::default());
        let lookups = Counters::new(
            registry,
            &format!("{name}_lookups"),
            &format!("Looks into the {what}"),
        );
        registry.register(
            format!("{name}_entries"),
            format!("Entries of the {what}"),
            entries.clone(),
        );
        registry.register_with_unit(
            name,
            format!("What the {what} takes of its limit"),
            Unit::Bytes,
            bytes.clone(),
        );
        Self {
            lookups,
            entries,
            bytes,
        }
    }

    /// Tells how large the cache is.
    pub fn measure(&self, entries: usize, bytes: u64) {
        self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// One label of a metric: a few values that are known beforehand.
pub trait Label: Copy + PartialEq + fmt::Debug + 'static {
    /// Its name.
    const NAME: &'static str;

    /// Each value and how it is spelt.
    const VALUES: &'static [(Self, &'static str)];
}

/// What was found out about a session key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// There is no live row.
    Missing,
    /// A session.
    Known,
    /// A session whose login does not fit the password any more.
    LoggedOut,
    /// A row that cannot be verified.
    Unverifiable,
    /// The database did not answer.
    Unavailable,
    /// Too many lookups were waiting.
    Overloaded,
}

impl Label for Lookup {
    const NAME: &'static str = "result";
    const VALUES: &'static [(Self, &'static str)] = &[
        (Self::Missing, "missing"),
        (Self::Known, "known"),
        (Self::LoggedOut, "logged_out"),
        (Self::Unverifiable, "unverifiable"),
        (Self::Unavailable, "unavailable"),
        (Self::Overloaded, "overloaded"),
    ];
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stored.
    Saved,
    /// The session was deleted.
    Deleted,
    /// Nothing had to be written.
    Nothing,
    /// The row had gone.
    Gone,
    /// `"if"` did not fit.
    Changed,
    /// The row cannot be verified.
    Unreadable,
    /// The session would grow over its limit.
    TooLarge,
    /// Somebody else held the row.
    Busy,
    /// Nothing is stored.
    NotSaved,
    /// Nobody can say.
    Unknown,
}

impl Label for Change {
    const NAME: &'static str = "outcome";
    const VALUES: &'static [(Self, &'static str)] = &[
        (Self::Saved, "saved"),
        (Self::Deleted, "deleted"),
        (Self::Nothing, "nothing"),
        (Self::Gone, "gone"),
        (Self::Changed, "changed"),
        (Self::Unreadable, "unreadable"),
        (Self::TooLarge, "too_large"),
        (Self::Busy, "busy"),
        (Self::NotSaved, "not_saved"),
        (Self::Unknown, "unknown"),
    ];
}

/// Whether a cache had what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// It had.
    Hit,
    /// It had not.
    Miss,
}

impl Label for Cached {
    const NAME: &'static str = "result";
    const VALUES: &'static [(Self, &'static str)] = &[(Self::Hit, "hit"), (Self::Miss, "miss")];
}

/// A counter for each value of a label, all of them there from the start.
#[derive(Debug)]
pub struct Counters<L>(Box<[(L, Counter)]>);

impl<L: Label> Counters<L> {
    /// Registers the counters. To the name `_total` is added.
    fn new(registry: &mut Registry, name: &str, help: &str) -> Self {
        let family = Family::<[(&str, &str); 1], Counter>::default();
        let counters = L::VALUES.iter().map(|(value, spelt)| {
            let counter = family.get_or_create_owned(&[(L::NAME, *spelt)]);
            (*value, counter)
        });
        let counters = Self(counters.collect());
        registry.register(name, help, family);
        counters
    }

    /// Counts one.
    pub fn count(&self, value: L) {
        let counter = self.0.iter().find(|(other, _)| *other == value);
        if let Some((_, counter)) = counter {
            counter.inc();
        }
    }

    /// How many there were.
    pub fn total(&self, value: L) -> u64 {
        let counter = self.0.iter().find(|(other, _)| *other == value);
        counter.map_or(0, |(_, counter)| counter.get())
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
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    fn new(registry: &mut Registry, name: &str, help: &str, bounds: &'static [u64]) -> Self {
        let histogram = Self(Arc::new(Buckets {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }));
        registry.register(name, help, histogram.clone());
        histogram
    }

    /// Counts a value.
    pub fn observe(&self, value: usize) {
        let value = u64::try_from(value).unwrap_or(u64::MAX);
        let Buckets {
            bounds,
            counts,
            sum,
        } = &*self.0;
        let place = bounds.partition_point(|bound| *bound < value);
        counts[place].fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(value, Ordering::Relaxed);
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Buckets {
            bounds,
            counts,
            sum,
        } = &*self.0;
        let bounds = bounds.iter().map(|bound| *bound as f64);
        let counts = counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<_> = bounds
            .chain(std::iter::once(f64::INFINITY))
            .zip(counts)
            .collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = sum.load(Ordering::Relaxed) as f64;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        let metrics = Metrics::default();
        metrics.session_lookups.count(Lookup::LoggedOut);
        metrics.session_lookups.count(Lookup::LoggedOut);
        metrics.memo.measure(1, 7);
        for value in [1, 3, 4, 500] {
            metrics.batch_questions.observe(value);
        }
        let text = metrics.text();
        for line in [
            "# TYPE session_gateway_session_lookups counter",
            "session_gateway_session_lookups_total{result=\"logged_out\"} 2",
            "session_gateway_session_lookups_total{result=\"missing\"} 0",
            "session_gateway_memo_bytes 7",
            "# TYPE session_gateway_batch_questions histogram",
            "session_gateway_batch_questions_sum 508.0",
            "session_gateway_batch_questions_count 4",
            "session_gateway_batch_questions_bucket{le=\"1.0\"} 1",
            "session_gateway_batch_questions_bucket{le=\"2.0\"} 1",
            "session_gateway_batch_questions_bucket{le=\"4.0\"} 3",
            "session_gateway_batch_questions_bucket{le=\"128.0\"} 3",
            "session_gateway_batch_questions_bucket{le=\"+Inf\"} 4",
        ] {
            assert!(text.lines().any(|told| told == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert_eq!(metrics.session_lookups.total(Lookup::LoggedOut), 2);
    }

    /// A metric as the table of docs/operations.md has it: its name, its type, its label with all values.
    type Told = (String, String, BTreeSet<String>);

    #[test]
    fn every_metric_is_documented() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
        let text = fs::read_to_string(path).expect("docs/operations.md");
        let rows = text
            .lines()
            .filter(|line| line.starts_with("| `session_gateway_"));
        let documented: Vec<Told> = rows.map(documented).collect();
        assert_eq!(documented, told(&Metrics::default().text()));
    }

    /// A row of the table.
    fn documented(row: &str) -> Told {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let code = |text: &str| -> Vec<String> {
            let between = text.split('`').skip(1).step_by(2);
            between.map(str::to_owned).collect()
        };
        let labels = code(cells[3]);
        let labels = match labels.split_first() {
            None => BTreeSet::new(),
            Some((name, values)) => values
                .iter()
                .map(|value| format!("{name}=\"{value}\""))
                .collect(),
        };
        (code(cells[1]).concat(), cells[2].to_owned(), labels)
    }

    /// The metrics in the text that Prometheus reads.
    fn told(text: &str) -> Vec<Told> {
        let types = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let metric = |(name, kind): (&str, &str)| {
            let name = match kind {
                "counter" => format!("{name}_total"),
                _ => name.to_owned(),
            };
            let start = format!("{name}{{");
            let labels = text
                .lines()
                .filter_map(|line| line.strip_prefix(&start)?.split('}').next());
            let labels = labels.map(str::to_owned).collect();
            (name, kind.to_owned(), labels)
        };
        types.map(metric).collect()
    }
}
