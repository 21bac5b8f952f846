//! Permission to upload: a policy anybody can read and a signature nobody else can make.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::{Limits, Owner};
use crate::{Refusal, unix_seconds};

/// The name of the key that signs; there is one only.
pub(crate) const ACCESS_KEY_ID: &str = "ocellus";

/// As the hosted storage has it.
const LONGEST_KEY_BYTES: usize = 1023;

/// What a client gets.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// Base64 of JSON.
    pub(crate) policy: String,
    /// HMAC-SHA256 of the policy.
    pub(crate) signature: String,
    /// Keys must be this, a slash and a file's name.
    pub(crate) folder: String,
}

/// What a client says when it brings a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claim {
    pub(crate) access_key_id: String,
    pub(crate) policy: String,
    pub(crate) signature: String,
    /// Under which name it wants the file to be known.
    pub(crate) key: String,
}

/// What the policy says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Policy {
    expiration_unix_s: u64,
    folder: String,
    file_bytes: u64,
    owner: String,
}

/// What a good claim permits.
#[derive(Clone, Debug)]
pub(super) struct Permitted {
    pub(super) owner: Owner,
    pub(super) file_bytes: u64,
}

/// Signs; made anew for each process, so that no certificate outlives the files.
pub(super) struct Secret([u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret")
    }
}

impl Secret {
    pub(super) fn new() -> Self {
        // Each has 122 bits of the system's randomness.
        let halves = [uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes()];
        let mut secret = [0; 32];
        secret.copy_from_slice(halves.as_flattened());
        Self(secret)
    }

    /// Base64 of the HMAC-SHA256.
    pub(super) fn sign(&self, bytes: &[u8]) -> String {
        STANDARD.encode(self.mac(bytes).finalize().into_bytes())
    }

    /// In a time that does not depend on where a guess goes wrong.
    fn verify(&self, bytes: &[u8], signature: &str) -> bool {
        STANDARD.decode(signature).is_ok_and(|signature| self.mac(bytes).verify_slice(&signature).is_ok())
    }

    fn mac(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.0).expect("HMAC takes keys of every length");
        mac.chain_update(bytes)
    }
}

impl Certificate {
    pub(super) fn new(secret: &Secret, owner: Owner, limits: &Limits) -> Self {
        let folder = format!("{ACCESS_KEY_ID}/{}", uuid::Uuid::new_v4());
        let policy = Policy {
            expiration_unix_s: unix_seconds() + limits.certificate.as_secs(),
            folder: folder.clone(),
            file_bytes: limits.file_bytes,
            owner: owner.0,
        };
        let policy = STANDARD.encode(serde_json::json!(policy).to_string());
        Self { signature: secret.sign(policy.as_bytes()), policy, folder }
    }
}

impl Claim {
    /// Whether the certificate is ours, still good, and for this key.
    pub(super) fn check(&self, secret: &Secret) -> Result<Permitted, Refusal> {
        let refused = |reason| Err(Refusal::UploadForbidden { reason });
        if self.access_key_id != ACCESS_KEY_ID || !secret.verify(self.policy.as_bytes(), &self.signature) {
            return refused("The signature does not match.");
        }
        let policy = STANDARD.decode(&self.policy).ok();
        let Some(policy) = policy.and_then(|json| serde_json::from_slice::<Policy>(&json).ok()) else {
            return refused("The policy can't be read.");
        };
        if policy.expiration_unix_s <= unix_seconds() {
            return refused("The policy has expired.");
        }
        let name = self.key.strip_prefix(&policy.folder).and_then(|rest| rest.strip_prefix('/'));
        let plain = |name: &str| {
            !name.is_empty()
                && !name.chars().any(char::is_control)
                && name.split(['/', '\\']).all(|step| step != "..")
        };
        if !name.is_some_and(plain) || self.key.len() > LONGEST_KEY_BYTES {
            return refused("The policy does not allow this key.");
        }
        Ok(Permitted { owner: Owner(policy.owner), file_bytes: policy.file_bytes })
    }
}
