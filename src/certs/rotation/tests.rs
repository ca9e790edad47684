//! The decision as a table, over virtual time.

use jiff::ToSpan;

use super::*;

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// Days after the start.
fn day(days: i64) -> Timestamp {
    start() + (days * 24).hours()
}

fn minutes(minutes: i64) -> Timestamp {
    start() + minutes.minutes()
}

fn valid(from: i64, to: i64) -> Validity {
    Validity { not_before: day(from), not_after: day(to) }
}

fn serving(from: i64, to: i64, issuer: usize) -> Serving {
    Serving { validity: valid(from, to), issuer: Some(issuer), covers_names: true }
}

/// Authorities of these times, a key, and a serving certificate.
fn state(authorities: &[(i64, i64)], serving: Serving) -> State {
    let authorities = authorities.iter().map(|(from, to)| valid(*from, *to)).collect();
    State { authorities, can_sign: true, serving: Some(serving) }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn steps() {
    use Action::{AddAuthority, DropAuthorities, IssueServing, Wait};
    let one = state(&[(0, 360)], serving(0, 90, 0));
    let added = state(&[(240, 600), (0, 360)], serving(180, 270, 1));
    let swapped = state(&[(240, 600), (0, 360)], serving(240, 330, 0));
    let published = Some(start());
    let overlap = day(241) + 10.minutes();
    let no_key = State { can_sign: false, ..one.clone() };
    let no_serving = State { serving: None, ..one.clone() };
    let with = |change: fn(&mut Serving)| {
        let mut state = one.clone();
        state.serving.as_mut().map(change).unwrap();
        state
    };
    // name, state, published since, now, action
    let cases = [
        ("all is well", &one, published, day(1), Wait(day(60))),
        ("all is well, unpublished", &one, None, day(1), Wait(day(60))),
        ("the moment before", &one, published, day(60) - 1.second(), Wait(day(60))),
        ("serving is due", &one, published, day(60), IssueServing(Reason::ServingIsOld)),
        ("serving is due, unpublished", &one, None, day(60), IssueServing(Reason::ServingIsOld)),
        ("serving has ended", &one, None, day(90), IssueServing(Reason::ServingIsOld)),
        ("no serving certificate", &no_serving, None, day(1), IssueServing(Reason::ServingIsMissing)),
        (
            "a stranger's serving certificate",
            &with(|serving| serving.issuer = None),
            None,
            day(1),
            IssueServing(Reason::ServingIsNotOfTheBundle),
        ),
        (
            "a renamed Service",
            &with(|serving| serving.covers_names = false),
            None,
            day(1),
            IssueServing(Reason::ServingLacksNames),
        ),
        ("no key", &no_key, None, day(1), AddAuthority(Reason::AuthorityHasNoKey)),
        (
            "the authority is due",
            &state(&[(0, 360)], serving(200, 290, 0)),
            published,
            day(240),
            AddAuthority(Reason::AuthorityIsOld),
        ),
        (
            "the authority is due, but caBundle cannot be written",
            &state(&[(0, 360)], serving(200, 290, 0)),
            None,
            day(240),
            Wait(day(260)),
        ),
        (
            "the authority has ended",
            &state(&[(0, 360)], serving(350, 360, 0)),
            None,
            day(360),
            AddAuthority(Reason::AuthorityIsOld),
        ),
        (
            "a serving certificate as long as its authority is not renewed in vain",
            &state(&[(0, 360)], serving(330, 360, 0)),
            None,
            day(355),
            Wait(day(360)),
        ),
        ("added, not yet published", &added, None, day(241), Wait(day(267))),
        ("added and just published", &added, Some(day(241)), day(241), Wait(day(241) + 2.minutes())),
        (
            "added and settled",
            &added,
            Some(day(241)),
            day(241) + 2.minutes(),
            IssueServing(Reason::BundleIsPublished),
        ),
        ("added, never published", &added, None, day(267), IssueServing(Reason::ServingEndsSoon)),
        ("swapped", &swapped, published, day(240), Wait(overlap)),
        ("swapped, unpublished", &swapped, None, day(240), Wait(overlap)),
        ("overlap is over", &swapped, published, overlap, DropAuthorities(Reason::OverlapIsOver)),
        (
            "a new name in the middle of a rotation",
            &State {
                serving: added.serving.map(|serving| Serving { covers_names: false, ..serving }),
                ..added.clone()
            },
            None,
            day(241),
            IssueServing(Reason::ServingLacksNames),
        ),
    ];
    for (name, state, published, now, want) in cases {
        assert_eq!(decide(state, published, &Policy::default(), now), want, "{name}");
    }
}

/// Whatever the state, the next look is in the future: nothing spins.
#[test]
fn waits_end_later() {
    let times = [-400, -1, 0, 1, 59, 60, 89, 90, 240, 359, 360, 1000];
    let policy = Policy::default();
    for from in times {
        for to in times.into_iter().filter(|to| *to > from) {
            for issuer in [0, 1] {
                for published in [None, Some(day(-500)), Some(minutes(-1)), Some(start())] {
                    let state = state(&[(-200, 160), (-500, 120)], serving(from, to, issuer));
                    if let Action::Wait(until) = decide(&state, published, &policy, start()) {
                        assert!(until > start(), "{from} {to} {issuer} {published:?}");
                    }
                }
            }
        }
    }
}
