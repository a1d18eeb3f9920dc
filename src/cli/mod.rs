//! The commands. Each knows the broker through the traits of `broker_api` alone; [`open`] is the
//! one place that opens the embedded one.

mod args;
mod consume;
mod failure;
mod open;
mod produce;
mod progress;
mod reader;
mod show;
mod state;
mod stop;
mod topics;
mod writer;

use tracing_subscriber::EnvFilter;

pub(crate) use args::Cli;
use args::{Command, StateCommand, TopicsCommand};
use failure::Failure;
use open::{open, open_or_create};
use stop::Stop;

/// Warnings, or what `RUST_LOG` says.
pub(crate) fn log_filter() -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"))
}

/// Does what the command line asks for.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let stop = Stop::on_signal()?;
    let creates = matches!(cli.command, Command::Topics(TopicsCommand::Create(_)));
    let broker = if creates { open_or_create(&cli.broker)? } else { open(&cli.broker)? };
    let done = match cli.command {
        Command::Topics(command) => topics::run(&broker, &command),
        Command::Produce(produce) => produce::run(&broker, &produce, &stop),
        Command::Consume(consume) => consume::run(&broker, &consume, &stop),
        Command::State(StateCommand::Stores { app }) => state::stores(&broker, &app),
        Command::State(StateCommand::Replay(replay)) => state::replay(&broker, &replay, &stop),
    };
    let closed = broker.close();
    done.and(closed.map_err(Failure::Broker))
}
