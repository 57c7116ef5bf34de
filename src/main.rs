//! The binary: parse the command line, run one command, map its error to an exit code.

fn main() {}
