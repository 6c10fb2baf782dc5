#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn queue(queues: usize, hand: usize, length: usize) -> Shape {
    Shape::Queue(Queuing {
        queues,
        hand,
        length,
    })
}

fn request(ticket: Ticket, seats: usize, hash: u64) -> Arrival {
    Arrival {
        ticket,
        seats,
        hash,
        schema: "s".into(),
        distinguisher: String::new(),
        description: Description::default(),
    }
}

#[test]
fn without_queues_there_is_a_seat_or_there_is_none() {
    let mut set = QueueSet::new(0.0, Shape::Reject, 2);
    assert_eq!(set.arrive(0.0, request(1, 1, 0)), Ok(vec![1]));
    assert_eq!(
        set.arrive(0.0, request(2, 2, 0)),
        Err(Refusal::ConcurrencyLimit)
    );
    assert_eq!(set.arrive(0.0, request(3, 1, 0)), Ok(vec![3]));
    set.leave(1.0, 1);
    set.leave(1.0, 3);
    // One that is wider than the level is served alone.
    assert_eq!(set.arrive(1.0, request(4, 5, 0)), Ok(vec![4]));
    assert_eq!(
        set.arrive(1.0, request(5, 1, 0)),
        Err(Refusal::ConcurrencyLimit)
    );
    let mut exempt = QueueSet::new(0.0, Shape::Exempt, 0);
    for ticket in 0..100 {
        assert_eq!(exempt.arrive(0.0, request(ticket, 10, 0)), Ok(vec![ticket]));
    }
}

#[test]
fn a_full_queue_refuses_and_one_that_leaves_makes_room() {
    let mut set = QueueSet::new(0.0, queue(1, 1, 2), 1);
    assert_eq!(set.arrive(0.0, request(1, 1, 0)), Ok(vec![1]));
    assert_eq!(set.arrive(0.0, request(2, 1, 0)), Ok(vec![]));
    assert_eq!(set.arrive(0.0, request(3, 1, 0)), Ok(vec![]));
    assert_eq!(set.arrive(0.0, request(4, 1, 0)), Err(Refusal::QueueFull));
    // One that waits leaves: nothing begins.
    assert_eq!(set.leave(0.1, 2), Vec::<Ticket>::new());
    assert_eq!(set.queue_length_of(3), Some(1));
    assert_eq!(set.leave(0.2, 1), vec![3]);
    assert_eq!(set.leave(0.3, 3), Vec::<Ticket>::new());
    assert!(set.is_idle());
}

#[test]
fn a_queue_is_bounded_behind_one_that_is_too_wide_for_the_free_seats() {
    let mut set = QueueSet::new(0.0, queue(1, 1, 3), 5);
    assert_eq!(set.arrive(0.0, request(1, 1, 0)), Ok(vec![1]));
    assert_eq!(set.arrive(0.0, request(2, 5, 0)), Ok(vec![]));
    assert_eq!(set.arrive(0.0, request(3, 1, 0)), Ok(vec![]));
    assert_eq!(set.arrive(0.0, request(4, 1, 0)), Ok(vec![]));
    assert_eq!(set.arrive(0.0, request(5, 1, 0)), Err(Refusal::QueueFull));
    assert_eq!(set.leave(0.1, 1), vec![2]);
}

#[test]
fn a_flood_of_one_flow_does_not_hold_up_another() {
    // Two flows in queues of their own, one seat.
    let mut set = QueueSet::new(0.0, queue(2, 1, 1000), 1);
    set.arrive(0.0, request(0, 1, 0)).unwrap();
    for ticket in 1..500 {
        assert_eq!(set.arrive(0.0, request(ticket, 1, 0)), Ok(vec![]));
    }
    assert_eq!(set.arrive(0.0, request(1000, 1, 1)), Ok(vec![]));
    // It is next, or next but one.
    let next = set.leave(0.01, 0);
    let next = if next == [1000] {
        next
    } else {
        set.leave(0.02, next[0])
    };
    assert_eq!(next, [1000]);
}

#[test]
fn wide_requests_pay_for_their_width() {
    let mut set = QueueSet::new(0.0, queue(2, 1, 1000), 10);
    // Both flows have a backlog: one of requests that take all seats, one of narrow ones.
    let mut now = 0.0;
    let mut executing: BTreeSet<Ticket> = BTreeSet::new();
    for ticket in 0..400 {
        let (seats, hash) = if ticket % 2 == 0 { (10, 0) } else { (1, 1) };
        executing.extend(set.arrive(now, request(ticket, seats, hash)).unwrap());
    }
    let (mut wide, mut narrow) = (0.0, 0.0);
    while now < 0.4 {
        // What executes takes a hundredth of a second.
        now += 0.01;
        for ticket in std::mem::take(&mut executing) {
            if ticket % 2 == 0 {
                wide += 0.1;
            } else {
                narrow += 0.01;
            }
            executing.extend(set.leave(now, ticket));
        }
    }
    assert!(
        narrow > 0.5 * wide,
        "{narrow} of the narrow, {wide} of the wide"
    );
}

#[test]
fn a_change_of_the_configuration_keeps_who_is_there() {
    let mut set = QueueSet::new(0.0, queue(8, 1, 10), 1);
    let mut begun = BTreeSet::new();
    for ticket in 0..20 {
        begun.extend(set.arrive(0.0, request(ticket, 1, ticket)).unwrap());
    }
    assert_eq!(begun.len(), 1);
    begun.extend(set.configure(0.1, queue(2, 1, 10), 4));
    assert_eq!(begun.len(), 4);
    // Without queues new ones are refused, and those that waited are still served.
    begun.extend(set.configure(0.1, Shape::Reject, 4));
    assert_eq!(
        set.arrive(0.1, request(99, 1, 0)),
        Err(Refusal::ConcurrencyLimit)
    );
    let mut left = BTreeSet::new();
    while let Some(ticket) = begun.difference(&left).next().copied() {
        left.insert(ticket);
        begun.extend(set.leave(0.2, ticket));
    }
    assert_eq!(begun, (0..20).collect());
    assert!(set.is_idle() && set.queues().is_empty());
}

#[test]
fn queues_that_nobody_is_in_cost_nothing() {
    // As many as validation lets a level have.
    let mut set = QueueSet::new(0.0, queue(10_000_000, 2, 50), 3);
    let mut begun = Vec::new();
    for ticket in 0..2000_u64 {
        let hash = ticket.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        begun.extend(set.arrive(0.0, request(ticket, 1, hash)).unwrap());
        assert!(set.queues().len() <= ticket as usize + 1);
    }
    assert_eq!(begun, [0, 1, 2]);
    assert_eq!(set.waiting(), 1997);
    // Each takes its queue along, whether it waits or is served.
    for ticket in 0..2000 {
        set.leave(0.1, ticket);
    }
    assert!(set.is_idle() && set.queues().is_empty());
}

/// What happens to a queue set.
#[derive(Clone, Debug)]
enum Step {
    Arrive { seats: usize, flow: u64 },
    Leave(usize),
    Limit(usize),
    Queues(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1_usize..12, 0_u64..6).prop_map(|(seats, flow)| Step::Arrive { seats, flow }),
        4 => (0_usize..64).prop_map(Step::Leave),
        1 => (0_usize..20).prop_map(Step::Limit),
        1 => (1_usize..9).prop_map(Step::Queues),
    ]
}

proptest! {
    #[test]
    fn seats_are_neither_lost_nor_invented(
        steps in proptest::collection::vec(step(), 1..200),
        gaps in proptest::collection::vec(0.0_f64..0.05, 200),
    ) {
        let mut limit = 5;
        let mut shape = queue(4, 2, 6);
        let mut set = QueueSet::new(0.0, shape, limit);
        let mut now = 0.0;
        let (mut waiting, mut executing) = (BTreeMap::new(), BTreeMap::<Ticket, usize>::new());
        for (ticket, (step, gap)) in steps.into_iter().zip(gaps).enumerate() {
            let ticket = ticket as Ticket;
            now += gap;
            let before: usize = executing.values().sum();
            let mut shrunk = false;
            let begun = match step {
                Step::Arrive { seats, flow } => match set.arrive(now, request(ticket, seats, flow)) {
                    Ok(begun) => {
                        waiting.insert(ticket, seats);
                        begun
                    }
                    Err(refusal) => {
                        prop_assert_eq!(refusal, Refusal::QueueFull);
                        Vec::new()
                    }
                },
                Step::Leave(which) => {
                    let all: Vec<_> = waiting.keys().chain(executing.keys()).copied().collect();
                    if all.is_empty() {
                        continue;
                    }
                    let ticket = all[which % all.len()];
                    waiting.remove(&ticket);
                    executing.remove(&ticket);
                    set.leave(now, ticket)
                }
                Step::Limit(new) => {
                    shrunk = new < limit;
                    limit = new;
                    set.configure(now, shape, limit)
                }
                Step::Queues(queues) => {
                    shape = queue(queues, 2, 6);
                    set.configure(now, shape, limit)
                }
            };
            for ticket in &begun {
                let seats = waiting.remove(ticket);
                prop_assert!(seats.is_some(), "{} began twice or never came", ticket);
                executing.insert(*ticket, seats.unwrap());
            }
            let used: usize = executing.values().sum();
            prop_assert_eq!(set.seats_in_use(), used);
            prop_assert_eq!(set.waiting(), waiting.len());
            prop_assert_eq!(set.seats_waiting(), waiting.values().sum::<usize>());
            // Nothing begins beyond the limit, but one that is too wide and alone.
            prop_assert!(begun.is_empty() || used <= limit || executing.len() == 1, "{} of {}", used, limit);
            prop_assert!(shrunk || used <= limit || used <= before || executing.len() == 1);
            // Nobody waits while nothing is served.
            prop_assert!(limit == 0 || !executing.is_empty() || waiting.is_empty());
        }
        for ticket in set.configure(now, shape, 5) {
            executing.insert(ticket, waiting.remove(&ticket).unwrap());
        }
        // Whoever waits is served when those before have left.
        while let Some((ticket, _)) = executing.pop_first() {
            now += 0.001;
            for ticket in set.leave(now, ticket) {
                executing.insert(ticket, waiting.remove(&ticket).unwrap());
            }
        }
        prop_assert!(waiting.is_empty());
        prop_assert!(set.is_idle());
    }

    #[test]
    fn two_flows_with_a_backlog_get_the_same(
        durations in proptest::collection::vec(0.001_f64..0.05, 2..6),
        widths in (1_usize..5, 1_usize..5),
    ) {
        let limit = 8;
        let mut set = QueueSet::new(0.0, queue(2, 1, 10_000), limit);
        let width = |flow: u64| if flow == 0 { widths.0 } else { widths.1 };
        let mut executing: Vec<(f64, Ticket)> = Vec::new();
        let mut served = [0.0, 0.0];
        let mut now = 0.0;
        let duration = |ticket: Ticket| durations[ticket as usize % durations.len()];
        for ticket in 0..4000_u64 {
            let flow = ticket % 2;
            for begun in set.arrive(now, request(ticket, width(flow), flow)).unwrap() {
                executing.push((now + duration(begun / 2), begun));
            }
        }
        while now < 3.0 {
            executing.sort_by(|a, b| b.0.total_cmp(&a.0));
            let Some((end, ticket)) = executing.pop() else { break };
            // As long as both have a backlog.
            if set.queues().values().any(|queue| queue.waiting.len() < 20) { break }
            now = end;
            served[(ticket % 2) as usize] += duration(ticket / 2) * width(ticket % 2) as f64;
            for begun in set.leave(now, ticket) {
                executing.push((now + duration(begun / 2), begun));
            }
        }
        // A few requests more or less.
        let slack = 0.05 * 5.0 * limit as f64;
        prop_assert!((served[0] - served[1]).abs() <= slack, "{:?}", served);
    }
}
