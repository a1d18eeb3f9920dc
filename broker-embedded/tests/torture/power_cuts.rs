//! The power goes at any write or sync.

use crate::seeds;
use crate::world::World;

/// Many short lives on one disk, each ended by a power cut at a random place.
#[test]
fn every_restart_finds_a_state_of_the_history_with_all_that_was_acknowledged() {
    let (mut compacted, mut tombstones_gone) = (0, 0);
    for seed in seeds(400) {
        let mut world = World::new(seed);
        for _ in 0..6 {
            let changes = world.dice.within(0..120);
            world.vfs.cut_power_at(world.vfs.changes() + changes);
            if let Err(e) = world.reopen_and_check() {
                assert!(world.vfs.power_is_cut(), "seed {seed}: {e}");
            } else {
                let operations = world.dice.within(1..60);
                let ended = world.run(operations);
                assert!(ended.is_ok() || world.vfs.power_is_cut(), "seed {seed}: {ended:?}");
            }
            world.session = None;
            world.vfs.crash();
        }
        world.reopen_and_check().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        compacted += world.compacted;
        tombstones_gone += world.tombstones_gone;
    }
    println!("restarts that found something compacted: {compacted}, tombstones: {tombstones_gone}");
    assert!(compacted > 0 && tombstones_gone > 0);
}

/// One script, with a power cut at each of its changes.
#[test]
fn the_power_may_go_at_every_single_change_of_a_script() {
    for seed in 0..4 {
        let life = |cut: Option<u64>| {
            let mut world = World::new(seed);
            if let Some(cut) = cut {
                world.vfs.cut_power_at(cut);
            }
            let ended = world.open().and_then(|()| world.run(60)).map(|()| world.settle());
            assert!(ended.is_ok() || world.vfs.power_is_cut(), "seed {seed}: {ended:?}");
            world
        };
        for cut in 0..life(None).vfs.changes() {
            let mut world = life(Some(cut));
            world.session = None;
            world.vfs.crash();
            world.reopen_and_check().unwrap_or_else(|e| panic!("seed {seed}, cut {cut}: {e}"));
        }
    }
}

/// Much has gathered when the broker begins to tidy up: the power goes at each change of that, and
/// again while it does the rest.
#[test]
fn the_power_may_go_at_every_change_of_housekeeping() {
    let life = |seed, cut: Option<u64>| {
        let mut world = World::new(seed);
        world.tidies = false;
        world.open().unwrap();
        world.run(60).unwrap();
        world.settle();
        world.all_is_acknowledged();
        world.tidies = true;
        let before = world.vfs.changes();
        if let Some(cut) = cut {
            world.vfs.cut_power_at(before + cut);
        }
        world.settle();
        (world, before)
    };
    for seed in seeds(240).step_by(120).map(|seed| seed * 3 + 1) {
        let (world, before) = life(seed, None);
        for cut in 0..world.vfs.changes() - before {
            let context = |e| panic!("seed {seed}, cut {cut}: {e}");
            let (mut world, _) = life(seed, Some(cut));
            for _ in 0..2 {
                world.session = None;
                world.vfs.crash();
                world.reopen_and_check().unwrap_or_else(context);
                let operations = world.dice.within(0..20);
                world.run(operations).unwrap_or_else(context);
                let again = world.dice.within(0..60);
                world.vfs.cut_power_at(world.vfs.changes() + again);
                world.settle();
            }
            world.session = None;
            world.vfs.crash();
            world.reopen_and_check().unwrap_or_else(context);
        }
    }
}

/// The state that the broker had is the state that it finds, after any number of restarts.
#[test]
fn what_lives_is_what_is_replayed() {
    for seed in seeds(100) {
        let mut world = World::new(seed);
        world.open().unwrap();
        for _ in 0..5 {
            world.run(25).unwrap();
            world.check_live().unwrap();
            if world.dice.one_in(2) {
                world.settle();
                world.all_is_acknowledged();
                world.session = None;
                world.vfs.kill();
            } else {
                world.close().unwrap();
            }
            world.reopen_and_check().unwrap();
            world.check_live().unwrap();
        }
    }
}
