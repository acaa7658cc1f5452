use alloc::string::{String, ToString};

use super::*;

/// Makes a choice.
type Choose<T> = fn(ConfigBuilder, T) -> ConfigBuilder;

fn built(change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Result<Config, ConfigError> {
    change(Config::builder()).build()
}

/// The default configuration with another value in one field, as it comes out of JSON.
fn read(field: &str, value: serde_json::Value) -> Result<Config, String> {
    let mut json = serde_json::to_value(Config::default()).unwrap();
    *json.get_mut(field).unwrap() = value;
    serde_json::from_value(json).map_err(|error| error.to_string())
}

#[test]
fn the_defaults_are_valid() {
    assert_eq!(Config::builder().build(), Ok(Config::default()));
    assert_eq!(serde_json::from_str("{}").ok(), Some(Config::default()));
}

/// Numbers at, below and above their bounds, from the builder and deserialized.
#[test]
fn numbers_are_within_their_bounds() {
    macro_rules! check {
        ($($name:ident: $type:ty, $min:expr, $max:expr;)*) => {$({
            let field = stringify!($name);
            let (min, max): ($type, $type) = (limits::$name().into_inner());
            assert_eq!((min, max), ($min, $max), "{field}");
            for good in [min, max] {
                let config = built(|b| b.$name(good)).unwrap();
                assert_eq!(config.$name(), good, "{field}");
                assert_eq!(read(field, good.into()), Ok(config), "{field}");
            }
            for bad in [min.checked_sub(1), max.checked_add(1)].into_iter().flatten() {
                let (value, min, max) = (bad.into(), min.into(), max.into());
                let error = ConfigError::OutOfBounds { field, value, min, max };
                assert_eq!(read(field, bad.into()), Err(error.to_string()));
                assert_eq!(built(|b| b.$name(bad)), Err(error));
            }
        })*};
    }
    check! {
        workers: u32, 1, 10_000;
        window: u32, 1, 1_024;
        node_window: u32, 1, 1_024;
        max_pending: u32, 1, 1 << 24;
        max_held: u32, 1, u32::MAX;
        max_attempts: u8, 1, u8::MAX;
        max_listeners: u32, 1, 1_024;
        max_listeners_per_worker: u32, 1, 1_024;
        max_frame: u32, 1_024, 1 << 24;
        max_line: u32, 1_024, 1 << 26;
    }
    assert!(read("workers", 4_000_000_000_u32.into()).is_err());
}

#[test]
fn spans_are_longer_than_zero() {
    let spans: [(&'static str, Choose<Duration>); 11] = [
        ("ack_timeout", |b, span| b.ack_timeout(Some(span))),
        ("ready_timeout", |b, span| b.ready_timeout(Some(span))),
        ("linger", |b, span| b.linger(Some(span))),
        ("drain_timeout", |b, span| b.drain_timeout(span)),
        ("silent_after", |b, span| b.silent_after(span)),
        ("restart_period", |b, span| b.restart_period(span)),
        ("respawn_delay", |b, span| b.respawn_delay(span).respawn_delay_max(Duration::MAX)),
        ("cooldown", |b, span| b.cooldown(span).cooldown_max(Duration::MAX)),
        ("unheld_timeout", |b, span| b.unheld_timeout(span)),
        ("frame_timeout", |b, span| b.frame_timeout(span)),
        ("shutdown_read_timeout", |b, span| b.shutdown_read_timeout(span)),
    ];
    for (field, with) in spans {
        for good in [Duration::from_nanos(1), Duration::MAX] {
            assert!(built(|b| with(b, good)).is_ok(), "{field}");
        }
        let error = ConfigError::Zero { field };
        let zero = serde_json::to_value(Duration::ZERO).unwrap();
        assert_eq!(read(field, zero), Err(error.to_string()));
        assert_eq!(built(|b| with(b, Duration::ZERO)), Err(error));
    }
    assert!(built(|b| b.ack_timeout(None).ready_timeout(None).linger(None)).is_ok());
    assert!(read("linger", serde_json::Value::Null).is_ok());
}

#[test]
fn maxima_are_not_below_their_start() {
    let span = Duration::from_secs;
    for (low, high, good) in [(2, 2, true), (2, 3, true), (3, 2, false)] {
        let cooldown = built(|b| b.cooldown(span(low)).cooldown_max(span(high)));
        let delay = built(|b| b.respawn_delay(span(low)).respawn_delay_max(span(high)));
        assert_eq!((cooldown.is_ok(), delay.is_ok()), (good, good), "{low}, {high}");
    }
    let nothing = serde_json::to_value(Duration::ZERO).unwrap();
    assert!(read("cooldown_max", nothing.clone()).is_err());
    assert!(read("respawn_delay_max", nothing).is_err());
}

#[test]
fn listeners_of_the_operator_are_few_and_name_addresses() {
    let key = |port| ListenKey::stream(Address::Any { port });
    let two = || (80..82).map(key).collect::<Vec<_>>();
    assert!(built(|b| b.max_listeners(2).listeners(two())).is_ok());
    let error = ConfigError::OutOfBounds { field: "listeners", value: 2, min: 0, max: 1 };
    assert_eq!(built(|b| b.max_listeners(1).listeners(two())), Err(error));
    let nth = ListenKey::stream(Address::Nth(0));
    let error = ConfigError::NthListener { nth: 1 };
    let read = read("listeners", serde_json::to_value([key(80), nth.clone()]).unwrap());
    assert_eq!(read, Err(error.to_string()));
    assert_eq!(built(|b| b.listeners([key(80), nth].into())), Err(error));
}

#[test]
fn a_field_that_does_not_exist_is_an_error() {
    let error = serde_json::from_str::<Config>(r#"{"worker": 2}"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `worker`"), "{error}");
}

#[test]
fn policies_have_the_names_of_the_command_line() {
    assert_eq!((Policy::RoundRobin.name(), Policy::Shared.name()), ("round-robin", "shared"));
}
