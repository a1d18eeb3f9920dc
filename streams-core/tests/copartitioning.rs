//! Topics whose keys meet in one task must have equal numbers of partitions.
#![allow(clippy::unwrap_used)]

mod world;

use std::sync::Arc;

use broker_api::Broker;
use streams_core::HasSerde;
use streams_core::runtime::StreamsError;
use streams_core::state::StoreOptions;
use streams_core::topology::{InternalTopic, NodeSpec, StoreSpec, Topology, TopologyBuilder};

use world::processors::Count;
use world::{World, now};

/// `in`, read through a repartition topic or not, and `other` are counted together.
fn joined(through: Option<InternalTopic>) -> Topology {
    let mut builder = TopologyBuilder::new();
    let (text, count) = (String::serde(), i64::serde());
    let source = |name: &str, topic: &str| {
        NodeSpec::source(name, vec![topic.into()], text.clone(), text.clone())
    };
    builder.add(source("in", "in")).unwrap();
    let mut left = ("in", "in");
    if let Some(topic) = through {
        left = ("from", "x-repartition");
        builder.add_internal_topic(left.1, topic);
        let (to, parent) = ("to", vec!["in".into()]);
        builder.add(NodeSpec::sink(to, parent, left.1, text.clone(), text.clone(), None)).unwrap();
        builder.add(source("from", left.1)).unwrap();
    }
    builder.add(source("other", "other")).unwrap();
    let parents = vec![left.0.into(), "other".into()];
    builder.add(NodeSpec::processor("count", parents, Count::default)).unwrap();
    let store = StoreSpec::key_value("counts", text.clone(), count, StoreOptions::default());
    builder.add_state_store(store, &["count"]).unwrap();
    builder.copartition(vec![left.1.into(), "other".into()]);
    builder.build().unwrap()
}

/// A world in which `in` has one partition, and `other` three.
fn world(through: Option<InternalTopic>) -> World {
    let mut world = World::new(1 << 20);
    world.topology = Arc::new(joined(through));
    world.create_topic("other", 3);
    world
}

#[test]
fn joined_topics_with_different_numbers_of_partitions_are_refused() {
    for through in [None, Some(InternalTopic { partitions: Some(1) })] {
        let world = world(through);
        let before = world.topics();
        let error = world.try_thread().map(|_| ()).unwrap_err();
        let StreamsError::NotCopartitioned { topics } = error else { panic!("{error}") };
        let left = if through.is_some() { "x-repartition" } else { "in" };
        assert_eq!(topics, format!("{left} (1), other (3)"));
        assert_eq!(world.topics(), before, "nothing was created");
    }
}

#[test]
fn a_repartition_topic_gets_the_number_of_the_topic_that_it_is_joined_with() {
    let world = world(Some(InternalTopic::default()));
    drop(world.try_thread().unwrap());
    let topic = now(&world.broker, world.broker.admin().topic("app-x-repartition")).unwrap();
    assert_eq!(topic.partitions, 3);
}

/// The two sides of a conversation, as in a join by a foreign key: each reads what the other writes,
/// and one of them a repartition topic, both or none.
fn conversation(repartitioned: [bool; 2]) -> Topology {
    let mut builder = TopologyBuilder::new();
    let text = String::serde();
    let source = |name: &str, topics: &[&str]| {
        let topics = topics.iter().map(ToString::to_string).collect();
        NodeSpec::source(name, topics, text.clone(), text.clone())
    };
    let sink = |name: &str, parent: &str, topic: &str| {
        NodeSpec::sink(name, vec![parent.into()], topic, text.clone(), text.clone(), None)
    };
    for topic in ["questions", "answers"] {
        builder.add_internal_topic(topic, InternalTopic::default());
    }
    let sides = [("in", "answers", "questions"), ("other", "questions", "answers")];
    for ((input, hears, says), repartitioned) in sides.into_iter().zip(repartitioned) {
        let repartition = format!("{input}-repartition");
        let mut reads = input;
        if repartitioned {
            builder.add_internal_topic(&repartition, InternalTopic::default());
            builder.add(source(&format!("{input}-first"), &[input])).unwrap();
            let parent = format!("{input}-first");
            builder.add(sink(&format!("{input}-to"), &parent, &repartition)).unwrap();
            reads = &repartition;
        }
        builder.add(source(&format!("{input}-side"), &[reads, hears])).unwrap();
        builder.add(sink(&format!("{input}-says"), &format!("{input}-side"), says)).unwrap();
        builder.copartition(vec![reads.into(), hears.into()]);
    }
    builder.build().unwrap()
}

#[test]
fn sub_topologies_that_answer_each_other_get_numbers_that_fit() {
    for repartitioned in [[false, false], [true, false], [false, true], [true, true]] {
        let mut world = world(None);
        world.topology = Arc::new(conversation(repartitioned));
        drop(world.try_thread().unwrap());
        let partitions =
            |topic: &str| now(&world.broker, world.broker.admin().topic(topic)).unwrap().partitions;
        let side = |input: &str, repartitioned: bool| match repartitioned {
            true => partitions(&format!("app-{input}-repartition")),
            false => partitions(input),
        };
        assert_eq!(partitions("app-answers"), side("in", repartitioned[0]), "{repartitioned:?}");
        assert_eq!(partitions("app-questions"), side("other", repartitioned[1]));
    }
}
