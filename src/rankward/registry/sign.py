"""Signatures of models: made with the installation's key, verified against its certificates.

As the original service signs: RSA-2048 with PKCS #1 v1.5 over SHA-512 of the model's bytes, beside the X.509
certificate of the key. A certificate's dates and issuer say nothing here: what counts is whether its key is one that
the installation trusts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from rankward.errors import InvalidRequest

KEY_BITS = 2048
"""Of a key that we make, which gives signatures of 256 bytes, as the original's are."""
_KEY_BITS_MAX = 8192  # of a key that somebody else made: to verify with more would take seconds
_LIFE = timedelta(days=3650)


class Origin(enum.StrEnum):
    """Where a model comes from, as far as its signature tells."""

    TRUSTED = "trusted"  # signed by this installation, or by one whose certificate it was told to trust
    FOREIGN = "foreign"  # signed by somebody else: the original service, or another installation
    UNSIGNED = "unsigned"


@dataclass(frozen=True)
class Keyring:
    """What an installation signs with, and what it trusts."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate  # of the key
    trusted: tuple[x509.Certificate, ...] = ()  # of keys that were replaced, and of other installations

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """Every certificate that is trusted, the key's own first."""
        return (self.certificate, *self.trusted)

    def replaced(self, other: Keyring) -> Keyring:
        """Return this ring with another's key. The certificate before stays trusted."""
        return replace(other, trusted=()).trusting(*self.certificates)

    def trusting(self, *certificates: x509.Certificate) -> Keyring:
        """Return the ring with more certificates that are trusted, each key once."""
        kept = {public_bytes(found): found for found in (*self.trusted, *certificates)}
        kept.pop(public_bytes(self.certificate), None)
        return replace(self, trusted=tuple(kept.values()))

    def sign(self, model: bytes) -> bytes:
        """Sign a model."""
        return self.key.sign(model, padding.PKCS1v15(), hashes.SHA512())


def certify(key: rsa.RSAPrivateKey, *, name: str, now: datetime, serial: int) -> Keyring:
    """Give a key a certificate that it signs itself.

    Args:
        key: to be certified.
        name: of the installation, at most 64 characters.
        now: from when on the certificate holds, for ten years.
        serial: of the certificate, positive and below 2^159.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Keyring(key, certificate)


def verify(model: bytes, certificate_der: bytes, signature: bytes, *, ring: Keyring) -> tuple[Origin, x509.Certificate]:
    """Check a signature, and tell whose it is.

    Args:
        model: what was signed.
        certificate_der: of the signer.
        signature: as it came.
        ring: the installation's.

    Raises:
        InvalidRequest: the certificate cannot be read, or the signature is not its own.
    """
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        key = certificate.public_key()
    except (ValueError, TypeError) as error:
        raise refused("the certificate signer.der cannot be read") from error
    if not isinstance(key, rsa.RSAPublicKey) or not KEY_BITS <= key.key_size <= _KEY_BITS_MAX:
        raise refused(f"the certificate signer.der has no RSA key of {KEY_BITS} to {_KEY_BITS_MAX} bits")
    try:
        key.verify(signature, model, padding.PKCS1v15(), hashes.SHA512())
    except InvalidSignature as error:
        raise refused("the signature is not of this model and this certificate") from error
    known = {public_bytes(found) for found in ring.certificates}
    return Origin.TRUSTED if public_bytes(certificate) in known else Origin.FOREIGN, certificate


def refused(why: str) -> InvalidRequest:
    """Make the contract's refusal of a model for its signature."""
    return InvalidRequest(
        f"the model is not let in: {why}. Nothing was changed.", code="InvalidModelImportSignature", target="model"
    )


def public_bytes(certificate: x509.Certificate) -> bytes:
    """Return a certificate's public key: the same for every certificate of it."""
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate in hex, as `openssl x509 -fingerprint` counts it."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def write_keyring(ring: Keyring) -> bytes:
    """Write a ring as PEM: the private key, its certificate, then those that are trusted."""
    key = ring.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return b"".join([key, *(each.public_bytes(serialization.Encoding.PEM) for each in ring.certificates)])


def read_keyring(pem: bytes) -> Keyring:
    """Read what `write_keyring` wrote, or a key and its certificate that somebody else made.

    Raises:
        ValueError: it cannot be read, has no RSA key of enough bits, or its first certificate is not the key's.
    """
    key = read_key(pem)
    certificates = x509.load_pem_x509_certificates(pem)
    ring = Keyring(key, certificates[0])
    if certificates[0].public_key() != key.public_key():
        raise ValueError("its first certificate is not that of its key")
    return ring.trusting(*certificates[1:])


def read_key(pem: bytes) -> rsa.RSAPrivateKey:
    """Read a private key.

    Raises:
        ValueError: it is none, is encrypted, or is no RSA key of enough bits.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise ValueError("its key is encrypted: decrypt it first") from error
    if not isinstance(key, rsa.RSAPrivateKey) or not KEY_BITS <= key.key_size <= _KEY_BITS_MAX:
        raise ValueError(f"its key is no RSA key of {KEY_BITS} to {_KEY_BITS_MAX} bits")
    return key


def read_certificate(document: bytes) -> x509.Certificate:
    """Read a certificate, PEM or DER.

    Raises:
        ValueError: it is none, or not one of an RSA key.
    """
    pem = b"BEGIN CERTIFICATE" in document
    certificate = x509.load_pem_x509_certificate(document) if pem else x509.load_der_x509_certificate(document)
    if not isinstance(certificate.public_key(), rsa.RSAPublicKey):
        raise ValueError("its key is no RSA key")
    return certificate
