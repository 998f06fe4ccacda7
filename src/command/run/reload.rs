//! Reading the configuration again while requests are served. A bad file changes nothing.

use std::{future, path::PathBuf, sync::Arc, time::Duration};

use tokio::{task, time::sleep};

use super::{FIRST_CONTACT, describe, warn_of_refusals};
use crate::{
    config::{Address, Config, Fingerprint, LoadOptions, Loaded, Reading},
    gateway::Current,
};

/// How often a file is looked at with `watch`.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Puts what the file says into force.
#[derive(Debug)]
pub struct Reloader {
    file: PathBuf,
    current: Arc<Current>,
    /// Of the files that were last put into force, or refused.
    known: Fingerprint,
    /// Of those that were found otherwise, once.
    found: Option<Fingerprint>,
}

impl Reloader {
    /// Reads this file and changes what is current, which was read from files with this fingerprint.
    pub fn new(file: PathBuf, known: Fingerprint, current: Arc<Current>) -> Self {
        Self {
            file,
            current,
            known,
            found: None,
        }
    }

    /// Reads the file and puts it into force, wholly or not at all. What became of it is logged and counted.
    pub async fn reload(&mut self) {
        match self.read().await {
            Ok(reading) => self.put_into_force(reading).await,
            Err(error) => self.refuse(vec![error]),
        }
    }

    /// With `watch`, waits until it is time to look at the files again. Without it never ends.
    pub async fn time_to_look(&self) {
        if !self.current.load().config().watch {
            return future::pending().await;
        }
        sleep(LOOK_EVERY).await;
    }

    /// Reloads if the files are others than those in force. They must be the same at two looks: a file half written
    /// can be valid.
    pub async fn look(&mut self) {
        // All of them are read to know whether they have changed: what was compared is then what is loaded.
        let Ok(reading) = self.read().await else {
            return;
        };
        if reading.fingerprint == self.known {
            self.found = None;
        } else if self.found == Some(reading.fingerprint) {
            self.put_into_force(reading).await;
        } else {
            self.found = Some(reading.fingerprint);
        }
    }

    async fn read(&self) -> Result<Reading, String> {
        let file = self.file.clone();
        // Files may lie on a slow disk, and a large one takes its time.
        let reading = task::spawn_blocking(move || {
            let environment = |name: &str| std::env::var_os(name);
            Config::read(&file, &environment, LoadOptions::default())
        });
        reading
            .await
            .map_err(|error| format!("reading broke off: {error}"))
    }

    async fn put_into_force(&mut self, reading: Reading) {
        self.known = reading.fingerprint;
        self.found = None;
        let applied = match reading.result {
            Ok(loaded) => self.apply(loaded).await,
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
        };
        if let Err(sentences) = applied {
            self.refuse(sentences);
        }
    }

    /// Puts a configuration that was read into force.
    async fn apply(&self, loaded: Loaded) -> Result<(), Vec<String>> {
        let Loaded {
            config, remarks, ..
        } = loaded;
        let before = self.current.load();
        self.check_sockets(before.config(), &config)?;
        let one = |sentence: String| vec![format!("{}: {sentence}", self.file.display())];
        let sessions = before.sessions();
        let reopened = sessions
            .reopen(&config)
            .map_err(|error| one(describe(error)))?;
        if !reopened.shares_store(sessions) {
            let contact = reopened.store().first_contact(FIRST_CONTACT).await;
            contact.map_err(|error| one(describe(error)))?;
            // No answer is no reason at the start. Here there may be a database that works.
            if !reopened.store().state().was_contacted() && !sessions.store().state().is_away() {
                let sentence = "the database of this file does not answer, and the one in use does";
                return Err(one(sentence.to_owned()));
            }
        }
        for remark in &remarks {
            tracing::warn!("{remark}");
        }
        warn_of_refusals(&config, &reopened);
        let digest = config.digest.clone();
        let gateway = before.after(config, reopened);
        gateway.start();
        self.current.replace(gateway);
        tracing::info!(digest, "the configuration was reloaded");
        Ok(())
    }

    /// Sockets stay as they are for as long as the process lives.
    fn check_sockets(&self, before: &Config, after: &Config) -> Result<(), Vec<String>> {
        let addresses = |config: &Config| -> Vec<Address> {
            let listeners = config.listeners.iter();
            listeners.map(|listener| listener.address.clone()).collect()
        };
        let changed = if addresses(before) != addresses(after) {
            "an address of [[listener]]"
        } else if before.health != after.health {
            "the address in [health]"
        } else if before.admin != after.admin {
            "the address in [admin]"
        } else {
            return Ok(());
        };
        Err(vec![format!(
            "{}: {changed} cannot be changed by a reload, so nothing of this file is in force; restart the \
             gateway, with SIGUSR2 nothing is lost",
            self.file.display()
        )])
    }

    /// Says that everything stays as it was, and why.
    fn refuse(&self, sentences: Vec<String>) {
        for problem in &sentences {
            tracing::error!(problem, "the configuration was not reloaded");
        }
        self.current
            .keep(sentences.into_iter().next().unwrap_or_default());
    }
}
