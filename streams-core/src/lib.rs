//! Topology, tasks, state and runtime of Vltava.
