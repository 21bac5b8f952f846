//! The two checksums of a hub: SHA-256 for large files, and for small ones the name that git gives their content.

use std::{fmt, io::Read};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Which bytes a file must have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Checksum {
    /// In lower-case hexadecimal digits, as all of them.
    Sha256(String),
    /// Over `blob`, the length, a zero byte and the content.
    GitSha1(String),
}

impl Checksum {
    /// `None` when it isn't one: the digits are a file's name too, so nothing else may be in them.
    pub(crate) fn sha256(text: &str) -> Option<Self> {
        is_hex(text, 64).then(|| Self::Sha256(text.to_owned()))
    }

    /// As [`Checksum::sha256`].
    pub(crate) fn git_sha1(text: &str) -> Option<Self> {
        is_hex(text, 40).then(|| Self::GitSha1(text.to_owned()))
    }

    /// The digits, under which the cache keeps the content.
    pub(crate) fn digits(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::GitSha1(digits) => digits,
        }
    }

    /// Begins to compute it over a content of `size` bytes.
    pub(crate) fn hasher(&self, size: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::GitSha1(_) => {
                let mut hash = Sha1::new();
                hash.update(format!("blob {size}\0"));
                Hasher::GitSha1(hash)
            }
        }
    }

    /// Computes it over all that `content` gives.
    pub(crate) fn of(&self, content: &mut dyn Read, size: u64) -> std::io::Result<String> {
        let mut hasher = self.hasher(size);
        hasher.read(content)?;
        Ok(hasher.digits())
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digits())
    }
}

/// Whether it is exactly so many lower-case hexadecimal digits.
pub(crate) fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A checksum that is being computed.
pub(crate) enum Hasher {
    Sha256(Sha256),
    GitSha1(Sha1),
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::GitSha1(hash) => hash.update(bytes),
        }
    }

    /// Takes everything that `content` gives; says how much that was.
    pub(crate) fn read(&mut self, content: &mut dyn Read) -> std::io::Result<u64> {
        let mut buffer = vec![0; 1 << 18];
        let mut all = 0;
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return Ok(all),
                Ok(n) => {
                    self.update(&buffer[..n]);
                    all += n as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn digits(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(hash) => hex(&hash.finalize()),
            Self::GitSha1(hash) => hex(&hash.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        // `printf abc | sha256sum`, and `printf abc | git hash-object --stdin`.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let git = "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f";
        for checksum in [Checksum::sha256(sha256).unwrap(), Checksum::git_sha1(git).unwrap()] {
            assert_eq!(checksum.of(&mut &b"abc"[..], 3).unwrap(), checksum.digits());
            assert_ne!(checksum.of(&mut &b"abd"[..], 3).unwrap(), checksum.digits());
        }
    }

    #[test]
    fn only_digits_become_names() {
        for wrong in
            ["", "../../../etc/passwd", &"A".repeat(64), &"a".repeat(63), &"g".repeat(64), &"a".repeat(65)]
        {
            assert_eq!(Checksum::sha256(wrong), None);
        }
        assert_eq!(Checksum::git_sha1(&"a".repeat(64)), None);
    }
}
