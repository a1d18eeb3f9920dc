//! The state engine on RocksDB.
