//! The engines: move bytes, obey verdicts, decide nothing.
