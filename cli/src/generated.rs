//! What is made of the command line's own description: completions for shells, manual pages.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::command::Cli;

/// Prints what completes commands in `shell`.
pub(crate) fn completions(shell: Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "clew", &mut text);
    print(&text)
}

/// Prints the manual page of `clew`; or writes it to `directory`, with one for each command.
pub(crate) fn manual(directory: Option<&Path>) -> Result<()> {
    let command = Cli::command();
    let Some(directory) = directory else {
        let mut text = Vec::new();
        Man::new(command).render(&mut text)?;
        return print(&text);
    };
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command, directory))
        .with_context(|| format!("cannot write manual pages to {}", directory.display()))
}

/// What goes into a pipe that is closed is an error, and no panic.
fn print(text: &[u8]) -> Result<()> {
    Ok(std::io::stdout().lock().write_all(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_command_has_a_page() -> Result<()> {
        let folder = tempfile::tempdir()?;
        manual(Some(folder.path()))?;
        for (page, says) in [
            ("clew.1", "knows what a request did"),
            ("clew-run.1", "ake\\-over"),
            ("clew-packs-shadow-start.1", "live requests"),
            ("clew-bans-add.1", "ban.ipv4_prefix"),
        ] {
            let text = std::fs::read_to_string(folder.path().join(page)).context(page)?;
            assert!(
                text.starts_with(".ie") && text.contains(".TH "),
                "{page}: {text}"
            );
            assert!(text.contains(says), "{page}: {text}");
        }
        Ok(())
    }

    #[test]
    fn completions_name_commands_and_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "clew", &mut text);
            let text = String::from_utf8_lossy(&text);
            for word in ["incidents", "shadow", "take-over", "no-sensor"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }
}
