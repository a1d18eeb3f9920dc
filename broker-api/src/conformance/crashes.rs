//! What a crash leaves. Left out for a broker that cannot be opened again.

use super::Stop;
use super::check::Check;
use super::writer::{commit_of, consuming};
use crate::TopicConfig;

pub(super) fn what_is_synced_survives_a_crash(check: &mut Check<'_>) {
    let tps = check.topic_with("topic", 2, TopicConfig::compacted());
    let group = check.unique("group");
    let before = {
        let mut writer = check.writer();
        writer.words(&tps[0], &["a", "b"]);
        let mut committer = check.committer("id");
        let commit = commit_of(&[(&tps[0], &["c"]), (&tps[1], &["d"])]);
        let ticket = committer.submit(consuming(commit, &group, None, &tps[0], 2));
        committer.applied(ticket);
        committer.durable(ticket);
        committer.synced(ticket); // and the words before it
        describe(check, &tps[0].topic, &group)
    };
    let records: Vec<_> = tps.iter().map(|tp| check.contents(tp)).collect();
    if !check.reopen(Stop::Crash) {
        return;
    }
    assert_eq!(describe(check, &tps[0].topic, &group), before);
    for (tp, records) in tps.iter().zip(records) {
        assert_eq!(check.contents(tp), records);
    }
    // And life goes on.
    let bases = check.committer("id").commit(commit_of(&[(&tps[1], &["e"])]));
    assert_eq!(check.contents(&tps[1]).last(), Some(&(bases[0], "e".into())));
}

pub(super) fn settings_that_were_replaced_survive_a_crash(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let config = TopicConfig { retention_ms: Some(60_000), ..TopicConfig::default() };
    check.run(check.admin().configure_topic(&tp.topic, config.clone())).expect("configure_topic");
    if check.reopen(Stop::Crash) {
        assert_eq!(check.run(check.admin().topic(&tp.topic)).expect("topic").config, config);
    }
}

fn describe(check: &Check<'_>, topic: &str, group: &str) -> String {
    let cluster = check.run(check.admin().cluster_id()).expect("cluster_id");
    let topic = check.run(check.admin().topic(topic)).expect("topic");
    format!("{cluster} {topic:?} {:?}", check.group(group))
}

pub(super) fn a_crash_keeps_or_drops_whole_commits(check: &mut Check<'_>) {
    let tps = check.topic("topic", 2);
    let group = check.unique("group");
    let mut committed = 0;
    for round in 0..10 {
        let (mut tickets, mut synced) = (Vec::new(), 0);
        {
            let mut committer = check.committer("id");
            // The later the round, the more outcomes are awaited before the crash.
            for _ in 0..check.broker().capabilities().commits_in_flight.min(5) {
                let offset = committed + tickets.len() as i64 + 1;
                let commit = commit_of(&[(&tps[0], &["x"]), (&tps[1], &["x"])]);
                tickets.push(committer.submit(consuming(commit, &group, None, &tps[0], offset)));
            }
            for _ in 0..round.min(2 * tickets.len()) {
                committer.next();
                let safe = committer.transactor.synced();
                synced = tickets.iter().filter(|ticket| Some(**ticket) <= safe).count() as i64;
            }
        }
        if !check.reopen(Stop::Crash) {
            return;
        }
        let survived = check.group(&group).first().map_or(0, |(_, committed)| committed.offset);
        let possible = committed + synced..=committed + tickets.len() as i64;
        assert!(possible.contains(&survived), "{survived} survived of {possible:?}");
        for tp in &tps {
            assert_eq!(check.contents(tp).len() as i64, survived, "half a commit survived");
        }
        committed = survived;
    }
}

pub(super) fn what_was_accepted_before_a_sync_survives_a_crash(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    let before = {
        let mut writer = check.writer();
        writer.words(&tp, &["a", "b"]);
        let mut committer = check.committer("id");
        committer.submit(commit_of(&[(&tp, &["c"])]));
        check.run(check.admin().sync()).expect("sync");
        check.contents(&tp)
    };
    assert_eq!(before.len(), 3);
    if check.reopen(Stop::Crash) {
        assert_eq!(check.contents(&tp), before);
    }
}

pub(super) fn a_clean_stop_keeps_everything(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1).remove(0);
    check.committer("id").commit(commit_of(&[(&tp, &["a", "b"])]));
    let before = check.contents(&tp);
    if !check.reopen(Stop::Clean) {
        return;
    }
    assert_eq!(check.contents(&tp), before);
}
