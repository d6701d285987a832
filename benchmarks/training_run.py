"""One run of the training race, in a process of its own: ``python benchmarks/training_run.py JSON``.

Prints one line of JSON: seconds, CPU seconds and peak memory of training one preference's policies,
and the loss of each step. Imports count for nobody; loading models, data and tokens for everybody.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def main() -> None:
    said = json.loads(sys.argv[1])
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # for both sides
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch

    from trainers.config_file import read_settings
    from trainers.progress import no_future_warnings, quiet_libraries

    import trainers.dpo  # isort: skip  # noqa: F401, so that its imports do not count

    quiet_libraries()
    settings = read_settings(said["config"])
    torch.rand(256, 256) @ torch.rand(256, 256)  # the threads are there
    wall, cpu = time.perf_counter(), time.process_time()
    with no_future_warnings():
        losses = (ours if said["mode"].startswith("pv-train") else plain)(settings, said)
    found = {
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_bytes": peak(),
        "losses": losses,
    }
    print(json.dumps(found))


def ours(settings: Any, said: dict[str, Any]) -> list[list[float]]:
    """Train both policies with ``pv-train``, on trees of tokens or padded rows."""
    from trainers.dpo import train

    settings = settings.model_copy(update={"tree": said["mode"] == "pv-train"})
    outcomes = train(settings, ["positive", "negative"])
    logs = [json.loads((o.folder / "pv_training_log.json").read_text()) for o in outcomes]
    return [losses_of(log) for log in logs]


def plain(settings: Any, said: dict[str, Any]) -> list[list[float]]:
    """Train both policies with TRL alone: as it comes, or in its best mode."""
    import trl
    from transformers.trainer_callback import PrinterCallback

    from pv_merge.data.pairs import load_pairs
    from trainers.arguments import dpo_arguments
    from trainers.model import load_model, load_tokenizer, lora_config
    from trainers.tokens import to_rows

    best = said["mode"] == "TRL, best"

    class Trainer(trl.DPOTrainer):  # type: ignore[misc, name-defined]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            # The loader's copy has lost the lengths, without which TRL cannot group rows by them.
            return super()._get_train_sampler(self.train_dataset)

    found = []
    for polarity in ("positive", "negative"):
        arguments = dpo_arguments(settings, Path(said["work"]) / polarity)
        arguments.precompute_ref_log_probs = best
        tokenizer = load_tokenizer(settings.base_model)
        pairs = load_pairs(settings.dataset).pairs
        if polarity == "negative":
            pairs = tuple(pair.swapped() for pair in pairs)
        rows = to_rows(pairs, tokenizer.chat_template is not None)
        if best:
            arguments.train_sampling_strategy = "group_by_length"
            sides = [max(len(pair.chosen), len(pair.rejected)) for pair in pairs]
            prompts = [sum(len(text) for _, text in pair.prompt) for pair in pairs]
            rows = rows.add_column("length", [a + b for a, b in zip(prompts, sides, strict=True)])
        trainer = Trainer(
            model=load_model(settings),
            args=arguments,
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=lora_config(settings),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.save_model(str(Path(said["work"]) / f"{polarity}-result"))
        found.append(losses_of(trainer.state.log_history))
    return found


def losses_of(log: list[dict[str, Any]]) -> list[float]:
    return [float(entry["loss"]) for entry in log if "loss" in entry]


def peak() -> int:
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
