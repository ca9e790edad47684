use super::{super::announcement::tests::spot, *};

fn rendered(template: &str) -> Result<String, TemplateError> {
    Template::parse(template)?.render(&spot().announcement())
}

/// Templates, and what Go 1.26 with sprig 3.3 makes of each for the same notice.
const AS_GO: &str = include_str!("as_go.json");

#[test]
fn texts_are_as_go_makes_them() {
    let table: Vec<(String, String)> = serde_json::from_str(AS_GO).unwrap();
    let differs = |(template, text): &(String, String)| {
        // Some of them fail without anything to tell, for which the handler refuses them, too.
        let ours = parse::parse(template).and_then(|nodes| Template(nodes).render(&spot().announcement()));
        (ours.as_ref() != Ok(text)).then(|| format!("{template}\n   Go {text:?}\n ours {ours:?}"))
    };
    let differences: Vec<_> = table.iter().filter_map(differs).collect();
    assert!(table.len() > 50 && differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn what_has_no_meaning_is_refused_by_name() {
    let table = [
        ("a {{ .Kind", "the action \"{{ .Kind\" is not closed by \"}}\""),
        ("{{ .Kind \"}}", "the action \"{{ .Kind \\\"}}\" is not closed"),
        ("{{/* why", "is not closed"),
        ("{{ .Nodename }}", "the field \".Nodename\" is unknown, did you mean \"NodeName\"?"),
        ("{{ if false }}{{ .Nodes }}{{ end }}", "the field \".Nodes\" is unknown"),
        ("{{ range .Pods }}{{ $.Pod }}{{ end }}", "the field \".Pod\" is unknown"),
        ("{{ range .Pods }}{{ .NodeName }}{{ end }}", "can't evaluate field NodeName in type string"),
        ("{{ .Kind | lowr }}", "the function \"lowr\" is not defined, did you mean \"lower\"?"),
        ("{{ if false }}{{ env \"HOME\" }}{{ end }}", "the function \"env\" is not defined"),
        ("{{ upper }}", "the function \"upper\" takes 1, not 0"),
        ("{{ .Kind | replace \"a\" }}", "the function \"replace\" takes 3, not 2"),
        ("{{ eq .Kind }}", "the function \"eq\" takes 2 or more, not 1"),
        ("{{ $x }}", "the variable \"$x\" is not declared"),
        ("{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}", "the variable \"$x\" is not declared"),
        ("{{ . }}", "there are only fields of it"),
        ("{{ toJson $ }}", "there are only fields of it"),
        ("{{ }}", "it is empty"),
        ("{{-.Kind}}", "\"-.Kind\" is no constant"),
        ("{{ .Kind | }}", "a value is missing"),
        ("{{ .Kind \"a\" }}", "arguments are given to what is no function"),
        ("{{ \"a\" \"b\" }}", "arguments are given to what is no function"),
        ("{{ (.Kind }}", "a parenthesis is not closed"),
        ("{{ .Kind) }}", "a parenthesis is not opened"),
        ("{{ if .Kind }}a", "it has no {{ end }}"),
        ("{{ end }}", "nothing is open that it could end"),
        ("{{ if true }}{{ else }}{{ else }}{{ end }}", "nothing but {{ end }} may follow an else"),
        ("{{ break }}", "it is in no range"),
        ("{{ template \"a\" }}", "there are no templates within a template"),
        ("{{ .Kind ; }}", "';' has no meaning in an action"),
        ("{{ index .Pods 0 }}", "index: index out of range: 0"),
        ("{{ eq .Kind 1 }}", "eq: incompatible types for comparison"),
        ("{{ div 1 0 }}", "div: the result is no number of 64 bits"),
        ("{{ repeat 1000000 \"abc\" }}", "repeat: a repeated text is longer than 65536 bytes"),
        ("{{ range 999999999 }}0123456789{{ end }}", "the text is longer than 1048576 bytes"),
        ("{{ range 999999999 }}{{ range 999999999 }}{{ end }}{{ end }}", "it takes too long"),
    ];
    for (template, wanted) in table {
        let error = rendered(template).map_err(|error| error.to_string());
        assert!(error.as_ref().is_err_and(|error| error.contains(wanted)), "{template}: {error:?}");
    }
    let deep = format!("{}{}", "{{ if true }}".repeat(1000), "{{ end }}".repeat(1000));
    assert!(rendered(&deep).is_err_and(|error| error.to_string().contains("too deep")));
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(1000), ")".repeat(1000));
    assert!(rendered(&deep).is_err_and(|error| error.to_string().contains("too deep")));
}

#[test]
fn what_only_some_notices_allow_is_taken() {
    let template = Template::parse("{{ if .NodeName }}{{ index .Pods 5 }}{{ end }}").unwrap();
    let error = template.render(&spot().announcement()).unwrap_err();
    assert_eq!(error.to_string(), "index: index out of range: 5");
}
