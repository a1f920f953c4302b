//! The kinds of vector files, as the working group's `test-vectors.md` has them.

use serde_json::Value;

/// What the cases of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Labelled hashes, key derivation, signatures and encryption.
    CryptoBasics,
    /// Headers of variable-length vectors.
    Deserialization,
    /// The key schedule over epochs.
    KeySchedule,
    /// Public and private messages of one sender.
    MessageProtection,
    /// Every structure, read and written.
    Messages,
    /// A client that joins and follows.
    PassiveClient,
    /// The secret of a list of pre-shared keys.
    PskSecret,
    /// Keys and nonces of the secret tree.
    SecretTree,
    /// Transcript hashes and the confirmation tag.
    TranscriptHashes,
    /// Indices of the tree.
    TreeMath,
    /// A proposal applied to a tree.
    TreeOperations,
    /// Hashes, resolutions and signatures of a tree.
    TreeValidation,
    /// Update paths, opened and made.
    TreeKem,
    /// A Welcome, opened.
    Welcome,
}

impl Kind {
    const ALL: [Self; 14] = [
        Self::CryptoBasics,
        Self::Deserialization,
        Self::KeySchedule,
        Self::MessageProtection,
        Self::Messages,
        Self::PassiveClient,
        Self::PskSecret,
        Self::SecretTree,
        Self::TranscriptHashes,
        Self::TreeMath,
        Self::TreeOperations,
        Self::TreeValidation,
        Self::TreeKem,
        Self::Welcome,
    ];

    /// The name in the working group's set, and what a case of this kind has that no other has.
    fn signs(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::CryptoBasics => ("crypto-basics", &["expand_with_label"]),
            Self::Deserialization => ("deserialization", &["vlbytes_header"]),
            Self::KeySchedule => ("key-schedule", &["initial_init_secret"]),
            Self::MessageProtection => ("message-protection", &["proposal_priv"]),
            Self::Messages => ("messages", &["mls_welcome"]),
            Self::PassiveClient => ("passive-client", &["initial_epoch_authenticator"]),
            Self::PskSecret => ("psk_secret", &["psks", "psk_secret"]),
            Self::SecretTree => ("secret-tree", &["encryption_secret", "leaves"]),
            Self::TranscriptHashes => ("transcript-hashes", &["interim_transcript_hash_before"]),
            Self::TreeMath => ("tree-math", &["n_leaves"]),
            Self::TreeOperations => ("tree-operations", &["proposal_sender"]),
            Self::TreeValidation => ("tree-validation", &["resolutions"]),
            Self::TreeKem => ("treekem", &["update_paths"]),
            Self::Welcome => ("welcome", &["signer_pub"]),
        }
    }

    /// The kind's name in the working group's set of files.
    pub(crate) fn name(self) -> &'static str {
        self.signs().0
    }

    /// The kind of a case, by its fields.
    pub(crate) fn of(case: &Value) -> Option<Self> {
        let has = |field: &&str| case.get(*field).is_some();
        Self::ALL.into_iter().find(|k| k.signs().1.iter().all(has))
    }
}
