"""What a :class:`~.BrownianRVAE` remembers between its phases. None of it is in its files."""

import copy
import math
from typing import Any, TypeVar

import torch

from ..._processes import gathered, summed
from ...geometry._warnings import warn

Model = TypeVar("Model", bound=torch.nn.Module)

# The codes of this many training points place the centres.
MAX_CODES = 20_000


class CodeStatistics:
    """The codes in the last epoch of the first phase, and statistics of residuals and times."""

    # Tensors, once there has been a batch.
    _square_sum: Any
    _log_time_sum: Any

    def __init__(self):
        self._codes, self.count, self.is_parallel = [], 0, False
        self._square_sum = self._log_time_sum = 0.0

    @torch.no_grad()
    def add(
        self,
        codes: torch.Tensor,
        log_time: torch.Tensor,
        residual: torch.Tensor,
        is_parallel: bool = False,
    ) -> None:
        """Add a batch: ``[B, d]``, ``[B]`` and ``[B, D]``; and whether other processes, which train
        the same model, have batches of their own."""
        self.is_parallel = is_parallel
        # The trainer shuffles: the first codes of an epoch are a random choice.
        if self.count < MAX_CODES:
            self._codes.append(codes.detach())
            self._square_sum = self._square_sum + residual.square().sum(0)
            self._log_time_sum = self._log_time_sum + log_time.sum()
            self.count += len(codes)

    @torch.no_grad()
    def gather(self) -> None:
        """Take in what the other processes of a training have seen, if there are any."""
        if not self.is_parallel:
            return
        self._codes = [gathered(self.codes)]
        self._square_sum, self._log_time_sum = summed(self._square_sum), summed(self._log_time_sum)
        self.count = len(self._codes[0])

    @property
    def codes(self) -> torch.Tensor:
        """All codes, ``[N, d]``.

        Raises:
            RuntimeError: if there are none.
        """
        if not self.count:
            raise RuntimeError(
                "No codes were seen in the last epoch of the first phase: call the model in "
                "training mode with the keyword epoch, as pythae's trainer does, before update()."
            )
        return torch.cat(self._codes)

    @property
    def central_code(self) -> torch.Tensor:
        """The code nearest to the mean of all, ``[d]``."""
        codes = self.codes
        return codes[(codes - codes.mean(0)).norm(dim=1).argmin()]

    @property
    def variance(self) -> torch.Tensor:
        """The mean square of the residuals in each dimension of the data, ``[D]``."""
        return self._square_sum / self.count

    @property
    def mean_log_time(self) -> torch.Tensor:
        """The mean log time of the posteriors, ``[]``."""
        return self._log_time_sum / self.count


class LastPhase:
    """The best state of the last phase, for the copies that a trainer took in the first.

    pythae's trainer keeps a deep copy of the model whenever the loss is the lowest so far, and
    saves that copy. But the two phases have different losses, and where the first has the lower
    one, the trainer never copies the model again. So every model has such a record. During a
    training it keeps the state after the best epoch of the last phase. The record of a deep copy
    refers to that of the ``original``, and a copy that was taken before the first epoch of the last
    phase was over saves the original's best state in place of its own.

    The order of events in an epoch is: training batches, ``update()``, evaluation batches, copy,
    checkpoint. So the loss of an epoch is complete when the next epoch begins or a copy is saved;
    until then its state is that of the living model, held by reference. The loss of an epoch is the
    trainer's: the mean over the evaluation batches or, without any, over the training batches.

    Each training begins a new record, and a copy that is trained no longer follows its original.
    """

    state: dict[str, torch.Tensor] | None
    _living: dict[str, torch.Tensor] | None
    _held: list[torch.Tensor] | None
    _losses: dict[bool, list[float]]

    def __init__(self, original: "LastPhase | None" = None):
        self.original = original
        self.epochs, self.warned = 0, False
        self.state, self.loss = None, math.inf
        self._passes_the_first = False
        self._living = self._held = None
        self._losses = {True: [], False: []}  # of this epoch, by whether they are training losses

    def __deepcopy__(self, memo):
        # A copy that was taken before the training belongs to no trainer: it stands for itself.
        return LastPhase(self if self.epochs else self.original)

    def __reduce__(self):
        return LastPhase, ()  # a pickled model comes back on its own

    def in_training(self, epoch: int | None) -> "LastPhase":
        """The record of the training that goes on, or begins, with a batch of this epoch."""
        self.settle()
        begins = self.original is not None or (epoch == 1 and self.epochs > 0)
        return LastPhase() if begins else self

    @torch.no_grad()
    def hold(self, network: torch.nn.Module) -> None:
        """Keep the parameters of a network as they are at the first call of a training.

        For a training of several processes, where what a phase holds fixed has gradients of 0, not
        none: an optimiser with a memory of the first phase moves it. To be called before each step.
        """
        self.restore(network)
        self._held = [parameter.clone() for parameter in network.parameters()]

    @torch.no_grad()
    def restore(self, network: torch.nn.Module) -> None:
        """Give a network that :meth:`hold` was called for its parameters back."""
        if self._held is not None:
            for parameter, value in zip(network.parameters(), self._held, strict=True):
                parameter.copy_(value)

    def add_loss(self, loss: torch.Tensor, training: bool) -> None:
        """Add the loss of a batch in the last phase."""
        if self._passes_the_first:
            self._losses[training].append(float(loss.detach()))

    def end_epoch(self, model: torch.nn.Module, epochs_of_phase: int) -> None:
        """Count an epoch.

        Args:
            model: the model, after the epoch.
            epochs_of_phase: how many epochs of the last phase it has done; less than 0 before it.
        """
        self.epochs, self.original = self.epochs + 1, None
        # A training that begins in the last phase has no copies of the first to replace.
        self._passes_the_first |= epochs_of_phase <= 0
        if self._passes_the_first and epochs_of_phase >= 0:
            self._living = model.state_dict()
        self._losses[False].clear()

    def settle(self) -> None:
        """Keep the state of the last epoch if it is the best: its loss is complete."""
        if self._living is not None:
            losses = self._losses[False] or self._losses[True]
            loss = sum(losses) / len(losses) if losses else math.inf
            if loss < self.loss or self.loss == math.inf:
                self.state = None  # free it first
                self.state, self.loss = copy.deepcopy(self._living), loss
            self._living = None
            self._losses = {True: [], False: []}

    def best(self, model: Model) -> Model:
        """What to save in place of ``model``, whose record this is: the best state of the last
        phase of the original. If there is none, the model itself."""
        if self.original is None:
            return model
        self.original.settle()
        if self.original.state is None:
            return model
        best = copy.deepcopy(model)
        best.load_state_dict(self.original.state)
        return best

    def warn_once(self, message: str) -> None:
        """Warn, once for a model and its copies together."""
        root = self.original or self
        if not root.warned:
            root.warned = True
            warn(message)
