use super::*;

/// Chooses a number for a field.
type Choose = fn(ConfigBuilder, u64) -> ConfigBuilder;
/// Makes a choice that is none.
type Spoil = fn(ConfigBuilder) -> ConfigBuilder;

fn built(change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Result<Config, ConfigError> {
    change(Config::builder()).build()
}

#[test]
fn bounds_belong_to_what_is_allowed() {
    let bounds: [(&str, u64, u64, Choose); 9] = [
        ("workers", 1, 10_000, |b, n| b.workers(n as u32)),
        ("window", 1, 1_024, |b, n| b.window(n as u32)),
        ("node_window", 1, 1_024, |b, n| b.node_window(n as u32)),
        ("max_line", 1_024, 1 << 26, |b, n| b.max_line(n as u32)),
        ("max_pending", 1, 1 << 24, |b, n| b.max_pending(n as u32)),
        ("max_held", 1, u64::from(u32::MAX), |b, n| b.max_held(n as u32)),
        ("max_frame", 1_024, 1 << 24, |b, n| b.max_frame(n as u32)),
        ("max_listeners", 1, 1_024, |b, n| b.max_listeners(n as u32)),
        ("max_listeners_per_worker", 1, 1_024, |b, n| b.max_listeners_per_worker(n as u32)),
    ];
    for (field, min, max, with) in bounds {
        for good in [min, max] {
            assert!(built(|b| with(b, good)).is_ok(), "{field} {good}");
        }
        let too_large = if max == u64::from(u32::MAX) { None } else { Some(max + 1) };
        for value in [Some(min - 1), too_large].into_iter().flatten() {
            let error = ConfigError::OutOfBounds { field, value, min, max };
            assert_eq!(built(|b| with(b, value)), Err(error));
        }
    }
    assert!(built(|b| b.max_attempts(0)).is_err());
    assert!(built(|b| b.max_attempts(u8::MAX)).is_ok());
}

#[test]
fn spans_are_longer_than_zero_and_in_order() {
    let span = Duration::from_secs;
    let zero: [(&str, Spoil); 8] = [
        ("drain_timeout", |b| b.drain_timeout(Duration::ZERO)),
        ("restart_period", |b| b.restart_period(Duration::ZERO)),
        ("respawn_delay", |b| b.respawn_delay(Duration::ZERO)),
        ("cooldown", |b| b.cooldown(Duration::ZERO)),
        ("frame_timeout", |b| b.frame_timeout(Duration::ZERO)),
        ("silent_after", |b| b.silent_after(Duration::ZERO)),
        ("ack_timeout", |b| b.ack_timeout(Some(Duration::ZERO))),
        ("ready_timeout", |b| b.ready_timeout(Some(Duration::ZERO))),
    ];
    for (field, with) in zero {
        assert_eq!(built(with), Err(ConfigError::Zero { field }));
    }
    assert!(built(|b| b.ack_timeout(None).ready_timeout(None)).is_ok());
    for (low, high, good) in [(2, 2, true), (2, 3, true), (3, 2, false)] {
        let cooldown = built(|b| b.cooldown(span(low)).cooldown_max(span(high)));
        let delay = built(|b| b.respawn_delay(span(low)).respawn_delay_max(span(high)));
        assert_eq!((cooldown.is_ok(), delay.is_ok()), (good, good), "{low}, {high}");
    }
}

#[test]
fn listeners_of_the_operator_are_few_and_name_addresses() {
    let key = |port| ListenKey::stream(Address::Any { port });
    let two = || (80..82).map(key).collect();
    assert!(built(|b| b.max_listeners(2).listeners(two())).is_ok());
    let error = ConfigError::OutOfBounds { field: "listeners", value: 2, min: 0, max: 1 };
    assert_eq!(built(|b| b.max_listeners(1).listeners(two())), Err(error));
    let nth = ListenKey::stream(Address::Nth(0));
    let error = ConfigError::NthListener { nth: 1 };
    assert_eq!(built(|b| b.listeners([key(80), nth].into())), Err(error));
}

#[test]
fn policies_have_the_names_of_the_command_line() {
    assert_eq!((Policy::RoundRobin.name(), Policy::Shared.name()), ("round-robin", "shared"));
}
