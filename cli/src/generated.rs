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

    /// Words of a line of a shell; what is in double quotes is one.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut is_quoted = false;
        for it in line.chars() {
            match it {
                '"' => is_quoted = !is_quoted,
                ' ' if !is_quoted => words.push(String::new()),
                _ => words
                    .iter_mut()
                    .last()
                    .into_iter()
                    .for_each(|word| word.push(it)),
            }
        }
        words.retain(|it| !it.is_empty());
        words
    }

    #[test]
    fn commands_in_documents_are_commands() -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut tried = 0;
        for document in ["README.md", "docs/operations.md", "docs/upgrade.md"] {
            let text = std::fs::read_to_string(root.join(document)).context(document)?;
            let lines = text
                .lines()
                .map(|it| it.trim_start_matches("target/release/"));
            for line in lines.filter(|it| it.starts_with("clew ")) {
                let commands = line.split(['#', '>']).next().unwrap_or_default();
                for command in commands.split("&&") {
                    let parsed = Cli::command().try_get_matches_from(words(command));
                    parsed.with_context(|| format!("{document}: {line}"))?;
                    tried += 1;
                }
            }
        }
        anyhow::ensure!(tried > 30, "only {tried} commands were found");
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
