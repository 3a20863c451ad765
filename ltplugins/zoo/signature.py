# SPDX-License-Identifier: MIT
"""Signatures of OpenSSF's ``model-signing``, by a key pair: over a zoo's index, or over an entry.

The index holds the hashes of all files, so that its signature vouches for every entry.
"""

from pathlib import Path

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
        UserError: the library or a file is missing, or the signature does not fit.
    """
    require_signing()
    import model_signing

    for what, file in (("the public key", key), ("the signature", signature)):
        if not file.is_file():
            raise UserError(f"{file}: {what} is missing. Expected a file.")
    hashing = model_signing.hashing.Config().set_ignored_paths(
        paths=[signature.resolve()], ignore_git_paths=True
    )
    try:
        config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=key)
        config.set_hashing_config(hashing).verify(content, signature)
    except Exception as error:  # of the library, of cryptography, of JSON
        raise UserError(
            f"{content}: the signature {signature.name} does not vouch for it "
            f"({type(error).__name__}: {' '.join(str(error).split())[:160]}). Do not use it."
        ) from None


def sign(content: Path, signature: Path, key: Path) -> None:
    """Sign a file or a folder; ``signature`` may lie inside it.

    Args:
        content: what is signed.
        signature: the file that is written.
        key: the private key, PEM, of an elliptic curve.

    Raises:
        UserError: the library or the key is missing, or the key is of another kind.
    """
    require_signing()
    import model_signing

    if not key.is_file():
        raise UserError(f"{key}: the private key is missing. Expected a PEM file.")
    hashing = model_signing.hashing.Config().set_ignored_paths(
        paths=[signature.resolve()], ignore_git_paths=True
    )
    try:
        config = model_signing.signing.Config().use_elliptic_key_signer(private_key=key)
        config.set_hashing_config(hashing).sign(content, signature)
    except Exception as error:
        raise UserError(
            f"{key} cannot sign ({type(error).__name__}: {' '.join(str(error).split())[:160]})."
        ) from None
