//! Printing a stream, for a look at what flows.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use streams_core::Data;

use crate::stream::KStream;

/// Where and how a stream is printed: lines of the form `[label]: key, value`.
pub struct Printed<K, V> {
    to: Arc<Mutex<dyn Write + Send>>,
    label: Option<String>,
    name: Option<String>,
    line: Arc<Line<K, V>>,
}

type Line<K, V> = dyn Fn(&K, &V) -> String + Send + Sync;

impl<K: Debug, V: Debug> Printed<K, V> {
    /// To the standard output.
    pub fn to_stdout() -> Self {
        Self::to_writer(io::stdout())
    }

    /// To a file, which is made anew.
    ///
    /// # Errors
    /// [`io::Error`] if it cannot be made.
    pub fn to_file(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::to_writer(File::create(path)?))
    }

    /// To anything.
    pub fn to_writer(to: impl Write + Send + 'static) -> Self {
        let line = Arc::new(|key: &K, value: &V| format!("{key:?}, {value:?}"));
        Self { to: Arc::new(Mutex::new(to)), label: None, name: None, line }
    }
}

impl<K, V> Printed<K, V> {
    /// The same with this label; otherwise it is the name of the operator whose results are printed.
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The same with this text for each record.
    pub fn with_mapper(mut self, line: impl Fn(&K, &V) -> String + Send + Sync + 'static) -> Self {
        self.line = Arc::new(line);
        self
    }

    /// The same with this name for the operator.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

impl<K: Data, V: Data> KStream<K, V> {
    /// Prints the records; the stream ends here. As with [`KStream::peek`], a record may be seen again
    /// after a crash. What cannot be written is passed over.
    ///
    /// ```
    /// use streams_dsl::{Printed, StreamsBuilder};
    /// let builder = StreamsBuilder::new();
    /// builder.stream::<String, String>("words").print(Printed::to_stdout().with_label("words"));
    /// # builder.build()?;
    /// # Ok::<(), streams_core::BuildError>(())
    /// ```
    pub fn print(&self, printed: Printed<K, V>) {
        let Printed { to, label, name, line } = printed;
        let label = label.unwrap_or_else(|| self.name.clone());
        let print = move |key: &K, value: &V| {
            let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
            // Looking on must not stop the application.
            let _ = writeln!(to, "[{label}]: {}", line(key, value));
        };
        self.add_for_each("KSTREAM-PRINTER-", print, name);
    }
}
