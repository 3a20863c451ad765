# SPDX-License-Identifier: MIT
# PYTHON_ARGCOMPLETE_OK
"""``ltplugins``: thin; each command imports its stage only when it is called."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ltplugins import __version__
from ltplugins.stages.zoo.command import add_parsers, run_zoo

_EPILOG = """examples:
  ltplugins demo                                        the comparison of the README
  ltplugins pretrain method=gh_simclr max_epochs=50     embedded data, any key overridden
  ltplugins pretrain --config-path DIR --config-name FILE method=gh_simclr
                                                        a solo-learn YAML
  ltplugins evaluate runs/gh_simclr/fashion             kNN and linear probe by groups
  ltplugins balance runs/iccl/fashion                   re-train a learned classifier by class
  ltplugins finetune runs/gh_simclr/fashion             train a classifier and the backbone with it
  ltplugins segment runs/gh_simclr/land                 a class for every pixel, mIoU
  ltplugins methods gh                                  a method, its options and their ranges
  ltplugins report runs/a runs/b --out runs/report      compare evaluated runs
  ltplugins features runs/a photos --out photos.npz     features of any images
  ltplugins export runs/a exported/a --timm --onnx      a model for other programs
  ltplugins zoo list                                    small backbones that say what they are

exit codes: 0 done, 1 a defect (a traceback) or a failed member of a sweep, 2 wrong input (one
line), 130 Ctrl-C, 143 SIGTERM; after the last two the same command continues a training
"""


_MODEL = "a run's folder, a checkpoint, an exported folder, zoo://NAME, or a name of a library's"
_HYDRA_STAGES = ("pretrain", "evaluate", "balance", "finetune", "segment")


class _Parser(argparse.ArgumentParser):
    """Refuses in one line, as every stage does."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}. {self.prog} --help shows what it takes.", file=sys.stderr)
        raise SystemExit(2)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command's name and hand the rest to its stage."""
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Hydra has its own command line, so these are handed on untouched.
    if arguments and arguments[0] in _HYDRA_STAGES:
        _hydra_stage(arguments[0], arguments[1:])
        return
    options = _parser().parse_args(arguments)
    if options.command is None:
        _parser().print_help()
        return
    from ltplugins.core.door import GOES_ON, guarded
    from ltplugins.stages.logs import set_up_logging

    set_up_logging()
    if options.command == "features":
        from ltplugins.stages.features import show_features

        given = {name: value for name, value in vars(options).items() if name != "command"}
        guarded(lambda: show_features(**given), GOES_ON)
    elif options.command == "zoo" and options.part in ("get", "info", "verify"):
        guarded(lambda: _run(options), GOES_ON)  # from the byte that has come
    else:
        guarded(lambda: _run(options))


def _complete() -> None:
    """Answer a shell that asks what a word can become; see "completion" in docs/launch.md."""
    import argcomplete

    argcomplete.autocomplete(completing(), always_complete_options=False)


def completing() -> argparse.ArgumentParser:
    """The parser with the words of Hydra's stages, for completion alone."""
    from argcomplete.completers import DirectoriesCompleter

    from ltplugins.stages.complete import words

    parser = _parser()
    for name, stage in _commands(parser).items():
        if name not in _HYDRA_STAGES:
            continue
        if name != "pretrain":
            run: Any = stage.add_argument("run")
            run.completer = DirectoriesCompleter()

        def offer(prefix: str, stage: str = name, **_: Any) -> list[str]:
            return words(stage, prefix)

        word: Any = stage.add_argument("words", nargs="*")
        word.completer = offer
    return parser


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands, by their names."""
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(commands.choices)


def _hydra_stage(name: str, rest: list[str]) -> None:
    if name != "pretrain":
        # `ltplugins evaluate RUN` reads better than `run=RUN`; both work.
        rest = [f"run={a}" if i == 0 and _is_path(a) else a for i, a in enumerate(rest)]
    if name == "pretrain":
        from ltplugins.stages.pretrain import main as stage
    elif name == "balance":
        from ltplugins.stages.balance import main as stage
    elif name == "finetune":
        from ltplugins.stages.finetune import main as stage
    elif name == "segment":
        from ltplugins.stages.segment import main as stage
    else:
        from ltplugins.stages.evaluate import main as stage
    stage(rest)


def _is_path(argument: str) -> bool:
    # solo-learn's checkpoints have a "=" in their names: simclr-ep=99.ckpt.
    plain = "=" not in argument and not argument.startswith("-")
    return plain or Path(argument).exists()


def _run(options: argparse.Namespace) -> None:
    if options.command == "demo":
        from ltplugins.stages.demo import demo

        repeated = {"class-order": options.class_order, "fold": options.fold}
        demo(options.out, options.data, repeated, seed=options.seed, epochs=options.epochs)
    elif options.command == "report":
        from ltplugins.stages.report import report

        report(options.runs, options.out, title=options.title, baseline=options.baseline)
    elif options.command == "debug":
        from ltplugins.stages.debug import debug

        debug(options.file)
    elif options.command == "methods":
        from ltplugins.stages.methods import methods

        methods(options.name)
    elif options.command == "export":
        from ltplugins.stages.export import show_export

        forms: Any = [
            form for form in ("timm", "torchvision", "onnx", "solo") if getattr(options, form)
        ]
        show_export(options.model, options.folder, forms)
    elif options.command == "zoo":
        run_zoo(options)


def _whole(least: int) -> Callable[[str], int]:
    """A type of argparse: whole numbers of ``least`` or more."""

    def read(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of {least} or more, got {text!r}"
            )
        return int(text)

    return read


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ltplugins",
        description="Long-tailed representation learning as a plugin for solo-learn.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ltplugins {__version__}")
    home = os.path.expanduser  # no shell writes it within a word, as in --out=~/x
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    demo = commands.add_parser("demo", help="SimCLR against GH-SimCLR on the embedded images")
    demo.add_argument(
        "--data", choices=("fashion", "land"), default="fashion", help="garments, or the Earth"
    )
    demo.add_argument(
        "--out", type=home, help="folder of the runs and the report (runs/demo, runs/demo-land)"
    )
    demo.add_argument(
        "--class-order", type=_whole(0), help="of fashion, a seed: which class is head or tail"
    )
    demo.add_argument("--fold", type=_whole(0), help="of land: the fold to test on")
    demo.add_argument("--seed", type=_whole(0), default=0, help="seed of the runs")
    demo.add_argument(
        "--epochs", type=_whole(1), default=None, help="instead of the demo's own length"
    )

    commands.add_parser("pretrain", help="train a method (Hydra: key=value overrides)")
    commands.add_parser("evaluate", help="kNN and linear probe of a run folder or checkpoint")

    commands.add_parser("balance", help="re-train a run's learned classifier, class-balanced")
    commands.add_parser("finetune", help="train a classifier on a run's backbone, and both")
    commands.add_parser("segment", help="a class for every pixel: a decoder on a run's encoder")

    debug = commands.add_parser("debug", help="repeat the step at which a run diverged")
    debug.add_argument("file", type=home, metavar="FILE", help="RUN/divergence.json, or RUN")

    methods = commands.add_parser("methods", help="all methods, or one with its options")
    methods.add_argument("name", nargs="?", help="a wrapper, method, base, or a composition")

    report = commands.add_parser("report", help="compare evaluated runs: report.html, report.md")
    report.add_argument("runs", type=home, nargs="+", help="run folders with results.json")
    report.add_argument("--out", type=home, default="runs/report", help="folder of the report")
    report.add_argument("--title", default="Comparison of runs", help="of the report")
    report.add_argument("--baseline", help="row that others are compared with, such as simclr")
    _add_users(commands)
    return parser


def _add_users(commands: Any) -> None:
    """The commands that use a trained model."""
    home = os.path.expanduser
    features = commands.add_parser("features", help="features of any images, into one file")
    features.add_argument("model", type=home, metavar="RUN", help=_MODEL)
    features.add_argument(
        "images",
        metavar="IMAGES",
        help="a folder, a list of paths, .npz, .npy, or fashion_pack/test",
    )
    features.add_argument("--out", type=home, required=True, help="a new .npz or .parquet file")
    features.add_argument("--root", type=home, help="folder that a list's paths are relative to")
    features.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    features.add_argument("--batch-size", type=_whole(1), default=256, help="images at once")
    features.add_argument(
        "--workers",
        dest="num_workers",
        type=_whole(0),
        default=4,
        help="processes that decode files",
    )
    features.add_argument(
        "--on-corrupt", choices=("fail", "skip"), default="fail", help="an image that is damaged"
    )
    features.add_argument(
        "--max-pixels", type=_whole(1), help="a file of more is not decoded (178956970)"
    )

    export = commands.add_parser("export", help="a model for timm, torchvision or ONNX")
    export.add_argument("model", type=home, metavar="RUN", help=_MODEL)
    export.add_argument("folder", type=home, metavar="DIR", help="a new folder")
    export.add_argument(
        "--timm", action="store_true", help="config.json and model.safetensors: without any form"
    )
    export.add_argument(
        "--torchvision", action="store_true", help="of a ResNet, also with the small stem"
    )
    export.add_argument("--onnx", action="store_true", help="model.onnx, for any batch size")
    export.add_argument(
        "--solo", action="store_true", help="a checkpoint for solo-learn's main_linear.py"
    )
    add_parsers(commands)


if __name__ == "__main__":
    main()
