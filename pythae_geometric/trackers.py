"""The parts of a loss in the records of experiment trackers."""

from collections.abc import Mapping
from typing import Any

import torch
from pythae.trainers import BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback


class LossParts(TrainingCallback):
    """Adds the parts of the loss to what pythae's trainer logs.

    The trainer logs ``train_epoch_loss`` and ``eval_epoch_loss`` and nothing else. With this
    callback every number that the model returns beside its loss is logged as well, such as
    ``train_recon_loss`` and ``eval_reg_loss``: its mean over those batches of the epoch that
    returned it. It works with every pythae model, and in each phase of a training it logs what the
    model returns in that phase.

    Put it before the callbacks that are to show the parts: the trainer calls them in the order of
    the list.

    Example:
        >>> from pythae.trainers.training_callbacks import WandbCallback
        >>> tracker = WandbCallback()
        >>> tracker.setup(training_config, model_config)
        >>> pipeline = TrainingPipeline(model, training_config)
        >>> pipeline(train_data, eval_data, callbacks=[LossParts(), tracker])

        pythae has no callback for TensorBoard, but one is a few lines:

        >>> class TensorBoard(TrainingCallback):
        ...     def on_train_begin(self, training_config, **kwargs):
        ...         self.writer = torch.utils.tensorboard.SummaryWriter("runs")
        ...     def on_log(self, training_config, logs, global_step, **kwargs):
        ...         for name, value in logs.items():
        ...             self.writer.add_scalar(name, value, global_step)
        ...     def on_train_end(self, training_config, **kwargs):
        ...         self.writer.close()
    """

    def __init__(self) -> None:
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._totals: dict[str, Any] = {}
        self._batches: dict[str, int] = {}

    def on_train_begin(
        self, training_config: BaseTrainerConfig, *, model: torch.nn.Module, **kwargs: Any
    ) -> None:
        """Look at every output of the model from now on."""
        self._hook = model.register_forward_hook(self._add)

    def on_epoch_begin(self, training_config: BaseTrainerConfig, **kwargs: Any) -> None:
        """Forget the epoch before."""
        self._begin_epoch()

    def on_log(
        self, training_config: BaseTrainerConfig, logs: dict[str, float], **kwargs: Any
    ) -> None:
        """Add the parts to ``logs``, which the callbacks after this one are given too."""
        means = {name: float(total) / self._batches[name] for name, total in self._totals.items()}
        logs.update(means)

    def on_train_end(self, training_config: BaseTrainerConfig, **kwargs: Any) -> None:
        """Leave the model as it was."""
        self._hook.remove()

    def _add(self, model: torch.nn.Module, inputs: Any, output: Mapping[str, Any]) -> None:
        stage = "train" if model.training else "eval"
        for part, value in output.items():
            is_number = (
                value.ndim == 0 if torch.is_tensor(value) else isinstance(value, int | float)
            )
            if is_number and part != "loss":
                name = f"{stage}_{part}"
                value = value.detach() if torch.is_tensor(value) else value
                self._totals[name] = self._totals.get(name, 0.0) + value
                self._batches[name] = self._batches.get(name, 0) + 1
