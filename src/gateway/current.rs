//! The gateway that serves now. A reload puts another one in its place, or says why it did not.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};

use super::Gateway;
use crate::telemetry::metrics;

/// Where each new request finds the gateway that is to serve it. One under way keeps the one it began with.
#[derive(Debug)]
pub struct Current {
    gateway: ArcSwap<Gateway>,
    contacted: AtomicBool,
    reloads: Mutex<Reloads>,
}

/// Since when the configuration is in force, and what became of the last attempt to change it.
#[derive(Clone, Debug)]
pub struct Reloads {
    /// When the configuration in force was loaded.
    pub loaded: DateTime<Utc>,
    /// The last attempt to load another one; `None` since the start.
    pub last: Option<Reload>,
}

/// An attempt to load the configuration again.
#[derive(Clone, Debug)]
pub struct Reload {
    /// When.
    pub at: DateTime<Utc>,
    /// The first thing that was wrong, with file, line and column; `None` where it was applied.
    pub refused: Option<String>,
}

impl Current {
    /// Begins with this one.
    pub fn new(gateway: Gateway) -> Self {
        let now = Utc::now();
        gateway.metrics().last_reload_success.set(now.timestamp());
        Self {
            gateway: ArcSwap::from_pointee(gateway),
            contacted: AtomicBool::new(false),
            reloads: Mutex::new(Reloads {
                loaded: now,
                last: None,
            }),
        }
    }

    /// The one that serves now.
    pub fn load(&self) -> Arc<Gateway> {
        self.gateway.load_full()
    }

    /// Another one serves from now on.
    pub fn replace(&self, gateway: Gateway) {
        // Before the store that has been contacted goes.
        self.was_contacted();
        let now = Utc::now();
        let metrics = gateway.metrics().clone();
        self.gateway.store(Arc::new(gateway));
        metrics.last_reload_success.set(now.timestamp());
        metrics.reloads.count(metrics::Reload::Done);
        *self.lock() = Reloads {
            loaded: now,
            last: Some(Reload {
                at: now,
                refused: None,
            }),
        };
    }

    /// The one that serves stays; `why` is the first thing that is wrong with the new configuration.
    pub fn keep(&self, why: String) {
        let metrics = self.gateway.load().metrics().clone();
        metrics.reloads.count(metrics::Reload::Refused);
        self.lock().last = Some(Reload {
            at: Utc::now(),
            refused: Some(why),
        });
    }

    /// What became of the attempts to change the configuration.
    pub fn reloads(&self) -> Reloads {
        self.lock().clone()
    }

    /// Whether a database has answered since the process began. A reload that names another one changes nothing
    /// about that: all gateways going unready together would be an outage of everything.
    pub fn was_contacted(&self) -> bool {
        if self.contacted.load(Ordering::Relaxed) {
            return true;
        }
        let gateway = self.gateway.load();
        let contacted = gateway.sessions().store().state().was_contacted();
        if contacted {
            self.contacted.store(true, Ordering::Relaxed);
        }
        contacted
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Reloads> {
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
