//! Everything the gate dials: backends and key servers.
