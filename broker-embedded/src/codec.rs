//! Reading and writing the numbers and strings of our files: big-endian, like all that Kafka writes.

use bytes::Bytes;

/// Appends fields to a buffer.
pub(crate) trait Put {
    fn u8(&mut self, n: u8);
    fn u32(&mut self, n: u32);
    fn u64(&mut self, n: u64);
    fn i64(&mut self, n: i64);
    fn u128(&mut self, n: u128);
    /// The length as `u32`, then the bytes.
    fn bytes(&mut self, bytes: &[u8]);
    fn str(&mut self, s: &str);
}

impl Put for Vec<u8> {
    fn u8(&mut self, n: u8) {
        self.push(n);
    }
    fn u32(&mut self, n: u32) {
        self.extend_from_slice(&n.to_be_bytes());
    }
    fn u64(&mut self, n: u64) {
        self.extend_from_slice(&n.to_be_bytes());
    }
    fn i64(&mut self, n: i64) {
        self.extend_from_slice(&n.to_be_bytes());
    }
    fn u128(&mut self, n: u128) {
        self.extend_from_slice(&n.to_be_bytes());
    }
    fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32); // all that we write is far below 4 GiB
        self.extend_from_slice(bytes);
    }
    fn str(&mut self, s: &str) {
        self.bytes(s.as_bytes());
    }
}

/// The bytes end before the field does, or a field has an impossible value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

/// Takes fields off the front of a buffer.
#[derive(Clone, Debug)]
pub(crate) struct Take {
    bytes: Bytes,
    at: usize,
}

impl Take {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were taken.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let field = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        let field = *field.ok_or_else(|| Malformed(format!("cut off at byte {}", self.at)))?;
        self.at += N;
        Ok(field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[n]| n)
    }
    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }
    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }
    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }
    pub(crate) fn u128(&mut self) -> Result<u128, Malformed> {
        self.array().map(u128::from_be_bytes)
    }

    /// Shares the buffer's memory.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = self.u32()? as usize;
        if length > self.bytes.len() - self.at {
            return Err(Malformed(format!("{length} bytes cut off at byte {}", self.at)));
        }
        let taken = self.bytes.slice(self.at..self.at + length);
        self.at += length;
        Ok(taken)
    }

    pub(crate) fn str(&mut self) -> Result<String, Malformed> {
        let bytes = self.bytes()?;
        match std::str::from_utf8(&bytes) {
            Ok(s) => Ok(s.to_string()),
            Err(_) => Err(Malformed(format!("not UTF-8 before byte {}", self.at))),
        }
    }
}
