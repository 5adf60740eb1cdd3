"""Signatures: good ones, bad ones, and whose they are."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from rankward.errors import InvalidRequest
from rankward.registry.sign import (
    Keyring,
    Origin,
    certify,
    fingerprint,
    read_certificate,
    read_keyring,
    verify,
    write_keyring,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = b"a model" * 1000


@cache
def keyring(number: int, bits: int = 2048) -> Keyring:
    """A key with its certificate; making one takes a while."""
    return certify(rsa.generate_private_key(65_537, bits), name=f"rankward {number}", now=NOW, serial=number)


def der(ring: Keyring) -> bytes:
    """The ring's certificate as it travels."""
    return ring.certificate.public_bytes(serialization.Encoding.DER)


def test_a_signature_is_as_the_original_made_it() -> None:
    """RSA-2048, PKCS #1 v1.5, SHA-512, 256 bytes: whoever verifies such archives goes on doing so."""
    ring = keyring(1)

    signature = ring.sign(MODEL)

    assert len(signature) == 256
    ring.key.public_key().verify(signature, MODEL, padding.PKCS1v15(), hashes.SHA512())
    assert signature == ring.sign(MODEL)


def test_who_signed_is_told() -> None:
    """What we signed may come back, and so may what those signed that we trust."""
    ours, theirs = keyring(1), keyring(2)

    assert verify(MODEL, der(ours), ours.sign(MODEL), ring=ours)[0] is Origin.TRUSTED
    assert verify(MODEL, der(theirs), theirs.sign(MODEL), ring=ours)[0] is Origin.FOREIGN
    assert verify(MODEL, der(theirs), theirs.sign(MODEL), ring=ours.trusting(theirs.certificate))[0] is Origin.TRUSTED


def test_another_certificate_of_a_trusted_key_is_trusted() -> None:
    """It is the key that signs; a certificate may be renewed."""
    ring = keyring(1)
    renewed = certify(ring.key, name="renewed", now=NOW, serial=77)

    assert verify(MODEL, der(renewed), ring.sign(MODEL), ring=ring)[0] is Origin.TRUSTED


@pytest.mark.parametrize(
    ("model", "certificate", "signature"),
    [
        (MODEL + b"x", der(keyring(1)), keyring(1).sign(MODEL)),
        (MODEL, der(keyring(2)), keyring(1).sign(MODEL)),
        (MODEL, der(keyring(1)), bytes(256)),
        (MODEL, der(keyring(1)), b""),
        (MODEL, der(keyring(1)), keyring(1).sign(MODEL)[:-1]),
        (MODEL, der(keyring(1))[:-1], keyring(1).sign(MODEL)),
        (MODEL, b"", keyring(1).sign(MODEL)),
        (MODEL, b"garbage", b"garbage"),
        (MODEL, der(keyring(3, 1024)), keyring(3, 1024).sign(MODEL)),
    ],
    ids=["model", "other key", "zeros", "nothing", "cut", "certificate cut", "no certificate", "garbage", "weak key"],
)
def test_a_signature_that_does_not_fit_is_refused(model: bytes, certificate: bytes, signature: bytes) -> None:
    """Refused for everyone: whoever changed a model on its way is not the one who signed it."""
    with pytest.raises(InvalidRequest) as caught:
        verify(model, certificate, signature, ring=keyring(1))

    assert caught.value.code == "InvalidModelImportSignature"


def test_a_replaced_key_stays_trusted_once() -> None:
    """Models that were exported before the change can still come back."""
    ring = keyring(1).replaced(keyring(2)).replaced(keyring(2)).replaced(keyring(4))

    assert ring.certificate == keyring(4).certificate
    assert list(ring.trusted) == [keyring(2).certificate, keyring(1).certificate]
    assert ring.replaced(keyring(1)).certificates == (
        keyring(1).certificate,
        keyring(4).certificate,
        keyring(2).certificate,
    )


def test_a_keyring_is_read_as_it_was_written() -> None:
    """Nothing of it may change on the way to the disk and back."""
    ring = keyring(1).trusting(keyring(2).certificate, keyring(4).certificate)

    again = read_keyring(write_keyring(ring))

    assert again.certificates == ring.certificates
    assert again.sign(MODEL) == ring.sign(MODEL)
    assert write_keyring(again) == write_keyring(ring)


def test_a_keyring_that_is_none_is_refused() -> None:
    """A key must be one, and the first certificate its own."""
    key = keyring(1).key
    other = ec.generate_private_key(ec.SECP256R1())
    formats = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    encrypted = key.private_bytes(*formats, serialization.BestAvailableEncryption(b"secret"))
    wrong = write_keyring(Keyring(key, keyring(2).certificate))

    for pem in (b"", b"garbage", encrypted, wrong, other.private_bytes(*formats, serialization.NoEncryption())):
        with pytest.raises(ValueError, match=r"\w"):
            read_keyring(pem)
    assert fingerprint(read_certificate(der(keyring(1)))) == keyring(1).certificate.fingerprint(hashes.SHA256()).hex()
