//! `vltava produce`.
//!
//! A thread of its own reads the input, so that the signal to stop is heard while a terminal keeps
//! us waiting. Between the two stands a channel of a few chunks.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use broker_api::{Broker, Clock, Error, SystemClock};
use futures::executor::block_on;

use super::args::Produce;
use super::progress::Progress;
use super::writer::Writer;
use super::{Failure, Stop};

/// The input is read in pieces of this size.
const CHUNK_BYTES: usize = 64 << 10;
/// How many pieces may wait to be split into lines.
const CHUNKS_WAITING: usize = 4;

pub(crate) fn run(broker: &dyn Broker, args: &Produce, stop: &Stop) -> Result<(), Failure> {
    let topic = block_on(broker.admin().topic(&args.topic))?;
    let longest = topic.config.max_message_bytes as usize;
    let name = args.file.clone().unwrap_or_else(|| "standard input".into());
    let chunks = read_chunks(args.file.as_ref()).map_err(|e| input_error(&name, &e))?;
    let mut lines = Lines { args, clock: SystemClock::new(), writer: Writer::new(broker, &topic)? };
    let mut progress = Progress::new();
    let mut rest = Vec::new();
    let outcome = loop {
        if stop.requested() {
            break Err(None);
        }
        match chunks.try_recv() {
            Ok(Ok(chunk)) => {
                rest.extend_from_slice(&chunk);
                if let Err(failure) = lines.take_whole(&mut rest, longest) {
                    break Err(Some(failure));
                }
                progress.tick(|seconds| {
                    let read = lines.writer.read();
                    format!("{read} lines, {:.0} a second", read as f64 / seconds)
                });
            }
            Ok(Err(e)) => break Err(Some(input_error(&name, &e))),
            Err(TryRecvError::Empty) => {
                // Nothing to wait for: what has come so far goes out.
                lines.writer.flush()?;
                lines.writer.take_outcomes()?;
                std::thread::park();
            }
            Err(TryRecvError::Disconnected) => {
                let last = if rest.is_empty() { Ok(()) } else { lines.take(&rest) };
                break last.map_err(Some);
            }
        }
    };
    // Whatever ended it: the lines before are written.
    lines.writer.finish()?;
    progress.clear();
    let written = lines.writer.written();
    match outcome {
        Ok(()) => {
            eprintln!("{written} records written to topic {}", args.topic);
            Ok(())
        }
        Err(None) => Err(Failure::Interrupted(written)),
        Err(Some(failure)) => Err(failure),
    }
}

fn input_error(name: &Path, e: &io::Error) -> Failure {
    Failure::Input { name: name.to_path_buf(), message: e.to_string() }
}

/// Reads a file or standard input in a thread of its own, which unparks this one.
fn read_chunks(file: Option<&PathBuf>) -> io::Result<Receiver<io::Result<Vec<u8>>>> {
    let mut input: Box<dyn Read + Send> = match file {
        Some(path) => Box::new(File::open(path)?),
        None => Box::new(io::stdin()),
    };
    let (sender, receiver) = sync_channel(CHUNKS_WAITING);
    let reader = std::thread::current();
    std::thread::Builder::new().name("input".into()).spawn(move || {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let sent = match input.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => {
                    chunk.truncate(n);
                    sender.send(Ok(chunk))
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    let _ = sender.send(Err(e));
                    break;
                }
            };
            if sent.is_err() {
                break; // nobody wants more
            }
            reader.unpark();
        }
        drop(sender);
        reader.unpark();
    })?;
    Ok(receiver)
}

/// Makes records of lines.
struct Lines<'a> {
    args: &'a Produce,
    clock: SystemClock,
    writer: Writer,
}

impl Lines<'_> {
    /// Takes the whole lines off the front of `rest`; what then remains is bounded by `longest`.
    fn take_whole(&mut self, rest: &mut Vec<u8>, longest: usize) -> Result<(), Failure> {
        let mut begin = 0;
        while let Some(length) = rest[begin..].iter().position(|byte| *byte == b'\n') {
            self.take(&rest[begin..begin + length])?;
            begin += length + 1;
        }
        rest.drain(..begin);
        if rest.len() > longest {
            return Err(
                self.bad_line(format!("it is longer than the topic's max.message.bytes={longest}"))
            );
        }
        Ok(())
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Failure> {
        let (key, value) = match &self.args.key_separator {
            None => (None, line),
            Some(separator) => {
                let separator = &separator.0;
                let at = line.windows(separator.len()).position(|window| window == separator);
                let at = at.ok_or_else(|| self.bad_line("it lacks the key separator".into()))?;
                (Some(&line[..at]), &line[at + separator.len()..])
            }
        };
        self.writer.add(self.clock.now(), key, value).map_err(|error| match error {
            Error::TooLarge { size, limit, setting, .. } => {
                self.bad_line(format!("its record takes {size} bytes, more than {setting}={limit}"))
            }
            error => self.writer.failure(error),
        })
    }

    /// The line after those read is not acceptable.
    fn bad_line(&self, reason: String) -> Failure {
        Failure::Line { line: self.writer.read() + 1, reason }
    }
}
