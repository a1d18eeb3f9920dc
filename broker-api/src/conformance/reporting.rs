//! What a fetch reports beside records: the end, and news for readers that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use super::Alarm;
use super::check::Check;
use super::reader::Reader;
use super::writer::commit_of;
use crate::{FetcherConfig, Start, View};

pub(super) fn an_empty_partition_is_reported_once(check: &mut Check<'_>) {
    let tps = check.topic("topic", 2);
    let mut reader = check.reader(&tps[..1]);
    let fetched = reader.fetch(1 << 20).expect("fetch");
    assert_eq!(fetched.len(), 1);
    assert!(fetched[0].batches.is_empty() && fetched[0].at_end, "{fetched:?}");
    // Nothing new: a second report would fail in the reader. Assigned anew, it is reported anew.
    assert!(reader.poll(1 << 20).is_pending());
    reader.assign(&tps[..1], Start::Latest);
    assert!(reader.fetch(1 << 20).expect("fetch")[0].at_end);
    // A partition that joins is reported, the other one is not.
    reader.assign(&tps[1..], Start::Earliest);
    let fetched = reader.fetch(1 << 20).expect("fetch");
    assert_eq!(fetched.len(), 1);
    assert_eq!(fetched[0].partition, tps[1]);
}

pub(super) fn the_end_is_reported(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1);
    let mut writer = check.writer();
    let mut reader = check.reader(&tp);
    for round in 1..4 {
        for _ in 0..5 {
            writer.words(&tp[0], &["a", "b"]);
        }
        let mut at_end = false;
        while reader.values(&tp[0]).len() < round * 10 || !at_end {
            // A small budget, so that it takes several fetches.
            for fetched in reader.fetch(100).expect("fetch") {
                at_end = fetched.at_end;
            }
        }
    }
    let end = reader.position(&tp[0]);
    assert_eq!(end, Some(check.end(&tp[0])), "the reader is not at the end");
}

/// A waker that remembers that it was woken, and rings the check's alarm.
struct Watch {
    woken: AtomicBool,
    alarm: Arc<Alarm>,
}

impl Wake for Watch {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.alarm.waker().wake();
    }
}

pub(super) fn a_waiting_reader_is_woken(check: &mut Check<'_>) {
    let tps = check.topic("topic", 2);
    let views = [View::Durable, View::Applied];
    let known = if check.broker().capabilities().applied_view { 2 } else { 1 };
    for view in &views[..known] {
        let watch = Arc::new(Watch { woken: AtomicBool::new(false), alarm: check.alarm.clone() });
        let config = FetcherConfig { view: *view, ..FetcherConfig::default() };
        let mut reader = Reader::new(check, config, Waker::from(watch.clone()));
        reader.assign(&tps, Start::Earliest);
        let mut writer = check.writer();
        for i in 1..4 {
            while reader.poll(1 << 20).is_ready() {}
            watch.woken.store(false, Ordering::SeqCst);
            let before = reader.values(&tps[1]).len();
            writer.words(&tps[1], &["news"]);
            check.until(&format!("the waker, {i}"), || {
                watch.woken.load(Ordering::SeqCst).then_some(())
            });
            reader.read_records(&tps[1], before + 1);
        }
    }
}

pub(super) fn durable_readers_see_a_prefix_of_applied_ones(check: &mut Check<'_>) {
    let tp = check.topic("topic", 1);
    if !check.broker().capabilities().applied_view {
        let config = FetcherConfig { view: View::Applied, ..FetcherConfig::default() };
        let refused = check.broker().fetcher(config, check.alarm.waker());
        assert!(refused.is_err(), "a view that the broker cannot show");
        return;
    }
    let mut durable = check.reader(&tp);
    let mut applied = check.reader_from(View::Applied, &tp, Start::Earliest);
    let mut committer = check.committer("id");
    for round in 1..6 {
        let ticket = committer.submit(commit_of(&[(&tp[0], &["a", "b"])]));
        committer.applied(ticket);
        applied.read_records(&tp[0], round * 2);
        // The durable one first: the applied one must then be as far at least.
        while durable.poll(1 << 20).is_ready() {}
        let (seen, all) = (durable.values(&tp[0]), applied.values(&tp[0]));
        assert_eq!(seen, all[..seen.len()]);
        committer.durable(ticket);
        durable.read_records(&tp[0], round * 2);
        assert_eq!(durable.values(&tp[0]), all);
    }
}
