use proptest::{collection::vec, prelude::*};

use super::*;

/// Plays answers, each after a delay, and gives why and when the stream ended, and when each question was asked and
/// answered. After the last answer the session is gone.
fn play(
    every: Duration,
    grace: Duration,
    answers: &[(Finding, Duration)],
) -> (Ending, Duration, Vec<(Duration, Duration)>) {
    let epoch = Instant::now();
    let mut turns = Turns::new(Pace {
        every,
        grace,
        epoch,
    });
    let mut asked = Vec::new();
    let mut next = turns.first(epoch);
    for place in 0.. {
        let answer = answers.get(place).copied();
        let (finding, delay) = answer.unwrap_or((Finding::Gone, Duration::ZERO));
        let answered = next + delay;
        asked.push((next - epoch, answered - epoch));
        match turns.after(finding, answered) {
            Ok(then) => next = then.max(answered),
            Err(why) => return (why, answered - epoch, asked),
        }
    }
    unreachable!("a session that is gone ends it")
}

fn finding() -> impl Strategy<Value = Finding> {
    prop_oneof![
        6 => Just(Finding::Kept),
        6 => Just(Finding::Unknown),
        1 => Just(Finding::Gone),
        1 => Just(Finding::NotAllowed),
        1 => Just(Finding::OtherUser),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn a_stream_ends_at_the_first_no_or_after_the_grace_and_never_otherwise(
        answers in vec((finding(), 0..2000_u64), 0..40),
        every in 100..60_000_u64,
        grace in 0..400_000_u64,
    ) {
        let answers: Vec<_> = answers
            .into_iter()
            .map(|(finding, delay)| (finding, Duration::from_millis(delay)))
            .collect();
        let (every, grace) = (Duration::from_millis(every), Duration::from_millis(grace));
        let (why, ended, asked) = play(every, grace, &answers);

        // The specification, over the answers as they came.
        let mut unknown_since = None;
        let mut expected = None;
        for (place, (_, answered)) in asked.iter().enumerate() {
            prop_assert!(expected.is_none(), "it went on after its end");
            let finding = answers.get(place).map_or(Finding::Gone, |(finding, _)| *finding);
            expected = match finding {
                Finding::Kept => {
                    unknown_since = None;
                    None
                }
                Finding::Unknown => {
                    let since = *unknown_since.get_or_insert(*answered);
                    (*answered >= since + grace).then_some((Ending::Unanswered, *answered))
                }
                _ => Some((Ending::Revoked, *answered)),
            };
        }
        prop_assert_eq!(Some((why, ended)), expected);

        // No question comes later than an interval and a tenth after the answer before.
        let most = every.mul_f64(1.1) + Duration::from_millis(2);
        let mut before = Duration::ZERO;
        for (begun, answered) in asked {
            prop_assert!(begun - before <= most, "{:?} after {:?}, every {:?}", begun, before, every);
            before = answered;
        }
    }
}

#[test]
fn questions_of_many_streams_come_together_and_are_spread_over_the_interval() {
    let every = Duration::from_secs(30);
    let epoch = Instant::now();
    let pace = Pace {
        every,
        grace: every,
        epoch,
    };
    let moments: Vec<_> = (0..1000)
        .map(|_| (Turns::new(pace).first(epoch) - epoch).as_millis())
        .collect();
    let mut distinct = moments.clone();
    distinct.sort_unstable();
    distinct.dedup();
    // One moment a second, each with about 33.
    assert!((25..=32).contains(&distinct.len()), "{distinct:?}");
    for moment in distinct {
        let together = moments.iter().filter(|other| **other == moment).count();
        assert!(together < 100, "{together} at {moment}");
    }
}
