//! Who is inside, until when, and how to show them out.
//!
//! A session enters the registry before it is judged and leaves it when its [`registry::Stay`] is
//! dropped: there is no other way in or out. One task, the [`reaper`], owns every deadline; a live
//! session owns no timer.

pub mod clock;
pub mod deadlines;
pub mod mailbox;
pub mod reaper;
pub mod recovery;
pub mod registry;
pub mod revoker;
pub mod sharing;
