//! The handlers of an application, and the ones that are ready-made.

use std::sync::Arc;

use super::{Action, DeadLetter, Failure, Response, Stage};

/// Decides what happens to what could not be handled.
pub type ErrorHandler = Arc<dyn Fn(&Failure) -> Response + Send + Sync>;

/// The handlers of an application.
#[derive(Clone)]
pub struct ErrorHandlers {
    /// For records that cannot be decoded.
    pub deserialization: ErrorHandler,
    /// For records and punctuations with which an operator fails or panics.
    pub processing: ErrorHandler,
    /// For results that cannot be written.
    pub production: ErrorHandler,
    /// Where dead letters go.
    pub dead_letter_topic: Option<Arc<str>>,
}

impl Default for ErrorHandlers {
    fn default() -> Self {
        Self {
            deserialization: log_and_fail(),
            processing: log_and_fail(),
            production: log_and_retry_or_fail(),
            dead_letter_topic: None,
        }
    }
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Fail,
    Retry,
    /// Left out, with these records instead.
    Resume(Vec<DeadLetter>),
}

impl ErrorHandlers {
    /// Asks the handler of the stage.
    pub(crate) fn decide(&self, failure: &Failure) -> Decision {
        let handler = match failure.stage {
            Stage::Deserialization => &self.deserialization,
            Stage::Processing => &self.processing,
            Stage::Production => &self.production,
        };
        let Response { action, letters } = handler(failure);
        match action {
            Action::Fail => Decision::Fail,
            Action::Retry if failure.retriable => Decision::Retry,
            Action::Retry => Decision::Fail,
            Action::Resume => Decision::Resume(letters.unwrap_or_else(|| {
                let usual = self.dead_letter_topic.is_some().then(|| DeadLetter::of(failure));
                usual.into_iter().collect()
            })),
        }
    }
}

/// A handler that stops the application: the default, but for results.
pub fn log_and_fail() -> ErrorHandler {
    Arc::new(|failure| {
        tracing::error!(task = %failure.task, stage = ?failure.stage, record = %of(failure), error = %failure.error, "the application stops");
        Response::fail()
    })
}

/// A handler that leaves out what cannot be handled, with a warning for each.
pub fn log_and_continue() -> ErrorHandler {
    Arc::new(|failure| {
        tracing::warn!(task = %failure.task, stage = ?failure.stage, record = %of(failure), error = %failure.error, "left out");
        Response::resume()
    })
}

/// A handler that tries again where that may help, and otherwise stops the application: the default
/// for results.
pub fn log_and_retry_or_fail() -> ErrorHandler {
    let fail = log_and_fail();
    Arc::new(move |failure| {
        if !failure.retriable {
            return fail(failure);
        }
        tracing::warn!(task = %failure.task, stage = ?failure.stage, error = %failure.error, "tried again");
        Response::retry()
    })
}

fn of(failure: &Failure) -> String {
    failure.record.as_ref().map_or_else(|| "none".into(), ToString::to_string)
}
