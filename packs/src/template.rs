//! A new pack to begin with: one rule with its tests, and the rest of what can be said, commented out.

use std::path::Path;

use crate::PackName;
use crate::contents::{Contents, ContentsError};

impl Contents {
    /// The files of a pack that does little, and passes its check and its tests.
    ///
    /// # Errors
    ///
    /// None that this can have.
    pub fn template(name: &PackName) -> Result<Self, ContentsError> {
        let mut contents = Self::default();
        for (file, text) in [
            ("pack.toml", include_str!("template/pack.toml")),
            ("rules/first.conf", include_str!("template/first.conf")),
            ("tests/first.yaml", include_str!("template/first.yaml")),
        ] {
            let text = text.replace("@NAME@", name.as_str());
            contents.insert(file, text.into_bytes())?;
        }
        Ok(contents)
    }

    /// Writes the template to a folder that must not be there.
    ///
    /// # Errors
    ///
    /// It is there, or the disk says no.
    pub fn begin(name: &PackName, folder: &Path) -> Result<(), ContentsError> {
        Self::template(name)?.write(folder)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Pack, Trial, check};

    use super::*;

    #[test]
    fn a_new_pack_is_sound() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("shop");
        let name = "shop".parse().expect("name");
        Contents::begin(&name, &path).expect("written");
        let pack = Pack::open(&path).expect("pack");
        assert_eq!(check(&pack), []);
        assert_eq!(Trial::of(&pack).expect("tests").passed, 2);
        assert!(Contents::begin(&name, &path).is_err(), "it is there");
        // What is commented out is valid as well.
        let text = std::fs::read_to_string(path.join("pack.toml")).expect("text");
        let all = text.replace("\n# [", "\n[").replace("\n#   ", "\n");
        let manifest = crate::Manifest::parse(&all).expect("all of it");
        assert_eq!(manifest.policy.lines().len(), 4);
        assert_eq!(manifest.limits.len(), 1);
    }
}
