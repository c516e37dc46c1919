//! Signatures and keys in the format of minisign (<https://jedisct1.github.io/minisign/>): Ed25519 over
//! the BLAKE2b hash of an archive, and over the comment that says what was signed.

use std::fmt;

use clew_rules::transformation::Transformation;
use minisign::{KeyPair, PublicKey, PublicKeyBox, SecretKey, SecretKeyBox, SignatureBox};

/// What is put behind an archive's name for that of its signature.
pub const SUFFIX: &str = ".minisig";

/// Longest text of a key or signature, bytes; minisign's comments are at most 8 KiB.
pub(crate) const TEXT_BYTES: usize = 16 << 10;

/// Why something is not signed, or by nobody who counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There is no signature.
    #[error(
        "it is not signed; install it with its {SUFFIX} file beside it, or say packs.allow_unsigned = true"
    )]
    Missing,
    /// It is no signature of minisign.
    #[error("its signature cannot be read: {0}")]
    Malformed(String),
    /// The key is not in the list.
    #[error(
        "it is signed with the key {0}, which is not trusted; if it should be, add the public key to packs.trust"
    )]
    Untrusted(String),
    /// The signature is of something else.
    #[error(
        "its signature by the key {0} is wrong: it was changed, or the signature belongs to another file"
    )]
    Wrong(String),
    /// A key that cannot be used.
    #[error("the key cannot be used: {0}")]
    Key(String),
}

/// A public key: the 56 characters of base64 that begin with `RW`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier(PublicKey);

impl Verifier {
    /// Reads a key: the line of base64 alone, or the file that minisign writes.
    ///
    /// # Errors
    ///
    /// It is no key.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let text = text.trim();
        let shown: String = text.chars().take(60).collect();
        let bad =
            |_| SignatureError::Key(format!("{shown:?} is no public key of minisign (RW...)"));
        let key = match text.contains('\n') {
            true => PublicKeyBox::from_string(text).and_then(PublicKeyBox::into_public_key),
            false => PublicKey::from_base64(text),
        };
        let key = key.map_err(bad)?;
        match key.to_bytes().starts_with(b"Ed") {
            true => Ok(Self(key)),
            false => Err(SignatureError::Key(
                "it is not of the kind Ed25519".to_owned(),
            )),
        }
    }

    /// Sixteen hexadecimal digits, by which minisign names it.
    pub fn id(&self) -> String {
        key_id(self.0.keynum())
    }

    /// The line of base64.
    pub fn text(&self) -> String {
        self.0.to_base64()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({})", self.text())
    }
}

/// A secret key. It does not show itself.
pub struct Signer(SecretKey);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(secret)")
    }
}

impl Signer {
    /// Whether the text of a key's file needs a password.
    ///
    /// # Errors
    ///
    /// It is no secret key.
    pub fn is_locked(text: &str) -> Result<bool, SignatureError> {
        // Not one of these texts may be shown: an error says nothing of what it found.
        let line = text.lines().nth(1).unwrap_or_default().trim();
        let plain = line.starts_with("RWQAAEIy");
        let locked = line.starts_with("RWRTY0Iy");
        match (plain || locked) && text.len() <= TEXT_BYTES {
            true => Ok(locked),
            false => Err(SignatureError::Key(
                "this is no secret key of minisign".to_owned(),
            )),
        }
    }

    /// Reads the file of a secret key; `password` opens one that is locked. Costs up to a second and 1 GiB
    /// of memory, as whoever made the key has chosen (scrypt, RFC 7914).
    ///
    /// # Errors
    ///
    /// It is no key, or the password is missing or wrong.
    pub fn open(text: &str, password: Option<&str>) -> Result<Self, SignatureError> {
        let file = SecretKeyBox::from(text.to_owned());
        let key = match (Self::is_locked(text)?, password) {
            (false, _) => file
                .into_unencrypted_secret_key()
                .or_else(|error| unchecked(text).ok_or(error)),
            (true, Some(password)) => file.into_secret_key(Some(password.to_owned())),
            (true, None) => return Err(SignatureError::Key("it needs its password".to_owned())),
        };
        key.map(Self)
            .map_err(|error| SignatureError::Key(error.to_string()))
    }

    /// Its public half.
    ///
    /// # Errors
    ///
    /// The key is damaged.
    pub fn verifier(&self) -> Result<Verifier, SignatureError> {
        let key = PublicKey::from_secret_key(&self.0);
        key.map(Verifier)
            .map_err(|error| SignatureError::Key(error.to_string()))
    }

    /// The text of a signature of `bytes`; `comment` is signed with it: one line, at most 1 KiB.
    ///
    /// # Errors
    ///
    /// The comment is too long or of several lines, or there is no randomness.
    pub fn sign(&self, bytes: &[u8], comment: &str) -> Result<String, SignatureError> {
        if comment.len() > 1024 || comment.contains(char::is_control) {
            return Err(SignatureError::Malformed(
                "a comment is one line of at most 1 KiB".to_owned(),
            ));
        }
        let own = self.verifier()?;
        let untrusted = format!("signature from key {}", own.id());
        let signature = minisign::sign(
            Some(&own.0),
            &self.0,
            bytes,
            Some(comment.trim()),
            Some(&untrusted),
        );
        signature
            .map(SignatureBox::into_string)
            .map_err(|error| SignatureError::Key(error.to_string()))
    }
}

/// minisign before 0.12 leaves the checksum of a key without a password empty. That the halves of the key fit
/// together is seen when it signs.
fn unchecked(text: &str) -> Option<SecretKey> {
    const CHECKSUM_BYTES: usize = 32;
    let mut bytes = Vec::new();
    let line = text.lines().nth(1)?.trim();
    if !Transformation::Base64Decode.apply(line.as_bytes(), None, &mut bytes) {
        return None;
    }
    let checksum = bytes.len().checked_sub(CHECKSUM_BYTES)?;
    let is_empty = bytes[checksum..].iter().all(|byte| *byte == 0);
    is_empty
        .then(|| SecretKey::from_bytes(&bytes).ok())
        .flatten()
}

/// A new pair of keys, as texts of the files that minisign reads: the secret one, and the public one.
///
/// # Errors
///
/// There is no randomness.
pub fn generate(password: Option<&str>) -> Result<(String, String), SignatureError> {
    let pair = match password {
        Some(password) => KeyPair::generate_encrypted_keypair(Some(password.to_owned())),
        None => KeyPair::generate_unencrypted_keypair(),
    };
    let texts = pair.and_then(|pair| {
        let comment = match password {
            Some(_) => "minisign encrypted secret key",
            None => "minisign secret key",
        };
        let secret = pair.sk.to_box(Some(comment))?.into_string();
        Ok((secret, pair.pk.to_box()?.into_string()))
    });
    texts.map_err(|error| SignatureError::Key(error.to_string()))
}

/// Whose packs are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// The keys.
    pub keys: Vec<Verifier>,
    /// Packs without a signature are taken as well. A signature that is there must be right and trusted all
    /// the same.
    pub allow_unsigned: bool,
}

/// What a signature that was checked says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The key's id.
    pub key: String,
    /// The trusted comment.
    pub comment: String,
}

impl Trust {
    /// Reads a list of public keys, as `packs.trust` has it.
    ///
    /// # Errors
    ///
    /// The first that is none.
    pub fn parse(keys: &[String], allow_unsigned: bool) -> Result<Self, SignatureError> {
        let keys = keys.iter().map(|text| Verifier::parse(text));
        Ok(Self {
            keys: keys.collect::<Result<_, _>>()?,
            allow_unsigned,
        })
    }

    /// Checks the signature of `bytes`; none where there is none and none is needed.
    ///
    /// # Errors
    ///
    /// It is missing, cannot be read, is wrong, or of a key that is not trusted.
    pub fn check(
        &self,
        bytes: &[u8],
        signature: Option<&str>,
    ) -> Result<Option<Signed>, SignatureError> {
        let Some(text) = signature else {
            return match self.allow_unsigned {
                true => Ok(None),
                false => Err(SignatureError::Missing),
            };
        };
        let signature = parsed(text)?;
        let id = key_id(signature.keynum());
        let mut named = self
            .keys
            .iter()
            .filter(|key| key.0.keynum() == signature.keynum())
            .peekable();
        if named.peek().is_none() {
            return Err(SignatureError::Untrusted(id));
        }
        // An id is not unique: whoever makes a key chooses it.
        for key in named {
            let data = std::io::Cursor::new(bytes);
            if minisign::verify(&key.0, &signature, data, true, false, true).is_ok() {
                let comment = signature.trusted_comment();
                let comment =
                    comment.map_err(|error| SignatureError::Malformed(error.to_string()))?;
                return Ok(Some(Signed { key: id, comment }));
            }
        }
        Err(SignatureError::Wrong(id))
    }
}

/// The library takes signatures of any length, and counts on 64 bytes.
fn parsed(text: &str) -> Result<SignatureBox, SignatureError> {
    let length = |line: usize| text.lines().nth(line).map_or(0, |it| it.trim().len());
    if text.len() > TEXT_BYTES || length(1) != 100 || length(3) != 88 {
        let message = "its lines are not those of a minisign signature".to_owned();
        return Err(SignatureError::Malformed(message));
    }
    SignatureBox::from_string(text).map_err(|error| SignatureError::Malformed(error.to_string()))
}

/// As minisign shows it: little-endian.
fn key_id(number: &[u8]) -> String {
    number
        .iter()
        .rev()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}
