# SPDX-License-Identifier: MIT
"""How fast a run is, and how far: a bar on a terminal, a line an epoch elsewhere."""

import time
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn

from ltplugins.core.console import make_console, printable

# BYOL and SimSiam call their loss train_neg_cos_sim.
_LOSSES = ("loss_epoch", "neg_cos_sim_epoch")
_BAR_WIDTH = 8  # at least, with a blank at each side


class Speed(Callback):
    """How long a run has trained, and at how many source images a second over all its ranks.

    Each image is turned into all its views. A run that goes on counts on from its checkpoint.

    Attributes:
        goes_on: from a checkpoint of the run's own; another's time is not this run's.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.goes_on = False
        self.images = 0
        self.seconds = 0.0  # of steps
        self._before = 0.0  # seconds of the processes before this one
        self._began = self._since = time.perf_counter()

    @property
    def images_per_second(self) -> float:
        """Mean over the steps of the run."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def elapsed(self) -> float:
        """Seconds that the run has taken until now, with all that is not a step."""
        return self._before + time.perf_counter() - self._began

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"images": self.images, "seconds": self.seconds, "elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from a checkpoint of the run's own."""
        if self.goes_on:
            self.images, self.seconds = state_dict["images"], state_dict["seconds"]
            self._before = state_dict["elapsed"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the clock of this process."""
        self._began = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, also where a run goes on within an epoch."""
        self._since = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of this epoch."""
        self._since = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Count images and time."""
        now = time.perf_counter()
        self.seconds += now - self._since
        self._since = now
        self.images += self.batch_size * trainer.world_size


class RunProgress(ProgressBar):
    """One bar for the whole run: epoch, loss, images/s, time. Off a terminal, a line an epoch.

    Args:
        name: of what is trained.
        speed: of the same training, before this one among its callbacks.
        console: the terminal; None = stderr's.
    """

    def __init__(self, name: str, speed: Speed, console: Console | None = None) -> None:
        super().__init__()
        self.name, self.speed = name, speed
        self.console = console or make_console(stderr=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._loss: float | None = None

    def disable(self) -> None:
        """Lightning's call on every rank but the first, where nothing is shown anyway."""

    def enable(self) -> None:
        """Lightning's call on the first rank, which shows its bar in any case."""

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar, at the step where a resumed run goes on."""
        if not self.console.is_terminal or trainer.progress_bar_callback is None:
            return
        self._progress = make_bar(self.console)
        self._task = self._progress.add_task(
            printable(self.name),
            total=trainer.estimated_stepping_batches,
            completed=trainer.global_step,
            facts=[f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"],
        )
        self._progress.start()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Refresh the bar."""
        if self._progress is None or self._task is None:
            return
        outputs = args[1] if len(args) > 1 else None
        # Reading the loss waits for the device, so it is read seldom.
        is_due = self._loss is None or trainer.global_step % 10 == 0
        if is_due and isinstance(outputs, dict) and "loss" in outputs:
            self._loss = float(outputs["loss"])
        facts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"]
        if self._loss is not None:
            facts.append(f"loss {self._loss:.3f}")
        facts.append(f"{self.speed.images_per_second:.0f} img/s")
        self._progress.update(self._task, completed=trainer.global_step, facts=facts)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print a line an epoch where there is no terminal to draw a bar on."""
        metrics = trainer.callback_metrics  # averaged over the ranks: all of them have to ask
        if self._progress is not None or not trainer.is_global_zero:
            return
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 0
        left = 0.0
        rate = self.speed.images_per_second
        if rate:
            batch = self.speed.batch_size * trainer.world_size
            left = (total - done) * trainer.num_training_batches * batch / rate
        losses = [
            f"{k.removeprefix('train_').removesuffix('_epoch')} {float(v):.3f}"
            for k, v in metrics.items()
            if k.startswith("train_") and k.endswith(_LOSSES) and "class" not in k
        ]
        self.console.print(
            f"{self.name}: epoch {done}/{total}, {', '.join(losses)}, "
            f"{rate:.0f} img/s, {left / 60:.1f} min left",
            highlight=False,
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the finished bar on the screen."""
        self._stop()

    def on_exception(self, trainer: Trainer, *args: Any) -> None:
        """Give the terminal back."""
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class _Facts(TextColumn):
    """As much as the terminal is wide: what is said last is left out first, never cut."""

    def __init__(self, console: Console) -> None:
        super().__init__("", markup=False)
        self.console = console

    def render(self, task: Task) -> Any:
        room = self.console.width - len(task.description) - _BAR_WIDTH - 2
        facts = [*task.fields["facts"], f"{_clock(task.elapsed)} elapsed"]
        if task.time_remaining is not None:
            facts.insert(1, f"{_clock(task.time_remaining)} left")
        while len(facts) > 1 and len(", ".join(facts)) > room:
            facts.pop()
        self.text_format = ", ".join(facts)
        return super().render(task)


def make_bar(console: Console) -> Progress:
    """A bar whose task has a field ``facts``, texts in the order of their worth."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        _Facts(console),
        console=console,
        expand=True,
    )


def _clock(seconds: float | None) -> str:
    """Hours, minutes and seconds: 1:02:03, 2:03."""
    minutes, rest = divmod(int(seconds or 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
