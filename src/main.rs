//! The binary: parse the command line, run one command, map its error to an exit code.

use clap::Parser;
use siogate::cli::args::{Cli, Command, TokenCommand};
use siogate::cli::failure::Failure;
use siogate::cli::{check, dev, run, token};
use std::process::ExitCode;
use tokio::runtime::Builder;

/// Sessions come and go by the thousand: small allocations are most of a handshake's, and what a mass
/// close frees is given back to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    let mut builder = match std::thread::available_parallelism() {
        // On one core there is nobody to share work with: the scheduler that cannot share is cheaper for each message.
        Ok(cores) if cores.get() == 1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let runtime = match builder.enable_all().build() {
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
