//! Looks again whether whoever opened a stream may still have it: logging out, losing a right or becoming somebody
//! else ends it, within `recheck`.

mod looks;

use std::{future::Future, sync::Arc, time::Duration};

use rand::RngExt as _;
use tokio::time::{Instant, sleep_until};

pub use self::looks::Looks;
use super::{
    authorize,
    resolve::{Caller, Resolution},
    tunnel::{Ending, Tunnels},
};
use crate::{
    config::{Require, Route, SessionMode},
    session::SessionKey,
    sessions::{Known, Resolved},
    store::LookupError,
    telemetry::metrics::{Finding, Metrics},
};

/// The parts of an interval in which checks come together, so that they share questions to the database: each
/// begins one at most once in a part.
const PARTS: u32 = 20;

/// Such a part is no longer than this, however long the interval is.
const LONGEST_PART: Duration = Duration::from_secs(1);

/// What an interval varies by. With the wait for its part it stays within a tenth.
const JITTER: std::ops::Range<f64> = 0.9..1.05;

/// Who opened a stream, and what he needs to keep it.
#[derive(Debug)]
pub struct Watch {
    key: SessionKey,
    sub: Option<String>,
    require: Require,
    groups: Vec<String>,
    /// Whether that takes columns or groups of the user.
    details: bool,
    pace: Pace,
}

/// How often it is looked, and how long nobody need know.
#[derive(Clone, Copy, Debug)]
struct Pace {
    every: Duration,
    grace: Duration,
    /// From when the parts of intervals count, the same for all streams.
    epoch: Instant,
}

/// Who opens a stream, before an upstream's change of the session.
#[derive(Debug)]
pub struct Opener {
    key: SessionKey,
    sub: Option<String>,
}

impl Opener {
    /// Whom the request is from; `None` without a session.
    pub fn of(resolution: &Resolution) -> Option<Self> {
        let Caller::Visitor(session) = &resolution.caller else {
            return None;
        };
        let (key, known) = session.known()?;
        Some(Self {
            key: *key,
            sub: sub(known),
        })
    }
}

fn sub(known: &Known) -> Option<String> {
    known.user.as_ref().map(|user| user.id.clone())
}

impl Watch {
    /// What is to be watched on a route, where it is: a tunnel or an event stream that needs more than anybody has,
    /// and whatever the route says. `resolution` is after the change, whose new key counts.
    pub fn of(
        route: &Route,
        opener: Option<Opener>,
        resolution: &Resolution,
        is_stream: bool,
        epoch: Instant,
    ) -> Option<Self> {
        let every = route.recheck.every?;
        let is_due = route.recheck.is_explicit || (is_stream && route.require != Require::Anyone);
        if route.session != SessionMode::Read || !is_due {
            return None;
        }
        let Opener { key, sub } = opener?;
        Some(Self {
            // A session that was deleted keeps its old key, and is found to be gone.
            key: resolution.key().copied().unwrap_or(key),
            sub,
            require: route.require,
            groups: route.groups.clone(),
            details: route.reads_user(),
            pace: Pace {
                every,
                grace: route.recheck.grace,
                epoch,
            },
        })
    }

    /// Ready when the stream must end.
    pub async fn ended(self, tunnels: Tunnels, metrics: Arc<Metrics>) -> Ending {
        let mut turns = Turns::new(self.pace);
        let mut next = turns.first(Instant::now());
        loop {
            sleep_until(next).await;
            let finding = self.judge(tunnels.look(self.key, self.details).await);
            metrics.rechecks.count(finding);
            next = match turns.after(finding, Instant::now()) {
                Ok(next) => next,
                Err(why) => return why,
            };
        }
    }

    fn judge(&self, found: Result<Resolved, LookupError>) -> Finding {
        match found {
            Ok(Resolved::Known(known)) if sub(&known) != self.sub => Finding::OtherUser,
            Ok(Resolved::Known(known)) => {
                match authorize::is_enough(self.require, &self.groups, &known) {
                    true => Finding::Kept,
                    false => Finding::NotAllowed,
                }
            }
            Ok(Resolved::Missing | Resolved::LoggedOut) => Finding::Gone,
            // Not knowing is no answer.
            Ok(Resolved::Unverifiable(_)) | Err(_) => Finding::Unknown,
        }
    }
}

/// When to look again, until a finding says no, or there was none for too long.
#[derive(Debug)]
struct Turns {
    pace: Pace,
    unknown_since: Option<Instant>,
}

impl Turns {
    fn new(pace: Pace) -> Self {
        Self {
            pace,
            unknown_since: None,
        }
    }

    /// Streams that were opened together, after a restart perhaps, are not looked at together.
    fn first(&self, now: Instant) -> Instant {
        let part: f64 = rand::random();
        self.pace.align(now + self.pace.every.mul_f64(part))
    }

    fn after(&mut self, finding: Finding, now: Instant) -> Result<Instant, Ending> {
        let jitter = rand::rng().random_range(JITTER);
        let next = self.pace.align(now + self.pace.every.mul_f64(jitter));
        match finding {
            Finding::Kept => {
                self.unknown_since = None;
                Ok(next)
            }
            Finding::Gone | Finding::NotAllowed | Finding::OtherUser => Err(Ending::Revoked),
            Finding::Unknown => {
                let end = *self.unknown_since.get_or_insert(now) + self.pace.grace;
                match now < end {
                    true => Ok(next.min(end)),
                    false => Err(Ending::Unanswered),
                }
            }
        }
    }
}

impl Pace {
    /// The end of the part in which a moment lies.
    fn align(&self, moment: Instant) -> Instant {
        let part = (self.every / PARTS).min(LONGEST_PART).as_millis().max(1);
        let since = moment.saturating_duration_since(self.epoch).as_millis();
        let end = (since / part + 1) * part;
        self.epoch + Duration::from_millis(u64::try_from(end).unwrap_or(u64::MAX))
    }
}

/// Ready with the first of the two.
pub async fn either(
    one: impl Future<Output = Ending>,
    other: impl Future<Output = Ending>,
) -> Ending {
    tokio::select! {
        biased;
        why = one => why,
        why = other => why,
    }
}

/// A future that may not be there.
pub async fn or_never<T>(future: Option<impl Future<Output = T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
