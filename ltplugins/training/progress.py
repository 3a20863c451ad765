# SPDX-License-Identifier: MIT
"""How far a run is: a bar on a terminal, a line an epoch elsewhere."""

import time
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn

from ltplugins.core.console import make_console

# BYOL and SimSiam call their loss train_neg_cos_sim.
_LOSSES = ("loss_epoch", "neg_cos_sim_epoch")
_BAR_WIDTH = 8  # at least, with a blank at each side


class RunProgress(ProgressBar):
    """One bar for the whole run: epoch, loss, images/s, time. Off a terminal, a line an epoch.

    images/s counts source images (each is turned into all its views) over all processes.
    """

    def __init__(self, name: str, batch_size: int, console: Console | None = None) -> None:
        super().__init__()
        self.name = name
        self.batch_size = batch_size
        self.console = console or make_console(stderr=True)
        self.images = 0
        self.seconds = 0.0
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._since = 0.0
        self._loss: float | None = None

    @property
    def images_per_second(self) -> float:
        """Mean since training began in this process."""
        return self.images / self.seconds if self.seconds else 0.0

    def disable(self) -> None:
        """Lightning's call on every rank but the first, where nothing is shown anyway."""

    def enable(self) -> None:
        """Lightning's call on the first rank, which shows its bar in any case."""

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar, at the step where a resumed run goes on."""
        self._since = time.perf_counter()  # also where it goes on within an epoch
        if not self.console.is_terminal or trainer.progress_bar_callback is None:
            return
        self._progress = make_bar(self.console)
        self._task = self._progress.add_task(
            self.name,
            total=trainer.estimated_stepping_batches,
            completed=trainer.global_step,
            facts=[f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"],
        )
        self._progress.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of this epoch."""
        self._since = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Count images; refresh the bar."""
        now = time.perf_counter()
        self.seconds += now - self._since
        self._since = now
        self.images += self.batch_size * trainer.world_size
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
        facts.append(f"{self.images_per_second:.0f} img/s")
        self._progress.update(self._task, completed=trainer.global_step, facts=facts)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print a line an epoch where there is no terminal to draw a bar on."""
        metrics = trainer.callback_metrics  # averaged over the ranks: all of them have to ask
        if self._progress is not None or not trainer.is_global_zero:
            return
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 0
        left = 0.0
        if self.images:
            epoch_images = trainer.num_training_batches * self.batch_size * trainer.world_size
            left = (total - done) * epoch_images / self.images_per_second
        losses = [
            f"{k.removeprefix('train_').removesuffix('_epoch')} {float(v):.3f}"
            for k, v in metrics.items()
            if k.startswith("train_") and k.endswith(_LOSSES) and "class" not in k
        ]
        self.console.print(
            f"{self.name}: epoch {done}/{total}, {', '.join(losses)}, "
            f"{self.images_per_second:.0f} img/s, {left / 60:.1f} min left",
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
        super().__init__("")
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
        TextColumn("{task.description}"),
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
