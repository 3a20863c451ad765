# SPDX-License-Identifier: MIT
"""``ltplugins zoo``: list, info, get, verify, card, serve, sign."""

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import torch
from safetensors.torch import load_file, save_file

from ltplugins.cli import main
from ltplugins.core.errors import UserError
from ltplugins.core.files import sha256
from ltplugins.runs.checkpoint import open_run
from ltplugins.stages.zoo.serve import make_server
from ltplugins.zoo.load import load_backbone
from tests.kit.entries import refused
from tests.kit.hosts import on_the_stand_in

pytestmark = on_the_stand_in


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


@pytest.mark.parametrize("words", [["list"], ["info", "tiny"], ["get", "tiny"]])
def test_looking_is_light(zoo, words):
    """Whoever looks for an entry does not wait for torch."""
    code = "from ltplugins.cli import main; main(); import sys; print('torch' in sys.modules)"
    words = [sys.executable, "-c", code, "zoo", *words]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "tiny" in done.stdout and done.stdout.split()[-1] == "False"


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


def test_what_an_entry_would_run_or_write_to_is_no_part_of_its_config(server, zoo, monkeypatch):
    """Loggers, callbacks and places are a machine's; a stranger could name anything there."""
    config = json.loads((zoo / "tiny/config.json").read_text())
    harm = {"_target_": "ltplugins.core.files.write_text", "path": "owned", "text": "x"}
    config["ltplugins"]["zoo"]["config"] |= {"logger": [harm], "callbacks": [harm]} | {
        "output_dir": "/elsewhere", "wandb": {"enabled": True, "entity": "evil"}
    }  # fmt: skip
    (zoo / "tiny/config.json").write_text(json.dumps(config))
    rehashed(zoo)
    monkeypatch.setenv("LTPLUGINS_ZOO", server)
    cfg = open_run("zoo://tiny").cfg
    assert (cfg.loggers, cfg.callbacks, cfg.wandb.enabled) == ((), (), False)
    assert "/elsewhere" not in str(cfg)


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
