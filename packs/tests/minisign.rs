//! Keys and signatures go both ways between Clew and Debian's `minisign`.
//!
//! Where that is not installed these tests count as ignored.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clew_packs::signature::{SignatureError, Signer, Trust, Verifier, generate};
use libtest_mimic::{Arguments, Failed, Trial};

const PASSWORD: &str = "correct horse";
const DATA: &[u8] = b"an archive\0of any bytes\xff";

fn main() {
    let absent = Command::new("minisign").arg("-v").output().is_err();
    if absent {
        eprintln!("ignored: minisign is absent; run scripts/setup");
    }
    let trial = |name: &str, test: fn() -> Result<(), Failed>| {
        Trial::test(name, test).with_ignored_flag(absent)
    };
    let trials = vec![
        trial("minisign_verifies_what_clew_signs", verifies_ours),
        trial("clew_verifies_what_minisign_signs", verifies_theirs),
        trial("keys_with_passwords_open_in_both", passwords),
        trial("what_was_changed_is_refused", changes),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("data"), DATA)?;
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> Result<String, Failed> {
        Ok(fs::read_to_string(self.path(name))?)
    }

    /// Runs minisign here; the password is given as often as it may be asked for.
    fn minisign(&self, arguments: &[&str]) -> Result<(), Failed> {
        let mut child = Command::new("minisign")
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // Who needs no password may be gone already.
            let _ = input.write_all(format!("{PASSWORD}\n{PASSWORD}\n").as_bytes());
        }
        let output = child.wait_with_output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failed> {
    Ok(fs::write(path, text)?)
}

fn trusting(key: &str) -> Result<Trust, Failed> {
    let keys = vec![Verifier::parse(key)?];
    Ok(Trust {
        keys,
        allow_unsigned: false,
    })
}

fn verifies_ours() -> Result<(), Failed> {
    let desk = Desk::new()?;
    let (secret, public) = generate(None)?;
    write(&desk.path("key.pub"), &public)?;
    let signature = Signer::open(&secret, None)?.sign(DATA, "shop-1.2.3.clewpack")?;
    write(&desk.path("data.minisig"), &signature)?;
    desk.minisign(&["-Vm", "data", "-p", "key.pub"])?;
    // And with the key, as it stands in packs.trust.
    let key = Verifier::parse(&public)?.text();
    desk.minisign(&["-Vm", "data", "-P", &key])?;
    fs::write(desk.path("data"), b"another")?;
    assert!(desk.minisign(&["-Vm", "data", "-p", "key.pub"]).is_err());
    Ok(())
}

fn verifies_theirs() -> Result<(), Failed> {
    let desk = Desk::new()?;
    desk.minisign(&["-GW", "-p", "key.pub", "-s", "key"])?;
    let trust = trusting(&desk.text("key.pub")?)?;
    // Prehashed, which is the default, and legacy.
    for kind in ["-S", "-Sl"] {
        desk.minisign(&[kind, "-m", "data", "-s", "key", "-t", "of the shop"])?;
        let signature = desk.text("data.minisig")?;
        let signed = trust.check(DATA, Some(&signature))?.ok_or("not signed")?;
        assert_eq!(signed.comment, "of the shop");
        assert_eq!(signed.key, trust.keys[0].id());
        assert!(desk.text("key.pub")?.contains(&signed.key));
    }
    // Their secret key signs here.
    let signature = Signer::open(&desk.text("key")?, None)?.sign(DATA, "again")?;
    write(&desk.path("data.minisig"), &signature)?;
    desk.minisign(&["-Vm", "data", "-p", "key.pub"])
}

fn passwords() -> Result<(), Failed> {
    let desk = Desk::new()?;
    let (secret, public) = generate(Some(PASSWORD))?;
    write(&desk.path("key"), &secret)?;
    write(&desk.path("key.pub"), &public)?;
    desk.minisign(&["-Sm", "data", "-s", "key"])?;
    let trust = trusting(&public)?;
    trust.check(DATA, Some(&desk.text("data.minisig")?))?;
    assert!(Signer::is_locked(&secret)?);
    assert!(Signer::open(&secret, None).is_err());
    assert!(Signer::open(&secret, Some("wrong")).is_err());
    Signer::open(&secret, Some(PASSWORD))?;
    desk.minisign(&["-G", "-p", "theirs.pub", "-s", "theirs"])?;
    let theirs = desk.text("theirs")?;
    let signature = Signer::open(&theirs, Some(PASSWORD))?.sign(DATA, "x")?;
    trusting(&desk.text("theirs.pub")?)?.check(DATA, Some(&signature))?;
    Ok(())
}

fn changes() -> Result<(), Failed> {
    let desk = Desk::new()?;
    desk.minisign(&["-GW", "-p", "key.pub", "-s", "key"])?;
    desk.minisign(&["-Sm", "data", "-s", "key", "-t", "of the shop"])?;
    let signature = desk.text("data.minisig")?;
    let trust = trusting(&desk.text("key.pub")?)?;
    let refused = |bytes: &[u8], signature: Option<&str>| match trust.check(bytes, signature) {
        Ok(_) => Err(Failed::from("it was taken")),
        Err(error) => Ok(error),
    };
    assert!(matches!(
        refused(b"other", Some(&signature))?,
        SignatureError::Wrong(_)
    ));
    assert_eq!(refused(DATA, None)?, SignatureError::Missing);
    let comment = signature.replace("of the shop", "of the ship");
    assert!(matches!(
        refused(DATA, Some(&comment))?,
        SignatureError::Wrong(_)
    ));
    let (_, stranger) = generate(None)?;
    let strangers = trusting(&stranger)?.check(DATA, Some(&signature));
    assert!(matches!(strangers, Err(SignatureError::Untrusted(_))));
    for at in 0..signature.len() {
        if signature.is_char_boundary(at) && at + 1 < signature.len() {
            // Cut anywhere, it is refused, and nothing panics.
            refused(DATA, Some(&signature[..at]))?;
        }
    }
    // Of an untrusted comment anything may be changed: that is what it is.
    let other = signature.replacen("untrusted comment: ", "untrusted comment: x", 1);
    trust.check(DATA, Some(&other))?;
    // An unsigned pack may be allowed; a wrong signature is wrong all the same.
    let open = Trust {
        allow_unsigned: true,
        ..trust.clone()
    };
    assert_eq!(open.check(DATA, None)?, None);
    assert!(open.check(b"other", Some(&signature)).is_err());
    Ok(())
}
