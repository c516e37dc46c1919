//! `clew packs`: rule packs, from the first line to being in force.

mod author;
mod keys;
mod place;
mod shadow;
mod stored;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use clew_packs::PackName;

pub(crate) use self::place::trusted;
use self::place::{Place, Reference};

/// What can be done with packs.
#[derive(Subcommand)]
#[command(
    after_help = "A pack is a folder, or an archive NAME-VERSION.clewpack with its signature beside it:\n  clew packs new shop                        a folder to begin with\n  clew packs check shop && clew packs test shop\n  clew packs pack shop                       shop-0.1.0.clewpack\n  clew packs sign shop-0.1.0.clewpack --key clew.key\n  clew packs install shop-0.1.0.clewpack --config /etc/clew.toml\n  clew packs activate shop"
)]
pub(crate) enum PacksCommand {
    /// Begin a pack: a folder with a rule, its tests, and all that can be said, commented out
    New {
        /// Its name: lower-case letters, digits and -
        name: PackName,
        /// Where [default: a folder of its name]
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
    /// Say everything that is wrong with a pack
    Check {
        /// A folder or an archive
        pack: PathBuf,
        /// Warnings count as errors
        #[arg(long)]
        strict: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a pack's own tests
    Test {
        /// A folder or an archive
        pack: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make an archive of a folder; the same folder gives the same archive
    Pack {
        /// The folder
        folder: PathBuf,
        /// Where to [default: NAME-VERSION.clewpack, here]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Make a pair of keys, as minisign has them
    Keygen {
        /// The secret key's file, which must not be there
        #[arg(long, value_name = "FILE", default_value = "clew.key")]
        secret: PathBuf,
        /// The public key's file, which must not be there
        #[arg(long, value_name = "FILE", default_value = "clew.pub")]
        public: PathBuf,
        /// The secret key gets no password: who has the file can sign
        #[arg(long, conflicts_with = "password_file")]
        unencrypted: bool,
        /// The password's file; - for standard input [default: it is asked for]
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Sign an archive; `minisign -Vm ARCHIVE` verifies it as well
    Sign {
        /// The archive; its signature is written beside it (.minisig)
        archive: PathBuf,
        /// The secret key's file
        #[arg(long, value_name = "FILE", default_value = "clew.key")]
        key: PathBuf,
        /// What is signed with it [default: the archive's name and version]
        #[arg(long)]
        comment: Option<String>,
        /// The password's file; - for standard input [default: it is asked for]
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Verify an archive's signature
    Verify {
        /// The archive; its signature is beside it (.minisig)
        archive: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Install an archive: verified, checked, tested
    Install {
        /// The archive; its signature is beside it (.minisig)
        archive: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// What is installed, and what is active
    List(Place),
    /// Put a pack in force, in the place of another version of it
    #[command(
        after_help = "Examples:\n  clew packs activate shop            the highest version that is installed\n  clew packs activate shop@1.2.3"
    )]
    Activate {
        /// NAME or NAME@VERSION
        pack: Reference,
        #[command(flatten)]
        place: Place,
    },
    /// Have a pack judge live requests without effect, and see what it would change
    Shadow {
        #[command(subcommand)]
        command: shadow::ShadowCommand,
    },
    /// Take a pack out of force
    Deactivate {
        /// Its name
        name: PackName,
        #[command(flatten)]
        place: Place,
    },
    /// Go back to what was active before the last change
    Rollback(Place),
    /// Remove an installed version
    Remove {
        /// NAME@VERSION
        pack: Reference,
        #[command(flatten)]
        place: Place,
    },
    /// What is different between two packs: rules by id, policy, limits, files
    #[command(
        after_help = "Examples:\n  clew packs diff shop@1.0.0 shop@1.1.0     two that are installed\n  clew packs diff ./shop shop-1.0.0.clewpack"
    )]
    Diff {
        /// A folder, an archive, or NAME@VERSION
        before: String,
        /// A folder, an archive, or NAME@VERSION
        after: String,
        #[command(flatten)]
        place: Place,
    },
    /// Write the narrowest exception for what was stopped, into a pack to be reviewed
    #[command(
        after_help = "Examples:\n  clew packs except last                    the newest incident\n  clew packs except 0197a1b2                an incident, by the start of its id\n  clew packs except --record report.json    the report of a request, or an incident; - for standard input\n\nThen read it, pack it, sign it, install it, and activate it."
    )]
    Except {
        /// An incident's id, or the start of it; "last" for the newest
        #[arg(required_unless_present = "record", conflicts_with = "record")]
        incident: Option<String>,
        /// JSON of an incident, or of a request's report
        #[arg(long, value_name = "FILE")]
        record: Option<PathBuf>,
        /// The pack's folder, which is begun where there is none
        #[arg(long, value_name = "FOLDER", default_value = "exceptions")]
        into: PathBuf,
        #[command(flatten)]
        place: Place,
    },
}

/// Carries out a command.
pub(crate) fn run(command: PacksCommand) -> Result<ExitCode> {
    use PacksCommand as C;
    match command {
        C::New { name, folder } => author::begin(&name, folder),
        C::Check { pack, strict, json } => author::check(&pack, strict, json),
        C::Test { pack, json } => author::test(&pack, json),
        C::Pack { folder, output } => author::pack(&folder, output),
        C::Except {
            incident,
            record,
            into,
            place,
        } => author::except(incident.as_deref(), record.as_deref(), &into, &place),
        C::Keygen {
            secret,
            public,
            unencrypted,
            password_file,
        } => keys::generate(&secret, &public, unencrypted, password_file.as_deref()),
        C::Sign {
            archive,
            key,
            comment,
            password_file,
        } => keys::sign(&archive, &key, comment.as_deref(), password_file.as_deref()),
        C::Verify { archive, place } => keys::verify(&archive, &place),
        C::Install { archive, place } => stored::install(&archive, &place),
        C::Shadow { command } => shadow::run(command),
        C::List(place) => stored::list(&place),
        C::Activate { pack, place } => stored::activate(&pack, &place),
        C::Deactivate { name, place } => stored::deactivate(&name, &place),
        C::Rollback(place) => stored::rollback(&place),
        C::Remove { pack, place } => stored::remove(&pack, &place),
        C::Diff {
            before,
            after,
            place,
        } => stored::diff(&before, &after, &place),
    }
}
