# SPDX-License-Identifier: MIT
"""Signatures by OpenSSF's model-signing: who vouches for a zoo, and that a flipped byte is seen."""

import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from ltplugins.cli import main
from ltplugins.core.errors import UserError
from ltplugins.zoo.signature import SIGNATURE, require_signed, sign
from tests.kit.entries import refused
from tests.kit.hosts import on_the_stand_in
from tests.kit.paths import ROOT

pytestmark = on_the_stand_in


def test_a_key_without_the_library_is_one_line(zoo, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for part in ("verify", "sign"):
        assert "model-signing, which is not installed" in refused(
            ["zoo", part, "--key", "x.pem"], capsys
        )


@pytest.fixture
def keys(tmp_path):
    """Pairs of keys of an elliptic curve: private, public."""
    pytest.importorskip("model_signing", reason="the extra sign is not installed")
    return {
        "own": write_pair(tmp_path, "own", 12345),
        "other": write_pair(tmp_path, "other", 54321),
    }


def write_pair(folder: Path, name: str, number: int) -> tuple[Path, Path]:
    form = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    key = ec.derive_private_key(number, ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    plain = form.NoEncryption()
    private.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, plain))
    known = form.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(form.Encoding.PEM, known))
    return private, public


def flip(file: Path, at: int) -> bytes:
    """Change one bit of a file; what it was before."""
    content = file.read_bytes()
    file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    return content


def by_the_library(words: list[str]) -> int:
    """The exit code of model-signing's own command."""
    (command,) = distribution("model-signing").entry_points.select(name="model_signing")
    with pytest.raises(SystemExit) as end:
        command.load()(words)
    return int(end.value.code or 0)


def test_a_signed_zoo_is_vouched_for(zoo, keys, server, monkeypatch, capsys):
    main(["zoo", "sign", "--key", str(keys["own"][0])])
    main(["zoo", "verify", "--key", str(keys["own"][1])])
    assert capsys.readouterr().out.count("signature fits") == 2
    monkeypatch.setenv("LTPLUGINS_ZOO", server)
    main(["zoo", "verify", "--key", str(keys["own"][1])])
    assert "index: signature fits" in capsys.readouterr().out


def test_one_flipped_byte_of_a_zoo_is_refused(zoo, keys, capsys):
    private, public = keys["own"]
    main(["zoo", "sign", "--key", str(private)])
    verify = ["zoo", "verify", "--key", str(public)]
    for name in ("index.json", "index.json.sig", "tiny/model.sig"):
        content = (zoo / name).read_bytes()
        at = content.index(b"simclr") if name == "index.json" else len(content) // 2
        flip(zoo / name, at)
        assert "does not vouch for it" in refused(verify, capsys)
        (zoo / name).write_bytes(content)
    for name in ("config.json", "model.safetensors"):
        content = flip(zoo / "tiny" / name, 200)
        assert "sha256" in refused(verify, capsys)
        (zoo / "tiny" / name).write_bytes(content)
    main(verify)
    assert "does not vouch" in refused(["zoo", "verify", "--key", str(keys["other"][1])], capsys)
    (zoo / "index.json.sig").unlink()
    assert "the signature is missing" in refused(verify, capsys)


def test_an_entry_that_travels_alone_is_vouched_for(zoo, keys, tmp_path, capsys):
    """By ours and by the library's own command: no file may change, come or go."""
    private, public = keys["own"]
    main(["zoo", "sign", "--key", str(private)])
    entry = shutil.copytree(zoo / "tiny", tmp_path / "tiny")
    signature = entry / SIGNATURE
    words = ["verify", "key", str(entry), "--signature", str(signature), "--public_key"]
    words += [str(public), "--ignore-paths", str(signature)]
    require_signed(entry, signature, public)
    assert by_the_library(words) == 0
    for name in ("model.safetensors", "config.json", "README.md", "groups.png"):
        content = flip(entry / name, (entry / name).stat().st_size // 2)
        with pytest.raises(UserError, match="does not vouch for it"):
            require_signed(entry, signature, public)
        assert by_the_library(words) == 1
        (entry / name).write_bytes(content)
    require_signed(entry, signature, public)
    (entry / "more.json").write_text("{}")
    with pytest.raises(UserError, match="does not vouch for it"):
        require_signed(entry, signature, public)
    (entry / "more.json").unlink()
    (entry / "groups.png").unlink()
    with pytest.raises(UserError, match="does not vouch for it"):
        require_signed(entry, signature, public)


def test_a_place_may_be_spelt_in_any_way(zoo, keys, monkeypatch, capsys):
    """Signed anew over an old signature, from inside the folder, and through a link."""
    private, public = (str(path) for path in keys["own"])
    monkeypatch.chdir(zoo.parent)
    for _ in range(2):
        main(["zoo", "sign", "--key", private, "--zoo", zoo.name])
    (zoo.parent / "link").symlink_to(zoo)
    for place in (str(zoo), "link"):
        monkeypatch.setenv("LTPLUGINS_ZOO", place)
        main(["zoo", "verify", "--key", public])
    assert capsys.readouterr().out.count("signature fits") == 4


def test_a_key_that_is_none_is_told_as_the_key(zoo, keys, tmp_path, capsys):
    private, public = keys["own"]
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no key")
    for part, wrong, kind in (
        ("sign", garbage, "private"), ("sign", public, "private"),
        ("verify", garbage, "public"), ("verify", private, "public"),
    ):  # fmt: skip
        if part == "verify":
            sign(zoo / "index.json", zoo / "index.json.sig", private)
        told = refused(["zoo", part, "--key", str(wrong)], capsys)
        assert f"{wrong}: expected a {kind} key as PEM" in told
    for part, kind in (("sign", "private"), ("verify", "public")):
        told = refused(["zoo", part, "--key", "none.pem"], capsys)
        assert f"none.pem: the {kind} key is missing" in told


def test_the_lines_of_the_page(zoo, tmp_path, monkeypatch, capsys):
    """The block of docs/zoo.md as it stands there; without openssl its keys are made here."""
    pytest.importorskip("model_signing", reason="the extra sign is not installed")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/zoo.md").read_text(encoding="utf-8").partition("## Signatures")[2]
    (block, *_) = re.findall(r"```\n(.*?)```", page, re.DOTALL)
    lines = block.replace("\\\n", " ").replace("NAME", "tiny").splitlines()
    if shutil.which("openssl") is None:
        private, public = write_pair(tmp_path, "made", 12345)
        shutil.copy(private, "private.pem")
        shutil.copy(public, "public.pem")
    seen = []
    for program, *words in map(shlex.split, lines):
        if program == "openssl" and shutil.which(program):
            subprocess.run([program, *words], check=True, capture_output=True)
        elif program == "ltplugins":
            main(words)
        elif program == "model_signing":
            assert by_the_library(words) == 0
        seen.append(program)
    assert seen == ["openssl", "openssl", "ltplugins", "ltplugins", "model_signing"]
    assert capsys.readouterr().out.count("signature fits") == 2
