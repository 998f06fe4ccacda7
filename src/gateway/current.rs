//! The gateway that serves now. A reload puts another one in its place.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Gateway;

/// Where each new request finds the gateway that is to serve it. One under way keeps the one it began with.
#[derive(Debug)]
pub struct Current(ArcSwap<Gateway>);

impl Current {
    /// Begins with this one.
    pub fn new(gateway: Gateway) -> Self {
        Self(ArcSwap::from_pointee(gateway))
    }

    /// The one that serves now.
    pub fn load(&self) -> Arc<Gateway> {
        self.0.load_full()
    }

    /// Another one serves from now on.
    pub fn replace(&self, gateway: Gateway) {
        self.0.store(Arc::new(gateway));
    }
}
