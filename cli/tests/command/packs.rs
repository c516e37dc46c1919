//! `clew packs`: from a new folder to a request that an active pack refuses.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use crate::Test;
use crate::stage::{CLEW, get, launch, shared_directory};

pub(crate) const TESTS: &[Test] = &[
    (
        "a_pack_goes_from_a_folder_into_force",
        from_folder_into_force,
    ),
    ("what_is_wrong_with_a_pack_is_told", what_is_wrong),
    ("the_pack_of_clew_is_sound", the_pack_of_clew),
];

/// The command in this folder, with a state directory of its own.
fn clew(folder: &Path, words: &str) -> Result<Output> {
    let words: Vec<&str> = words.split_whitespace().collect();
    Ok(Command::new(CLEW)
        .args(words)
        .current_dir(folder)
        .output()?)
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// What it prints, where it is to succeed.
fn done(folder: &Path, words: &str) -> Result<String> {
    let output = clew(folder, words)?;
    ensure!(output.status.success(), "clew {words}: {}", said(&output));
    Ok(said(&output))
}

/// What it says, where it is to fail.
fn refused(folder: &Path, words: &str) -> Result<String> {
    let output = clew(folder, words)?;
    ensure!(
        output.status.code() == Some(1),
        "clew {words}: {}",
        said(&output)
    );
    Ok(said(&output))
}

fn blocking(folder: &Path, version: &str) -> Result<()> {
    let path = folder.join("shop/pack.toml");
    let text = std::fs::read_to_string(&path)?;
    let old = text
        .lines()
        .find(|line| line.starts_with("version"))
        .context("no version")?;
    let text = text.replace(old, &format!("version = \"{version}\""));
    Ok(std::fs::write(
        path,
        text.replace("mode = \"detect\" ", "mode = \"block\" "),
    )?)
}

fn from_folder_into_force() -> Result<()> {
    let directory = shared_directory()?;
    let folder = directory.path();
    done(folder, "packs new shop")?;
    blocking(folder, "1.0.0")?;
    done(folder, "packs check shop --strict")?;
    ensure!(done(folder, "packs test shop")?.contains("2 passed, 0 failed"));
    done(folder, "packs pack shop")?;
    done(folder, "packs keygen --unencrypted")?;
    done(folder, "packs sign shop-1.0.0.clewpack")?;
    let key = std::fs::read_to_string(folder.join("clew.pub"))?;
    let key = key.lines().nth(1).context("no key")?;
    let config = format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[[service]]\nname = \"a\"\nupstreams = [\"127.0.0.1:9\"]\n[sensor]\nenabled = false\n\
         [packs]\ntrust = [\"{key}\"]\n[state]\ndirectory = \"{}/state\"\n",
        folder.display()
    );
    std::fs::write(folder.join("clew.toml"), config)?;
    let refusal = refused(folder, "packs install shop-1.0.0.clewpack --state state")?;
    ensure!(refusal.contains("is not trusted"), "{refusal}");
    done(
        folder,
        "packs verify shop-1.0.0.clewpack --config clew.toml",
    )?;
    done(
        folder,
        "packs install shop-1.0.0.clewpack --config clew.toml",
    )?;
    done(folder, "packs activate shop --config clew.toml")?;
    ensure!(done(folder, "packs list --config clew.toml")?.contains("active 1  shop@1.0.0"));
    ensure!(done(folder, "check clew.toml")?.contains("is valid"));
    {
        let (_clew, port) = launch(
            folder,
            &["--config", &folder.join("clew.toml").to_string_lossy()],
        )?;
        ensure!(get(port, "/?debug=on")?.0 == 403);
        ensure!(get(port, "/?debug=off")?.0 == 502, "there is nobody behind");
    }
    // The state belongs to Clew's account now, where the test has the right to give it away.
    blocking(folder, "1.1.0")?;
    let rule = folder.join("shop/rules/first.conf");
    let text = std::fs::read_to_string(&rule)?.replace("status:403", "status:404");
    std::fs::write(&rule, text)?;
    done(folder, "packs pack shop")?;
    done(folder, "packs sign shop-1.1.0.clewpack")?;
    done(
        folder,
        "packs install shop-1.1.0.clewpack --config clew.toml",
    )?;
    done(folder, "packs activate shop@1.1.0 --config clew.toml")?;
    let difference = done(
        folder,
        "packs diff shop@1.0.0 shop@1.1.0 --config clew.toml",
    )?;
    ensure!(
        difference.contains("- rule 9000001") && difference.contains("status:404"),
        "{difference}"
    );
    let refusal = refused(folder, "packs remove shop@1.1.0 --config clew.toml")?;
    ensure!(refusal.contains("is active"), "{refusal}");
    ensure!(done(folder, "packs rollback --config clew.toml")?.contains("shop@1.0.0"));
    done(folder, "packs remove shop@1.1.0 --config clew.toml")?;
    done(folder, "packs deactivate shop --config clew.toml")?;
    let list = done(folder, "packs list --json --config clew.toml")?;
    let list: serde_json::Value = serde_json::from_str(&list)?;
    ensure!(list["active"] == serde_json::json!([]), "{list}");
    ensure!(list["installed"][0]["pack"]["version"] == "1.0.0", "{list}");
    Ok(())
}

fn what_is_wrong() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let folder = directory.path();
    done(folder, "packs new shop")?;
    std::fs::write(
        folder.join("shop/rules/b.conf"),
        "SecRule ARGS \"@rx (\" \"id:1,phase:2,deny\"\n",
    )?;
    let told = refused(folder, "packs check shop")?;
    ensure!(told.contains("shop/rules/b.conf:1:"), "{told}");
    std::fs::write(folder.join("shop/pack.toml"), "nam = \"shop\"\n")?;
    let told = refused(folder, "packs check shop --json")?;
    ensure!(
        told.contains("pack.toml:1:1") && told.contains("did you mean `name`?"),
        "{told}"
    );
    std::fs::write(folder.join("x.clewpack"), "no archive")?;
    let told = refused(
        folder,
        "packs install x.clewpack --allow-unsigned --state state",
    )?;
    ensure!(told.contains("this is no pack"), "{told}");
    let told = refused(folder, "packs activate shop --state state")?;
    ensure!(told.contains("shop is not installed"), "{told}");
    std::fs::write(folder.join("record.json"), "{}")?;
    let told = refused(folder, "packs except --record record.json")?;
    ensure!(told.contains("neither an incident"), "{told}");
    ensure!(!folder.join("exceptions").exists(), "nothing was begun");
    // In a session of its own there is no terminal.
    let keygen = Command::new("setsid")
        .args(["--wait", CLEW, "packs", "keygen"])
        .current_dir(folder)
        .output()?;
    let told = said(&keygen);
    ensure!(
        !keygen.status.success() && told.contains("--password-file"),
        "{told}"
    );
    ensure!(!folder.join("clew.key").exists(), "nothing was begun");
    Ok(())
}

fn the_pack_of_clew() -> Result<()> {
    let packs = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/packs");
    done(Path::new(packs), "packs check clew --strict")?;
    Ok(())
}
