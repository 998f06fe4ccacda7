//! Reading the configuration again while requests are served. A bad file changes nothing.

use std::{path::PathBuf, sync::Arc};

use tokio::task;

use super::{FIRST_CONTACT, describe, warn_of_refusals};
use crate::{
    config::{Address, Config, LoadOptions, Loaded},
    gateway::Current,
};

/// Puts what the file says into force.
#[derive(Debug)]
pub struct Reloader {
    file: PathBuf,
    current: Arc<Current>,
}

impl Reloader {
    /// Reads this file and changes what is current.
    pub fn new(file: PathBuf, current: Arc<Current>) -> Self {
        Self { file, current }
    }

    /// Reads the file and puts it into force, wholly or not at all. What became of it is logged and counted.
    pub async fn reload(&self) {
        let file = self.file.clone();
        // Files may lie on a slow disk, and a large one takes its time.
        let reading = task::spawn_blocking(move || {
            let environment = |name: &str| std::env::var_os(name);
            Config::load(&file, &environment, LoadOptions::default())
        });
        let loaded = match reading.await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(problems)) => {
                return self.refuse(problems.iter().map(ToString::to_string).collect());
            }
            Err(error) => return self.refuse(vec![format!("reading broke off: {error}")]),
        };
        if let Err(sentences) = self.apply(loaded).await {
            self.refuse(sentences);
        }
    }

    /// Puts a configuration that was read into force.
    async fn apply(&self, loaded: Loaded) -> Result<(), Vec<String>> {
        let Loaded { config, remarks } = loaded;
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
        } else {
            return Ok(());
        };
        Err(vec![format!(
            "{}: {changed} cannot be changed by a reload, so nothing of this file is in force; restart the \
             gateway",
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
