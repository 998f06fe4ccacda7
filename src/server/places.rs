//! How many connections there may be: in all, and of one address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{Notify, mpsc};

/// All client connections of the process.
#[derive(Debug, Default)]
pub struct Places {
    taken: AtomicUsize,
    freed: Notify,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

impl Places {
    /// Waits until there are fewer than `most()` connections. `most` may change meanwhile; it is asked again whenever a
    /// connection ends. `full` is called if there is something to wait for.
    pub async fn room(&self, most: impl Fn() -> usize, full: impl FnOnce()) {
        let mut full = Some(full);
        loop {
            // Registered before looking, so that no end is missed.
            let freed = self.freed.notified();
            if self.taken.load(Ordering::Relaxed) < most() {
                return;
            }
            if let Some(full) = full.take() {
                full();
            }
            freed.await;
        }
    }

    /// Counts one more. Each listener may do so after the same end of a connection, so there can be as many too many
    /// as there are other listeners.
    pub fn take(self: &Arc<Self>, alive: mpsc::Sender<()>) -> Place {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Place {
            places: self.clone(),
            address: None,
            _alive: alive,
        }
    }

    fn addresses(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection. It is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    /// The address that it is counted for.
    address: Option<IpAddr>,
    /// The server waits for its end, at most for its grace.
    _alive: mpsc::Sender<()>,
}

impl Place {
    /// Counts the connection for its client; `false` if that has `most` already.
    pub fn count_for(&mut self, client: IpAddr, most: usize) -> bool {
        let client = one_client(client);
        let mut addresses = self.places.addresses();
        let count = addresses.entry(client).or_default();
        if *count >= most {
            return false;
        }
        *count += 1;
        drop(addresses);
        self.address = Some(client);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            let mut addresses = self.places.addresses();
            if let Some(count) = addresses.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    addresses.remove(&address);
                }
            }
        }
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        self.places.freed.notify_waiters();
    }
}

/// An IPv6 client has at least a network of 64 bits (RFC 6177), all of which is one client here.
fn one_client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => {
            let network = u128::from(six) >> 64 << 64;
            Ipv6Addr::from(network).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;

    use super::*;

    fn place(places: &Arc<Places>) -> Place {
        places.take(mpsc::channel(1).0)
    }

    #[tokio::test]
    async fn a_place_is_waited_for_where_there_are_too_many_connections() {
        let places = Arc::<Places>::default();
        let (one, _two) = (place(&places), place(&places));
        let mut waited = false;
        {
            let mut room = std::pin::pin!(places.room(|| 2, || waited = true));
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(room.as_mut().poll(&mut cx).is_pending());
            drop(one);
            room.await;
        }
        assert!(waited);
    }

    #[test]
    fn an_address_has_its_own_limit_and_leaves_nothing_behind() {
        let places = Arc::<Places>::default();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut one = place(&places);
        let mut two = place(&places);
        let mut three = place(&places);
        assert!(one.count_for(address("2001:db8::1"), 2));
        assert!(two.count_for(address("2001:db8::ffff:2"), 2));
        assert!(!three.count_for(address("2001:db8:0:0:9::3"), 2));
        assert!(three.count_for(address("2001:db8:0:1::3"), 2));
        let mut four = place(&places);
        drop(one);
        assert!(four.count_for(address("2001:db8::4"), 2));
        drop((two, three, four));
        assert!(places.addresses().is_empty());
        assert_eq!(places.taken.load(Ordering::Relaxed), 0);
    }
}
