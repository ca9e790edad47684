use proptest::prelude::*;

use super::*;

/// The values that properties are tried with.
const VALUES: [&str; 9] = ["", "-1", "0", "1", "+1", "5", "9", "1.5", "A"];

fn requirement() -> impl Strategy<Value = Requirement> {
    let set = || prop::sample::subsequence(VALUES.to_vec(), 0..4);
    let number = || -2_i64..11;
    prop_oneof![
        (any::<bool>(), set()).prop_map(|(inside, values)| {
            Requirement::new("key", if inside { Operator::In } else { Operator::NotIn }, values)
        }),
        (0..4_usize, number()).prop_map(|(operator, bound)| {
            let operator = [Operator::Gt, Operator::Lt, Operator::Gte, Operator::Lte][operator];
            Requirement::new("key", operator, [bound.to_string()])
        }),
    ]
}

proptest! {
    /// An intersection allows what both allow, whichever side comes first.
    #[test]
    fn intersection_is_of_values(left in requirement(), right in requirement()) {
        let both = left.intersection(&right);
        prop_assert_eq!(&both, &right.intersection(&left));
        for value in VALUES {
            prop_assert_eq!(both.has(value), left.has(value) && right.has(value), "{}", value);
        }
        prop_assert_eq!(left.intersects(&right), !both.is_empty());
    }

    /// What it names as a value it allows.
    #[test]
    fn any_value_is_allowed(left in requirement(), right in requirement()) {
        let both = left.intersection(&right);
        match both.any() {
            Some(value) => prop_assert!(both.has(&value), "{} {}", both, value),
            None => prop_assert!(both.is_empty() || both.bounds() != (None, None), "{}", both),
        }
    }

    /// The quick answer is the long one.
    #[test]
    fn quick_answers_agree(left in requirement(), right in requirement(), known: bool) {
        let well_known = if known { WellKnownLabels::none().with(["key"]) } else { WellKnownLabels::none() };
        for (existing, incoming) in [
            (Requirements::from_iter([left.clone()]), Requirements::from_iter([right.clone()])),
            (Requirements::new(), Requirements::from_iter([right.clone()])),
        ] {
            let answer = existing.compatible(&incoming, &well_known);
            prop_assert_eq!(answer.is_ok(), existing.is_compatible(&incoming, &well_known));
        }
    }
}

#[test]
fn a_bound_that_nothing_lies_beyond_allows_nothing() {
    for (operator, value) in [
        (Operator::Gt, "9223372036854775807"),
        (Operator::Lt, "-9223372036854775808"),
        (Operator::Gte, "many"),
        (Operator::Lt, "99999999999999999999"),
    ] {
        let requirement = Requirement::new("key", operator, [value]);
        assert_eq!(requirement.operator(), Operator::DoesNotExist, "{operator:?} {value}");
    }
    assert!(Requirement::new("key", Operator::Gt, Vec::<&str>::new()).is_empty());
}

#[test]
fn conflicts_say_what_to_write() {
    let existing = Requirements::from_iter([
        Requirement::new("team", Operator::In, ["a", "b"]),
        Requirement::new("tier", Operator::Lte, ["3"]),
    ]);
    let incoming = Requirements::from_iter([
        Requirement::is("team", "c"),
        Requirement::is("tier", "9"),
        Requirement::is("topology.kubernetes.io/zone", "z"),
        Requirement::is("topolgy.kubernetes.io/region", "r"),
        Requirement::is("nobody/knows", "x"),
    ]);
    let problem = existing.compatible(&incoming, &WellKnownLabels::default()).unwrap_err();
    assert_eq!(
        problem.to_string(),
        "label \"nobody/knows\" does not have known values; \
         label \"topolgy.kubernetes.io/region\" does not have known values (typo of \"topology.kubernetes.io/region\"?); \
         key team, team In [c] not in team In [a b]; \
         key tier, tier In [9] not in tier Exists <=3"
    );
}

#[test]
fn a_pod_is_tried_with_one_term_after_the_other() {
    let affinity: NodeAffinity = serde_json::from_value(serde_json::json!({
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
            {"matchExpressions": [{"key": "zone", "operator": "Odd"}]},
        ]},
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [{"key": "light", "operator": "Exists"}]}},
            {"weight": 9, "preference": {"matchExpressions": [{"key": "heavy", "operator": "Exists"}]}},
            {"weight": 9, "preference": {"matchExpressions": [{"key": "later", "operator": "Exists"}]}},
        ],
    }))
    .unwrap();
    let selector = BTreeMap::from([("pool".to_owned(), "x".to_owned())]);
    let texts = |respect| -> Vec<_> {
        let tried = Requirements::of_pod(&selector, Some(&affinity), respect);
        tried.iter().map(ToString::to_string).collect()
    };
    assert_eq!(texts(false), ["pool In [x], zone In [a]", "pool In [x], zone DoesNotExist"]);
    assert_eq!(texts(true)[0], "heavy Exists, pool In [x], zone In [a]");
    assert_eq!(Requirements::of_pod(&selector, None, true).len(), 1);
}

#[test]
fn a_node_gets_labels_that_it_would_not_have_anyway() {
    let requirements = Requirements::from_iter([
        Requirement::new("team", Operator::In, ["b", "a"]),
        Requirement::new("number", Operator::Gt, ["4"]),
        Requirement::new("absent", Operator::DoesNotExist, Vec::<&str>::new()),
        Requirement::is(labels::ZONE, "z"),
        Requirement::is(labels::HOSTNAME, "h"),
    ]);
    let wanted = BTreeMap::from([("team", "a"), ("number", "5")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert_eq!(requirements.labels(&WellKnownLabels::default()), wanted);
}
