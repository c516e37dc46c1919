//! Packs for tests, made of texts.

use std::path::Path;

use tempfile::TempDir;

use crate::Pack;

/// A folder of files, each with its text.
pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("folder");
    write(folder.path(), files);
    folder
}

/// Writes files below a folder.
pub(crate) fn write(root: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        std::fs::write(path, text).expect(name);
    }
}

/// A manifest.
pub(crate) fn manifest(name: &str, version: &str, mode: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"{version}\"\nclew = \"0.1\"\ndescription = \"A test\"\nmode = \"{mode}\"\n"
    )
}

/// A rule that refuses requests with an argument that holds `word`, and a test of it.
pub(crate) fn denying(id: u64, word: &str) -> Vec<(String, String)> {
    let rule = format!(
        "SecRule ARGS \"@contains {word}\" \"id:{id},phase:2,deny,status:403,msg:'{word}'\"\n"
    );
    let test = format!(
        "rule_id: {id}\ntests:\n- test_id: 1\n  stages:\n  - input:\n      uri: /?q={word}\n      headers:\n        Host: a\n    output:\n      log:\n        expect_ids: [{id}]\n- test_id: 2\n  stages:\n  - input:\n      uri: /?q=fine\n      headers:\n        Host: a\n    output:\n      log:\n        no_expect_ids: [{id}]\n"
    );
    vec![
        (format!("rules/{id}.conf"), rule),
        (format!("tests/{id}.yaml"), test),
    ]
}

/// A whole pack of one such rule.
pub(crate) fn whole(name: &str, version: &str, mode: &str, id: u64, word: &str) -> TempDir {
    let manifest = manifest(name, version, mode);
    let files = denying(id, word);
    let mut list = vec![("pack.toml", manifest.as_str())];
    list.extend(
        files
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str())),
    );
    folder(&list)
}

/// Opens a folder.
pub(crate) fn open(folder: &TempDir) -> Pack {
    Pack::open(folder.path()).expect("pack")
}
