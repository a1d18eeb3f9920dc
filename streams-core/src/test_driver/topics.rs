//! Input and output topics of a test.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use broker_api::{Batch, BatchBuilder, Header, Timestamp};

use super::TestDriverError;
use super::driver::Driver;
use crate::record::{Headers, Record};
use crate::serde::{DynSerde, Serde, SerdeError, encode};

/// A topic that records are piped into.
pub struct TestInputTopic<K, V> {
    driver: Rc<RefCell<Driver>>,
    topic: String,
    key: DynSerde<K>,
    value: DynSerde<V>,
}

impl<K: 'static, V: 'static> TestInputTopic<K, V> {
    pub(super) fn new(
        driver: Rc<RefCell<Driver>>,
        topic: &str,
        key: DynSerde<K>,
        value: DynSerde<V>,
    ) -> Self {
        Self { driver, topic: topic.into(), key, value }
    }

    /// Pipes a record without headers.
    ///
    /// # Errors
    /// As [`TestInputTopic::pipe_record`].
    pub fn pipe(&self, key: K, value: V, timestamp: Timestamp) -> Result<(), TestDriverError> {
        self.pipe_record(Record::new(key, value, timestamp))
    }

    /// Pipes a record; everything that it causes has happened when the call returns.
    ///
    /// # Errors
    /// [`TestDriverError::UnknownTopic`], [`TestDriverError::Process`], [`TestDriverError::Serde`].
    pub fn pipe_record(&self, record: Record<K, V>) -> Result<(), TestDriverError> {
        self.pipe_into(None, record)
    }

    /// Pipes a record with headers, given as names and values.
    ///
    /// # Errors
    /// As [`TestInputTopic::pipe_record`].
    pub fn pipe_with_headers(
        &self,
        key: K,
        value: V,
        timestamp: Timestamp,
        headers: &[(&str, &[u8])],
    ) -> Result<(), TestDriverError> {
        let mut record = Record::new(key, value, timestamp);
        for (name, value) in headers {
            let value = Some(bytes::Bytes::copy_from_slice(value));
            record.headers.push(Header { name: (*name).into(), value });
        }
        self.pipe_record(record)
    }

    /// Pipes a record into this partition, whatever its key.
    ///
    /// # Errors
    /// As [`TestInputTopic::pipe_record`]; [`TestDriverError::Batch`] if there is no such partition.
    pub fn pipe_to(&self, partition: u32, record: Record<K, V>) -> Result<(), TestDriverError> {
        self.pipe_into(Some(partition), record)
    }

    fn pipe_into(
        &self,
        partition: Option<u32>,
        record: Record<K, V>,
    ) -> Result<(), TestDriverError> {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let unfit = |error| TestDriverError::Serde { topic: self.topic.clone(), error };
        let key = encode(&*self.key, &record.key, &mut key).map_err(unfit)?;
        let value = encode(&*self.value, &record.value, &mut value).map_err(unfit)?;
        let mut builder = BatchBuilder::new();
        builder.push(record.timestamp, key, value, record.headers.as_slice())?;
        let batch = builder.finish()?;
        self.driver.borrow_mut().pipe(&self.topic, partition, batch)
    }
}

/// A topic that the topology writes.
pub struct TestOutputTopic<K, V> {
    driver: Rc<RefCell<Driver>>,
    topic: Arc<str>,
    key: DynSerde<K>,
    value: DynSerde<V>,
}

impl<K: 'static, V: 'static> TestOutputTopic<K, V> {
    pub(super) fn new(
        driver: Rc<RefCell<Driver>>,
        topic: &str,
        key: DynSerde<K>,
        value: DynSerde<V>,
    ) -> Self {
        Self { driver, topic: topic.into(), key, value }
    }

    fn next(&self) -> Result<Option<(u32, Batch)>, TestDriverError> {
        self.driver.borrow_mut().next_output(&self.topic)
    }

    /// The next record, if there is one that was not read yet.
    ///
    /// # Errors
    /// [`TestDriverError::Serde`] if it does not fit the types, [`TestDriverError::UnknownOutput`] if
    /// nothing ever writes this topic.
    pub fn read(&self) -> Result<Option<Record<K, V>>, TestDriverError> {
        self.next()?.map(|(_, batch)| self.decode(&batch)).transpose()
    }

    /// The same, with the partition that the record was written to.
    ///
    /// # Errors
    /// As [`TestOutputTopic::read`].
    #[allow(clippy::type_complexity)] // each part says what it is
    pub fn read_with_partition(&self) -> Result<Option<(u32, Record<K, V>)>, TestDriverError> {
        let next = self.next()?;
        next.map(|(partition, batch)| Ok((partition, self.decode(&batch)?))).transpose()
    }

    /// How many records were not read yet.
    ///
    /// # Errors
    /// [`TestDriverError::UnknownOutput`].
    pub fn len(&self) -> Result<usize, TestDriverError> {
        self.driver.borrow().waiting(&self.topic)
    }

    /// Whether there is none.
    ///
    /// # Errors
    /// [`TestDriverError::UnknownOutput`].
    pub fn is_empty(&self) -> Result<bool, TestDriverError> {
        Ok(self.len()? == 0)
    }

    /// All records that were not read yet.
    ///
    /// # Errors
    /// As [`TestOutputTopic::read`].
    pub fn read_all(&self) -> Result<Vec<Record<K, V>>, TestDriverError> {
        std::iter::from_fn(|| self.read().transpose()).collect()
    }

    fn decode(&self, batch: &Batch) -> Result<Record<K, V>, TestDriverError> {
        let empty = || broker_api::Error::InvalidBatch { reason: "it holds no record".into() };
        let record = batch.records().next().ok_or_else(empty)??;
        let unfit = |error| TestDriverError::Serde { topic: self.topic.to_string(), error };
        Ok(Record {
            key: decode(&*self.key, record.key, "key").map_err(unfit)?,
            value: decode(&*self.value, record.value, "value").map_err(unfit)?,
            timestamp: record.timestamp,
            headers: Headers::from(record.headers.to_vec()?),
        })
    }
}

fn decode<T: 'static>(
    serde: &dyn Serde<T>,
    bytes: Option<&[u8]>,
    part: &str,
) -> Result<T, SerdeError> {
    match bytes {
        Some(bytes) => serde.get(bytes, &bytes::Bytes::new()),
        None => serde
            .null()
            .ok_or_else(|| SerdeError::new(format!("its {part} is null; read it as an Option"))),
    }
}
