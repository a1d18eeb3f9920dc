//! A processor at work in a task.

use super::blame::Blame;
use super::{
    Child, Children, Context, InitContext, Processor, PunctuationKind, Push, Schedule, Signal,
};
use crate::error::{BuildError, ProcessError};
use crate::record::Record;
use crate::task::TaskCore;

/// A [`Processor`] with its children.
pub struct ProcessorNode<P: Processor> {
    name: String,
    processor: P,
    children: Children<P::KOut, P::VOut>,
    schedules: Vec<Schedule>,
}

impl<P: Processor> ProcessorNode<P> {
    /// Initialises the processor.
    ///
    /// # Errors
    /// [`BuildError`] from [`Processor::init`], or for children that take other records.
    pub fn new(
        name: &str,
        mut processor: P,
        stores: &[String],
        children: Vec<Child>,
        task: &mut TaskCore,
    ) -> Result<Self, BuildError> {
        let children = Children::new(name, children)?;
        let mut schedules = Vec::new();
        let blame = Blame::on(name);
        let init = processor.init(&mut InitContext {
            node: name,
            stores,
            schedules: &mut schedules,
            task,
        });
        blame.lift();
        init?;
        Ok(Self { name: name.into(), processor, children, schedules })
    }

    fn check(&self, result: Result<(), ProcessError>, task: &mut TaskCore) {
        if let Err(error) = result {
            task.fail(error.at_node(&self.name));
        }
    }
}

impl<P: Processor> Push<P::KIn, P::VIn> for ProcessorNode<P> {
    fn push(&mut self, record: Record<P::KIn, P::VIn>, task: &mut TaskCore) {
        if task.has_failed() {
            return;
        }
        let (children, schedules) = (&mut self.children, &mut self.schedules);
        let mut cx = Context { task, children, schedules };
        let blame = Blame::on(&self.name);
        let result = self.processor.process(record, &mut cx);
        blame.lift();
        self.check(result, task);
    }

    fn signal(&mut self, signal: &Signal, task: &mut TaskCore) {
        let upwards = *signal == Signal::GoOn;
        if upwards {
            self.children.signal(signal, task);
        }
        // What is further down has not come to its end.
        let waits = upwards && task.is_unended();
        if task.has_failed() || waits {
            return;
        }
        let (children, schedules) = (&mut self.children, &mut self.schedules);
        let mut cx = Context { task, children, schedules };
        let blame = Blame::on(&self.name);
        let result = match *signal {
            Signal::BeforeSeal => self.processor.before_seal(&mut cx),
            Signal::GoOn => self.processor.go_on(&mut cx),
            Signal::Release => Ok(()),
            Signal::Punctuate { schedule, timestamp } => {
                match cx.schedules.iter().find(|own| own.number == schedule).copied() {
                    Some(own) => self.processor.punctuate(own, timestamp, &mut cx),
                    None => Ok(()),
                }
            }
        };
        blame.lift();
        self.check(result, task);
        if !upwards {
            self.children.signal(signal, task);
        }
    }
}

impl ProcessError {
    /// An error of the application's own code.
    pub fn user(reason: impl Into<String>) -> Self {
        Self::User { node: String::new(), reason: reason.into() }
    }

    fn at_node(self, name: &str) -> Self {
        match self {
            Self::User { node, reason } if node.is_empty() => {
                Self::User { node: name.into(), reason }
            }
            Self::BufferFull { node, reason, advice } if node.is_empty() => {
                Self::BufferFull { node: name.into(), reason, advice }
            }
            Self::Bookmark { node, bytes, most } if node.is_empty() => {
                Self::Bookmark { node: name.into(), bytes, most }
            }
            other => other,
        }
    }
}

impl std::fmt::Display for PunctuationKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::StreamTime => "stream time",
            Self::WallClock => "wall clock",
        })
    }
}
