//! What is thought of a server, by what was seen of it. Pure: no clock, no sockets.
//!
//! Three kinds of evidence count, each by its own rule:
//!
//! * **Nobody is there.** A connection could not be made. That is plain, costs no request (it goes to another server)
//!   and is nothing that a client can cause. So the server is left out at once, until a connection is made again.
//! * **No good answer.** Connections broke off or answers were late, [`MOST_FAILURES`] times in a row. That can be the
//!   fault of a request, so one alone says nothing, and the last server of an upstream is never left out for it: who
//!   knows a slow page could otherwise take the service from everybody. It is left out for [`FIRST_BAN`], and twice as
//!   long each time that the first request afterwards fails, up to [`LONGEST_BAN`].
//! * **Checks** (`health`): `fall` wrong answers in a row, until there are `rise` right ones. The very first answer
//!   counts alone: nothing else is known then.

use std::time::{Duration, Instant};

/// Bad answers in a row, after which a server is left out.
pub const MOST_FAILURES: u32 = 5;

/// For how long, the first time. A process that crashed is up again by then.
pub const FIRST_BAN: Duration = Duration::from_secs(10);

/// And at most.
pub const LONGEST_BAN: Duration = Duration::from_secs(300);

/// The state of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    unreachable: bool,
    /// Bad answers in a row.
    failures: u32,
    /// Bans in a row.
    bans: u32,
    banned_until: Option<Instant>,
    checks: Checks,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Checks {
    #[default]
    None,
    /// They are over: what the last ones still find means nothing.
    Off,
    /// Up, after so many wrong answers in a row.
    Up(u32),
    /// Down, after so many right answers in a row.
    Down(u32),
}

/// From when on a server may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Available {
    /// Now.
    Yes,
    /// From this moment on.
    From(Instant),
    /// Not before something is heard of it.
    No,
}

/// A turn for the better or the worse, to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// No connection can be made.
    Unreachable,
    /// Connections are made again.
    Reached,
    /// Left out for this time.
    Banned(Duration),
    /// It answered after a ban.
    Trusted,
    /// Its checks fail.
    Down,
    /// Its checks succeed.
    Up,
}

impl Health {
    /// Whether it may be asked.
    pub fn available(&self) -> Available {
        match self.banned_until {
            _ if self.unreachable || matches!(self.checks, Checks::Down(_)) => Available::No,
            Some(until) => Available::From(until),
            None => Available::Yes,
        }
    }

    /// Whether a good answer would change anything.
    pub fn is_spotless(&self) -> bool {
        self.failures == 0 && self.bans == 0 && self.banned_until.is_none()
    }

    /// Whether connections cannot be made.
    pub fn is_unreachable(&self) -> bool {
        self.unreachable
    }

    /// A connection could not be made.
    pub fn cannot_connect(&mut self) -> Option<Turn> {
        let before = std::mem::replace(&mut self.unreachable, true);
        (!before).then_some(Turn::Unreachable)
    }

    /// A connection was made.
    pub fn connected(&mut self) -> Option<Turn> {
        let before = std::mem::replace(&mut self.unreachable, false);
        before.then_some(Turn::Reached)
    }

    /// A request got no answer that counts. `is_last`: no other server of the upstream may be asked.
    pub fn no_answer(&mut self, now: Instant, is_last: bool) -> Option<Turn> {
        self.failures = self.failures.saturating_add(1);
        // Answers that are late by the ban's own requests do not make it longer.
        let is_banned = self.banned_until.is_some_and(|until| now < until);
        if self.failures < MOST_FAILURES || is_last || is_banned {
            return None;
        }
        let ban = FIRST_BAN.saturating_mul(1_u32.checked_shl(self.bans).unwrap_or(u32::MAX));
        let ban = ban.min(LONGEST_BAN);
        self.bans = (self.bans + 1).min(31);
        self.banned_until = Some(now + ban);
        // One more failure after the ban is enough for the next.
        self.failures = MOST_FAILURES - 1;
        Some(Turn::Banned(ban))
    }

    /// A request was answered, whatever the status: errors of an application are not its server's.
    pub fn answered(&mut self, now: Instant) -> Option<Turn> {
        // What was under way before a ban does not end it.
        if self.banned_until.is_some_and(|until| now < until) {
            return None;
        }
        self.failures = 0;
        self.bans = 0;
        self.banned_until.take().map(|_| Turn::Trusted)
    }

    /// A check had the right answer.
    pub fn check_passed(&mut self, rise: u32) -> Option<Turn> {
        let passed = match self.checks {
            Checks::Off => return None,
            Checks::None | Checks::Up(_) => {
                self.checks = Checks::Up(0);
                return None;
            }
            Checks::Down(passed) => passed + 1,
        };
        if passed < rise {
            self.checks = Checks::Down(passed);
            return None;
        }
        self.checks = Checks::Up(0);
        Some(Turn::Up)
    }

    /// A check had the wrong answer or none.
    pub fn check_failed(&mut self, fall: u32) -> Option<Turn> {
        let failed = match self.checks {
            Checks::Off => return None,
            Checks::None => fall,
            Checks::Up(failed) => failed + 1,
            Checks::Down(_) => {
                self.checks = Checks::Down(0);
                return None;
            }
        };
        if failed < fall {
            self.checks = Checks::Up(failed);
            return None;
        }
        self.checks = Checks::Down(0);
        Some(Turn::Down)
    }

    /// There are no checks any more.
    pub fn unchecked(&mut self) {
        self.checks = Checks::Off;
    }

    /// There are checks, perhaps again.
    pub fn checked(&mut self) {
        if self.checks == Checks::Off {
            self.checks = Checks::None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Event {
        CannotConnect,
        Connected,
        NoAnswer { is_last: bool },
        Answered,
        Passed,
        Failed,
        Wait(u64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            Just(Event::CannotConnect),
            Just(Event::Connected),
            any::<bool>().prop_map(|is_last| Event::NoAnswer { is_last }),
            Just(Event::NoAnswer { is_last: false }),
            Just(Event::Answered),
            Just(Event::Passed),
            Just(Event::Failed),
            (1_u64..400).prop_map(Event::Wait),
        ];
        prop::collection::vec(event, 0..80)
    }

    /// The rules once more, as counts over the whole history.
    #[derive(Default)]
    struct Model {
        reachable: Vec<bool>,
        checks: Vec<bool>,
        up: Option<bool>,
    }

    impl Model {
        fn run(history: &[bool], of: bool) -> u32 {
            let run = history.iter().rev().take_while(|seen| **seen == of).count();
            u32::try_from(run).unwrap()
        }

        fn check(&mut self, passed: bool, rise: u32, fall: u32) {
            self.checks.push(passed);
            let run = Self::run(&self.checks, passed);
            self.up = match self.up {
                None => Some(passed),
                Some(true) if !passed && run >= fall => Some(false),
                Some(false) if passed && run >= rise => Some(true),
                up => up,
            };
        }
    }

    proptest! {
        #[test]
        fn rise_and_fall_and_bans_follow_the_rules(
            events in events(),
            rise in 1_u32..4,
            fall in 1_u32..4,
        ) {
            let mut now = Instant::now();
            let (mut health, mut model) = (Health::default(), Model::default());
            let (mut failures, mut until, mut last_ban) = (0_u32, None::<Instant>, Duration::ZERO);
            for event in events {
                match event {
                    Event::CannotConnect => {
                        health.cannot_connect();
                        model.reachable.push(false);
                    }
                    Event::Connected => {
                        health.connected();
                        model.reachable.push(true);
                    }
                    Event::Passed => {
                        health.check_passed(rise);
                        model.check(true, rise, fall);
                    }
                    Event::Failed => {
                        health.check_failed(fall);
                        model.check(false, rise, fall);
                    }
                    Event::NoAnswer { is_last } => {
                        let turn = health.no_answer(now, is_last);
                        failures += 1;
                        let was_banned = until.is_some_and(|until| now < until);
                        let expected = failures >= MOST_FAILURES && !is_last && !was_banned;
                        prop_assert_eq!(turn.is_some(), expected);
                        if let Some(Turn::Banned(ban)) = turn {
                            let doubled = (last_ban * 2).clamp(FIRST_BAN, LONGEST_BAN);
                            prop_assert_eq!(ban, doubled);
                            (until, last_ban) = (Some(now + ban), ban);
                        }
                    }
                    Event::Answered => {
                        let turn = health.answered(now);
                        if until.is_none_or(|until| now >= until) {
                            prop_assert_eq!(turn.is_some(), until.is_some());
                            (failures, until, last_ban) = (0, None, Duration::ZERO);
                        } else {
                            prop_assert_eq!(turn, None);
                        }
                    }
                    Event::Wait(seconds) => now += Duration::from_secs(seconds),
                }
                let is_out = model.up == Some(false) || model.reachable.last() == Some(&false);
                let expected = match until {
                    _ if is_out => Available::No,
                    Some(until) => Available::From(until),
                    None => Available::Yes,
                };
                prop_assert_eq!(health.available(), expected);
            }
        }
    }

    #[test]
    fn a_server_without_answers_is_left_out_longer_each_time_and_one_answer_forgives() {
        let mut now = Instant::now();
        let mut health = Health::default();
        let ban = |health: &mut Health, now| {
            (0..MOST_FAILURES).find_map(|_| health.no_answer(now, false))
        };
        for seconds in [10, 20, 40, 80, 160, 300, 300] {
            let expected = Duration::from_secs(seconds);
            assert_eq!(ban(&mut health, now), Some(Turn::Banned(expected)));
            assert_eq!(health.available(), Available::From(now + expected));
            now += expected;
            assert_eq!(health.failures, MOST_FAILURES - 1);
        }
        assert_eq!(health.answered(now), Some(Turn::Trusted));
        assert_eq!(health, Health::default());
    }

    #[test]
    fn the_checks_of_a_configuration_before_say_nothing_any_more() {
        let mut health = Health::default();
        health.check_failed(1);
        assert_eq!(health.available(), Available::No);
        health.unchecked();
        assert_eq!(health.available(), Available::Yes);
        assert_eq!(health.check_failed(1), None);
        assert_eq!(health.check_passed(1), None);
        assert_eq!(health.available(), Available::Yes);
        health.checked();
        assert_eq!(health.check_failed(1), Some(Turn::Down));
        health.checked();
        assert_eq!(health.available(), Available::No);
    }

    #[test]
    fn the_last_server_is_never_left_out_for_its_answers() {
        let mut health = Health::default();
        for _ in 0..100 {
            assert_eq!(health.no_answer(Instant::now(), true), None);
        }
        assert_eq!(health.available(), Available::Yes);
    }
}
