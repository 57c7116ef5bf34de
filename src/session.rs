//! Who is inside, until when, and how to show them out.
