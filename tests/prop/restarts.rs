//! Guarantee 9: early failures are restarted ever later, and then no more; all others at once;
//! never more than twice the wanted number of processes.

use std::time::Duration;

use roundel_core::{
    Codec, Config, Event, ExitStatus, FromWorker, Input, Life, ListenerId, Output, Primary, Seq,
    SockName, Time, Verdict, WorkerId,
};
use roundel_tests::faults::fault::Property;
use roundel_tests::faults::mutants::Mutant;
use roundel_tests::sim::Sim;
use roundel_tests::sim::ops::{Mix, Op};
use roundel_tests::sim::plan::{Codecs, Plan, World, key};

use crate::support::{catches, holds, small_plan};

#[test]
fn restarts_are_bounded() {
    holds(&[Property::Restarts], Mix { stops: false, ..Mix::ALL }, 250);
}

#[test]
fn a_respawn_without_its_delay_is_noticed() {
    catches(Property::Restarts, Mutant::HurryRespawn, Mix::ALL);
}

#[test]
fn blame_for_want_of_resources_is_noticed() {
    catches(Property::Restarts, Mutant::BlameProgram, Mix { stops: false, ..Mix::ALL });
}

/// However long it lasts, before the first worker and after.
#[test]
fn want_of_resources_counts_for_nothing() {
    for first in [true, false] {
        let mut ops = Vec::new();
        if !first {
            ops.extend([Op::Todo, Op::Round, Op::Exit(0, 1), Op::Pull(0)]);
        }
        ops.extend([Op::StarveSpawns(60), Op::Reap]);
        ops.extend([Op::Todo, Op::Pass(20_000)].repeat(3));
        let starved = Sim::after(&small_plan(1, ops.clone()), Time::from_millis(5), None);
        assert_eq!(starved.stopped, None);
        assert!(starved.faults.is_empty(), "{:?}", starved.faults);
        assert_eq!(starved.core.core.workers().filter(|it| it.life == Life::Ready).count(), 0);
        // Within a second of the end of the want, it is there.
        ops.extend([Op::Pass(10_000), Op::Round, Op::Round]);
        let sim = Sim::after(&small_plan(1, ops), Time::from_millis(5), None);
        let workers: Vec<_> = sim.core.core.workers().collect();
        assert!(matches!(&workers[..], [one] if one.life == Life::Ready), "{workers:?}");
        assert_eq!(workers[0].restarts, u64::from(!first), "tries are no restarts");
        assert!(sim.faults.is_empty(), "{:?}", sim.faults);
    }
}

#[test]
fn a_program_that_ends_at_once_is_given_up() {
    let mut ops = vec![Op::Mute(true)];
    for _ in 0..8 {
        ops.extend([Op::Todo, Op::Exit(0, 1), Op::Pass(4_000)]);
    }
    let sim = Sim::after(&small_plan(1, ops), Time::from_millis(5), None);
    // Waits of 0.1 to 1.6 s do not reach over the ten seconds that the budget looks back, but the
    // passes of 4 s do: six failures never lie within ten seconds.
    assert_eq!(sim.stopped, None);
    let mut ops = vec![Op::Mute(true)];
    for delay in [100, 200, 400, 800, 1_600, 10] {
        ops.extend([Op::Todo, Op::Exit(0, 1), Op::Pass(delay)]);
    }
    let sim = Sim::after(&small_plan(1, ops), Time::from_millis(5), None);
    assert_eq!(sim.stopped, Some(Verdict::CrashLoop));
    assert!(sim.faults.is_empty(), "{:?}", sim.faults);
}

#[test]
fn a_slot_that_waits_for_its_respawn_counts_as_a_process() {
    let serve = [Op::Connect(0, 2), Op::Accept(0, 2), Op::Round];
    let mut ops = vec![Op::Round, Op::Round];
    ops.extend(serve);
    // Two replacements beside two that are failing: as many as there may be.
    ops.extend([Op::Suicide(0), Op::Suicide(1), Op::Pull(0), Op::Pull(1), Op::Round, Op::Round]);
    // The first replacement ends at once, and its slot waits; the other one works, and then fails.
    ops.extend([Op::Exit(2, 1), Op::Pull(2), Op::Reap]);
    ops.extend(serve);
    ops.extend([Op::Suicide(2), Op::Pull(2), Op::Round, Op::Pass(150), Op::Round]);
    let sim = Sim::after(&small_plan(2, ops), Time::from_millis(5), None);
    let many: Vec<_> = sim.broken(Property::Restarts);
    assert!(many.is_empty(), "{many:?}");
    // Everybody who is wanted comes in the end.
    assert_eq!(sim.core.core.workers().filter(|worker| worker.life == Life::Ready).count(), 2);
}

/// Where workers accept for themselves, a suicide in the first second is taken at its word as long
/// as the budget lasts: also when its process takes its time to end.
#[test]
fn one_that_fails_early_and_ends_late_does_not_stretch_the_budget() {
    let config = Config::builder()
        .pass_listeners(true)
        .listeners(vec![key(80)])
        .restart_intensity(1)
        .build()
        .unwrap();
    let mut primary = Primary::new(config);
    let mut now = Time::from_millis(5);
    let mut started = Vec::new();
    let mut settle = |primary: &mut Primary, now: Time| {
        while let Some(output) = primary.poll_output() {
            match output {
                Output::Bind { listener, .. } => {
                    let sockname = SockName::Ip("127.0.0.1:80".parse().unwrap());
                    let bound = Input::Bound { listener, result: Ok(sockname) };
                    primary.handle_input(now, bound).unwrap();
                }
                Output::Spawn { worker, .. } => started.push(worker),
                _ => {}
            }
        }
        (started.last().copied().unwrap(), started.len())
    };
    let (mut worker, ..) = settle(&mut primary, now);
    let mut fail = |primary: &mut Primary, now: Time, worker: WorkerId| {
        let listener = ListenerId::from_raw(1).unwrap();
        let say = |msg| Input::Message { worker, msg };
        for input in [
            Input::Spawned { worker, pid: 1 },
            Input::Hello { worker, codec: Codec::Node },
            say(FromWorker::Online),
            say(FromWorker::Listening { listener }),
            say(FromWorker::Suicide { seq: Seq::from_raw(1).unwrap() }),
        ] {
            primary.handle_input(now, input).unwrap();
        }
        settle(primary, now)
    };
    // The first one is replaced at once; the second is not, being the second within ten seconds.
    let (next, count) = fail(&mut primary, now, worker);
    assert_eq!(count, 2);
    (worker, now) = (next, now + Duration::from_millis(10));
    assert_eq!(fail(&mut primary, now, worker).1, 2);
    now += Duration::from_secs(3);
    for input in
        [Input::ChannelClosed { worker }, Input::Exited { worker, status: ExitStatus::Code(0) }]
    {
        primary.handle_input(now, input).unwrap();
    }
    let outputs: Vec<Output> = std::iter::from_fn(|| primary.poll_output()).collect();
    let spawns = outputs.iter().any(|output| matches!(output, Output::Spawn { .. }));
    let given_up = outputs
        .iter()
        .any(|output| matches!(output, Output::Event(Event::GivenUp { failures: 2, .. })));
    assert!(given_up && !spawns, "{outputs:?}");
}

/// It may be a server of its own, or hang about: but it has the place of one that would serve.
#[test]
fn a_node_worker_that_never_served_and_lives_on_without_its_channel_makes_room() {
    let mut ops = vec![Op::Todo, Op::CloseChannel(0), Op::Pull(0), Op::Pass(999)];
    let alone = Sim::after(&node_plan(ops.clone()), Time::from_millis(5), None);
    let first = alone.core.core.workers().next().map(|worker| (worker.id.get(), worker.life));
    assert_eq!(first, Some((1, Life::Leaving)), "it has a second to end by itself");
    // Killed then, its slot waits a tenth of a second.
    ops.extend([Op::Pass(1), Op::Reap, Op::Pass(100), Op::Round, Op::Round]);
    let sim = Sim::after(&node_plan(ops), Time::from_millis(5), None);
    let now = sim.core.core.workers().next().map(|worker| (worker.id.get(), worker.life));
    assert_eq!(now, Some((2, Life::Ready)));
    assert!(sim.faults.is_empty(), "{:?}", sim.faults);
}

/// One Node worker.
fn node_plan(ops: Vec<Op>) -> Plan {
    let plan = small_plan(1, ops);
    Plan { world: World { codecs: Codecs::Node, ..plan.world }, ..plan }
}
