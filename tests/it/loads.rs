//! Loads. They are small here; with `SG_TEST_FULL=1` (`bench/loads`) as large as operators are promised. Each prints
//! its record as a line that begins with `load: `.

mod bodies;
mod idle;
mod slow_heads;
mod usage;

/// The one for every run of the tests, or the one of a record.
fn sized<T>(small: T, full: T) -> T {
    if is_full() { full } else { small }
}

/// Whether a record is made.
fn is_full() -> bool {
    std::env::var_os("SG_TEST_FULL").is_some_and(|value| value == "1")
}
