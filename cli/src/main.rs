#![doc = include_str!("../README.md")]

mod api;
mod args;
mod commands;
mod demo;
mod error;
mod foreign;
mod keys;
mod log;
mod options;
mod output;
mod pages;
mod profile;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};
use error::CliError;

fn main() -> ExitCode {
    if tidegate_apply::is_decoder(std::env::args_os().skip(1)) {
        return tidegate_apply::decode();
    }
    // The agent is part of this binary for the demo; it has a runtime and options of its own.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "agent") {
        return ExitCode::from(tidegate_agent::main(arguments) as u8);
    }
    tidegate_agent::keep_others_from_writing();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => return say(&answer),
    };
    // One TLS provider for the process; an error means that it is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&format!("error: cannot start: {error}"));
            return ExitCode::from(1);
        }
    };
    let result = runtime.block_on(run(cli));
    // A delta build in progress must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("error: {error}"));
            if let Some(next) = error.next_step() {
                output::complain(&format!("  next: {next}"));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints a usage error, or the help that was asked for.
fn say(answer: &clap::Error) -> ExitCode {
    let printed = answer.print().and_then(|()| std::io::stdout().flush());
    match (answer.use_stderr(), output::written(printed)) {
        (true, _) => ExitCode::from(2),
        (false, Ok(())) => ExitCode::SUCCESS,
        (false, Err(error)) => {
            output::complain(&format!("error: {error}"));
            ExitCode::from(1)
        }
    }
}

async fn run(cli: Cli) -> Result<(), CliError> {
    let context = commands::Context::new(cli.global.clone());
    match cli.command {
        Command::Serve(args) => commands::serve::serve(args, cli.global.allow_plain_http).await,
        Command::Migrate(args) => commands::serve::migrate(args).await,
        Command::Healthcheck(args) => {
            commands::serve::healthcheck(args, cli.global.ca_file.as_deref()).await
        }
        Command::Demo(args) => demo::run(args).await,
        Command::Login(args) => commands::operator::login(args, cli.global).await,
        Command::Whoami => commands::operator::whoami(&context).await,
        Command::Token(command) => commands::operator::token(&context, command).await,
        Command::Doctor { dir, data } => {
            commands::doctor::run(&context, &dir, data.as_deref()).await
        }
        Command::Keys(command) => commands::keys::run(&context, command).await,
        Command::Release(command) => commands::release::run(&context, command).await,
        Command::Rollout(command) => commands::rollout::run(&context, command).await,
        Command::Bundle(command) => commands::bundle::run(&context, command).await,
        Command::Rollback(args) => commands::rollout::rollback(&context, args).await,
        Command::Incident(command) => commands::incident::run(&context, command).await,
        Command::Hold(command) => commands::incident::hold(&context, command).await,
        Command::Product(command) => commands::incident::product(&context, command).await,
        Command::Simulate(args) => commands::simulate::run(&args),
        Command::Device(command) => commands::device::run(&context, command).await,
        Command::Delta(command) => {
            // It computes for minutes, so it must not block a runtime thread.
            tokio::task::spawn_blocking(move || commands::delta::run(&context, command))
                .await
                .map_err(|e| CliError::Failed(e.to_string()))?
        }
        Command::Completions { shell } => args::completions(shell),
    }
}
