use super::*;

/// `AT EVENT FIELD=NUMBER...`, a line each.
fn log(text: &str) -> Vec<Value> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let mut words = line.split(' ');
            let at: u64 = words.next().unwrap().parse().unwrap();
            let mut event = serde_json::json!({"at_ms": at, "event": words.next().unwrap()});
            for word in words {
                let (name, number) = word.split_once('=').unwrap();
                event[name] = number.parse::<u64>().unwrap().into();
            }
            event
        })
        .collect()
}

fn judged(text: &str) -> String {
    faults(&log(text), Duration::from_millis(100)).join("\n")
}

const START: &str = "
    0 spawned worker=1 slot=0 generation=1
    0 spawned worker=2 slot=1 generation=1
    10 ready worker=1
    10 ready worker=2
    20 reload_started generation=2 slots=2
    20 spawned worker=3 slot=0 generation=2
    30 ready worker=3
";

const FIRST: &str = "
    130 reload_progress generation=2 done=1
    130 settling worker=1
    130 spawned worker=4 slot=1 generation=2
    140 ready worker=4
";

#[test]
fn a_reload_as_it_should_be_has_no_fault() {
    let text = format!(
        "{START} 40 handed_off worker=1 conn=1
        {FIRST} 135 handed_off worker=3 conn=2
        240 reload_progress generation=2 done=2
        240 reload_done generation=2
        240 settling worker=2
        1240 draining worker=1
        1250 exited worker=1
        1300 exited worker=3
        1300 spawned worker=5 slot=0 generation=2
        2000 stopping
        2000 settling worker=4"
    );
    assert_eq!(judged(&text), "");
}

#[test]
fn a_new_worker_that_does_not_count_gets_nothing() {
    let text = format!("{START} 40 handed_off worker=3 conn=1 {FIRST}");
    assert!(judged(&text).contains("worker 3 does not count, and gets a connection"));
}

#[test]
fn an_old_worker_stays_until_the_new_one_counts() {
    let text = format!("{START} 40 settling worker=1");
    assert!(judged(&text).contains("worker 1 is told to leave, and nobody has its place"));
    let text = format!("{START} 40 reload_failed generation=2\n 40 draining worker=2");
    assert!(judged(&text).contains("worker 2 is told to leave, and nobody has its place"));
}

#[test]
fn a_worker_counts_when_it_was_ready_for_long_enough() {
    let text = format!("{START} 128 reload_progress generation=2 done=1");
    assert!(judged(&text).contains("worker 3 counts in slot 0, ready since Some(30)"));
    let text = format!("{START} 50 killing worker=3 {FIRST}");
    assert!(judged(&text).contains("worker 3 counts in slot 0, ready since None"));
}

#[test]
fn a_batch_is_replaced_as_a_whole() {
    let text = format!("{START} 130 reload_progress generation=2 done=2");
    assert!(judged(&text).contains("a batch of 2 has 1 new workers"));
    let text = format!("{START} 40 exited worker=3 {FIRST}");
    assert!(judged(&text).contains("a batch counts although its worker 3 has ended"));
    let text = format!("{START} {FIRST} 150 reload_done generation=2");
    assert!(judged(&text).contains("reload 2 is done after 1 of 2"));
}

#[test]
fn a_dead_worker_is_followed_by_one_of_its_slots_generation() {
    let dies = "150 exited worker=2\n 150 spawned worker=5 slot=1 generation";
    assert!(!judged(&format!("{START} {FIRST} {dies}=1")).contains("worker 5"));
    let dies = "150 exited worker=3\n 150 spawned worker=5 slot=0 generation";
    assert!(judged(&format!("{START} {FIRST} {dies}=1")).contains("in slot 0: its own is 2"));
    assert!(!judged(&format!("{START} {FIRST} {dies}=2")).contains("worker 5"));
    let twice = "150 spawned worker=5 slot=1 generation";
    assert!(judged(&format!("{START} {FIRST} {twice}=2")).contains("it has a new worker, 4"));
    assert!(judged(&format!("{START} {FIRST} {twice}=1")).contains("it has worker 2"));
}

#[test]
fn a_reload_that_failed_leaves_nothing_behind() {
    let failed = format!("{START} 50 reload_failed generation=2");
    assert!(judged(&failed).contains("worker 3 stays, and its reload 2 has failed"));
    assert_eq!(judged(&format!("{failed}\n 50 draining worker=3\n 60 exited worker=3")), "");
    let used = format!("{failed}\n 50 draining worker=3\n 55 handed_off worker=3 conn=1");
    assert!(judged(&used).contains("worker 3 does not count"));
}

#[test]
fn one_reload_runs_at_a_time_and_each_has_an_end() {
    assert!(judged(START).contains("reload 2 has no end"));
    let text = format!("{START} 40 reload_started generation=3 slots=2");
    assert!(judged(&text).contains("reload 3 starts within reload 2"));
    assert!(judged(&format!("{START} 40 reload_done generation=3")).contains("is not under way"));
    assert_eq!(judged("0 events_dropped count=1"), "at 0 ms: events are missing");
}

#[test]
fn fewer_workers_are_no_fault() {
    let text = "
        0 spawned worker=1 slot=0 generation=1
        0 spawned worker=2 slot=1 generation=1
        10 scaled from=2 to=1
        10 settling worker=2";
    assert_eq!(judged(text), "");
    assert!(judged(&text.replace("settling worker=2", "settling worker=1")).contains("worker 1"));
}

#[test]
fn a_connection_that_nobody_accepts_is_told() {
    let text = "
        0 handed_off worker=1 conn=1
        0 handed_off worker=1 conn=2
        0 handed_off worker=1 conn=3
        5 accepted worker=1 conn=1
        6 refused conn=2";
    assert_eq!(unanswered(&log(text)), BTreeSet::from([3]));
}
