//! `tandem run --dry-run`: the live process with nothing behind it that could write, beside whatever scales the cluster now.
//!
//! What is not written is a matter of construction: the one API client of the process goes through [`guard`], which lets
//! reads pass and turns all else into a line of the record, and providers of nodes stand behind [`providers`]. So nothing
//! that was decided takes effect, and the next decision is made upon what the others did: "what would Tandem do now".

pub mod autoscaler;
pub mod fold;
pub mod guard;
mod place;
pub mod providers;
pub mod record;
pub mod recorder;
pub mod world;

pub use recorder::Recorder;
