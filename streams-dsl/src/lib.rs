//! Typed KStream and KTable operators that compile to a topology.
