"""The installation's signing key: made when it is first needed, replaced, and told whom to trust."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta

from cryptography.hazmat.primitives.asymmetric import rsa

from rankward.errors import InvalidRequest, StoreUnavailable
from rankward.records import TimeUs
from rankward.registry.sign import (
    KEY_BITS,
    Keyring,
    certify,
    read_certificate,
    read_key,
    read_keyring,
    write_keyring,
)
from rankward.settings import as_datetime
from rankward.store.ports import Vault

_EXPONENT = 65_537
_CLOCKS_DIFFER = timedelta(days=1)


class Signing:
    """Reads and changes the keyring. Any process may have one: the vault keeps two changes from crossing."""

    def __init__(self, vault: Vault, *, clock: Callable[[], TimeUs]) -> None:
        """Prepare; no key is made yet.

        Args:
            vault: where the keyring is kept.
            clock: the time.
        """
        self._vault = vault
        self._clock = clock

    def keyring(self) -> Keyring:
        """Return the keyring, made now if there was none.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        return self._change(lambda ring: ring)

    def replace(self) -> Keyring:
        """Make a new key. What the key before has signed is trusted all the same."""
        return self._change(lambda ring: ring.replaced(self._new()))

    def adopt(self, pem: bytes) -> Keyring:
        """Sign with a key that was made elsewhere. What the key before has signed is trusted all the same.

        Args:
            pem: the key, unencrypted, and its certificate if it has one.

        Raises:
            InvalidRequest: there is no such key in it.
        """
        try:
            adopted = read_keyring(pem) if b"BEGIN CERTIFICATE" in pem else self._certified(read_key(pem))
        except ValueError as error:
            raise InvalidRequest(f"the key cannot be used: {error}. Give an RSA key as PEM.") from error
        return self._change(lambda ring: ring.replaced(adopted).trusting(*adopted.trusted))

    def trust(self, document: bytes) -> Keyring:
        """Trust another installation: what it has signed is as good as what was signed here.

        Args:
            document: its certificate, PEM or DER, as `signer.der` is.

        Raises:
            InvalidRequest: it is none.
        """
        try:
            certificate = read_certificate(document)
        except ValueError as error:
            raise InvalidRequest(f"the certificate cannot be used: {error}. Give one as PEM or DER.") from error
        return self._change(lambda ring: ring.trusting(certificate))

    def forget_others(self) -> Keyring:
        """Trust nothing any more but the key that signs now."""
        return self._change(lambda ring: Keyring(ring.key, ring.certificate))

    def _change(self, change: Callable[[Keyring], Keyring]) -> Keyring:
        while True:
            before = self._vault.read()
            try:
                ring = self._new() if before is None else read_keyring(before)
            except ValueError as error:
                raise StoreUnavailable(
                    f"the signing key cannot be read: {error}. Restore it from a backup, or remove it for a new one"
                ) from error
            ring = change(ring)
            after = write_keyring(ring)
            if after == before or self._vault.write(after, over=before):
                return ring

    def _new(self) -> Keyring:
        return self._certified(rsa.generate_private_key(_EXPONENT, KEY_BITS))

    def _certified(self, key: rsa.RSAPrivateKey) -> Keyring:
        name = f"rankward {secrets.token_hex(4)}"
        now = as_datetime(self._clock()).replace(microsecond=0) - _CLOCKS_DIFFER
        return certify(key, name=name, now=now, serial=1 + secrets.randbits(64))
