//! The commands. Each knows the broker through the traits of `broker_api` alone; [`open`] is the
//! one place that opens the embedded one.

mod apps;
mod args;
mod consume;
mod failure;
mod open;
mod produce;
mod progress;
mod reader;
mod reset;
mod show;
mod state;
mod stop;
mod topics;
mod writer;

use std::sync::Arc;

use broker_api::Broker;
use broker_embedded::EmbeddedBroker;
use tracing_subscriber::EnvFilter;

use apps::Apps;
pub(crate) use args::Cli;
use args::{AppCommand, Command, StateCommand, StateDir, TopicsCommand};
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
    let done = dispatch(&broker, &cli, &stop);
    let closed = broker.close();
    done.and(closed.map_err(Failure::Broker))
}

fn dispatch(broker: &EmbeddedBroker, cli: &Cli, stop: &Stop) -> Result<(), Failure> {
    let default = StateDir { state_dir: None };
    let apps = |state: &StateDir| {
        let beside_the_broker = || cli.broker.join("state");
        Apps::find(broker, &state.state_dir.clone().unwrap_or_else(beside_the_broker))
    };
    match &cli.command {
        Command::Topics(command) => topics::run(broker, || apps(&default), command),
        Command::Produce(produce) => produce::run(broker, produce, stop),
        Command::Consume(consume) => consume::run(broker, consume, stop),
        Command::State(StateCommand::Stores { app }) => {
            state::stores(broker, &apps(&default)?, app)
        }
        Command::State(StateCommand::Replay(replay)) => {
            state::replay(broker, &apps(&default)?, replay, stop)
        }
        Command::App(AppCommand::List { state }) => apps::list(&apps(state)?),
        Command::App(AppCommand::Reset(reset)) => {
            let shared: Arc<dyn Broker> = Arc::new(broker.clone());
            reset::run(&shared, &apps(&reset.state)?, reset)
        }
    }
}
