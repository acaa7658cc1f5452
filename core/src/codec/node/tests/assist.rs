//! What a worker with the preload of `--node-assist` says.

use super::*;
use crate::Signal;

#[test]
fn reports_are_messages() {
    let mut side = Side::new(1 << 20);
    let mut says = |fields: &str| {
        let line = format!(r#"{{"cmd":"NODE_CLUSTER",{fields}}}"#);
        hear(&mut side, &line, None)
    };
    let one = |msg| [PrimaryEvent::Message(msg)];
    let load = |open| one(FromWorker::Load { open });
    assert_eq!(says(r#""act":"load","data":3"#), load(3));
    assert_eq!(says(r#""act":"load","data":1e12"#), load(u32::MAX));
    assert_eq!(says(r#""act":"lag","data":20"#), one(FromWorker::Lag { millis: 20 }));
    let stop = |signal| one(FromWorker::StopSignal { signal });
    assert_eq!(says(r#""act":"stopSignal","data":"SIGTERM""#), stop(Some(Signal::Term)));
    assert_eq!(says(r#""act":"stopSignal","data":"SIGINT""#), stop(Some(Signal::Interrupt)));
    for other in ["null", "\"SIGKILL\"", "15", "{}"] {
        assert_eq!(says(&format!(r#""act":"stopSignal","data":{other}"#)), stop(None), "{other}");
    }
}

#[test]
fn numbers_that_count_nothing_are_strays() {
    let mut side = Side::new(1 << 20);
    for fields in [
        r#""act":"load""#,
        r#""act":"load","data":-1"#,
        r#""act":"load","data":"x""#,
        r#""act":"lag","data":{}"#,
        r#""act":"stopSignal""#,
    ] {
        let line = format!(r#"{{"cmd":"NODE_CLUSTER",{fields}}}"#);
        assert_eq!(hear(&mut side, &line, None), [PrimaryEvent::Stray], "{line}");
    }
}
