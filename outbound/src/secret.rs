//! What proves who sends.

use std::fmt;
use std::path::PathBuf;

use crate::Error;

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File(PathBuf),
    /// In an environment variable.
    Environment(String),
}

impl Place {
    /// Where `KEY_file` or `KEY_env` of a configuration say that it is; none where neither does.
    ///
    /// # Errors
    /// When both do.
    pub fn of(
        key: &str,
        file: &Option<PathBuf>,
        environment: &Option<String>,
    ) -> Result<Option<Self>, String> {
        match (file, environment) {
            (Some(_), Some(_)) => Err(format!("give `{key}_file` or `{key}_env`, not both")),
            (Some(file), None) => Ok(Some(Self::File(file.clone()))),
            (None, Some(name)) => Ok(Some(Self::Environment(name.clone()))),
            (None, None) => Ok(None),
        }
    }
}

/// A token, or a key. It is never shown.
pub struct Secret(String);

impl Secret {
    /// Reads it from where it is. White space around it is left out.
    ///
    /// # Errors
    /// When it is not there, is empty, or is no text that a header can have.
    pub fn read(place: &Place) -> Result<Self, Error> {
        let (name, text) = match place {
            Place::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| Error::Secret {
                    place: path.display().to_string(),
                    problem: error.to_string(),
                })?;
                (path.display().to_string(), text)
            }
            Place::Environment(name) => (name.clone(), std::env::var(name).unwrap_or_default()),
        };
        let text = text.trim();
        match text.is_empty() || !text.bytes().all(|it| it.is_ascii_graphic()) {
            true => Err(Error::Secret {
                place: name,
                problem: "it must be one word of visible ASCII".to_owned(),
            }),
            false => Ok(Self(text.to_owned())),
        }
    }

    /// To be put where it belongs.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
