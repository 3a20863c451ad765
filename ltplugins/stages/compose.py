# SPDX-License-Identifier: MIT
"""From a config's file and ``key=value`` words to one config, or to one sentence that says why not.

Hydra composes. Here a key that exists needs no ``+``, whether or not the file lists it: the typed
sections decide which keys there are, and name the nearest one where one is misspelt. Only below a
block of free keys (``optimizer.kwargs``) a new key needs its ``+``, because nobody can tell it from
a typing error. An unknown choice of a group is answered with the nearest that there is.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ltplugins.core.errors import UserError, nearest, unknown
from ltplugins.core.files import expanded
from ltplugins.host.facts import configured_bases
from ltplugins.methods.registry import METHODS, WRAPPERS
from ltplugins.stages.blocks import Hints, is_typed
from ltplugins.stages.command import PACKAGED, parse_words
from ltplugins.stages.implied import given_by, implied_data, implied_views, left_out_kwargs


def compose_packaged(
    name: str, overrides: Sequence[str] = (), hints: Hints | None = None
) -> DictConfig:
    """Compose one of the configs in ``ltplugins.conf``; see :class:`Composer`."""
    return Composer(PACKAGED, name, hints).compose(overrides)


class Composer:
    """Composes one config, with any words.

    Args:
        path: a folder or ``pkg://...``.
        name: of the file in it.
        hints: the types of its keys; without them every new key needs its ``+``.

    Raises:
        UserError: no such folder.
    """

    def __init__(self, path: str, name: str, hints: Hints | None = None) -> None:
        self.path, self.name = path, name
        self.hints = hints or (lambda method: {})
        self._bases: dict[tuple[str, ...], DictConfig] = {}  # by the choices of groups
        self._options: dict[str, list[str]] = {}  # by group
        if not path.startswith("pkg://") and not Path(path).is_dir():
            raise UserError(f"--config-path: {path} is no folder.")

    def compose(self, words: Sequence[str]) -> DictConfig:
        """The config with these overrides; interpolations are resolved.

        Raises:
            UserError: no such file, a word that cannot be read, an unknown key or choice.
        """
        with self._open():
            return self._compose(self._mend(parse_words(words)))

    def mend(self, words: Sequence[str]) -> list[str]:
        """The words as Hydra itself would take them, with the ``+`` that they need.

        Raises:
            UserError: see :meth:`compose`.
        """
        with self._open():
            return self._mend(parse_words(words))

    def _mend(self, overrides: list[Override]) -> list[str]:
        for override in overrides:
            _require_one_value(override)
        data = implied_data(given_by(overrides), self._choices, self._base)
        overrides = [*overrides, *parse_words(data)]
        views = implied_views(given_by(overrides), self._choices, self._base)
        overrides = [*overrides, *parse_words(views)]
        groups = [o for o in overrides if self._chooses(o)]
        chosen = self._mend_groups(groups)
        mended = []
        for override in overrides:
            word = str(override.input_line)
            if override in groups:
                word = chosen[word]
            elif override.is_hydra_override() or override.is_force_add():
                pass
            elif not override.is_delete() and is_typed(override.key_or_group, self.hints("")):
                word = f"++{word.removeprefix('+')}"
            else:
                word = self._mend_value(override, self._base(*chosen.values()))
            mended.append(word)
        return [*mended, *left_out_kwargs(overrides, lambda: self._base(*chosen.values()))]

    def _chooses(self, override: Override) -> bool:
        """Whether a word names a choice of a group, by Hydra's own rule."""
        key = override.key_or_group
        return (
            not isinstance(override.value(), dict) and "." not in key and bool(self._choices(key))
        )

    def _choices(self, group: str) -> list[str]:
        """What a group has to choose from; nothing, where it is none."""
        if group not in self._options:
            loader: Any = GlobalHydra.instance().config_loader()
            with self._told():
                self._options[group] = loader.get_group_options(group, config_name=self.name)
        return self._options[group]

    def _mend_groups(self, overrides: list[Override]) -> dict[str, str]:
        """A group that the file does not choose from is added, one that it does is changed."""
        words = {}
        for override in overrides:
            word = str(override.input_line)
            if not override.is_delete():
                _require_choice(override.key_or_group, override.value(), word)
            if override.is_delete() or override.is_force_add():
                words[word] = word
                continue
            chosen = self._base().hydra.runtime.choices
            plus = "" if override.get_key_element().lstrip("+") in chosen else "+"
            words[word] = f"{plus}{word.removeprefix('+')}"
        return words

    def _mend_value(self, override: Override, base: DictConfig) -> str:
        """A key below free ones, which must be there or be asked for by ``+``."""
        word, key = str(override.input_line), override.key_or_group
        if override.is_delete() and _has(base, key):
            return word
        is_asked_for = override.is_add() or is_typed(key, self.hints(str(base.get("method", ""))))
        if not override.is_delete() and (is_asked_for or _has(base, key)):
            return f"++{word.removeprefix('+')}"
        block, _, name = key.rpartition(".")
        siblings = OmegaConf.select(base, block) if block else base
        names = [str(k) for k in siblings] if isinstance(siblings, DictConfig) else []
        names = [name for name in names if name != "hydra"]
        text = f"unknown key '{key}'.{nearest(name, names)} "
        text += f"{block or 'The config'} has: {', '.join(names) or 'nothing'}."
        raise UserError(
            text if override.is_delete() else f"{text} A key that it does not list: +{word}"
        )

    def _base(self, *choices: str) -> DictConfig:
        """The config with these choices of groups and no other word."""
        if choices not in self._bases:
            with self._told():
                self._bases[choices] = compose(self.name, list(choices), return_hydra_config=True)
        return self._bases[choices]

    def _compose(self, words: list[str]) -> DictConfig:
        with self._told():
            cfg = compose(self.name, words, return_hydra_config=True)
            # Only for what refers to it: where it is set, Lightning gives further processes words
            # of its own.
            HydraConfig.instance().set_config(cfg)
            try:
                with open_dict(cfg):
                    del cfg["hydra"]
                OmegaConf.resolve(cfg)
                _expand_home(cfg)
            finally:
                HydraConfig.instance().cfg = None  # type: ignore[attr-defined]
        return cfg

    @contextlib.contextmanager
    def _open(self) -> Any:
        if self.path.startswith("pkg://"):
            module = self.path.removeprefix("pkg://").replace("/", ".")
            context: Any = initialize_config_module(module, version_base="1.2")
        else:
            context = initialize_config_dir(self.path, version_base="1.2")
        with context:
            yield

    @contextlib.contextmanager
    def _told(self) -> Any:
        """Hydra's errors as one sentence of ours."""
        try:
            yield
        except MissingConfigException as error:
            raise self._missing(error) from None
        except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
            raise UserError(f"{self.name}: {_one_line(error)}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{self.name} cannot be read as YAML: {_one_line(error)}") from None
        except UserError:
            raise
        except Exception as error:  # of Hydra, at a file that is no config: any class there is
            raise UserError(
                f"{self.name} cannot be composed ({type(error).__name__}: "
                f"{_one_line(error)[:300]}): expected keys with values, and defaults as Hydra "
                f"takes them."
            ) from error

    def _missing(self, error: MissingConfigException) -> UserError:
        """No such file, or no such choice of a group."""
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        if error.options and group == "method":
            return _no_such_method(name, error.options)
        if error.options:
            return unknown(group, name, error.options)
        if error.missing_cfg_file not in (self.name, f"{self.name}.yaml"):
            return UserError(f"{self.name}: {_one_line(error)}")
        loader: Any = GlobalHydra.instance().config_loader()
        files = [f for f in loader.get_group_options(group) if not f.startswith("_")]
        return UserError(
            f"--config-name: there is no {name.removesuffix('.yaml')}.yaml in {self.path}."
            f"{nearest(name, files)} Files there: {', '.join(files) or 'none of YAML'}."
        )


def _no_such_method(name: str, known: Sequence[str]) -> UserError:
    """There are two hundred: their parts are named."""
    names = [one for one in known if one not in WRAPPERS]
    return UserError(
        f"unknown method '{name}'.{nearest(name, names)} Valid: {', '.join(configured_bases())}; "
        f"{', '.join(f'{wrapper}_' for wrapper in WRAPPERS)} before each; {', '.join(METHODS)}. "
        f"`ltplugins methods` says more."
    )


def _require_one_value(override: Override) -> None:
    """Refuse a word that Hydra can read and nothing here can take."""
    word = str(override.input_line)
    if not override.key_or_group:
        raise UserError(f"cannot read '{word}': expected key=value, and there is no key.")
    if override.is_sweep_override():
        raise UserError(
            f"{word}: several values are for --multirun. A list of values stands in brackets, a "
            f"text with commas in quotes within quotes."
        )


def _require_choice(group: str, value: Any, word: str) -> None:
    """Refuse what cannot name a choice of a group, which Hydra does not look at."""
    names = value if isinstance(value, list) and value else [value]
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{word}: expected the name of a choice of '{group}', got {value!r}.")
    if group == "method" and names[0] in WRAPPERS:
        raise UserError(
            f"{word}: {names[0]} goes over a base. Set method={names[0]}_simclr, or another of "
            f"{names[0]}_<base>; `ltplugins methods` lists them."
        )


def _expand_home(cfg: Any) -> None:
    """Write the home folder where a text begins with "~/", which no shell does within a word."""
    for key in range(len(cfg)) if isinstance(cfg, ListConfig) else list(cfg):
        value = cfg._get_node(key)
        if OmegaConf.is_config(value) and not value._is_none():
            _expand_home(value)
        elif isinstance(text := value._value(), str) and (text == "~" or text.startswith("~/")):
            cfg[key] = str(expanded(text))


def _has(cfg: DictConfig, key: str) -> bool:
    """Whether the key is there, even if it is null or still to be given."""
    block, _, name = key.rpartition(".")
    parent = OmegaConf.select(cfg, block) if block else cfg
    if isinstance(parent, ListConfig):
        return name.isdigit() and int(name) < len(parent)
    return isinstance(parent, DictConfig) and name in parent.keys()  # noqa: SIM118 - null counts


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
