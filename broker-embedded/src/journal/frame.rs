//! A frame: entries that reach the disk together, by one write and one sync.
//!
//! A frame is a multiple of 4 KiB and is written once. Both of its checksums are seeded with the
//! file's id and the frame's number, so bytes of another file or of an older frame never verify.

use crate::codec::Put;

/// Frames begin at multiples of this and are as long as a multiple of it.
pub(crate) const ALIGN: usize = 4096;
/// The bytes of a frame before its entries.
pub(crate) const HEAD_LEN: usize = 64;

const MAGIC: &[u8; 4] = b"VFRM";
const AT_PAYLOAD_CRC: usize = 52;
const AT_HEAD_CRC: usize = 60;

/// What a frame says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    /// Bytes of its entries.
    pub(crate) payload: u32,
    /// Its number; every frame has the next one, over all files.
    pub(crate) seq: u64,
    /// The last frame that was known to be synced when this one was written.
    pub(crate) durable_seq: u64,
    /// When it was written, milliseconds since the epoch.
    pub(crate) now: i64,
    /// The number of its first entry.
    pub(crate) first_lsn: u64,
    /// How many entries it has.
    pub(crate) entries: u32,
}

impl FrameHead {
    /// How many bytes the whole frame takes.
    pub(crate) fn frame_len(&self) -> usize {
        (HEAD_LEN + self.payload as usize).next_multiple_of(ALIGN)
    }

    /// Decodes the head at the start of `bytes`, if there is a valid one of this file.
    pub(crate) fn parse(file_id: u64, bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEAD_LEN>()?;
        if &bytes[..4] != MAGIC || u64_at(bytes, 8) != file_id {
            return None;
        }
        let seq = u64_at(bytes, 16);
        let crc = crc32c::crc32c_append(seed(file_id, seq), &bytes[..AT_HEAD_CRC]);
        (crc == u32_at(bytes, AT_HEAD_CRC)).then_some(Self {
            payload: u32_at(bytes, 4),
            seq,
            durable_seq: u64_at(bytes, 24),
            now: u64_at(bytes, 32) as i64,
            first_lsn: u64_at(bytes, 40),
            entries: u32_at(bytes, 48),
        })
    }

    /// Whether `frame`, the whole of it, holds what was written.
    pub(crate) fn verify(&self, file_id: u64, frame: &[u8]) -> bool {
        frame.len() == self.frame_len()
            && u32_at(frame, AT_PAYLOAD_CRC)
                == crc32c::crc32c_append(seed(file_id, self.seq), &frame[HEAD_LEN..])
    }
}

/// The bytes of a frame while it is built, at an address that the disk can take them from.
#[derive(Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// Begins a frame whose entries take about `size` bytes; they are appended to what is returned.
    pub(crate) fn begin(&mut self, size: usize) -> &mut Vec<u8> {
        self.bytes.clear();
        self.bytes.reserve(size + 3 * ALIGN);
        // Where the address cannot be told, or the buffer has to move, it is only slower.
        self.start = self.bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        self.bytes.resize(self.start + HEAD_LEN, 0);
        &mut self.bytes
    }

    /// Completes the frame. The payload's length in `head` is ignored and taken from the buffer.
    /// The padding is under the checksum too.
    pub(crate) fn finish(&mut self, file_id: u64, head: FrameHead) {
        let (start, buffer) = (self.start, &mut self.bytes);
        let len = buffer.len() - start;
        let payload = (len - HEAD_LEN) as u32;
        buffer.resize(start + len.next_multiple_of(ALIGN), 0);
        let frame = &mut buffer[start..];
        let seed = seed(file_id, head.seq);
        let payload_crc = crc32c::crc32c_append(seed, &frame[HEAD_LEN..]);
        let mut bytes = Vec::with_capacity(HEAD_LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.u32(payload);
        bytes.u64(file_id);
        bytes.u64(head.seq);
        bytes.u64(head.durable_seq);
        bytes.i64(head.now);
        bytes.u64(head.first_lsn);
        bytes.u32(head.entries);
        bytes.u32(payload_crc);
        bytes.u32(0);
        let head_crc = crc32c::crc32c_append(seed, &bytes);
        bytes.u32(head_crc);
        frame[..HEAD_LEN].copy_from_slice(&bytes);
    }

    /// The frame.
    pub(crate) fn frame(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Where in the frame a byte of the buffer is.
    pub(crate) fn place(&self, at: usize) -> usize {
        at - self.start
    }

    /// Gives memory back if it is more than `keep` bytes.
    pub(crate) fn shrink(&mut self, keep: usize) {
        if self.bytes.capacity() > keep {
            *self = Self::default();
        }
    }
}

fn seed(file_id: u64, seq: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&file_id.to_be_bytes()), &seq.to_be_bytes())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    (u64::from(u32_at(bytes, at)) << 32) | u64::from(u32_at(bytes, at + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: FrameHead = FrameHead {
        payload: 5,
        seq: 7,
        durable_seq: 6,
        now: 1_700_000_000_000,
        first_lsn: 42,
        entries: 1,
    };

    fn built() -> Vec<u8> {
        let mut buffer = Buffer::default();
        for entries in [&b"something before"[..], b"hello"] {
            buffer.begin(5).extend_from_slice(entries);
            buffer.finish(0x0102_0304_0506_0708, HEAD);
        }
        buffer.frame().to_vec()
    }

    #[test]
    fn golden_bytes() {
        let frame = built();
        assert_eq!(frame.len(), ALIGN);
        #[rustfmt::skip]
        let head: [u8; 52] = [
            b'V', b'F', b'R', b'M', 0, 0, 0, 5,
            1, 2, 3, 4, 5, 6, 7, 8,
            0, 0, 0, 0, 0, 0, 0, 7,
            0, 0, 0, 0, 0, 0, 0, 6,
            0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0,
            0, 0, 0, 0, 0, 0, 0, 42,
            0, 0, 0, 1,
        ];
        assert_eq!(frame[..52], head);
        assert_eq!(frame[56..60], [0; 4]);
        assert_eq!(&frame[64..69], b"hello");
        assert!(frame[69..].iter().all(|b| *b == 0));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let id = 0x0102_0304_0506_0708;
        let frame = built();
        assert_eq!(FrameHead::parse(id, &frame), Some(HEAD));
        assert!(HEAD.verify(id, &frame));
        for at in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[at] ^= 0x10;
            let noticed = FrameHead::parse(id, &damaged).is_none_or(|h| !h.verify(id, &damaged));
            assert!(noticed, "byte {at}");
        }
    }

    #[test]
    fn a_frame_of_another_file_or_number_never_verifies() {
        let frame = built();
        assert_eq!(FrameHead::parse(1, &frame), None);
        let renumbered = FrameHead { seq: 8, ..HEAD };
        assert!(!renumbered.verify(0x0102_0304_0506_0708, &frame));
    }
}
