//! What is changed inside a device's own cryptography, so that openmls makes what it would refuse to make.

use std::collections::BTreeSet;
use std::sync::Mutex;

use mortise_protocol::group::Crypto;
use mortise_protocol::group::storage::MlsStorage;
use mortise_protocol::identity::SigningKey;
use openmls::prelude::tls_codec::{Deserialize as _, SecretVLBytes, Serialize as _, VLBytes};
use openmls_traits::OpenMlsProvider;
use openmls_traits::crypto::OpenMlsCrypto;
use openmls_traits::signatures::{Signer, SignerError};
use openmls_traits::types::{
    AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeCiphertext, HpkeConfig,
    HpkeKeyPair, KemOutput, SignatureScheme,
};

/// The label of what signs a message (RFC 9420 §6.1).
const FRAMED_CONTENT: &[u8] = b"MLS 1.0 FramedContentTBS";

/// Makes another body of a message: of a commit, a proposal or an application message.
pub type Body = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// What to change; the default is nothing.
#[derive(Default)]
pub struct Twist {
    body: Option<Body>,
    bad_signature: Option<&'static str>,
    bad_confirmation_tag: bool,
    bad_padding: bool,
    sender: Option<u32>,
    wrong_secret_for: Option<Vec<u8>>,
    unusable_key: Option<usize>,
    pub(super) noise_for: BTreeSet<Vec<u8>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What stands for what from now on, in all that is hashed or encrypted.
    swaps: Vec<(Vec<u8>, Vec<u8>)>,
    /// Noise that was sealed so far.
    hits: usize,
    /// Key pairs that were derived so far.
    derived: usize,
}

impl Twist {
    /// Another body in the place of the one that openmls made; signature, transcript and ciphertext fit it.
    #[must_use]
    pub fn body(body: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self {
            body: Some(Box::new(body)),
            ..Self::default()
        }
    }

    /// Garbles the signatures with this label, such as `LeafNodeTBS`.
    #[must_use]
    pub fn bad_signature(label: &'static str) -> Self {
        Self {
            bad_signature: Some(label),
            ..Self::default()
        }
    }

    /// Garbles the tag that confirms the epoch that a commit leads to.
    #[must_use]
    pub fn bad_confirmation_tag() -> Self {
        Self {
            bad_confirmation_tag: true,
            ..Self::default()
        }
    }

    /// Ends the padding of a message with a byte that is not zero.
    #[must_use]
    pub fn bad_padding() -> Self {
        Self {
            bad_padding: true,
            ..Self::default()
        }
    }

    /// Names this leaf as the sender in the encrypted header.
    #[must_use]
    pub fn sender(leaf: u32) -> Self {
        Self {
            sender: Some(leaf),
            ..Self::default()
        }
    }

    /// Seals another secret than the right one to this HPKE public key.
    #[must_use]
    pub fn wrong_secret_for(key: Vec<u8>) -> Self {
        Self {
            wrong_secret_for: Some(key),
            ..Self::default()
        }
    }

    /// Gives the n-th derived key pair, from 0, a public key of 32 zeros, which is none of X-Wing and useless of X25519: of a path, its parents from below, then its leaf.
    #[must_use]
    pub fn unusable_key(nth: usize) -> Self {
        Self {
            unusable_key: Some(nth),
            ..Self::default()
        }
    }

    /// How often noise was sealed.
    ///
    /// # Panics
    /// Never but after another panic.
    #[must_use]
    pub fn hits(&self) -> usize {
        self.state.lock().expect("not poisoned").hits
    }

    fn swapped(&self, data: &[u8]) -> Vec<u8> {
        let state = self.state.lock().expect("not poisoned");
        let mut data = data.to_vec();
        for (old, new) in &state.swaps {
            if let Some(at) = find(&data, old) {
                data.splice(at..at + old.len(), new.iter().copied());
            }
        }
        data
    }

    /// What is signed instead of this.
    fn before_signing(&self, payload: &[u8]) -> Vec<u8> {
        let Some(make) = &self.body else {
            return payload.to_vec();
        };
        let mut rest = payload;
        let label = VLBytes::tls_deserialize(&mut rest).expect("a label");
        let content = VLBytes::tls_deserialize(&mut rest).expect("what is signed");
        if label.as_slice() != FRAMED_CONTENT {
            return payload.to_vec();
        }
        let (head, body, context) = split(content.as_slice());
        let other = make(body);
        let content = VLBytes::new([head, &other, context].concat());
        let swap = (body.to_vec(), other);
        self.state.lock().expect("not poisoned").swaps.push(swap);
        [
            label.tls_serialize_detached().expect("a label"),
            content.tls_serialize_detached().expect("a content"),
        ]
        .concat()
    }

    fn is_garbled(&self, payload: &[u8]) -> bool {
        self.bad_signature.is_some_and(|label| {
            let label = format!("MLS 1.0 {label}");
            find(payload, label.as_bytes()).is_some_and(|at| at <= 4)
        })
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// Splits a FramedContentTBS of a member's private message into what comes before its body, the body, and the
/// GroupContext (RFC 9420 §6.1).
fn split(content: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let mut rest = &content[4..];
    let id = VLBytes::tls_deserialize(&mut rest).expect("a group id");
    // Epoch, the sender's type and leaf.
    rest = &rest[8 + 1 + 4..];
    VLBytes::tls_deserialize(&mut rest).expect("authenticated data");
    rest = &rest[1..];
    let head = content.len() - rest.len();
    // The context begins with the version, a suite of ours and the group id, which no body repeats in that order.
    let mut marks = [[0, 1, 0, 1], [0, 1, 0, 0x4F]].into_iter();
    let id = id.tls_serialize_detached().expect("a group id");
    let context = marks
        .find_map(|mark| find(rest, &[&mark[..], &id].concat()))
        .expect("a group context");
    let (body, context) = rest.split_at(context);
    (&content[..head], body, context)
}

/// Signs as the device, what the twist makes of it.
pub(super) struct VillainSigner<'a> {
    pub(super) key: &'a SigningKey,
    pub(super) twist: &'a Twist,
}

impl Signer for VillainSigner<'_> {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        let mut signature = self.key.sign_as_is(&self.twist.before_signing(payload)).0;
        if self.twist.is_garbled(payload) {
            signature[0] ^= 1;
        }
        Ok(signature.to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// openmls's provider over a device's state, with cryptography that lies.
pub(super) struct VillainProvider<'a, 's> {
    crypto: TwistedCrypto<'a>,
    storage: MlsStorage<'a, 's>,
}

impl<'a, 's> VillainProvider<'a, 's> {
    pub(super) fn new(crypto: &'a Crypto, twist: &'a Twist, storage: MlsStorage<'a, 's>) -> Self {
        Self {
            crypto: TwistedCrypto {
                inner: crypto,
                twist,
            },
            storage,
        }
    }
}

impl<'a, 's> OpenMlsProvider for VillainProvider<'a, 's> {
    type CryptoProvider = TwistedCrypto<'a>;
    type RandProvider = Crypto;
    type StorageProvider = MlsStorage<'a, 's>;

    fn storage(&self) -> &Self::StorageProvider {
        &self.storage
    }

    fn crypto(&self) -> &Self::CryptoProvider {
        &self.crypto
    }

    fn rand(&self) -> &Self::RandProvider {
        self.crypto.inner
    }
}

/// The product's cryptography, changed where the twist says so.
pub(super) struct TwistedCrypto<'a> {
    inner: &'a Crypto,
    twist: &'a Twist,
}

/// Octets of a PrivateMessage's encrypted sender data (RFC 9420 §6.3.2).
const SENDER_DATA_BYTES: usize = 12;

impl OpenMlsCrypto for TwistedCrypto<'_> {
    fn supports(&self, ciphersuite: Ciphersuite) -> Result<(), CryptoError> {
        self.inner.supports(ciphersuite)
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        self.inner.supported_ciphersuites()
    }

    fn hkdf_extract(
        &self,
        hash_type: HashType,
        salt: &[u8],
        ikm: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        self.inner.hkdf_extract(hash_type, salt, ikm)
    }

    fn hmac(
        &self,
        hash_type: HashType,
        key: &[u8],
        message: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        let tag = self.inner.hmac(hash_type, key, message)?;
        if self.twist.bad_confirmation_tag {
            let mut state = self.twist.state.lock().expect("not poisoned");
            let other: Vec<u8> = tag.as_slice().iter().map(|b| b ^ 1).collect();
            state.swaps.push((tag.as_slice().to_vec(), other));
        }
        Ok(tag)
    }

    fn hkdf_expand(
        &self,
        hash_type: HashType,
        prk: &[u8],
        info: &[u8],
        okm_len: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        self.inner.hkdf_expand(hash_type, prk, info, okm_len)
    }

    fn hash(&self, hash_type: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.inner.hash(hash_type, &self.twist.swapped(data))
    }

    fn aead_encrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let mut data = self.twist.swapped(data);
        if let Some(sender) = self.twist.sender
            && data.len() == SENDER_DATA_BYTES
        {
            data[..4].copy_from_slice(&sender.to_be_bytes());
        }
        if self.twist.bad_padding
            && let Some(last) = data.last_mut().filter(|last| **last == 0)
        {
            *last = 1;
        }
        self.inner.aead_encrypt(alg, key, &data, nonce, aad)
    }

    fn aead_decrypt(
        &self,
        alg: AeadType,
        key: &[u8],
        ct_tag: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.inner.aead_decrypt(alg, key, ct_tag, nonce, aad)
    }

    fn signature_key_gen(&self, alg: SignatureScheme) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        self.inner.signature_key_gen(alg)
    }

    fn verify_signature(
        &self,
        alg: SignatureScheme,
        data: &[u8],
        pk: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        self.inner.verify_signature(alg, data, pk, signature)
    }

    fn sign(&self, alg: SignatureScheme, data: &[u8], key: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.inner.sign(alg, data, key)
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        aad: &[u8],
        ptxt: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        let mut ptxt = ptxt.to_vec();
        if self.twist.wrong_secret_for.as_deref() == Some(pk_r)
            && let Some(last) = ptxt.last_mut()
        {
            *last ^= 1;
        }
        let mut sealed = self.inner.hpke_seal(config, pk_r, info, aad, &ptxt)?;
        if self.twist.noise_for.contains(pk_r) {
            let mut noise = sealed.ciphertext.as_slice().to_vec();
            noise.iter_mut().for_each(|byte| *byte ^= 0x5a);
            sealed.ciphertext = noise.into();
            self.twist.state.lock().expect("not poisoned").hits += 1;
        }
        Ok(sealed)
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        sk_r: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.inner.hpke_open(config, input, sk_r, info, aad)
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        pk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        self.inner.hpke_setup_sender_and_export(
            config,
            pk_r,
            info,
            exporter_context,
            exporter_length,
        )
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        enc: &[u8],
        sk_r: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        exporter_length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        self.inner.hpke_setup_receiver_and_export(
            config,
            enc,
            sk_r,
            info,
            exporter_context,
            exporter_length,
        )
    }

    fn derive_hpke_keypair(
        &self,
        config: HpkeConfig,
        ikm: &[u8],
    ) -> Result<HpkeKeyPair, CryptoError> {
        let mut pair = self.inner.derive_hpke_keypair(config, ikm)?;
        let mut state = self.twist.state.lock().expect("not poisoned");
        if self.twist.unusable_key == Some(state.derived) {
            pair.public = vec![0; 32];
        }
        state.derived += 1;
        Ok(pair)
    }
}
