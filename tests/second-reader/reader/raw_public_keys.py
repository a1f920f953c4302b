"""What section 4 of the spec asks of TLS and aioquic's TLS does not have. The only file that reaches into aioquic.

- Raw public keys for the client (RFC 7250): `client_certificate_type` in the ClientHello, and a Certificate message
  that holds a SubjectPublicKeyInfo.
- X25519MLKEM768 (0x11EC, draft-ietf-tls-ecdhe-mlkem): ML-KEM's share and secret first, X25519's after them.
- A server that is known by the SHA-256 of its SubjectPublicKeyInfo, and by nothing else.
- The TLS exporter (RFC 8446, section 7.5).
- No resumption: a NewSessionTicket is an error (REQ-004).

aioquic has no hook for its TLS context. So `PinnedQuicConnection` puts `DeviceTls` in its place while the one method
runs that makes it. aioquic is pinned exactly in requirements.txt, because this file overrides methods of its own.
"""

import hashlib
import hmac
import ssl

from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ALPN = "mortise/1"
CLIENT_CERTIFICATE_TYPE = 19
RAW_PUBLIC_KEY = 2
X25519MLKEM768 = 0x11EC
MLKEM_CIPHERTEXT_BYTES = 1088
SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")


class RawPublicKey:
    """Stands where aioquic expects the client's certificate, and encodes as the SubjectPublicKeyInfo of RFC 8410."""

    def __init__(self, public):
        self._spki = SPKI_PREFIX + public

    def public_bytes(self, _encoding):
        return self._spki


class DeviceTls(tls.Context):
    """A device's side of the handshake."""

    def __init__(self, *, pin, groups, **options):
        super().__init__(**options)
        self._pin, self._groups = pin, groups
        self.exporter_secret = None
        self.client_signature_schemes = None

    def _client_send_hello(self, output_buf):
        self._x25519_private_key = X25519PrivateKey.generate()
        self._mlkem_private_key = MLKEM768PrivateKey.generate()
        x25519 = _raw(self._x25519_private_key.public_key())
        shares = {
            X25519MLKEM768: _raw(self._mlkem_private_key.public_key()) + x25519,
            tls.Group.X25519: x25519,
        }
        hello = tls.ClientHello(
            random=self.client_random,
            legacy_session_id=self.legacy_session_id,
            cipher_suites=[int(suite) for suite in self._cipher_suites],
            legacy_compression_methods=self._legacy_compression_methods,
            alpn_protocols=self._alpn_protocols,
            key_share=[(group, shares[group]) for group in self._groups],
            signature_algorithms=self._signature_algorithms,
            supported_groups=list(self._groups),
            supported_versions=self._supported_versions,
            other_extensions=[
                *self.handshake_extensions,
                (CLIENT_CERTIFICATE_TYPE, bytes([1, RAW_PUBLIC_KEY])),
            ],
        )
        self._key_schedule_proxy = tls.KeyScheduleProxy(self._cipher_suites)
        self._key_schedule_proxy.extract(None)
        with tls.push_message(self._key_schedule_proxy, output_buf):
            tls.push_client_hello(output_buf, hello)
        self._set_state(tls.State.CLIENT_EXPECT_SERVER_HELLO)

    def _client_handle_hello(self, input_buf, output_buf):
        hello = tls.pull_server_hello(input_buf)
        if hello.supported_version != tls.TLS_VERSION_1_3 or hello.pre_shared_key is not None:
            raise tls.AlertIllegalParameter("not TLS 1.3, or resumed")
        if hello.key_share is None or hello.key_share[0] not in self._groups:
            raise tls.AlertIllegalParameter("a key share that was not offered")
        suite = tls.negotiate(self._cipher_suites, [hello.cipher_suite], tls.AlertHandshakeFailure())
        self.key_schedule = self._key_schedule_proxy.select(suite)
        self._key_schedule_proxy = None
        self.key_schedule.update_hash(input_buf.data)
        self.negotiated_group = hello.key_share[0]
        self.key_schedule.extract(self._shared_secret(*hello.key_share))
        self._setup_traffic_protection(tls.Direction.DECRYPT, tls.Epoch.HANDSHAKE, b"s hs traffic")
        self._setup_traffic_protection(tls.Direction.ENCRYPT, tls.Epoch.HANDSHAKE, b"c hs traffic")
        self._set_state(tls.State.CLIENT_EXPECT_ENCRYPTED_EXTENSIONS)

    def _shared_secret(self, group, share):
        secret = b""
        if group == X25519MLKEM768:
            secret = self._mlkem_private_key.decapsulate(share[:MLKEM_CIPHERTEXT_BYTES])
            share = share[MLKEM_CIPHERTEXT_BYTES:]
        return secret + self._x25519_private_key.exchange(X25519PublicKey.from_public_bytes(share))

    def _client_handle_encrypted_extensions(self, input_buf):
        super()._client_handle_encrypted_extensions(input_buf)
        if dict(self.received_extensions).get(CLIENT_CERTIFICATE_TYPE) != bytes([RAW_PUBLIC_KEY]):
            raise tls.AlertIllegalParameter("the relay does not take raw public keys")

    def _client_handle_certificate_request(self, input_buf):
        super()._client_handle_certificate_request(input_buf)
        self.client_signature_schemes = self._certificate_request.signature_algorithms

    def _set_peer_certificate(self, certificate):
        super()._set_peer_certificate(certificate)
        spki = self._peer_certificate.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        if not hmac.compare_digest(hashlib.sha256(spki).digest(), self._pin):
            raise tls.AlertBadCertificate("not the relay that the link names")

    def _setup_traffic_protection(self, direction, epoch, label):
        super()._setup_traffic_protection(direction, epoch, label)
        if label == b"s ap traffic":
            # The transcript is now that of ClientHello to the server's Finished, and the secret the master secret.
            self.exporter_secret = self.key_schedule.derive_secret(b"exp master")

    def _client_handle_new_session_ticket(self, input_buf):
        raise tls.AlertUnexpectedMessage("a session ticket (REQ-004)")

    def export(self, label, length):
        """RFC 8446, section 7.5, with an empty context."""
        algorithm = self.key_schedule.algorithm
        empty = self.key_schedule.hash_empty_value
        size = algorithm.digest_size
        secret = tls.hkdf_expand_label(algorithm, self.exporter_secret, label, empty, size)
        return tls.hkdf_expand_label(algorithm, secret, b"exporter", empty, length)


def _raw(public):
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


class PinnedQuicConnection(QuicConnection):
    """A QUIC connection to the one relay whose SubjectPublicKeyInfo hashes to `pin`."""

    def __init__(self, pin, private_key, groups=(X25519MLKEM768, int(tls.Group.X25519)), alpn=ALPN):
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=[alpn], verify_mode=ssl.CERT_NONE, idle_timeout=30.0
        )
        configuration.certificate = RawPublicKey(_raw(private_key.public_key()))
        configuration.private_key = private_key
        self.new_tokens = []
        super().__init__(configuration=configuration, token_handler=self.new_tokens.append)
        self._pin, self._groups = pin, groups

    def _initialize(self, peer_cid):
        original = tls.Context
        tls.Context = lambda **options: DeviceTls(pin=self._pin, groups=self._groups, **options)
        try:
            super()._initialize(peer_cid)
        finally:
            tls.Context = original
