//! The `vltava` command line: topics, records and state of an embedded broker's directory.
//!
//! Exit codes: 0 done, 1 an error (said on standard error), 2 the command line was not understood,
//! 130 interrupted before everything was written.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(cli::log_filter())
        .without_time()
        .init();
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has seen enough.
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("vltava: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
