//! Every knob: its name, its default, where its value may come from, and what is wrong with it.

pub mod duration;
pub mod model;
