# SPDX-License-Identifier: MIT
"""``ltplugins zoo``: list, info, get, verify, card, serve, sign."""

import json
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
import torch
from safetensors.torch import load_file, save_file

from ltplugins.cli import main
from ltplugins.core.errors import UserError
from ltplugins.core.files import sha256
from ltplugins.stages.zoo.serve import make_server
from ltplugins.zoo.load import load_backbone
from tests.kit.hosts import on_the_stand_in

pytestmark = on_the_stand_in


@pytest.fixture
def zoo(made_zoo, tmp_path, monkeypatch):
    """A copy of the made zoo, which is the one that commands speak of."""
    folder = shutil.copytree(made_zoo, tmp_path / "zoo")
    monkeypatch.setenv("LTPLUGINS_ZOO", str(folder))
    monkeypatch.setenv("LTPLUGINS_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def server(zoo):
    """``zoo serve`` of it, on a free port."""
    server = make_server(zoo)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def refused(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    message = capsys.readouterr().err
    assert end.value.code == 2 and message.count("\n") == 1, message
    return message


def test_list_and_info(zoo, capsys):
    main(["zoo", "list"])
    told = capsys.readouterr().out
    assert "tiny" in told and "test_resnet" in told and "knn_k2_T0.07" in told and "here" in told
    main(["zoo", "info", "tiny"])
    told = capsys.readouterr().out
    for word in ("zoo://tiny", "simclr", "sha256", "linear_2shot", "opened by", "mit"):
        assert word in told


def test_get_over_http_then_without_a_network(server, zoo, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("LTPLUGINS_ZOO", server)
    main(["zoo", "list"])
    assert "here" not in capsys.readouterr().out.split("\n")[1]
    main(["zoo", "get", "tiny"])
    shutil.rmtree(zoo)  # the server has nothing to give any more
    main(["zoo", "get", "tiny", "--to", str(tmp_path / "copies")])
    main(["zoo", "verify", "tiny"])
    assert "files whole, features equal to the last bit" in capsys.readouterr().out
    assert load_backbone(tmp_path / "copies/tiny").num_features == 96
    assert "exists: expected a free place" in refused(
        ["zoo", "get", "tiny", "--to", str(tmp_path / "copies")], capsys
    )


def get(address, start=None):
    asked = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(asked) as answer:
        return answer.status, answer.read()


def test_serve_gives_the_zoo_and_nothing_else(server, zoo):
    (zoo / "secret.txt").write_text("mine")
    (zoo / "tiny/secret.txt").write_text("mine")
    content = (zoo / "tiny/model.safetensors").read_bytes()
    assert get(f"{server}/index.json")[1] == (zoo / "index.json").read_bytes()
    assert get(f"{server}/tiny/model.safetensors") == (200, content)
    assert get(f"{server}/tiny/model.safetensors", 1000) == (206, content[1000:])
    for path in ("secret.txt", "tiny/secret.txt", "", "tiny/", "../zoo/index.json", "%2e%2e/x"):
        with pytest.raises(urllib.error.HTTPError) as error:
            get(f"{server}/{path}")
        assert error.value.code == 404
    with pytest.raises(urllib.error.HTTPError) as error:
        get(f"{server}/index.json", 10**9)
    assert error.value.code == 416


def test_a_taken_port_is_one_line(server, zoo):
    with pytest.raises(UserError, match=r"--port: .* cannot be served"):
        make_server(zoo, port=int(server.rpartition(":")[2]))


def test_verify_refuses_other_weights_under_right_hashes(zoo, capsys):
    """Whoever may write the index may write any hash; the stored features are the second lock."""
    file = zoo / "tiny/model.safetensors"
    tensors = load_file(file)
    key = next(key for key, value in tensors.items() if value.dim() == 4)
    tensors[key] = tensors[key] + torch.tensor(0.1)
    save_file(tensors, file, metadata={"format": "pt"})
    assert "has " in (told := refused(["zoo", "verify"], capsys)) or "sha256" in told
    config = json.loads((zoo / "tiny/config.json").read_text())
    config["ltplugins"]["sha256"] = sha256(file)
    (zoo / "tiny/config.json").write_text(json.dumps(config))
    index = json.loads((zoo / "index.json").read_text())
    for name in ("config.json", "model.safetensors"):
        path = zoo / "tiny" / name
        facts = {"sha256": sha256(path), "size": path.stat().st_size}
        index["entries"]["tiny"]["files"][name] = facts
    (zoo / "index.json").write_text(json.dumps(index))
    assert "its features of the check picture are not those" in refused(["zoo", "verify"], capsys)


def test_card_writes_what_was_edited_anew(zoo, capsys):
    for name in ("index.json.sig", "tiny/model.sig"):
        (zoo / name).write_text("of what is there")
    main(["zoo", "card"])
    assert (zoo / "index.json.sig").exists() and (zoo / "tiny/model.sig").exists()
    config = json.loads((zoo / "tiny/config.json").read_text())
    config["ltplugins"]["zoo"]["license"] = "apache-2.0"
    (zoo / "tiny/config.json").write_text(json.dumps(config))
    main(["zoo", "card"])
    assert not (zoo / "index.json.sig").exists() and not (zoo / "tiny/model.sig").exists()
    before = (zoo / "tiny/README.md").read_text()
    assert "license: apache-2.0" in before
    (zoo / "tiny/README.md").write_text("edited")
    assert "README.md has 6 bytes" in refused(["zoo", "verify"], capsys)
    main(["zoo", "card"])
    assert (zoo / "tiny/README.md").read_text() == before
    main(["zoo", "verify"])
    assert "is no entry" in refused(["zoo", "card", "other"], capsys)


def test_an_entry_under_another_name_is_told(zoo, capsys):
    (zoo / "tiny").rename(zoo / "renamed")
    assert "expected the folder's name" in refused(["zoo", "card"], capsys)


def test_only_a_folder_is_written_to(server, monkeypatch, capsys):
    monkeypatch.setenv("LTPLUGINS_ZOO", server)
    for words in (["card"], ["serve"], ["add", "runs/x"]):
        assert "expected a folder, which can be written" in refused(["zoo", *words], capsys)


def test_the_words_are_light():
    code = "import sys; from ltplugins.cli import _parser; _parser(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- signatures ---


def test_a_key_without_the_library_is_one_line(zoo, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for part in ("verify", "sign"):
        assert "model-signing, which is not installed" in refused(
            ["zoo", part, "--key", "x.pem"], capsys
        )


@pytest.fixture
def keys(tmp_path):
    """A pair of keys of an elliptic curve: private, public."""
    pytest.importorskip("model_signing", reason="the extra sign is not installed")
    form = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")

    def write(name, number):
        key = ec.derive_private_key(number, ec.SECP256R1())
        private, public = tmp_path / f"{name}.pem", tmp_path / f"{name}.pub"
        plain = form.NoEncryption()
        private.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, plain))
        known = form.PublicFormat.SubjectPublicKeyInfo
        public.write_bytes(key.public_key().public_bytes(form.Encoding.PEM, known))
        return private, public

    return {"own": write("own", 12345), "other": write("other", 54321)}


def test_a_signed_zoo_is_vouched_for(zoo, keys, server, monkeypatch, capsys):
    main(["zoo", "sign", "--key", str(keys["own"][0])])
    main(["zoo", "verify", "--key", str(keys["own"][1])])
    assert capsys.readouterr().out.count("signature fits") == 2
    monkeypatch.setenv("LTPLUGINS_ZOO", server)
    main(["zoo", "verify", "--key", str(keys["own"][1])])
    assert "index: signature fits" in capsys.readouterr().out


def test_one_flipped_byte_is_refused(zoo, keys, capsys):
    private, public = keys["own"]
    main(["zoo", "sign", "--key", str(private)])
    verify = ["zoo", "verify", "--key", str(public)]
    for name in ("index.json", "index.json.sig", "tiny/model.sig"):
        file = zoo / name
        content = file.read_bytes()
        at = content.index(b"simclr") if name == "index.json" else len(content) // 2
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert "does not vouch for it" in refused(verify, capsys)
        file.write_bytes(content)
    main(verify)
    assert "does not vouch" in refused(["zoo", "verify", "--key", str(keys["other"][1])], capsys)
    (zoo / "index.json.sig").unlink()
    assert "the signature is missing" in refused(verify, capsys)
    assert "the public key is missing" in refused(["zoo", "verify", "--key", "none.pub"], capsys)


# --- an entry that means harm, under hashes that fit ---


def rehashed(zoo):
    """Give the index the hashes of what is there now."""
    index = json.loads((zoo / "index.json").read_text())
    for name, facts in index["entries"]["tiny"]["files"].items():
        path = zoo / "tiny" / name
        facts.update(sha256=sha256(path), size=path.stat().st_size)
    (zoo / "index.json").write_text(json.dumps(index))


HARM = {
    "another place's network": ({"architecture": "hf-hub:evil/net"}, "expected a name of timm's"),
    "a file to load": (
        {"model_args": {"checkpoint_path": "/tmp/x.pth"}},
        "arguments of the network",
    ),
    "a config of its own": ({"model_args": {"pretrained_cfg": {"url": "http://x"}}}, "alone"),
    "a class to import": ({"model_args": {"act_layer": "os.system"}}, "cannot be built|no network"),
}


@pytest.mark.parametrize("name", HARM)
def test_an_entry_that_asks_for_code_is_one_line(name, server, zoo, monkeypatch, capsys):
    changes, text = HARM[name]
    config = json.loads((zoo / "tiny/config.json").read_text())
    (zoo / "tiny/config.json").write_text(json.dumps({**config, **changes}))
    rehashed(zoo)
    monkeypatch.setenv("LTPLUGINS_ZOO", server)
    with pytest.raises(UserError, match=text) as error:
        load_backbone("zoo://tiny")
    assert "\n" not in str(error.value)


def test_weights_that_are_a_pickle_are_not_opened(server, zoo, monkeypatch, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"state_dict": Evil()}, zoo / "tiny/model.safetensors")
    config = json.loads((zoo / "tiny/config.json").read_text())
    config["ltplugins"]["sha256"] = sha256(zoo / "tiny/model.safetensors")
    (zoo / "tiny/config.json").write_text(json.dumps(config))
    rehashed(zoo)
    monkeypatch.setenv("LTPLUGINS_ZOO", server)
    with pytest.raises(UserError, match="cannot be opened as safetensors"):
        load_backbone("zoo://tiny")
    assert not (tmp_path / "owned").exists()
