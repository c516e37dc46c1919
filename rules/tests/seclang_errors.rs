//! What is refused, where, and that all of it is reported at once.

use std::fs;
use std::path::Path;

use clew_rules::seclang::ast::{Directive, RuleEngine, Select};
use clew_rules::seclang::{load, parse_text};

/// `line:column` of each error, and the sentences.
fn errors(text: &str) -> (Vec<String>, String) {
    let errors = parse_text("x.conf", text).err().unwrap_or_default();
    let places = errors
        .iter()
        .map(|error| format!("{}:{}", error.line, error.column))
        .collect();
    let sentences: Vec<_> = errors.iter().map(ToString::to_string).collect();
    (places, sentences.join("\n"))
}

#[track_caller]
fn refused(text: &str, places: &[&str], sentence: &str) {
    let (found, sentences) = errors(text);
    assert_eq!(found, places, "{sentences}");
    assert!(sentences.contains(sentence), "{sentences}");
}

#[test]
fn every_error_of_a_text_is_reported_in_order() {
    let text = "SecRuleEngine Onn\n\
                # SecFoo\n\
                SecRule ARGS|-X \"@ a\" \\\n\
                \x20   \"id:1,\\\n\
                \x20   ,pass\"\n\
                SecFoo 1\n\
                SecArgumentsLimit 12a\n";
    refused(
        text,
        &["1:15", "3:14", "3:19", "5:5", "6:1", "7:19"],
        "x.conf:6:1: there is no directive `SecFoo`",
    );
}

#[test]
fn arguments_are_counted() {
    refused(
        "SecRule ARGS",
        &["1:13"],
        "SecRule VARIABLES OPERATOR [ACTIONS]",
    );
    refused("SecRule ARGS @streq x id:1", &["1:23"], "double quotes");
    refused(
        "SecRule ARGS \"x\" \\\n  \"id:1\" \\\n extra",
        &["3:2"],
        "ends before this",
    );
    refused(
        "SecResponseBodyMimeTypesClear x",
        &["1:31"],
        "it is written `SecResponseBodyMimeTypesClear`",
    );
    refused("SecAction id:5, phase:1", &["1:17"], "double quotes");
}

#[test]
fn quotes_and_continuations_are_checked() {
    refused(
        "SecRule ARGS \"x\n\" \"id:1\"",
        &["1:14", "2:4"],
        "is not closed",
    );
    refused("SecRule ARGS \"a\"b\" \"id:1\"", &["1:17"], "write \\\"");
    refused("SecRule ARGS x \\ \n id:1", &["1:16"], "blanks follow");
    refused("SecRule ARGS x \\", &["1:16"], "the file ends");
    refused(
        "SecRule ARGS x \\\n # c\n \"id:1\"",
        &["3:2"],
        "the line before may lack its backslash",
    );
    refused("SecAction \"id:1,msg:'x\"", &["1:21"], "not closed");
}

#[test]
fn what_is_not_supported_says_what_to_do() {
    refused(
        "<IfModule security2_module>\n</IfModule>",
        &["1:1", "2:1"],
        "a section of httpd's configuration",
    );
    refused("SecRuleScript a.lua", &["1:1"], "Lua");
    refused(
        "SecRemoteRules key https://example.org",
        &["1:1"],
        "Include",
    );
    refused("Include a.conf", &["1:9"], "load a file");
    refused("SecHashEngine On", &["1:1"], "not supported");
    assert!(parse_text("x", "SecHashEngine Off\nSecContentInjection \"off\"").is_ok());
}

#[test]
fn values_are_checked() {
    refused("SecRequestBodyLimit -1", &["1:21"], "no whole number");
    refused(
        "SecRequestBodyLimit 99999999999999999999",
        &["1:21"],
        "no whole number",
    );
    refused(
        "SecRuleRemoveById 1 \"2, 9-4 x\"",
        &["1:25", "1:29"],
        "write 4-9",
    );
    refused("SecRuleRemoveById \"\"", &["1:20"], "FIRST-LAST");
    refused(
        "SecRuleUpdateActionById 1:x deny",
        &["1:25"],
        "CHAIN_OFFSET",
    );
    refused("SecArgumentSeparator ab", &["1:22"], "single ASCII");
    refused("SecCookieFormat 2", &["1:17"], "0, 1");
    refused("SecAuditLogParts ABQ", &["1:18"], "letters");
    refused("SecAuditLogDirMode 9", &["1:20"], "octal");
}

#[test]
fn directives_are_what_they_say() {
    let text = "SecRuleRemoveById 1 3-5 \"7,8-9\"\n\
                secruleengine detectiononly\n\
                SecRuleUpdateTargetById 12-14 \"!ARGS:'a,b'|ARGS:c\" ARGS\n\
                SecRuleUpdateActionById 5:2 'deny,msg:\\'a, b\\''\n\
                SecResponseBodyMimeType text/plain \"text/html\" # both\n\
                SecUnicodeMapFile unicode.mapping 20127\n\
                SecAuditLogParts ABIJDEFHZ\n";
    let directives = parse_text("/etc/rules/x.conf", text)
        .expect("all is right")
        .directives;
    let directives: Vec<_> = directives
        .into_iter()
        .map(|directive| directive.node)
        .collect();
    assert_eq!(
        directives[0],
        Directive::RemoveById(vec![(1, 1), (3, 5), (7, 7), (8, 9)])
    );
    assert_eq!(
        directives[1],
        Directive::RuleEngine(RuleEngine::DetectionOnly)
    );
    let Directive::UpdateTarget {
        rules: Select::Ids(ids),
        variables,
        replaced: Some(replaced),
    } = &directives[2]
    else {
        panic!("{:?}", directives[2]);
    };
    assert_eq!(
        (ids.as_slice(), variables.len(), replaced.len()),
        ([(12, 14)].as_slice(), 2, 1)
    );
    let Directive::UpdateActionById {
        id: 5,
        chain: 2,
        actions,
    } = &directives[3]
    else {
        panic!("{:?}", directives[3]);
    };
    assert_eq!(actions[1].node.argument.as_deref(), Some("a, b"));
    assert_eq!(
        directives[4],
        Directive::ResponseBodyMimeType(vec!["text/plain".into(), "text/html".into()])
    );
    assert_eq!(
        directives[5],
        Directive::UnicodeMapFile("/etc/rules/unicode.mapping".into(), 20127)
    );
    assert!(
        matches!(&directives[6], Directive::Ignored { name: "SecAuditLogParts", arguments } if arguments == &["ABIJDEFHZ"])
    );
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    fs::write(path, text).expect("written");
}

#[test]
fn includes_are_replaced_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write(
        root,
        "[odd]/main.conf",
        "SecMarker a\nInclude sub/*.conf\nIncludeOptional none/*.conf\nIncludeOptional none\nSecMarker d",
    );
    write(
        root,
        "[odd]/sub/2.conf",
        "SecMarker c\nSecGeoLookupDb geo.db",
    );
    write(root, "[odd]/sub/1.conf", "SecMarker b");
    let ast = load(&[root.join("[odd]/main.conf")]).expect("all is right");
    let markers: String = ast
        .directives
        .iter()
        .filter_map(|directive| match &directive.node {
            Directive::Marker(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(markers, "abcd");
    let geo = &ast.directives[3];
    assert_eq!(
        geo.node,
        Directive::GeoLookupDb(root.join("[odd]/sub/geo.db"))
    );
    assert_eq!(
        *ast.files[geo.at.file as usize],
        root.join("[odd]/sub/2.conf")
    );
}

#[test]
fn cycles_and_absent_files_are_refused_with_all_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write(
        root,
        "a.conf",
        "Include b.conf\nInclude gone.conf\nInclude gone/*\nInclude .\nSecFoo",
    );
    write(root, "b.conf", "\n Include a.conf");
    let errors = load(&[root.join("a.conf"), root.join("other.conf")]).expect_err("much is wrong");
    let shown: Vec<_> = errors
        .iter()
        .map(|error| {
            error
                .to_string()
                .replace(&format!("{}/", root.display()), "")
        })
        .collect();
    let starts = [
        "other.conf: ",
        "a.conf:2:9: ",
        "a.conf:3:9: ",
        "a.conf:4:9: ",
        "a.conf:5:1: ",
        "b.conf:2:10: ",
    ];
    assert_eq!(shown.len(), starts.len(), "{shown:#?}");
    for (line, start) in shown.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
    assert!(shown[5].contains("includes itself"));
}

#[test]
fn files_that_double_are_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    for level in 0..15 {
        let next = level + 1;
        write(
            root,
            &format!("{level}.conf"),
            &format!("Include {next}.conf\nInclude {next}.conf"),
        );
    }
    write(root, "15.conf", "SecMarker x");
    let errors = load(&[root.join("0.conf")]).expect_err("too many files");
    assert!(
        errors
            .iter()
            .any(|error| error.to_string().contains("more than 4096 files"))
    );
}
