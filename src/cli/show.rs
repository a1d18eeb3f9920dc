//! Bytes as text and back: the types of keys and values, and the format of printed records.

use std::fmt::Display;
use std::io::IsTerminal;
use std::str::FromStr;

use broker_api::{Offset, RecordRef, Timestamp, TopicPartition};
use clap::{Args, ValueEnum};

use super::Failure;

/// How records are printed.
#[derive(Debug, Args)]
pub(crate) struct Printing {
    /// What the bytes of keys mean
    #[arg(long, value_enum, default_value = "string")]
    pub(crate) key_type: Type,
    /// What the bytes of values mean
    #[arg(long, value_enum, default_value = "string")]
    pub(crate) value_type: Type,
    /// %t topic, %p partition, %o offset, %T timestamp (ms), %A time of appending (ms), %k key,
    /// %v value, %% a per cent sign; and \t, \n, \r, \\, \xHH
    #[arg(long, default_value = "%k\\t%v\\n")]
    pub(crate) format: Format,
    /// A terminal must not act on what data contains.
    #[arg(skip = std::io::stdout().is_terminal())]
    terminal: bool,
}

/// What the bytes of a key or value mean.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Type {
    /// UTF-8 text; on a terminal, control characters but \t and \n are shown as \r or \xHH
    String,
    /// A signed number of 8 bytes, the highest first
    I64,
    /// Any bytes: ASCII as it is, others as \xHH
    Bytes,
}

impl Type {
    /// Appends bytes as text; the error says why they are not of this type.
    fn show(self, bytes: &[u8], terminal: bool, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::String => match std::str::from_utf8(bytes) {
                Ok(text) if terminal => escape_controls(text, out),
                Ok(_) => out.extend_from_slice(bytes),
                Err(_) => return Err("is not UTF-8, so not a string".into()),
            },
            Self::I64 => {
                let number = bytes.try_into().map(i64::from_be_bytes);
                let number = number.map_err(|_| {
                    format!("has {} bytes, so it is not an i64, which has 8", bytes.len())
                })?;
                out.extend_from_slice(number.to_string().as_bytes());
            }
            Self::Bytes => escape(bytes, out),
        }
        Ok(())
    }

    /// The bytes whose text is `s`.
    pub(crate) fn parse(self, s: &str) -> Result<Vec<u8>, String> {
        match self {
            Self::String => Ok(s.into()),
            Self::I64 => {
                let number = s.parse::<i64>().map_err(|e| format!("'{s}' is not an i64: {e}"))?;
                Ok(number.to_be_bytes().into())
            }
            Self::Bytes => unescape(s),
        }
    }
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b' '..=b'~' => out.push(*byte),
            _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
}

fn escape_controls(text: &str, out: &mut Vec<u8>) {
    let mut utf8 = [0; 4];
    for letter in text.chars() {
        let bytes = letter.encode_utf8(&mut utf8).as_bytes();
        if !letter.is_control() || matches!(letter, '\t' | '\n') {
            out.extend_from_slice(bytes);
        } else {
            escape(bytes, out);
        }
    }
}

/// Replaces `\t`, `\n`, `\r`, `\\` and `\xHH` by the bytes that they stand for.
pub(crate) fn unescape(s: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(s.len());
    let mut rest = s.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'\\' {
            out.push(take_escaped(&mut rest)?);
        } else {
            out.push(*byte);
        }
    }
    Ok(out)
}

/// The byte that stands behind a backslash.
fn take_escaped(rest: &mut &[u8]) -> Result<u8, String> {
    let error = || "after \\ comes t, n, r, \\ or x with two hexadecimal digits".to_string();
    let (kind, after) = rest.split_first().ok_or_else(error)?;
    *rest = after;
    match kind {
        b't' => Ok(b'\t'),
        b'n' => Ok(b'\n'),
        b'r' => Ok(b'\r'),
        b'\\' => Ok(b'\\'),
        b'x' => {
            let digits = rest.get(..2).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
            let digits = digits.and_then(|d| std::str::from_utf8(d).ok()).ok_or_else(error)?;
            *rest = &rest[2..];
            u8::from_str_radix(digits, 16).map_err(|_| error())
        }
        _ => Err(error()),
    }
}

/// A record to be printed.
pub(crate) struct Shown<'a> {
    pub(crate) partition: &'a TopicPartition,
    pub(crate) offset: Offset,
    pub(crate) timestamp: Timestamp,
    /// When the broker appended it.
    pub(crate) append_time: Timestamp,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
}

impl<'a> Shown<'a> {
    pub(crate) fn new(
        partition: &'a TopicPartition,
        append_time: Timestamp,
        record: &RecordRef<'a>,
    ) -> Self {
        let RecordRef { offset, timestamp, key, value, .. } = *record;
        Self { partition, offset, timestamp, append_time, key, value }
    }
}

/// How a record is printed.
#[derive(Clone, Debug)]
pub(crate) struct Format(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Byte(u8),
    Topic,
    Partition,
    Offset,
    Timestamp,
    AppendTime,
    Key,
    Value,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = s.as_bytes();
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            parts.push(match byte {
                b'\\' => Part::Byte(take_escaped(&mut rest)?),
                b'%' => take_placeholder(&mut rest)?,
                byte => Part::Byte(*byte),
            });
        }
        Ok(Self(parts))
    }
}

fn take_placeholder(rest: &mut &[u8]) -> Result<Part, String> {
    let error = || "after % comes one of t p o T A k v %".to_string();
    let (letter, after) = rest.split_first().ok_or_else(error)?;
    *rest = after;
    Ok(match letter {
        b't' => Part::Topic,
        b'p' => Part::Partition,
        b'o' => Part::Offset,
        b'T' => Part::Timestamp,
        b'A' => Part::AppendTime,
        b'k' => Part::Key,
        b'v' => Part::Value,
        b'%' => Part::Byte(b'%'),
        _ => return Err(error()),
    })
}

impl Printing {
    /// Appends a record as text. A missing key or value is printed as `null`.
    ///
    /// # Errors
    /// [`Failure::Undecodable`] for a key or value that is printed and not of its type; then
    /// nothing is appended.
    pub(crate) fn show(&self, shown: &Shown<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
        let before = out.len();
        let done = self.format.0.iter().try_for_each(|part| self.show_part(part, shown, out));
        if done.is_err() {
            out.truncate(before);
        }
        done
    }

    fn show_part(&self, part: &Part, shown: &Shown<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
        match part {
            Part::Byte(byte) => out.push(*byte),
            Part::Topic => out.extend_from_slice(shown.partition.topic.as_bytes()),
            Part::Partition => put_number(shown.partition.partition, out),
            Part::Offset => put_number(shown.offset, out),
            Part::Timestamp => put_number(shown.timestamp, out),
            Part::AppendTime => put_number(shown.append_time, out),
            Part::Key => self.show_data("key", self.key_type, shown.key, shown, out)?,
            Part::Value => self.show_data("value", self.value_type, shown.value, shown, out)?,
        }
        Ok(())
    }

    fn show_data(
        &self,
        part: &'static str,
        kind: Type,
        bytes: Option<&[u8]>,
        shown: &Shown<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let Some(bytes) = bytes else {
            out.extend_from_slice(b"null");
            return Ok(());
        };
        kind.show(bytes, self.terminal, out).map_err(|reason| Failure::Undecodable {
            partition: shown.partition.clone(),
            offset: shown.offset,
            part,
            reason,
        })
    }
}

fn put_number(number: impl Display, out: &mut Vec<u8>) {
    out.extend_from_slice(number.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker_api::BatchBuilder;

    fn shown(
        format: &str,
        types: (Type, Type),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> String {
        let mut builder = BatchBuilder::new();
        builder.push(77, key, value, &[]).unwrap();
        let batch = builder.finish().unwrap().assigned(5, 99);
        let record = batch.records().next().unwrap().unwrap();
        let partition = TopicPartition::new("t", 3);
        let shown = Shown::new(&partition, batch.append_time(), &record);
        let mut out = Vec::new();
        let (key_type, value_type) = types;
        let format = format.parse().unwrap();
        let printing = Printing { key_type, value_type, format, terminal: false };
        match printing.show(&shown, &mut out) {
            Ok(()) => String::from_utf8(out).unwrap(),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn every_placeholder_and_escape() {
        let types = (Type::String, Type::I64);
        let value = (-7i64).to_be_bytes();
        let line = shown(r"%t %p %o %T %A %k\t%v%%\x41\\\r\n", types, Some(b"k"), Some(&value));
        assert_eq!(line, "t 3 5 77 99 k\t-7%A\\\r\n");
        assert_eq!(shown("%k=%v", types, None, None), "null=null");
    }

    #[test]
    fn what_is_not_of_its_type_is_named() {
        let types = (Type::String, Type::I64);
        let message = shown("%k %v", types, Some(b"k"), Some(b"abc"));
        assert_eq!(
            message,
            "record 5 of t-3: the value has 3 bytes, so it is not an i64, which has 8"
        );
        let message = shown("%k %v", types, Some(b"\xff"), Some(&[0; 8]));
        assert_eq!(message, "record 5 of t-3: the key is not UTF-8, so not a string");
        assert_eq!(
            shown("%o", types, Some(b"\xff"), Some(b"abc")),
            "5",
            "not printed, not looked at"
        );
    }

    #[test]
    fn a_terminal_is_not_shown_control_characters() {
        let number = [0, 0, 0, 0, 0, 0, 0, 5]; // a count, taken for text
        let text = "a\tb\nc\rd\u{1b}[2Jé\u{85}\\".as_bytes();
        for (bytes, plain) in [
            (&number[..], r"\x00\x00\x00\x00\x00\x00\x00\x05"),
            (text, "a\tb\nc\\rd\\x1b[2Jé\\xc2\\x85\\"),
        ] {
            let (mut shown, mut piped) = (Vec::new(), Vec::new());
            Type::String.show(bytes, true, &mut shown).unwrap();
            assert_eq!(String::from_utf8(shown).unwrap(), plain);
            Type::String.show(bytes, false, &mut piped).unwrap();
            assert_eq!(piped, bytes);
        }
    }

    #[test]
    fn bytes_come_back_from_their_text() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text = Vec::new();
        Type::Bytes.show(&all, true, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.is_ascii() && text.starts_with(r"\x00\x01") && text.contains("xyz"));
        assert_eq!(Type::Bytes.parse(&text).unwrap(), all);
        assert_eq!(Type::I64.parse("-1").unwrap(), [0xff; 8]);
        for wrong in [r"\", r"\q", r"\x4", r"\x4g", r"\x+1"] {
            assert!(unescape(wrong).is_err(), "{wrong}");
        }
        for wrong in ["%", "%x", r"\q"] {
            assert!(wrong.parse::<Format>().is_err(), "{wrong}");
        }
    }
}
