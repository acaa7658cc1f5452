//! Option values: from the text to its meaning, or to the cause why it has none.
//!
//! A cause is worded to follow the value: `--window "many"` *is not a whole number from 1 to 1024*.

use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use roundel_core::{Address, Codec, Overflow, Policy, Respawn, Signal, StopSignal, limits};

use roundel_runtime::observe::eventlog::Target;
use roundel_runtime::observe::output::Format;
use roundel_runtime::text::number;
use roundel_runtime::unix::user;

/// The longest duration, a year: a longer one is probably a typing error.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(super) fn workers(text: &str) -> Result<u32, String> {
    if text == "auto" {
        return Ok(available_parallelism());
    }
    within(text, limits::workers()).map_err(|cause| {
        format!("is neither auto nor {}", cause.strip_prefix("is not ").unwrap_or(&cause))
    })
}

/// How many workers can run at the same time: the standard library counts the processors of the
/// affinity mask, and no more than the CPU quota of the control group allows, but at least one.
pub(super) fn available_parallelism() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    u32::try_from(cores).unwrap_or(u32::MAX).min(*limits::workers().end())
}

/// The name of a variable that the primary may set.
pub(super) fn variable(text: &str) -> Result<String, String> {
    if !crate::program::is_name(text) {
        return Err(
            "is not a variable name (letters, digits and _, not starting with a digit)".into()
        );
    }
    if roundel_core::environment::VARIABLES.contains(&text)
        || text == "PATH"
        || text == "NODE_OPTIONS"
    {
        return Err("is a variable that is already used for something else".into());
    }
    Ok(text.to_owned())
}

pub(super) fn window(text: &str) -> Result<u32, String> {
    within(text, limits::window())
}

pub(super) fn max_pending(text: &str) -> Result<u32, String> {
    within(text, limits::max_pending())
}

fn within(text: &str, limit: RangeInclusive<u32>) -> Result<u32, String> {
    number(text, *limit.start(), *limit.end())
}

/// Bounds as help texts show them.
pub(super) fn from_to(limit: RangeInclusive<u32>) -> String {
    format!("{} to {}", limit.start(), limit.end())
}

/// A duration, displayed in a form that can be parsed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl Span {
    /// Zero means never.
    pub(super) fn or_never(self) -> Option<Duration> {
        Some(self.0).filter(|duration| !duration.is_zero())
    }
}

impl From<Option<Duration>> for Span {
    fn from(or_never: Option<Duration>) -> Span {
        Span(or_never.unwrap_or_default())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_millis() {
            0 => write!(f, "{}s", self.0.as_secs()),
            _ => write!(f, "{}ms", self.0.as_millis()),
        }
    }
}

/// An address for metrics: sockets that the primary inherits are for connections.
pub(super) fn metrics(text: &str) -> Result<Address, String> {
    match roundel_runtime::address::parse(text)? {
        Address::Fd(_) => Err("is not host:port or unix:PATH".into()),
        address => Ok(address),
    }
}

/// A duration that may be zero.
pub(super) fn duration(text: &str) -> Result<Span, String> {
    any_duration(text).map(Span)
}

/// A duration longer than zero.
pub(super) fn nonzero_duration(text: &str) -> Result<Span, String> {
    match any_duration(text)? {
        Duration::ZERO => Err("must be greater than zero".into()),
        duration => Ok(Span(duration)),
    }
}

fn any_duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("is not a duration (examples: 500ms, 10s, 2m, 1h)".into());
    }
    let too_long = || "is longer than one year, the maximum".to_owned();
    let number: u64 = number.parse().map_err(|_| too_long())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if number == 0 => 1,
        "" => return Err("has no unit: add ms, s, m or h".into()),
        _ => return Err("is not a duration (examples: 500ms, 10s, 2m, 1h)".into()),
    };
    let duration = number.checked_mul(millis).map(Duration::from_millis);
    duration.filter(|duration| *duration <= MAX_DURATION).ok_or_else(too_long)
}

/// A size in bytes: at least 1 KiB, at most 1 TiB.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("is not a size (examples: 512KiB, 64MiB, 1GiB)".into()),
    };
    let number: u64 =
        number.parse().map_err(|_| "is not a size (examples: 512KiB, 64MiB, 1GiB)")?;
    let size = number.checked_mul(unit);
    size.filter(|size| (1 << 10..=1 << 40).contains(size))
        .ok_or_else(|| "is not between 1KiB and 1024GiB".into())
}

/// A number of failures in a period: `N/SECONDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Intensity(pub(super) u32, pub(super) Duration);

impl fmt::Display for Intensity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1.as_secs())
    }
}

pub(super) fn intensity(text: &str) -> Result<Intensity, String> {
    let cause = "is not N/SECONDS, two whole numbers (example: 5/10)";
    let (count, seconds) = text.split_once('/').ok_or(cause)?;
    let count = number(count, 0, u32::MAX).map_err(|_| cause)?;
    let seconds = number(seconds, 0, u32::MAX).map_err(|_| cause)?;
    match Duration::from_secs(seconds.into()) {
        Duration::ZERO => Err("has a period of 0 seconds; the minimum is 1".into()),
        period if period > MAX_DURATION => {
            Err("has a period longer than one year, the maximum".into())
        }
        period => Ok(Intensity(count, period)),
    }
}

pub(super) fn policy(text: &str) -> Result<Policy, String> {
    named(text, Policy::ALL, Policy::name).ok_or_else(|| match text {
        "least-connections" | "kernel" | "reuseport" => "is not available yet".into(),
        _ => "is neither round-robin nor shared".into(),
    })
}

pub(super) fn overflow(text: &str) -> Result<Overflow, String> {
    named(text, Overflow::ALL, Overflow::name).ok_or_else(|| "is neither wait nor refuse".into())
}

pub(super) fn respawn(text: &str) -> Result<Respawn, String> {
    named(text, Respawn::ALL, Respawn::name)
        .ok_or_else(|| "is not one of always, on-failure, never".into())
}

/// The value with this name.
fn named<T: Copy, const N: usize>(
    text: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Option<T> {
    all.into_iter().find(|one| name(*one) == text)
}

/// The message or signal that a leaving Node worker gets instead of `disconnect`. Signals may be
/// written as in kill(1).
pub(super) fn stop_signal(text: &str) -> Result<StopSignal, String> {
    let bare = text.strip_prefix("SIG").unwrap_or(text);
    Ok(StopSignal::Signal(match bare {
        "TERM" => Signal::Term,
        "INT" => Signal::Interrupt,
        "HUP" => Signal::Hangup,
        "USR2" => Signal::User2,
        _ if text == "message" => return Ok(StopSignal::Message),
        _ => return Err("is not one of TERM, INT, HUP, USR2, message".into()),
    }))
}

pub(super) fn log_format(text: &str) -> Result<Format, String> {
    named(text, Format::ALL, Format::name)
        .ok_or_else(|| "is not one of raw, prefix and json".into())
}

/// The number of slots in a batch of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch(pub(super) u32);

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == *limits::reload_batch().end() { f.write_str("all") } else { self.0.fmt(f) }
    }
}

pub(super) fn batch(text: &str) -> Result<Batch, String> {
    if text == "all" {
        return Ok(Batch(*limits::reload_batch().end()));
    }
    within(text, limits::reload_batch()).map(Batch).map_err(|cause| {
        format!("is neither all nor {}", cause.strip_prefix("is not ").unwrap_or(&cause))
    })
}

/// How many workers must be ready; zero allows a reload to end them all first.
pub(super) fn count(text: &str) -> Result<u32, String> {
    number(text, 0, *limits::workers().end())
}

pub(super) fn max_generations(text: &str) -> Result<u32, String> {
    within(text, limits::max_generations())
}

pub(super) fn positive(text: &str) -> Result<NonZeroU64, String> {
    let count = number(text, 1, u32::MAX)?;
    NonZeroU64::new(count.into()).ok_or_else(|| "must be greater than zero".into())
}

pub(super) fn jitter(text: &str) -> Result<u64, String> {
    number(text, 0, u32::MAX).map(u64::from)
}

/// A size that is not zero.
pub(super) fn memory(text: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(size(text)?).ok_or_else(|| "must be greater than zero".into())
}

/// How many workers: this number, or so many more or fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    To(u32),
    By(i32),
}

pub(super) fn scale(text: &str) -> Result<Scale, String> {
    let wrong = |_: String| {
        let (least, most) = limits::workers().into_inner();
        format!("is not a number from {least} to {most}, or one with + or - before it")
    };
    let most = *limits::workers().end();
    let step = |digits| number(digits, 1, most).map(u32::cast_signed).map_err(wrong);
    match text.split_at_checked(1) {
        Some(("+", digits)) => step(digits).map(Scale::By),
        Some(("-", digits)) => step(digits).map(|by| Scale::By(-by)),
        _ => within(text, limits::workers()).map(Scale::To).map_err(wrong),
    }
}

/// A user of this machine; the text is kept, since a user's groups go by the name.
pub(super) fn user(text: &str) -> Result<String, String> {
    user::user(text).map(|_| text.to_owned())
}

/// A group of this machine, likewise.
pub(super) fn group(text: &str) -> Result<String, String> {
    user::group(text).map(|_| text.to_owned())
}

/// The number of a slot, from 0.
pub(super) fn slot(text: &str) -> Result<u32, String> {
    number(text, 0, limits::workers().end() - 1)
}

pub(super) fn codec(text: &str) -> Result<ForcedCodec, String> {
    match text {
        "auto" => Ok(ForcedCodec(None)),
        "native" => Ok(ForcedCodec(Some(Codec::Native))),
        "node" => Ok(ForcedCodec(Some(Codec::Node))),
        _ => Err("is not one of auto, native, node".into()),
    }
}

/// The codec to force; `None` is `auto`. Wrapped, because clap reads an `Option` as an option that
/// may be absent.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForcedCodec(pub(super) Option<Codec>);

/// Where the event log goes.
pub(super) fn events(path: PathBuf) -> Target {
    if path.as_os_str() == "-" { Target::Stdout } else { Target::Path(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let millis = |text| any_duration(text).map(|duration| duration.as_millis());
        assert_eq!(millis("500ms"), Ok(500));
        assert_eq!(millis("10s"), Ok(10_000));
        assert_eq!(millis("2m"), Ok(120_000));
        assert_eq!(millis("1h"), Ok(3_600_000));
        assert_eq!(millis("0"), Ok(0));
        assert_eq!(millis("8760h"), Ok(31_536_000_000));
        for bad in ["", "s", "-1s", "+1s", "1.5s", "1d", "10 s", " 1s", "1S", "1ms2", "٣s"] {
            let cause = millis(bad).unwrap_err();
            assert!(cause.starts_with("is not a duration"), "{bad:?}: {cause}");
        }
        assert!(millis("10").unwrap_err().starts_with("has no unit"));
        for long in ["8761h", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(millis(long).unwrap_err(), "is longer than one year, the maximum", "{long}");
        }
    }

    #[test]
    fn zero_is_never_or_refused() {
        assert_eq!(duration("0").unwrap().or_never(), None);
        assert_eq!(duration("0s").unwrap().or_never(), None);
        assert_eq!(duration("1ms").unwrap().or_never(), Some(Duration::from_millis(1)));
        assert_eq!(nonzero_duration("0"), Err("must be greater than zero".into()));
        assert_eq!(nonzero_duration("0h"), Err("must be greater than zero".into()));
        assert_eq!(nonzero_duration("1s"), Ok(Span(Duration::from_secs(1))));
    }

    #[test]
    fn durations_are_shown_as_they_are_written() {
        for text in ["500ms", "1500ms", "10s", "0s"] {
            assert_eq!(duration(text).unwrap().to_string(), text);
        }
        assert_eq!(intensity("5/10").unwrap().to_string(), "5/10");
    }

    #[test]
    fn numbers() {
        assert_eq!(workers("1"), Ok(1));
        assert_eq!(workers("10000"), Ok(10_000));
        assert!(workers("auto").is_ok_and(|count| count >= 1));
        for bad in ["0", "10001", "-1", "+1", "", "1.0", "Auto", " 1", "99999999999"] {
            assert!(workers(bad).is_err(), "{bad:?}");
        }
        assert_eq!(window("1024"), Ok(1024));
        assert!(window("0").is_err() && window("1025").is_err());
        assert_eq!(max_pending("16777216"), Ok(1 << 24));
        assert!(max_pending("0").is_err() && max_pending("16777217").is_err());
    }

    #[test]
    fn intensities() {
        assert_eq!(intensity("5/10"), Ok(Intensity(5, Duration::from_secs(10))));
        assert_eq!(intensity("0/1"), Ok(Intensity(0, Duration::from_secs(1))));
        for bad in ["", "5", "5/", "/10", "5/10s", "a/b", "5/10/2", "-1/2", "5 / 10"] {
            assert!(intensity(bad).unwrap_err().starts_with("is not N/SECONDS"), "{bad:?}");
        }
        assert!(intensity("5/0").unwrap_err().contains("0 seconds"));
        assert!(intensity("5/4294967295").unwrap_err().contains("one year"));
    }

    #[test]
    fn sizes() {
        assert_eq!(size("1KiB"), Ok(1_024));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1024GiB"), Ok(1 << 40));
        for bad in ["", "1", "KiB", "1kB", "1 MiB", "-1MiB", "1.5GiB", "99999999999999999999GiB"] {
            assert!(size(bad).unwrap_err().starts_with("is not a size"), "{bad:?}");
        }
        for bad in ["0KiB", "1025GiB", "18446744073709551615GiB"] {
            assert!(size(bad).unwrap_err().contains("between"), "{bad:?}");
        }
    }

    #[test]
    fn words() {
        assert_eq!(policy("round-robin"), Ok(Policy::RoundRobin));
        assert_eq!(policy("shared"), Ok(Policy::Shared));
        for later in ["least-connections", "kernel", "reuseport"] {
            assert_eq!(policy(later), Err("is not available yet".into()));
        }
        assert!(policy("rr").unwrap_err().contains("neither"));
        assert_eq!(overflow("wait"), Ok(Overflow::Wait));
        assert_eq!(overflow("refuse"), Ok(Overflow::Refuse));
        assert!(overflow("drop").is_err());
        assert_eq!(respawn("always"), Ok(Respawn::Always));
        assert_eq!(respawn("on-failure"), Ok(Respawn::OnFailure));
        assert_eq!(respawn("never"), Ok(Respawn::Never));
        assert!(respawn("").is_err());
        assert_eq!(codec("auto").unwrap().0, None);
        assert_eq!(codec("native").unwrap().0, Some(Codec::Native));
        assert_eq!(codec("node").unwrap().0, Some(Codec::Node));
        assert!(codec("json").unwrap_err().starts_with("is not one of"));
        assert_eq!(log_format("json"), Ok(Format::Json));
        assert!(log_format("JSON").unwrap_err().starts_with("is not one of"));
        assert_eq!(slot("0"), Ok(0));
        assert!(slot("-1").is_err() && slot("10000").is_err() && slot("").is_err());
    }
}
