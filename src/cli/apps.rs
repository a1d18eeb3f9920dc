//! Which applications there are, and which internal topics are theirs.
//!
//! Internal topics are called `<app>-<store>-changelog` and `<app>-<name>-repartition`, and every part
//! may have dashes in it. So a name alone does not tell whose it is: an application counts if stream
//! tasks have committed offsets in its group or its directory is there, and a topic belongs to the
//! application with the longest name that fits.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use broker_api::{Broker, TopicDescription};
use futures::executor::block_on;
use streams_core::task::OffsetMetadata;

use super::Failure;
use super::topics::print;

/// The file in an application's directory that tells it from others.
pub(crate) const PROCESS_ID: &str = "process.id";

/// What an internal topic is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// It holds the changes of this store.
    Changelog(String),
    Repartition,
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changelog(store) => write!(f, "the changelog of store '{store}'"),
            Self::Repartition => f.write_str("a repartition topic"),
        }
    }
}

/// The applications of a broker's directory.
pub(crate) struct Apps {
    state_dir: PathBuf,
    topics: Vec<TopicDescription>,
    names: BTreeSet<String>,
}

impl Apps {
    /// `state_dir`: where the applications have their directories.
    pub(crate) fn find(broker: &dyn Broker, state_dir: &Path) -> Result<Self, Failure> {
        let topics = block_on(broker.admin().topics())?;
        let state_dir = state_dir.to_path_buf();
        let mut apps = Self { state_dir, topics, names: BTreeSet::new() };
        // A directory of applications that cannot be read is none: the topics still speak.
        for entry in std::fs::read_dir(&apps.state_dir).into_iter().flatten().flatten() {
            if let Ok(name) = entry.file_name().into_string()
                && apps.dir(&name).join(PROCESS_ID).exists()
            {
                apps.names.insert(name);
            }
        }
        for name in block_on(broker.admin().groups())? {
            // Consumers have groups, too; but what rides with their offsets is something else.
            let offsets = block_on(broker.admin().group_offsets(&name))?;
            if offsets.iter().any(|(_, at)| OffsetMetadata::try_decode(&at.metadata).is_some()) {
                apps.names.insert(name);
            }
        }
        Ok(apps)
    }

    /// The directory of an application's local state.
    pub(crate) fn dir(&self, app: &str) -> PathBuf {
        self.state_dir.join(app)
    }

    /// # Errors
    /// [`Failure::UnknownApp`] if there is no trace of it but perhaps names of topics.
    pub(crate) fn check(&self, app: &str) -> Result<(), Failure> {
        if self.names.contains(app) {
            return Ok(());
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let known = match names.is_empty() {
            true => "there is none".into(),
            false => format!("there are: {}", names.join(", ")),
        };
        Err(Failure::UnknownApp { app: app.into(), known })
    }

    /// The application that an internal topic belongs to.
    pub(crate) fn owner<'t>(&self, topic: &'t str) -> Option<&'t str> {
        possible_apps(topic).filter(|app| self.names.contains(*app)).last()
    }

    /// The application that needs a topic that exists, and what for.
    pub(crate) fn internal_topic<'t>(&self, name: &'t str) -> Option<(&'t str, Use)> {
        self.topics.iter().find(|topic| &*topic.name == name)?;
        let app = self.owner(name)?;
        Some((app, use_of(name, app)?))
    }

    /// The internal topics of an application that is known.
    pub(crate) fn internal(&self, app: &str) -> Vec<(Use, &TopicDescription)> {
        let topics = self.topics.iter().filter(|topic| self.owner(&topic.name) == Some(app));
        topics.filter_map(|topic| Some((use_of(&topic.name, app)?, topic))).collect()
    }

    /// The changelogs of an application, with the names of their stores. Where all else that speaks
    /// of the application is gone, topics count that nobody else owns.
    ///
    /// # Errors
    /// [`Failure::UnknownApp`].
    pub(crate) fn changelogs(&self, app: &str) -> Result<Vec<(String, TopicDescription)>, Failure> {
        let owner = self.names.contains(app).then_some(app);
        let topics = self.topics.iter().filter(|topic| self.owner(&topic.name) == owner);
        let stores = topics.filter_map(|topic| match use_of(&topic.name, app)? {
            Use::Changelog(store) => Some((store, topic.clone())),
            Use::Repartition => None,
        });
        let stores: Vec<_> = stores.collect();
        if stores.is_empty() {
            self.check(app)?;
        }
        Ok(stores)
    }
}

/// What an internal topic of the application is for.
fn use_of(topic: &str, app: &str) -> Option<Use> {
    let rest = topic.strip_prefix(app)?.strip_prefix('-')?;
    match rest.strip_suffix("-changelog") {
        Some(store) => Some(Use::Changelog(store.into())),
        None => rest.ends_with("-repartition").then_some(Use::Repartition),
    }
}

/// The names that the application of an internal topic may have, the shortest first.
fn possible_apps(topic: &str) -> impl Iterator<Item = &str> {
    let apps = topic.match_indices('-').map(|(at, _)| &topic[..at]);
    apps.filter(move |app| use_of(topic, app).is_some())
}

/// `vltava app list`.
pub(crate) fn list(apps: &Apps) -> Result<(), Failure> {
    print(apps.names.iter().map(|name| format!("{name}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_in_every_way_that_it_can_be_meant() {
        let possible: Vec<&str> = possible_apps("word-count-counts-changelog").collect();
        assert_eq!(possible, ["word", "word-count"]);
        assert_eq!(use_of("a-b-changelog", "a"), Some(Use::Changelog("b".into())));
        assert_eq!(use_of("a-b-repartition", "a"), Some(Use::Repartition));
        assert_eq!(possible_apps("changelog").count() + possible_apps("a-changelog").count(), 0);
    }
}
