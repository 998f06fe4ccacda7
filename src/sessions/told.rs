//! What an upstream is told of a session: projected and hashed once, for as long as the session stays the same.
//!
//! What was worked out is kept beside the derivation of the row ([`memo`](super::memo)), and used for the same contents (the
//! very same, in memory), the same key, upstream and `forward`, and the configuration that it was worked out
//! under.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use super::{Known, Sessions, Site};
use crate::{
    config::Forward,
    session::{Session, SessionKey},
};

/// What one upstream is told of one session.
pub struct Told {
    /// The claim `sid`.
    pub sid: String,
    /// The claims `session` and `rev`; `None` where strict JSON cannot hold what is forwarded.
    pub contents: Option<(String, String)>,
    of: Of,
}

/// What it was worked out of.
struct Of {
    site: Weak<Site>,
    session: Arc<Session>,
    key: SessionKey,
    audience: Box<str>,
    forward: Forward,
}

impl Sessions {
    /// What the upstream `audience` is told of a session on a route that forwards this.
    pub fn tell(
        &self,
        key: &SessionKey,
        known: &Known,
        audience: &str,
        forward: &Forward,
    ) -> Arc<Told> {
        let kept = known.derived.as_ref().map(|derived| &derived.told);
        if let Some(told) = kept.and_then(|kept| kept.load_full())
            && told.of.is(&self.0, key, known, audience, forward)
        {
            return told;
        }
        let sid = self.opaque().sid(audience, key);
        let session = self.project(&known.session, forward).ok();
        let contents = session.map(|session| {
            let rev = self.opaque().rev(audience, &sid, &session);
            (session, rev)
        });
        let of = Of {
            site: Arc::downgrade(&self.0),
            session: known.session.clone(),
            key: *key,
            audience: audience.into(),
            forward: forward.clone(),
        };
        let told = Arc::new(Told { sid, contents, of });
        if let Some(kept) = kept {
            kept.store(Some(told.clone()));
        }
        told
    }
}

impl Of {
    fn is(
        &self,
        site: &Arc<Site>,
        key: &SessionKey,
        known: &Known,
        audience: &str,
        forward: &Forward,
    ) -> bool {
        std::ptr::eq(self.site.as_ptr(), Arc::as_ptr(site))
            && Arc::ptr_eq(&self.session, &known.session)
            && self.key == *key
            && *self.audience == *audience
            && self.forward == *forward
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sample, session::Session as Contents, sessions::Resolved};

    async fn known(sessions: &Sessions, key: SessionKey) -> Box<Known> {
        match sessions.resolve(key, false).await.unwrap() {
            Resolved::Known(known) => known,
            other => panic!("{other:?}"),
        }
    }

    fn contents(told: &Told) -> &(String, String) {
        told.contents.as_ref().unwrap()
    }

    #[tokio::test]
    async fn what_was_told_is_told_again_only_of_the_same_to_the_same() {
        let site = sample::Site::new().await.unwrap();
        let sessions = site.sessions().await.unwrap();
        let text = site.log_in().await.unwrap();
        let key = SessionKey::parse(text.as_bytes()).unwrap();
        let all = Forward::AllButProtected;
        let tell = |known: &Known| sessions.tell(&key, known, "shop", &all);

        let (once, again) = (known(&sessions, key).await, known(&sessions, key).await);
        let told = tell(&once);
        assert!(Arc::ptr_eq(&told, &tell(&again)), "it was worked out again");

        let blog = sessions.tell(&key, &again, "blog", &all);
        assert_ne!(blog.sid, told.sid);
        assert_ne!(contents(&blog).1, contents(&told).1);
        let id = Forward::Only(vec!["_auth_user_id".into()]);
        let named = sessions.tell(&key, &again, "shop", &id);
        assert_eq!(contents(&named).0, r#"{"_auth_user_id":"1"}"#);
        assert_eq!(contents(&tell(&again)).0, "{}");
        let other = SessionKey::random().unwrap();
        let elsewhere = sessions.tell(&other, &again, "shop", &all);
        assert_ne!(elsewhere.sid, told.sid);
        assert_eq!(tell(&again).sid, told.sid);
        let mut changed = known(&sessions, key).await;
        changed.session = Arc::new(Contents::parse(br#"{"cart":1}"#.to_vec()).unwrap());
        assert_eq!(contents(&tell(&changed)).0, r#"{"cart":1}"#);

        let mut session = sessions.get(Some(&text));
        session.load().await.unwrap().insert("cart", 2).unwrap();
        session.save().await.unwrap();
        let written = known(&sessions, key).await;
        assert_eq!(contents(&tell(&written)).0, r#"{"cart":2}"#);
    }

    #[tokio::test]
    async fn another_configuration_tells_anew() {
        let site = sample::Site::new().await.unwrap();
        let sessions = site.sessions().await.unwrap();
        let text = site.log_in().await.unwrap();
        let key = SessionKey::parse(text.as_bytes()).unwrap();
        let known = known(&sessions, key).await;
        let told = sessions.tell(&key, &known, "shop", &Forward::AllButProtected);
        let other = site.sessions().await.unwrap();
        let anew = other.tell(&key, &known, "shop", &Forward::AllButProtected);
        assert!(!Arc::ptr_eq(&told, &anew));
    }
}
