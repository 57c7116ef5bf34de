//! The binary: parse the command line, run one command, map its error to an exit code.

use clap::Parser;
use siogate::cli::args::{Cli, Command, TokenCommand};
use siogate::cli::failure::Failure;
use siogate::cli::{check, dev, run, token};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    // TLS and the token library share one C library, installed before anybody asks for it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("siogate: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(dispatch(&cli));
    // Nothing that was forced to end may hold the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Told) {
                eprintln!("siogate: {failure}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn dispatch(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        None | Some(Command::Run) => run::run(&cli.config).await,
        Some(Command::Check) => check::check(&cli.config).await,
        Some(Command::Token(args)) => match &args.command {
            TokenCommand::Verify(verify) => token::verify(&cli.config, verify).await,
        },
        Some(Command::Dev(args)) => dev::dev(&cli.config, args).await,
    }
}
