"""TRL's DPOTrainer over rows that are token ids already, with kept reference log-probabilities and shared prefixes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, is_peft_model
from datasets import Dataset
from torch.utils.data import DataLoader
from trl import DPOTrainer
from trl.models import prepare_deepspeed
from trl.trainer.dpo_trainer import DataCollatorForPreference

from lrq.domain.errors import Stopping
from lrq.trainer.checkpoints import mark_complete
from lrq.trainer.job import SPPO, JobFolder
from lrq.trainer.losses import sppo_loss
from lrq.trainer.prefix_check import PrefixCheck, compared_tokens, share_if_exact
from lrq.trainer.progress import Progress, stop_asked
from lrq.trainer.reference import ReferenceStore
from lrq.trainer.tokens import cut_middle

REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")
RATES = ("p_w", "p_l")  # win rates of chosen and rejected


class _Recorder:
    """A model that remembers what it put out last."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.outputs: Any = None

    def __call__(self, **kwargs: Any) -> Any:
        self.outputs = self._model(**kwargs)
        return self.outputs


class PreferenceCollator(DataCollatorForPreference):  # type: ignore[misc]
    """TRL's batch, with the win rates where the rows have them."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        present = [name for name in RATES if all(row.get(name) is not None for row in examples)]
        rates = {name: torch.tensor([row[name] for row in examples]) for name in present}
        return {**super().torch_call(examples), **rates}


class PreferenceTrainer(DPOTrainer):  # type: ignore[misc]
    """Its metrics, steps and most of its losses are TRL's.

    A loss that TRL lacks is added in `_compute_loss`; a reference that sees another prompt than the policy does
    (LongPO, arXiv 2502.13922) replaces `prompt_ids` and the keys of the rows in `_precompute_ref_logps`.
    """

    loss_types: list[str]
    loss_weights: list[float]
    _signature_columns: list[str]

    def __init__(
        self, *, folder: JobFolder, store: ReferenceStore, progress: Progress, shared_prefix: bool, **kwargs: Any
    ) -> None:
        self._folder, self._store, self._progress = folder, store, progress
        self._to_share = shared_prefix
        self.prefix: PrefixCheck | None = None  # of the first pair; none: sharing was not asked for
        self._engine: Any = None
        super().__init__(**kwargs)
        weights = dict(zip(self.loss_types, self.loss_weights, strict=True))
        self._sppo_weight = weights.pop(SPPO, 0.0)
        self.loss_types, self.loss_weights = list(weights), list(weights.values())

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = [*dict.fromkeys([*self._signature_columns, *RATES])]

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Add the columns ref_chosen_logps and ref_rejected_logps: sums of log π_ref over each response, in nats."""
        if self._to_share:  # the first moment at which the model carries TRL's fused head
            self._to_share = False
            self.prefix = self._try_prefix(dataset)
        keys = {side: dataset[f"{side}_key"] for side in ("chosen", "rejected")}
        pairs = list(zip(keys["chosen"], keys["rejected"], strict=True))
        known = self._known(pairs)
        missing = [row for row, pair in enumerate(pairs) if not known.keys() >= set(pair)]
        if missing:
            self._compute_missing(dataset.select(missing), [pairs[row] for row in missing], known, batch_size)
        for side, column in keys.items():
            dataset = dataset.add_column(f"ref_{side}_logps", [known[key] for key in column])
        return dataset

    def _try_prefix(self, dataset: Dataset) -> PrefixCheck:
        """Compare the shared prefix with the plain pass on the longest pair; all processes do the same and agree."""
        if self.aux_loss_enabled:
            words = "the load of its experts is balanced over all tokens, and a shared prompt counts once"
            return PrefixCheck(log_probs=0, gradient=0, reason=words)
        batch = {name: part.to(self.accelerator.device) for name, part in self._pair_to_compare(dataset).items()}
        labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, -100)
        base = self.model.get_base_model() if is_peft_model(self.model) else self.model
        is_bf16 = self.args.bf16 or base.dtype == torch.bfloat16
        self._in_place()  # an engine would not have its model asked for gradients before there is an optimizer
        with self.accelerator.autocast():
            inputs = {**batch, "labels": labels, "use_cache": False, "fused_lm_head": True}
            return share_if_exact(base, self.model, inputs, bf16=is_bf16)

    def _pair_to_compare(self, dataset: Dataset) -> dict[str, Any]:
        """The longest pair, its prompt cut in the middle: long enough to cross what the model's attention ends at."""
        lengths = [sum(map(len, parts)) for parts in zip(dataset["prompt_ids"], dataset["chosen_ids"], strict=True)]
        longest = dataset[lengths.index(max(lengths))]
        room = compared_tokens(self.model.config.get_text_config(), max(lengths))
        prompt = longest["prompt_ids"]
        row = {side: longest[side] for side in ("chosen_ids", "rejected_ids")}
        row["prompt_ids"] = cut_middle(prompt, room) if len(prompt) > room else prompt
        return dict(self.data_collator([row]))

    def _in_place(self) -> Any:
        """The model with its parameters where they are computed: on the CPU or sharded until training wraps it."""
        if not self.is_deepspeed_enabled:
            return self.model
        self._engine = self._engine or prepare_deepspeed(self.model, self.accelerator)
        return self._engine

    def _known(self, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
        """What the store holds for these rows, as the first process sees it."""
        kept = self._store.load() if self.accelerator.is_main_process else {}
        wanted = {key for pair in pairs for key in pair}
        shared = [{key: logp for key, logp in kept.items() if key in wanted}]
        broadcast_object_list(shared, from_process=0)
        return shared[0]

    def _compute_missing(
        self, dataset: Dataset, pairs: Sequence[tuple[str, str]], known: dict[str, float], batch_size: int
    ) -> None:
        loader = DataLoader(dataset, batch_size=batch_size, collate_fn=self.data_collator)
        model = self._in_place()
        done = 0
        for batch in self.accelerator.prepare(loader):
            logps = self.accelerator.gather_for_metrics(self.compute_ref_log_probs(model, batch))
            chosen, rejected = (part.float().tolist() for part in logps)
            fresh: dict[str, float] = {}
            for pair, *values in zip(pairs[done : done + len(chosen)], chosen, rejected, strict=True):
                fresh.update(zip(pair, values, strict=True))
            if self.accelerator.is_main_process:
                self._store.append(fresh)
            known.update(fresh)
            done += len(chosen)
            self._progress.stage("reference", done, len(pairs))
            if stop_asked(self._folder):
                raise Stopping

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Keep the rows' figures exact: under DeepSpeed with bf16 every float is rounded, -500 nats by up to 2."""
        exact = {name: inputs[name].to(self.accelerator.device) for name in (*REFERENCE, *RATES) if name in inputs}
        return {**super()._prepare_inputs(inputs), **exact}

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        rates = {name: inputs.pop(name) for name in RATES if name in inputs}  # TRL would hand them to the model
        if not self._sppo_weight:
            return super()._compute_loss(model, inputs, return_outputs)
        recorder = _Recorder(model)
        loss = super()._compute_loss(recorder, inputs, return_outputs)
        chosen, rejected = recorder.outputs.log_probs.sum(dim=1).chunk(2)
        ratios = (chosen - inputs[REFERENCE[0]], rejected - inputs[REFERENCE[1]])
        return loss + self._sppo_weight * sppo_loss(*ratios, rates["p_w"], rates["p_l"], self.beta).mean()

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            mark_complete(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Checkpoints need none; the finished model gets ours."""
