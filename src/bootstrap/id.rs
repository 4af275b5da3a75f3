//! The name and the secret of a job.
//!
//! Invariant: the secret is never printed, never compared byte by byte, and overwritten when it is dropped.

use rustix::process::geteuid;
use sha2::{Digest, Sha256};
use sohu_coll_core::Error;
use std::fmt;
use subtle::ConstantTimeEq;

use super::host::HostIdentity;

/// Bytes of a job id.
pub(crate) const JOB_BYTES: usize = 16;
/// Bytes of a secret: as many as HMAC-SHA-256 makes full use of.
pub(crate) const SECRET_BYTES: usize = 32;
/// What the text form of version 1 opens with.
const TEXT_PREFIX: &str = "sohu1-";

/// 32 bytes that only the ranks of one job know.
#[derive(Clone)]
pub(crate) struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// Takes the bytes over; the caller's copy is the caller's to overwrite.
    pub(crate) fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, to key a hash with.
    pub(crate) fn bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // The bytes are dead after this line; without a reader the compiler may drop the overwrite.
        std::hint::black_box(&self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What the ranks of one job share before they know one another: a job id by which they find each other, and a secret
/// by which they know each other. Whoever has it can join the job, so keep its text form
/// ([`UniqueId::to_text`]) as private as a password; `Debug` and `Display` show the job id only.
#[derive(Clone, PartialEq, Eq)]
pub struct UniqueId {
    job: [u8; JOB_BYTES],
    secret: Secret,
}

impl UniqueId {
    /// A fresh id with a fresh secret. One rank makes it and ships it to the others.
    ///
    /// # Panics
    /// When the kernel has no random bytes to give, which Linux does not do once it has booted.
    #[allow(clippy::new_without_default)] // a default that differs each time would surprise
    pub fn new() -> Self {
        let mut id = Self { job: [0; JOB_BYTES], secret: Secret([0; SECRET_BYTES]) };
        getrandom::fill(&mut id.job).expect("a booted kernel gives random bytes");
        getrandom::fill(&mut id.secret.0).expect("a booted kernel gives random bytes");
        id
    }

    /// The id with its secret as one line of text, for programs that ship it to the other ranks themselves. Treat it
    /// as a password: no command line, no log, no file that others can read.
    pub fn to_text(&self) -> String {
        format!("{TEXT_PREFIX}{}{}", hex(&self.job), hex(self.secret.bytes()))
    }

    /// How long the text form is, in bytes.
    pub(crate) const TEXT_BYTES: usize = TEXT_PREFIX.len() + 2 * (JOB_BYTES + SECRET_BYTES);

    /// Reads what [`UniqueId::to_text`] wrote; white space around it is ignored.
    ///
    /// # Errors
    /// [`Error::Refused`] when the text is no unique id of this version. The message does not repeat the text.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        let bad = |what: &str| {
            Error::Refused(format!("the text of the unique id {what}; pass on what to_text() gave"))
        };
        let digits = text
            .trim()
            .strip_prefix(TEXT_PREFIX)
            .ok_or_else(|| bad(&format!("does not open with {TEXT_PREFIX}")))?;
        let mut bytes = unhex(digits).ok_or_else(|| bad("has something else than hexadecimal digits"))?;
        if bytes.len() != JOB_BYTES + SECRET_BYTES {
            let digits = 2 * (JOB_BYTES + SECRET_BYTES);
            return Err(bad(&format!("has {} digits, not {digits}", 2 * bytes.len())));
        }
        let (job, secret) = bytes.split_at(JOB_BYTES);
        let id = Self {
            job: job.try_into().expect("split at its length"),
            secret: Secret(secret.try_into().expect("the length was checked")),
        };
        bytes.fill(0);
        Ok(id)
    }

    /// An id with a given secret; every rank that gives the same name and the same secret makes the same id.
    /// Without a name the job id is a hash of the secret.
    pub(crate) fn with_secret(name: Option<&str>, secret: Secret) -> Self {
        let hash = match name {
            Some(name) => digest("named job", &[name.as_bytes()]),
            None => digest("unnamed job", &[secret.bytes()]),
        };
        Self { job: head(&hash), secret }
    }

    /// An id made from what a launcher told every rank of the job (and nobody else's job), where no secret was
    /// given.
    ///
    /// Such an id holds **no real secret**: any program of the same user could make it up. What keeps
    /// strangers out is then the kernel alone: bootstrap asks it who is at the other end of each socket
    /// and takes this user's processes only. The user id is hashed too, so that two users who run the same
    /// launcher line do not meet, and so is the boot id, so that a recycled pid does not.
    pub(crate) fn derived(source: &str, facts: &[(&str, &str)], host: &HostIdentity) -> Self {
        let uid = geteuid().as_raw().to_le_bytes();
        let mut parts: Vec<&[u8]> = vec![source.as_bytes(), &uid, host.boot.as_bytes()];
        parts.extend(facts.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]));
        Self { job: head(&digest("derived job", &parts)), secret: Secret(digest("derived secret", &parts)) }
    }

    /// The job id, as text. Not secret.
    pub(crate) fn job(&self) -> String {
        hex(&self.job)
    }

    /// The job id. Not secret.
    pub(crate) fn job_bytes(&self) -> [u8; JOB_BYTES] {
        self.job
    }

    /// The secret.
    pub(crate) fn secret(&self) -> &[u8; SECRET_BYTES] {
        self.secret.bytes()
    }

    /// The name of the abstract socket at which rank 0 of the job can be found. It follows from the job id alone,
    /// so that ranks with different secrets meet and can say so.
    pub(crate) fn root_name(&self) -> Vec<u8> {
        socket_name(&head(&digest("root", &[&self.job])))
    }
}

impl fmt::Debug for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UniqueId").field("job", &self.job()).field("secret", &self.secret).finish()
    }
}

impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}", self.job())
    }
}

/// The abstract socket name that carries these bytes; the prefix lets a reader of `ss -xl` know whose it is.
pub(crate) fn socket_name(bytes: &[u8; JOB_BYTES]) -> Vec<u8> {
    format!("sohu-coll-{}", hex(bytes)).into_bytes()
}

/// SHA-256 over a label and parts, each with its length, so that no two lists of parts read the same.
fn digest(label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in std::iter::once(label.as_bytes()).chain(parts.iter().copied()) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn head(hash: &[u8; 32]) -> [u8; JOB_BYTES] {
    let mut job = [0; JOB_BYTES];
    job.copy_from_slice(&hash[..JOB_BYTES]);
    job
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|d| char::from_digit(d.into(), 16).expect("below 16"))
        .collect()
}

/// The bytes that hexadecimal digits stand for; `None` for an odd number of them or for anything else.
pub(crate) fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|v| u8::try_from(v).ok());
    digits.chunks_exact(2).map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(boot: &str) -> HostIdentity {
        HostIdentity { boot: boot.into(), launcher: None }
    }

    #[test]
    fn text_gives_the_same_id_back() {
        let id = UniqueId::new();
        assert_eq!(UniqueId::from_text(&format!("  {}\n", id.to_text())).unwrap(), id);
        assert_ne!(UniqueId::new(), id);
    }

    #[test]
    fn bad_text_is_refused_without_repeating_it() {
        let good = UniqueId::new().to_text();
        for bad in
            ["", "sohu1-", "sohu2-00", &good[..good.len() - 2], &good[..good.len() - 1], &format!("{good}zz")]
        {
            let told = UniqueId::from_text(bad).unwrap_err().to_string();
            assert!(told.contains("to_text()"), "{told}");
            assert!(bad.len() < 20 || !told.contains(&bad[20..40]), "{told}");
        }
    }

    #[test]
    fn neither_debug_nor_display_shows_the_secret() {
        let id = UniqueId::new();
        let secret = hex(id.secret.bytes());
        for shown in [format!("{id:?}"), format!("{id}"), format!("{:?}", id.secret)] {
            assert!(!shown.contains(&secret[..8]), "{shown}");
        }
    }

    #[test]
    fn derived_ids_differ_when_any_fact_differs() {
        let facts = [("MASTER_ADDR", "localhost"), ("MASTER_PORT", "29500")];
        let base = UniqueId::derived("torchrun", &facts, &host("a"));
        assert_eq!(base, UniqueId::derived("torchrun", &facts, &host("a")));
        assert_ne!(base, UniqueId::derived("torchrun", &facts, &host("b")));
        assert_ne!(base, UniqueId::derived("hydra", &facts, &host("a")));
        let moved = [("MASTER_ADDR", "localhost2"), ("MASTER_PORT", "9500")];
        assert_ne!(base.job(), UniqueId::derived("torchrun", &moved, &host("a")).job());
        assert_ne!(base.root_name(), UniqueId::derived("torchrun", &moved, &host("a")).root_name());
    }

    #[test]
    fn ids_with_one_name_and_two_secrets_meet_at_the_same_socket() {
        let one = UniqueId::with_secret(Some("job"), Secret::new([1; 32]));
        let two = UniqueId::with_secret(Some("job"), Secret::new([2; 32]));
        assert_eq!(one.root_name(), two.root_name());
        assert_ne!(one, two);
        let unnamed = UniqueId::with_secret(None, Secret::new([1; 32]));
        assert_ne!(unnamed.job(), UniqueId::with_secret(None, Secret::new([2; 32])).job());
    }

    #[test]
    fn hexadecimal_digits_read_back_and_other_text_does_not() {
        assert_eq!(unhex(&hex(&[0, 1, 0xab, 255])), Some(vec![0, 1, 0xab, 255]));
        assert_eq!(unhex(""), Some(vec![]));
        for bad in ["1", "0g", "+1", "é"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }
}
