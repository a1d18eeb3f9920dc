//! The disk refuses: errors at any operation, failed syncs, no space left.

use std::io::ErrorKind;

use broker_api::{Error, View};

use crate::observe::read;
use crate::seeds;
use crate::world::World;

/// Runs a script to its end whatever happens, and returns the errors that were met.
fn life(world: &mut World) -> Vec<Error> {
    if let Err(first) = world.open() {
        // Opening failed because of the fault: the next attempt must do.
        world.session = None;
        world.vfs.kill();
        world.open().unwrap_or_else(|e| panic!("after {first}: {e}"));
        let mut errors = world.run_through(40);
        errors.push(first);
        return errors;
    }
    let errors = world.run_through(40);
    world.settle();
    errors
}

#[test]
fn an_io_error_at_any_operation_loses_nothing_that_was_acknowledged() {
    for seed in 0..3 {
        let mut world = World::new(seed);
        assert_eq!(life(&mut world), []);
        for n in 0..world.vfs.operations() {
            let mut world = World::new(seed);
            world.vfs.fail_operation(n, ErrorKind::Other);
            for error in life(&mut world) {
                let expected = matches!(
                    error,
                    Error::Io { .. } | Error::Failed { .. } | Error::UnknownTopic { .. }
                );
                assert!(expected, "seed {seed}, operation {n}: {error}");
            }
            world.session = None;
            if n % 2 == 0 {
                world.vfs.crash()
            } else {
                world.vfs.kill()
            }
            world.reopen_and_check().unwrap_or_else(|e| panic!("seed {seed}, operation {n}: {e}"));
            world.run(5).unwrap();
            world.check_live().unwrap();
        }
    }
}

/// After a failed sync the pages may be readable and never reach the disk. What a restart has shown
/// must survive the power cut that follows.
#[test]
fn what_was_shown_after_a_failed_sync_survives_a_power_cut() {
    for seed in 0..6 {
        let mut world = World::new(seed);
        assert_eq!(life(&mut world), []);
        for n in 0..world.vfs.syncs() {
            let mut world = World::new(seed);
            world.vfs.fail_sync(n);
            life(&mut world);
            world.session = None;
            world.vfs.kill();
            let context = |e| panic!("seed {seed}, sync {n}: {e}");
            world.reopen_and_check().unwrap_or_else(context);
            world.session = None;
            world.vfs.crash();
            world.reopen_and_check().unwrap_or_else(context);
        }
    }
}

#[test]
fn a_full_disk_stops_writes_keeps_reads_and_loses_nothing() {
    let mut refused = 0;
    for seed in seeds(150) {
        let mut world = World::new(seed);
        world.open().unwrap();
        world.run(10).unwrap();
        world.settle();
        let room = world.dice.within(0..60_000);
        world.vfs.set_capacity(Some(world.vfs.used() + room));
        let errors = world.run_through(60);
        for error in &errors {
            assert!(matches!(error, Error::DiskFull { .. }), "seed {seed}: {error}");
        }
        refused += usize::from(!errors.is_empty());
        for tp in world.state().partitions() {
            match read(world.broker(), &tp, View::Durable) {
                // It was about to be created or deleted when writing stopped.
                Ok(_) | Err(Error::UnknownTopic { .. }) => {}
                Err(e) => panic!("seed {seed}, reading {tp} while the disk is full: {e}"),
            }
        }
        world.session = None;
        if seed % 2 == 0 {
            world.vfs.crash()
        } else {
            world.vfs.kill()
        }
        // It opens even while the disk is full, and reading works.
        world.reopen_and_check().unwrap_or_else(|e| panic!("seed {seed}, still full: {e}"));
        world.session = None;
        world.vfs.kill();
        world.vfs.set_capacity(None);
        world.reopen_and_check().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        world.run(20).unwrap_or_else(|e| panic!("seed {seed}, with space again: {e}"));
        world.check_live().unwrap();
    }
    assert!(refused > 20, "{refused} disks were full");
}
