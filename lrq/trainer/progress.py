"""What a training tells while it runs: a line of metrics per step, the stage it is in; and its orderly stop."""

import math
import signal
import time
from typing import Any

import orjson
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lrq.domain.errors import LrqError
from lrq.trainer.job_folder import JobFolder, write_json

STAGE_SECONDS = 1.0  # between two writes of the stage


class Progress:
    """Writes for whoever follows; silent in all processes but the first."""

    def __init__(self, folder: JobFolder, *, speaks: bool) -> None:
        self._folder, self._speaks = folder, speaks
        self._spoke = 0.0
        self.first: dict[str, Any] = {}  # the first step's metrics
        self.last: dict[str, Any] = {}  # the last step's
        self.tokens = 0.0  # of all steps
        self.seconds = 0.0  # spent in steps

    def recall(self) -> None:
        """Go on from the steps of an earlier start."""
        for line in self._folder.load_metrics():
            self._note(line)
            self.seconds = line["seconds"]

    def stage(self, name: str, done: int = 0, of: int = 0) -> None:
        """Write where the work is before its first step: the stage `name`, `done` of `of`; at most once a second."""
        now = time.monotonic()
        if self._speaks and (not done or done == of or now - self._spoke > STAGE_SECONDS):
            self._spoke = now
            write_json(self._folder.stage, {"stage": name, "done": done, "of": of})

    def _note(self, line: dict[str, Any]) -> None:
        self.first, self.last = self.first or line, line
        self.tokens += line["tokens"]

    def step(self, line: dict[str, Any]) -> None:
        self._note(line)
        if self._speaks:
            with self._folder.metrics.open("ab") as stream:
                stream.write(orjson.dumps(line) + b"\n")

    def held_out(self, step: int, figures: dict[str, float]) -> None:
        """Keep the `figures` that were measured on the rows held out, before the first step or after the last."""
        if self._speaks:
            with self._folder.held_out.open("ab") as stream:
                stream.write(orjson.dumps({"step": step, **figures}) + b"\n")


_signalled = False


def _note_signal(*_: Any) -> None:
    global _signalled
    _signalled = True


def stop_on_signals() -> None:
    """Have SIGTERM and SIGINT ask for a checkpoint and the end."""
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, _note_signal)


def stop_asked(folder: JobFolder) -> bool:
    """Tell whether the training in `folder` is to stop: a signal to one process is enough; all must ask together."""
    flag = torch.tensor(int(_signalled or folder.stop.exists()))
    if torch.distributed.is_initialized():
        flag = flag.cuda() if torch.distributed.get_backend() == "nccl" else flag
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag)


class StepCallback(TrainerCallback):  # type: ignore[misc]
    """A metrics line per step; stops in order, or with a reason when the loss is no number."""

    def __init__(self, folder: JobFolder, progress: Progress) -> None:
        self._folder, self._progress = folder, progress
        self._began = time.monotonic()
        self._tokens = 0.0
        self.stopped = False

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if state.global_step < state.max_steps and stop_asked(self._folder):
            self.stopped = True
            control.should_save = control.should_training_stop = True
        control.should_evaluate = state.global_step >= state.max_steps and args.eval_strategy != "no"
        return control

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        figures = {"loss": "eval_loss", "margin": "eval_rewards/margins", "accuracy": "eval_rewards/accuracies"}
        measured = {name: metrics[key] for name, key in figures.items() if key in metrics}
        self._progress.held_out(state.global_step, measured)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs:  # the summary at the end
            return
        if not math.isfinite(logs["loss"]):
            raise LrqError(
                f"the loss is no number at step {state.global_step}: lower learning_rate, or look at the rows"
            )
        self._progress.step(self._line(state, logs))

    def _line(self, state: TrainerState, logs: dict[str, float]) -> dict[str, Any]:
        now = time.monotonic()
        elapsed, self._began = now - self._began, now
        tokens, self._tokens = logs["num_tokens"] - self._tokens, logs["num_tokens"]
        self._progress.seconds += elapsed
        return {
            "step": state.global_step,
            "of": state.max_steps,
            "epoch": state.epoch,
            "loss": logs["loss"],
            "margin": logs.get("rewards/margins"),  # none of these where nothing is rejected
            "accuracy": logs.get("rewards/accuracies"),
            "reward_chosen": logs.get("rewards/chosen"),
            "reward_rejected": logs.get("rewards/rejected"),
            **({"sppo_share": logs["sppo/share"]} if "sppo/share" in logs else {}),  # of (1/2 / beta)^2
            "learning_rate": logs["learning_rate"],
            "grad_norm": logs.get("grad_norm"),
            "tokens": tokens,  # prompt and response of both sides
            "tokens_per_second": tokens / elapsed,
            "seconds": self._progress.seconds,
        }
