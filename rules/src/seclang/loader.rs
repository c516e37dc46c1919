//! From files to one tree: `Include` is replaced by what it names.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ast::{Ast, Spanned};
use super::directive::{Inclusion, Statement, parse};
use super::errors::{Faults, LoadError, SyntaxError};
use super::lexer::Lines;

/// How deep files may include files: more than any rule set does, and little stack.
const DEPTH: usize = 16;

/// How many files in all, each counted as often as it is included: files that include each other
/// twice would double with each level.
const FILES: usize = 4096;

/// The largest file in bytes: the whole of CRS 4 is 2 MB.
const FILE_BYTES: u64 = 16 << 20;

/// Reads rule files in this order, and those that they include. Relative names in `Include` are
/// relative to the file that holds it; what a glob finds is read in alphabetical order.
///
/// # Errors
///
/// All that is wrong in all files: files that cannot be read, and each place that is not understood.
pub fn load(paths: &[PathBuf]) -> Result<Ast, Vec<LoadError>> {
    let mut loader = Loader::default();
    for path in paths {
        if let Err(reason) = loader.file(path) {
            loader.unreadable.push(LoadError::Unreadable {
                path: path.clone(),
                reason,
            });
        }
    }
    let mut errors = loader.unreadable;
    errors.extend(
        loader
            .faults
            .located(&loader.ast.files)
            .into_iter()
            .map(LoadError::Syntax),
    );
    if errors.is_empty() {
        Ok(loader.ast)
    } else {
        Err(errors)
    }
}

/// Reads rules out of a text; `name` is what errors and places call it. Other files are not read:
/// `Include` is refused.
///
/// # Errors
///
/// Each place that is not understood.
pub fn parse_text(name: &str, text: &str) -> Result<Ast, Vec<SyntaxError>> {
    let mut loader = Loader {
        files_closed: true,
        ..Loader::default()
    };
    loader.source(Path::new(name), text.as_bytes());
    let errors = loader.faults.located(&loader.ast.files);
    if errors.is_empty() {
        Ok(loader.ast)
    } else {
        Err(errors)
    }
}

#[derive(Default)]
struct Loader {
    ast: Ast,
    faults: Faults,
    unreadable: Vec<LoadError>,
    /// The files that are being read, by their real names: what includes one of them is a cycle.
    open: Vec<PathBuf>,
    /// Whether no file may be read.
    files_closed: bool,
}

impl Loader {
    fn file(&mut self, path: &Path) -> Result<(), String> {
        let real = fs::canonicalize(path).map_err(|error| cannot_read(&error))?;
        if self.open.contains(&real) {
            return Err("it is being read already, so that it includes itself; remove one Include of the cycle".into());
        }
        if self.open.len() >= DEPTH {
            return Err(format!(
                "files include each other more than {DEPTH} deep; include it from a file further up"
            ));
        }
        if self.ast.files.len() >= FILES {
            return Err(format!(
                "more than {FILES} files would be read; include each only once"
            ));
        }
        let source = contents(&real)?;
        self.open.push(real);
        self.source(path, &source);
        self.open.pop();
        Ok(())
    }

    fn source(&mut self, path: &Path, source: &[u8]) {
        let file = u32::try_from(self.ast.files.len()).unwrap_or(u32::MAX);
        self.ast.files.push(Arc::new(path.to_owned()));
        let base = path.parent().unwrap_or(Path::new(""));
        let mut lines = Lines::new(source, file);
        while let Some(line) = lines.next(&mut self.faults) {
            match parse(&line, base, &mut self.faults) {
                None => {}
                Some(Spanned {
                    at,
                    node: Statement::Directive(node),
                }) => {
                    self.ast.directives.push(Spanned { at, node });
                }
                Some(Spanned {
                    node: Statement::Include(inclusion),
                    ..
                }) => self.include(&inclusion, base),
            }
        }
    }

    fn include(&mut self, inclusion: &Inclusion, base: &Path) {
        if self.files_closed {
            self.faults.add(
                inclusion.pattern_at,
                "a text includes no files; load a file instead",
            );
            return;
        }
        let result = self.included(inclusion, base);
        if let Err(reason) = result {
            self.faults.add(inclusion.pattern_at, reason);
        }
    }

    /// Reads each file that the pattern names; an error of one does not keep the others unread.
    fn included(&mut self, inclusion: &Inclusion, base: &Path) -> Result<(), String> {
        let pattern = base.join(&inclusion.pattern);
        if !inclusion.pattern.contains(['*', '?', '[']) {
            let absent = inclusion.optional && !pattern.exists();
            return if absent { Ok(()) } else { self.named(&pattern) };
        }
        let found = expand(base, &inclusion.pattern)?;
        if found.is_empty() && !inclusion.optional {
            return Err(format!(
                "no file matches {}; write IncludeOptional if there need be none",
                pattern.display()
            ));
        }
        for path in found {
            if let Err(reason) = self.named(&path) {
                self.faults.add(inclusion.pattern_at, reason);
            }
        }
        Ok(())
    }

    fn named(&mut self, path: &Path) -> Result<(), String> {
        self.file(path)
            .map_err(|reason| format!("{}: {reason}", path.display()))
    }
}

/// The files that a glob names, in alphabetical order. Only the pattern's own `*?[` are wild, not
/// those of the folder that it is relative to.
fn expand(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let whole = match Path::new(pattern).is_absolute() || base.as_os_str().is_empty() {
        true => pattern.to_owned(),
        false => {
            let base = base.to_str().ok_or(
                "the folder's name is not UTF-8, in which globs are not matched; rename it",
            )?;
            format!("{}/{pattern}", glob::Pattern::escape(base))
        }
    };
    let found = glob::glob(&whole).map_err(|error| format!("`{pattern}` is no glob: {error}"))?;
    found
        .map(|path| path.map_err(|error| error.to_string()))
        .collect()
}

fn contents(path: &Path) -> Result<Vec<u8>, String> {
    // Asked before it is opened: to open a pipe would wait for who writes into it.
    let kind = fs::metadata(path).map_err(|error| cannot_read(&error))?;
    if !kind.is_file() {
        return Err("it is no regular file; name files, for a folder FOLDER/*.conf".into());
    }
    let file = fs::File::open(path).map_err(|error| cannot_read(&error))?;
    let mut source = Vec::new();
    file.take(FILE_BYTES + 1)
        .read_to_end(&mut source)
        .map_err(|error| cannot_read(&error))?;
    if source.len() as u64 > FILE_BYTES {
        return Err(format!("it is larger than {FILE_BYTES} bytes; split it"));
    }
    Ok(source)
}

fn cannot_read(error: &std::io::Error) -> String {
    format!("it cannot be read: {error}")
}
