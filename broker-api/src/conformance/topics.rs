//! Creating, describing, configuring and deleting topics.

use super::check::{Check, batch};
use super::writer::commit_of;
use crate::{
    CleanupPolicy, Error, FetcherConfig, NewTopic, OffsetSpec, RetentionBy, Start, TopicConfig,
    TopicPartition,
};

fn unknown_topic<T: std::fmt::Debug>(answer: Result<T, Error>) {
    assert!(matches!(answer, Err(Error::UnknownTopic { .. })), "{answer:?}");
}

fn unknown_partition<T: std::fmt::Debug>(answer: Result<T, Error>) {
    assert!(matches!(answer, Err(Error::UnknownPartition { .. })), "{answer:?}");
}

pub(super) fn topics_are_created_described_and_listed(check: &mut Check<'_>) {
    let admin = check.admin();
    let (b, a) = (check.unique("b"), check.unique("a"));
    let mut ids = Vec::new();
    for (name, partitions, config) in
        [(&b, 3, TopicConfig::compacted()), (&a, 1, TopicConfig::default())]
    {
        let topic = NewTopic { name: name.clone(), partitions, config: config.clone() };
        let id = check.run(admin.create_topic(topic)).expect("create_topic");
        let found = check.run(admin.topic(name)).expect("topic");
        assert_eq!((&*found.name, found.id), (name.as_str(), id));
        assert_eq!((found.partitions, found.config), (partitions, config));
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1], "two topics with one id");
    let topics = check.run(admin.topics()).expect("topics");
    let names: Vec<_> = topics.iter().map(|t| t.name.to_string()).collect();
    assert!(names.is_sorted(), "topics come by name: {names:?}");
    assert!(names.contains(&a) && names.contains(&b), "{names:?}");

    let again = NewTopic { name: a, partitions: 1, config: TopicConfig::default() };
    let again = check.run(admin.create_topic(again));
    assert!(matches!(again, Err(Error::TopicExists { .. })), "{again:?}");
}

pub(super) fn impossible_topics_are_refused(check: &mut Check<'_>) {
    let admin = check.admin();
    for name in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(250)] {
        let topic = NewTopic { name: name.into(), partitions: 1, config: TopicConfig::default() };
        let answer = check.run(admin.create_topic(topic));
        assert!(matches!(answer, Err(Error::InvalidName { .. })), "'{name}': {answer:?}");
    }
    let name = check.unique("none");
    let topic = NewTopic { name: name.clone(), partitions: 0, config: TopicConfig::default() };
    let answer = check.run(admin.create_topic(topic));
    assert!(matches!(answer, Err(Error::InvalidConfig { .. })), "no partitions: {answer:?}");
    unknown_topic(check.run(admin.topic(&name)));
}

pub(super) fn unknown_topics_and_partitions_are_refused(check: &mut Check<'_>) {
    let admin = check.admin();
    let known = check.topic("known", 2).remove(0);
    let name = check.unique("unknown");
    let unknown = TopicPartition::new(name.as_str(), 0);
    let missing = TopicPartition::new(known.topic.clone(), 2);

    unknown_topic(check.run(admin.topic(&name)));
    unknown_topic(check.run(admin.delete_topic(&name)));
    unknown_topic(check.run(admin.configure_topic(&name, TopicConfig::default())));
    let asked = |tp: &TopicPartition| [(tp.clone(), OffsetSpec::Earliest)];
    unknown_topic(check.run(admin.offsets(&asked(&unknown))));
    unknown_partition(check.run(admin.offsets(&asked(&missing))));
    unknown_topic(check.run(admin.delete_records(&unknown, 0)));
    unknown_partition(check.run(admin.delete_records(&missing, 0)));
    unknown_topic(check.run(admin.horizon(&unknown)));
    unknown_partition(check.run(admin.horizon(&missing)));

    let mut writer = check.writer();
    let mut append = |tp| writer.producer.append(tp, batch(&["x"])).map_err(|e| e.error);
    unknown_topic(append(&unknown));
    unknown_partition(append(&missing));
    let mut committer = check.committer("id");
    let mut submit =
        |tp| committer.transactor.submit(commit_of(&[(tp, &["x"])])).map_err(|e| e.error);
    unknown_topic(submit(&unknown));
    unknown_partition(submit(&missing));

    // An assignment that is refused changes nothing: the reader sees nothing of it.
    let waker = check.alarm.waker();
    let mut fetcher = check.broker().fetcher(FetcherConfig::default(), waker).expect("fetcher");
    let assignment = |tp| [(known.clone(), Start::Earliest), (tp, Start::Earliest)];
    unknown_topic(fetcher.assign(&assignment(unknown)));
    unknown_partition(fetcher.assign(&assignment(missing)));
    assert!(fetcher.poll(1 << 20).is_pending(), "a refused assignment took effect");
}

pub(super) fn settings_are_replaced(check: &mut Check<'_>) {
    let admin = check.admin();
    let tp = check.topic("topic", 1).remove(0);
    let config = TopicConfig {
        cleanup_policy: CleanupPolicy::CompactDelete,
        retention_bytes: Some(1 << 20),
        retention_ms: Some(60_000),
        retention_by: RetentionBy::StreamTime,
        min_compaction_lag_ms: 1_000,
        max_message_bytes: 1_000,
    };
    check.run(admin.configure_topic(&tp.topic, config.clone())).expect("configure_topic");
    assert_eq!(check.run(admin.topic(&tp.topic)).expect("topic").config, config);
}

pub(super) fn a_topic_made_again_is_another_topic(check: &mut Check<'_>) {
    let admin = check.admin();
    let tp = check.topic("topic", 1).remove(0);
    let first = check.run(admin.topic(&tp.topic)).expect("topic").id;
    check.writer().words(&tp, &["old"]);
    let mut reader = check.reader(std::slice::from_ref(&tp));
    reader.read_to_end();
    check.run(admin.delete_topic(&tp.topic)).expect("delete_topic");
    unknown_topic(check.run(admin.topic(&tp.topic)));
    unknown_topic(reader.fetch(1 << 20));
    reader.fetcher.unassign(std::slice::from_ref(&tp));

    check.topic("topic", 1);
    let second = check.run(admin.topic(&tp.topic)).expect("topic").id;
    assert_ne!(first, second, "the new topic has the old one's id");
    check.writer().words(&tp, &["new"]);
    let values: Vec<_> = check.contents(&tp).into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, ["new"]);
}

pub(super) fn the_cluster_id_stays(check: &mut Check<'_>) {
    let first = check.run(check.admin().cluster_id()).expect("cluster_id");
    assert!(!first.is_empty());
    assert_eq!(check.run(check.admin().cluster_id()).expect("cluster_id"), first);
}
