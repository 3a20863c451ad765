# SPDX-License-Identifier: MIT
"""Signatures of OpenSSF's ``model-signing``, by a key pair: over a zoo's index, or over an entry.

The index holds the hashes of all files, so that its signature vouches for every entry.
"""

from pathlib import Path
from typing import Any

from ltplugins.core.errors import UserError, install

SIGNATURE = "model.sig"  # of an entry, inside its folder
INDEX_SIGNATURE = "index.json.sig"


def require_signing() -> None:
    """Refuse where the library is missing.

    Raises:
        UserError: how to get it.
    """
    try:
        import model_signing  # noqa: F401
    except ImportError:
        raise UserError(
            f"--key needs model-signing, which is not installed. In the checkout: {install('sign')}"
        ) from None


def require_signed(content: Path, signature: Path, key: Path) -> None:
    """Refuse a file or a folder that is not what was signed.

    Args:
        content: that was signed; of a folder all its files but the signature.
        signature: of it.
        key: the public key, PEM.

    Raises:
        UserError: the library or a file is missing, the key is none, or the signature does not fit.
    """
    require_signing()
    import model_signing

    for what, file in (("the public key", key), ("the signature", signature)):
        if not file.is_file():
            raise UserError(f"{file}: {what} is missing. Expected a file.")
    config = model_signing.verifying.Config()
    try:
        config.use_elliptic_key_verifier(public_key=key)
    except Exception as error:  # of cryptography
        raise _no_key(key, "public", error) from None
    try:
        config.set_hashing_config(_hashing(signature)).verify(content, signature)
    except Exception as error:  # of the library, of cryptography, of JSON
        raise UserError(
            f"{content}: the signature {signature.name} does not vouch for it ({_told(error)}). "
            f"Do not use it."
        ) from None


def sign(content: Path, signature: Path, key: Path) -> None:
    """Sign a file or a folder; ``signature`` may lie inside it.

    Args:
        content: what is signed.
        signature: the file that is written.
        key: the private key, PEM, of an elliptic curve.

    Raises:
        UserError: the library or the key is missing, the key is of another kind, or the signature
            cannot be written.
    """
    require_signing()
    import model_signing

    if not key.is_file():
        raise UserError(f"{key}: the private key is missing. Expected a PEM file.")
    config = model_signing.signing.Config()
    try:
        config.use_elliptic_key_signer(private_key=key)
    except Exception as error:
        raise _no_key(key, "private", error) from None
    try:
        config.set_hashing_config(_hashing(signature)).sign(content, signature)
    except Exception as error:
        raise UserError(f"{content} cannot be signed ({_told(error)}).") from None


def _hashing(signature: Path) -> Any:
    """What is hashed of a folder, for signing and for verification: all but the signature in it.

    The library takes paths from the folder on; by another spelling of its place it would find none.
    """
    import model_signing

    config = model_signing.hashing.Config()
    return config.set_ignored_paths(paths=[signature.name], ignore_git_paths=True)


def _no_key(key: Path, kind: str, error: Exception) -> UserError:
    return UserError(
        f"{key}: expected a {kind} key as PEM, without a password, of the curve P-256, P-384 or "
        f"P-521 ({_told(error)}). docs/zoo.md has the lines that make a pair."
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
