use clew_rules::seclang::parse_text;
use tempfile::TempDir;

use super::*;
use crate::BODIES;
use crate::signature::{Signer, Verifier, generate};
use crate::testing::{whole, write};

fn host() -> Host {
    Host {
        before: parse_text("bodies.conf", BODIES).expect("bodies"),
        ..Host::default()
    }
}

fn unsigned() -> Trust {
    Trust {
        allow_unsigned: true,
        ..Trust::default()
    }
}

fn archive(folder: &TempDir) -> Vec<u8> {
    let contents = Contents::of_folder(folder.path()).expect("contents");
    contents.to_archive().expect("archive")
}

fn name(text: &str) -> PackName {
    text.parse().expect("name")
}

fn version(text: &str) -> Version {
    Version::parse(text).expect("version")
}

struct Desk {
    state: TempDir,
    store: Store,
}

impl Desk {
    fn new() -> Self {
        let state = tempfile::tempdir().expect("state");
        let store = Store::of(state.path());
        Self { state, store }
    }

    fn install(&self, name: &str, version: &str, id: u64, word: &str) {
        let pack = whole(name, version, "block", id, word);
        let installed = self
            .store
            .install(&archive(&pack), None, &unsigned())
            .expect("installed");
        assert_eq!((installed.tests, installed.again), (2, false));
    }

    fn activate(&self, text: &str, of: Option<&str>) -> Result<PackId, StoreError> {
        let of = of.map(version);
        self.store
            .activate(&name(text), of.as_ref(), &unsigned(), host())
    }

    fn active(&self) -> Vec<String> {
        let active = self.store.active().expect("active");
        active.packs.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn versions_are_switched_and_rolled_back() {
    let desk = Desk::new();
    assert_eq!(desk.store.list().expect("list"), []);
    desk.install("one", "1.0.0", 1, "bad");
    desk.install("one", "1.10.0", 1, "worse");
    desk.install("two", "0.1.0", 2, "odd");
    desk.activate("one", Some("1.0.0")).expect("active");
    desk.activate("two", None).expect("active");
    desk.activate("one", None).expect("active");
    assert_eq!(
        desk.active(),
        ["one@1.10.0", "two@0.1.0"],
        "the highest, in the same place"
    );
    assert!(
        desk.store.remove(&name("one"), &version("1.10.0")).is_err(),
        "it is active"
    );
    desk.store.rollback(&unsigned(), host()).expect("back");
    assert_eq!(desk.active(), ["one@1.0.0", "two@0.1.0"]);
    desk.store.deactivate(&name("two")).expect("off");
    assert_eq!(desk.active(), ["one@1.0.0"]);
    desk.store.rollback(&unsigned(), host()).expect("back");
    desk.store.rollback(&unsigned(), host()).expect("back");
    assert_eq!(desk.active(), ["one@1.0.0"]);
    desk.store.rollback(&unsigned(), host()).expect("back");
    assert_eq!(desk.active(), Vec::<String>::new());
    assert!(desk.store.rollback(&unsigned(), host()).is_err());
    desk.store
        .remove(&name("two"), &version("0.1.0"))
        .expect("removed");
    let listed = desk.store.list().expect("list");
    assert_eq!(listed.len(), 2);
    assert!(!listed[0].signed && listed[0].mode == Some(Mode::Block));
    assert!(!desk.state.path().join("packs/two").exists());
}

#[test]
fn signatures_are_asked_for_when_it_is_installed_and_when_it_is_loaded() {
    let desk = Desk::new();
    let (secret, public) = generate(None).expect("keys");
    let trust = Trust {
        keys: vec![Verifier::parse(&public).expect("key")],
        allow_unsigned: false,
    };
    let bytes = archive(&whole("one", "1.0.0", "block", 1, "bad"));
    let error = desk
        .store
        .install(&bytes, None, &trust)
        .expect_err("unsigned");
    assert!(
        error.to_string().contains("one@1.0.0: it is not signed"),
        "{error}"
    );
    let other = Signer::open(&secret, None)
        .expect("key")
        .sign(b"other", "x")
        .expect("signature");
    assert!(desk.store.install(&bytes, Some(&other), &trust).is_err());
    assert_eq!(
        desk.store.list().expect("list"),
        [],
        "nothing is left behind"
    );
    let signature = Signer::open(&secret, None)
        .expect("key")
        .sign(&bytes, "one")
        .expect("signature");
    let installed = desk
        .store
        .install(&bytes, Some(&signature), &trust)
        .expect("installed");
    assert_eq!(installed.signed.expect("signed").comment, "one");
    desk.store
        .activate(&name("one"), None, &trust, host())
        .expect("active");
    assert_eq!(desk.store.active_packs(&trust).expect("packs").len(), 1);
    let stranger = Trust {
        keys: Vec::new(),
        allow_unsigned: true,
    };
    assert!(
        desk.store.active_packs(&stranger).is_err(),
        "the key is trusted no more"
    );
    let rule = desk.state.path().join("packs/one/1.0.0/files/rules/1.conf");
    std::fs::write(rule, "# nothing\n").expect("changed");
    let error = desk.store.active_packs(&trust).expect_err("changed");
    assert!(
        error.to_string().contains("not those of its archive"),
        "{error}"
    );
}

#[test]
fn what_is_unsound_is_not_installed() {
    let desk = Desk::new();
    let pack = whole("one", "1.0.0", "block", 1, "bad");
    write(
        pack.path(),
        &[(
            "rules/1.conf",
            "SecRule ARGS \"@contains x\" \"id:1,phase:2,pass,log\"\n",
        )],
    );
    let error = desk
        .store
        .install(&archive(&pack), None, &unsigned())
        .expect_err("fails its test");
    assert!(
        error.to_string().contains("rule 1 did not match"),
        "{error}"
    );
    write(
        pack.path(),
        &[(
            "rules/1.conf",
            "SecRule ARGS \"@nosuch x\" \"id:1,phase:2,pass\"\n",
        )],
    );
    let error = desk
        .store
        .install(&archive(&pack), None, &unsigned())
        .expect_err("does not compile");
    assert!(
        error.to_string().contains("error: rules/1.conf:1:"),
        "{error}"
    );
    assert!(!desk.state.path().join("packs/.new").exists());
    assert_eq!(desk.store.list().expect("list"), []);
}

#[test]
fn a_version_is_one_set_of_files() {
    let desk = Desk::new();
    desk.install("one", "1.0.0", 1, "bad");
    let same = archive(&whole("one", "1.0.0", "block", 1, "bad"));
    assert!(
        desk.store
            .install(&same, None, &unsigned())
            .expect("the same")
            .again
    );
    let other = archive(&whole("one", "1.0.0", "block", 1, "worse"));
    let error = desk
        .store
        .install(&other, None, &unsigned())
        .expect_err("other files");
    assert!(error.to_string().contains("raise its version"), "{error}");
}

#[test]
fn packs_that_cannot_be_together_leave_all_as_it_was() {
    let desk = Desk::new();
    desk.install("one", "1.0.0", 1, "bad");
    desk.install("two", "1.0.0", 1, "odd");
    desk.activate("one", None).expect("active");
    let error = desk.activate("two", None).expect_err("ids").to_string();
    assert!(error.contains("rule 1 is in pack one@1.0.0"), "{error}");
    assert_eq!(desk.active(), ["one@1.0.0"]);
}

#[test]
fn history_is_bounded() {
    let desk = Desk::new();
    desk.install("one", "1.0.0", 1, "bad");
    for _ in 0..20 {
        desk.activate("one", None).expect("active");
        desk.store.deactivate(&name("one")).expect("off");
    }
    assert_eq!(desk.store.active().expect("active").history.len(), 32);
}
