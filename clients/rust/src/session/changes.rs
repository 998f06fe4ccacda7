//! What was changed, and how it is written.

use std::collections::BTreeMap;

use crate::{
    Withheld,
    json::{self, Broken, Node, Rules},
    token::Claims,
};

/// The longest `X-Session-Set` that the gateway takes, in bytes.
const MAX_SET: usize = 16 * 1024;

/// Why the change cannot go out with the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CannotSend {
    #[error("X-Session-Set would be {0} bytes long; at most 16384 are taken")]
    TooLarge(usize),
    #[error("the handler has changed the session and has set X-Session-Set by itself")]
    Twice,
    /// It is printable ASCII, so this does not happen.
    #[error("X-Session-Set would not be a header field")]
    NoField,
}

#[derive(Default)]
pub(super) struct Changes {
    closed: bool,
    /// Names whose values differ from what came; `None` removes.
    edits: BTreeMap<String, Option<String>>,
    flushed: bool,
    cycled: bool,
    touched: bool,
    only_if_unchanged: bool,
    /// `"expiry"`.
    expiry: Option<Option<u64>>,
}

impl Changes {
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// What the changes are compared with, if it is known.
    fn base<'a>(&self, claims: &'a Claims) -> Result<&'a [(String, String)], Withheld> {
        if self.flushed {
            return Ok(&[]);
        }
        claims.session.as_deref().map_err(|withheld| *withheld)
    }

    fn came<'a>(&self, claims: &'a Claims, name: &str) -> Result<Option<&'a str>, Withheld> {
        let member = self.base(claims)?.iter().find(|member| member.0 == name);
        Ok(member.map(|(_, json)| json.as_str()))
    }

    pub(super) fn get(&self, claims: &Claims, name: &str) -> Result<Option<String>, Withheld> {
        match self.edits.get(name) {
            Some(edit) => Ok(edit.clone()),
            None => Ok(self.came(claims, name)?.map(str::to_owned)),
        }
    }

    pub(super) fn all(&self, claims: &Claims) -> Result<Vec<(String, String)>, Withheld> {
        let base = self.base(claims)?;
        let mut all = Vec::new();
        for (name, json) in base {
            match self.edits.get(name) {
                None => all.push((name.clone(), json.clone())),
                Some(Some(json)) => all.push((name.clone(), json.clone())),
                Some(None) => {}
            }
        }
        for (name, json) in &self.edits {
            if let Some(json) = json
                && base.iter().all(|member| member.0 != *name)
            {
                all.push((name.clone(), json.clone()));
            }
        }
        Ok(all)
    }

    /// Sets a name to this JSON, which means `node`.
    pub(super) fn insert(
        &mut self,
        claims: &Claims,
        name: &str,
        json: &str,
        node: &Node,
    ) -> Result<(), Broken> {
        if let Ok(Some(came)) = self.came(claims, name)
            && Node::parse(came, Rules::READ).is_ok_and(|came| came == *node)
        {
            // Django may have stored what the gateway would not take from here.
            self.edits.remove(name);
            return Ok(());
        }
        Node::parse(json, Rules::STORED)?;
        let edit = Some(json::ascii(json.trim()));
        self.edits.insert(name.to_owned(), edit);
        Ok(())
    }

    pub(super) fn remove(&mut self, claims: &Claims, name: &str) {
        if self.came(claims, name) == Ok(None) {
            self.edits.remove(name);
        } else {
            self.edits.insert(name.to_owned(), None);
        }
    }

    pub(super) fn flush(&mut self) {
        *self = Self {
            flushed: true,
            touched: self.touched,
            only_if_unchanged: self.only_if_unchanged,
            ..Self::default()
        };
    }

    /// A session that was flushed gets a new key anyway.
    pub(super) fn cycle_key(&mut self) {
        self.cycled = !self.flushed;
    }

    pub(super) fn set_expiry(&mut self, seconds: Option<u64>) {
        self.expiry = Some(seconds);
    }

    pub(super) fn touch(&mut self) {
        self.touched = true;
    }

    pub(super) fn only_if_unchanged(&mut self) {
        self.only_if_unchanged = true;
    }

    pub(super) fn modified(&self) -> bool {
        let acts = self.flushed || self.cycled || self.touched || self.expiry.is_some();
        acts || !self.edits.is_empty()
    }

    /// The value for `X-Session-Set`; `None` where there is nothing to say.
    pub(super) fn header(&self, rev: Option<&str>) -> Result<Option<String>, CannotSend> {
        if !self.modified() {
            return Ok(None);
        }
        let mut members = Vec::new();
        if let Some(rev) = rev.filter(|_| self.only_if_unchanged) {
            members.push(format!("\"if\":{}", json::quoted(rev)));
        }
        if self.flushed {
            members.push("\"flush\":true".to_owned());
        }
        if self.cycled {
            members.push("\"cycle\":true".to_owned());
        }
        let edits = || {
            self.edits
                .iter()
                .map(|(name, edit)| (json::quoted(name), edit))
        };
        let removed = edits().filter_map(|(name, edit)| edit.is_none().then_some(name));
        let removed: Vec<String> = removed.collect();
        if !removed.is_empty() {
            members.push(format!("\"del\":[{}]", removed.join(",")));
        }
        let set = edits().filter_map(|(name, edit)| Some(format!("{name}:{}", edit.as_ref()?)));
        let set: Vec<String> = set.collect();
        if !set.is_empty() {
            members.push(format!("\"set\":{{{}}}", set.join(",")));
        }
        match self.expiry {
            Some(Some(seconds)) => members.push(format!("\"expiry\":{seconds}")),
            Some(None) => members.push("\"expiry\":null".to_owned()),
            None => {}
        }
        let text = format!("{{{}}}", members.join(","));
        if text.len() > MAX_SET {
            return Err(CannotSend::TooLarge(text.len()));
        }
        Ok(Some(text))
    }
}
