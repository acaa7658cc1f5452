//! What workers write to their standard output and standard error, as lines on their way to the
//! primary's own outputs or to a log file. Reading the workers' pipes is the driver's work.

mod line;
#[cfg(feature = "primary")]
mod split;
#[cfg(feature = "primary")]
mod writer;

pub use line::{Format, LogLine, Missing, Stream};
#[cfg(feature = "primary")]
pub(crate) use line::{Origin, time_of_day};
#[cfg(feature = "primary")]
pub(crate) use split::Splitter;
#[cfg(feature = "primary")]
pub(crate) use writer::OutputLog;
