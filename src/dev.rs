//! The playground behind `siogate dev`: an issuer, an echo backend and a page, all on loopback.
