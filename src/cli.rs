//! What an operator can ask on the command line.
