"""SIGTERM and Ctrl-C for a training with several processes."""

import signal
import threading

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException


class StopTogether:
    """Makes all processes of a training stop before the same batch.

    Saving a checkpoint needs all of them. Lightning's own handler of SIGTERM waits for the other
    processes wherever the signal finds its process; they wait for it elsewhere, and all hang.

    Attributes:
        agreed: Whether all processes have stopped together.
    """

    def __init__(self) -> None:
        self._received = 0
        self.agreed = False

    def listen(self, trainer: Trainer) -> None:
        """Take over the signals, until Lightning restores the handlers at the end of the training.

        One process alone stays with Lightning's handlers. A second Ctrl-C stops at once.
        """
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)
            signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: object) -> None:
        self._received = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def stop(self, trainer: Trainer) -> None:
        """Stop if any process has received a signal; to be called by all of them.

        Raises:
            SIGTERMException: After SIGTERM.
            KeyboardInterrupt: After Ctrl-C.
        """
        if trainer.world_size == 1:
            return
        received = torch.tensor(self._received, device=trainer.strategy.root_device)
        number = int(trainer.strategy.reduce(received, reduce_op="max"))
        self._received, self.agreed = 0, number > 0
        if number == signal.SIGTERM:
            raise SIGTERMException
        if number:
            raise KeyboardInterrupt
