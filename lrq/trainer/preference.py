"""TRL's DPOTrainer over rows that are token ids already, with kept reference log-probabilities and shared prefixes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from lrq.trainer.batches import LengthGroups
from lrq.trainer.checkpoints import mark_complete
from lrq.trainer.job import TrainJob
from lrq.trainer.job_folder import JobFolder
from lrq.trainer.losses import LOSSES, Coefficients, LogProbs, sppo, sppo_share, weighted
from lrq.trainer.prefix_check import PrefixCheck, compared_tokens, share_if_exact
from lrq.trainer.progress import Progress, stop_asked
from lrq.trainer.reference import ReferenceStore
from lrq.trainer.rope import set_rope_theta
from lrq.trainer.tokens import cut_middle

REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")
RATES = ("p_w", "p_l")  # win rates of chosen and rejected
MASKS = ("chosen_mask", "rejected_mask")  # of several turns: 1 on answers
SPPO_SHARE = "sppo/share"  # a metric: the squared loss in units of (1/2 / beta)^2


class _Recorder:
    """A model that remembers its log-probabilities, of the whole chosen sequences where a loss reads those."""

    def __init__(self, model: Any, *, whole: bool, shares: bool) -> None:
        self._model, self._whole, self._shares = model, whole, shares
        self.log_probs: torch.Tensor = torch.empty(0)  # [2B, L - 1] of all that was asked for

    def __call__(self, **kwargs: Any) -> Any:
        if not self._whole:
            outputs = self._model(**kwargs)
            self.log_probs = outputs.log_probs
            return outputs
        labels = kwargs["labels"]
        if self._shares:
            prompts = (labels != -100).int().argmax(dim=1).tolist()
            kwargs["prompts"] = prompts[: len(prompts) // 2]
        all_labels = whole_chosen(labels, kwargs["input_ids"], kwargs["attention_mask"])
        outputs = self._model(**{**kwargs, "labels": all_labels})
        self.log_probs = outputs.log_probs
        return replace(outputs, log_probs=outputs.log_probs.masked_fill(labels[:, 1:] == -100, 0))


def whole_chosen(labels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return `labels` [2B, L] with all tokens of the chosen half but the padding; the rejected half as it was.

    `ids` and `mask` are [2B, L], the mask 0 on padding.
    """
    chosen = len(ids) // 2
    chosen_labels = ids[:chosen].masked_fill(mask[:chosen] == 0, -100)
    return torch.cat((chosen_labels, labels[chosen:]))


class PreferenceCollator(DataCollatorForPreference):  # type: ignore[misc]
    """TRL's batch, with the win rates where the rows have them, and the answers of several turns marked as such."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        present = [name for name in RATES if all(row.get(name) is not None for row in examples)]
        rates = {name: torch.tensor([row[name] for row in examples]) for name in present}
        batch = super().torch_call(examples)
        answers = batch["completion_mask"].chunk(2)  # views
        for half, name in zip(answers, MASKS, strict=True):
            for line, row in zip(half, examples, strict=True):
                if mask := row.get(name):
                    start = len(row["prompt_ids"])
                    line[start : start + len(mask)] = torch.tensor(mask)
        return {**batch, **rates}


class ReferenceParts(torch.utils.data.Dataset[dict[str, Any]]):  # type: ignore[misc]
    """What the reference sees of a data set's rows: of each its turns, or the row itself."""

    def __init__(self, rows: Dataset, places: Sequence[tuple[int, int]]) -> None:
        self._rows, self._places = rows, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: int) -> dict[str, Any]:
        number, turn = self._places[place]
        row: dict[str, Any] = self._rows[number]
        return row["reference"][turn] if row.get("reference") else row


class PreferenceTrainer(DPOTrainer):  # type: ignore[misc]
    """Its metrics and steps are TRL's, its losses those of `lrq.trainer.losses`, or TRL's by other names.

    The reference may see another prompt than the policy does (LongPO, arXiv 2502.13922): its log-probabilities are
    those of the rows' own `reference`, turn by turn.
    """

    loss_types: list[str]
    loss_weights: list[float]
    _signature_columns: list[str]

    def __init__(
        self,
        *,
        job: TrainJob,
        folder: JobFolder,
        store: ReferenceStore,
        progress: Progress,
        shared_prefix: bool,
        **kwargs: Any,
    ) -> None:
        self._folder, self._store, self._progress = folder, store, progress
        self._one_sided, self._reads_reference = job.is_one_sided, job.reads_reference
        self._coefficients = Coefficients(beta=job.beta, gamma=job.gamma, betas=job.loss_betas)
        self._to_share = shared_prefix and not job.is_one_sided
        self._mixes_lengths = job.also is not None
        self.prefix: PrefixCheck | None = None  # of the first pair; none: sharing was not asked for
        self._engine: Any = None
        super().__init__(**kwargs)
        weights = dict(zip(self.loss_types, self.loss_weights, strict=True))
        self._own = {name: weight for name, weight in weights.items() if name in LOSSES}
        of_trl = {name: weight for name, weight in weights.items() if name not in LOSSES}
        self.loss_types, self.loss_weights = list(of_trl), list(of_trl.values())
        if job.rope_theta:  # the reference is computed by now, or kept from before
            set_rope_theta(self.model, job.rope_theta)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = [*dict.fromkeys([*self._signature_columns, *RATES, *MASKS])]

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Any:
        if not self._mixes_lengths:
            return super()._get_train_sampler(train_dataset)
        group = self.args.per_device_train_batch_size * self.accelerator.num_processes
        return LengthGroups(self.train_dataset["length"], group, self.args.seed)  # the argument has lost that column

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Add the columns ref_chosen_logps and ref_rejected_logps: sums of log π_ref over each response, in nats."""
        if self._to_share:  # the first moment at which the model carries TRL's fused head
            self._to_share = False
            self.prefix = self._try_prefix(dataset)
        if not self._reads_reference:
            zeros = [0.0] * len(dataset)
            return dataset.add_column(REFERENCE[0], zeros).add_column(REFERENCE[1], zeros)
        keys = {side: dataset[f"{side}_keys"] for side in ("chosen", "rejected")}
        pairs = {
            (row, turn): pair
            for row, columns in enumerate(zip(keys["chosen"], keys["rejected"], strict=True))
            for turn, pair in enumerate(zip(*columns, strict=True))
        }
        log_probs = self._stored_log_probs(list(pairs.values()))
        missing = {position: pair for position, pair in pairs.items() if not log_probs.keys() >= set(pair)}
        if missing:
            self._compute_missing(ReferenceParts(dataset, list(missing)), list(missing.values()), log_probs, batch_size)
        for side, column in keys.items():
            dataset = dataset.add_column(
                f"ref_{side}_logps", [sum(log_probs[key] for key in turns) for turns in column]
            )
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
            check = share_if_exact(base, self.model, inputs, bf16=is_bf16)
            self._release_gathered(batch)
        return check

    def _release_gathered(self, batch: dict[str, torch.Tensor]) -> None:
        """Pass two tokens without gradients: ZeRO-3 holds parameters from a backward pass that ended early, and frees
        them after the next forward pass; where all references are kept from before, none would follow."""
        if self.is_deepspeed_enabled and self._in_place().zero_optimization_stage() == 3:
            few = {name: part[:, :2] for name, part in batch.items()}
            with torch.no_grad():
                self._in_place()(**few, labels=few["input_ids"], use_cache=False, fused_lm_head=True)

    def _pair_to_compare(self, dataset: Dataset) -> dict[str, Any]:
        """Return the longest pair, its prompt cut in the middle, beyond what the model's attention ends at."""
        lengths = [sum(map(len, parts)) for parts in zip(dataset["prompt_ids"], dataset["chosen_ids"], strict=True)]
        longest = dataset[lengths.index(max(lengths))]
        room = compared_tokens(self.model.config.get_text_config(), max(lengths))
        prompt = longest["prompt_ids"]
        row = {name: longest.get(name) for name in ("chosen_ids", "rejected_ids", *MASKS)}
        row["prompt_ids"] = cut_middle(prompt, room) if len(prompt) > room else prompt
        return dict(self.data_collator([row]))

    def _in_place(self) -> Any:
        """Return the model with its parameters where they are computed."""
        if not self.is_deepspeed_enabled:
            return self.model
        self._engine = self._engine or prepare_deepspeed(self.model, self.accelerator)
        return self._engine

    def _stored_log_probs(self, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
        """Return what the store holds for these rows, as the first process sees it."""
        stored = self._store.load() if self.accelerator.is_main_process else {}
        keys = {key for pair in pairs for key in pair}
        shared = [{key: logp for key, logp in stored.items() if key in keys}]
        broadcast_object_list(shared, from_process=0)
        return shared[0]

    def _compute_missing(
        self, dataset: ReferenceParts, pairs: Sequence[tuple[str, str]], known: dict[str, float], batch_size: int
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
        if self._one_sided:
            return self._chosen_loss(model, inputs)
        reads_prompt = "nll" in self._own
        shares = self.prefix is not None and not self.prefix.reason
        recorder = _Recorder(model, whole=reads_prompt, shares=shares)
        loss = super()._compute_loss(recorder, inputs, return_outputs)
        record = self._record(recorder.log_probs, inputs, rates, whole=reads_prompt)
        if not self._reads_reference:
            self._note_rewards_per_token(record)
        if "sppo" in self._own:
            coefficients = self._coefficients.of("sppo")
            share = sppo_share(sppo(record, coefficients), coefficients.beta)
            self._note(SPPO_SHARE, share.detach())
        return loss + weighted(record, self._coefficients, self._own) if self._own else loss

    def _record(
        self, log_probs: torch.Tensor, inputs: dict[str, Any], rates: Mapping[str, torch.Tensor], *, whole: bool
    ) -> LogProbs:
        """Sum per-token log-probabilities, [2B, L - 1], to the record that losses read."""
        mask = inputs["completion_mask"][:, 1:]
        chosen, rejected = (log_probs * mask).sum(dim=1).chunk(2)
        chosen_tokens, rejected_tokens = mask.sum(dim=1).chunk(2)
        pairs = len(chosen)
        sequence = {
            "sequence": log_probs[:pairs].sum(dim=1), "sequence_tokens": inputs["attention_mask"][:pairs, 1:].sum(dim=1)
        }  # fmt: skip
        return LogProbs(
            chosen=chosen,
            rejected=rejected,
            chosen_tokens=chosen_tokens,
            rejected_tokens=rejected_tokens,
            chosen_reference=inputs[REFERENCE[0]],
            rejected_reference=inputs[REFERENCE[1]],
            **(sequence if whole else {}),
            **rates,
        )

    def _chosen_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Return the loss of rows whose rejected half is empty: one forward pass over the chosen half, no reference."""
        rows = len(inputs["input_ids"]) // 2
        ids, attention, mask = (inputs[name][:rows] for name in ("input_ids", "attention_mask", "completion_mask"))
        labels = ids.masked_fill((attention if "nll" in self._own else mask) == 0, -100)
        router = {"output_router_logits": True} if self.aux_loss_enabled else {}
        outputs = model(
            input_ids=ids, attention_mask=attention, labels=labels, use_cache=False, fused_lm_head=True, **router
        )
        log_probs, on_response, on_all = outputs.log_probs, mask[:, 1:], attention[:, 1:]
        record = LogProbs(
            chosen=(log_probs * on_response).sum(dim=1),
            chosen_tokens=on_response.sum(dim=1),
            sequence=log_probs.sum(dim=1),
            sequence_tokens=on_all.sum(dim=1),
        )
        if self.model.training:
            self._total_train_tokens += int(self.accelerator.gather_for_metrics(attention.sum()).sum())
        self._metrics[self._mode]["num_tokens"] = [self._total_train_tokens]
        self._note("logps/chosen", record.chosen.detach())
        loss = weighted(record, self._coefficients, self._own)
        return loss + self.router_aux_loss_coef * outputs.aux_loss if self.aux_loss_enabled else loss

    def _note_rewards_per_token(self, record: LogProbs) -> None:
        """Replace TRL's rewards, which are against a reference, by those of losses without one: β log π(y|x) / |y|."""
        chosen, rejected = (self.beta * mean.detach() for mean in (record.mean_w, record.mean_l))
        figures = {
            "chosen": chosen,
            "rejected": rejected,
            "margins": chosen - rejected,
            "accuracies": (chosen > rejected).float(),
        }
        for name, values in figures.items():
            self._metrics[self._mode][f"rewards/{name}"].pop()
            self._note(f"rewards/{name}", values)

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"

    def _note(self, name: str, values: torch.Tensor) -> None:
        """Add the mean over all processes to the step's metrics."""
        self._metrics[self._mode][name].append(self.accelerator.gather(values).mean().item())

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            mark_complete(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Checkpoints need none; the finished model gets ours."""
