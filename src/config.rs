//! Every knob: its name, its default, where its value may come from, and what is wrong with it.

pub mod address;
pub mod assign;
pub mod check;
pub mod conform;
pub mod duration;
pub mod header_name;
pub mod load;
pub mod model;
pub mod nearest;
pub mod problem;
pub mod redis_url;
pub mod secret;
pub mod shape;
