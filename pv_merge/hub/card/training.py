"""What a card says of training: the data, the settings, and the config that makes it again."""

from __future__ import annotations

from typing import Any

from pv_merge.hub.base import shown_path
from pv_merge.hub.facts import Facts
from pv_merge.hub.results import row


def trained_on(manifest: dict[str, Any]) -> str:
    """Return one policy's data and settings as a sentence or two, as far as they are known."""
    parts = []
    if manifest.get("path"):
        parts.append(f"`{shown_path(manifest['path'])}` ({manifest.get('form', 'checkpoint')})")
    data = manifest.get("dataset") or {}
    if data.get("path"):
        text = f"{data['pairs']} pairs of " if "pairs" in data else "pairs of "
        text += f"`{shown_path(data['path'])}`"
        text += ", labels swapped" if data.get("labels_swapped") else ""
        if data.get("fingerprint"):
            text += f" (fingerprint `{data['fingerprint'][:16]}…`)"
        parts.append(text)
        parts += written_by(data.get("synthetic") or {})
    if manifest.get("lora"):
        parts.append("LoRA " + _settings(manifest["lora"]))
    if manifest.get("dpo"):
        parts.append("DPO " + _settings(manifest["dpo"]))
    if "seed" in manifest:
        parts.append(f"seed {manifest['seed']}")
    metrics = manifest.get("metrics") or {}
    shown = [
        f"{label} {metrics[key]:.3g}"
        for key, label in (
            ("accuracy", "reward accuracy on the training pairs"),
            ("heldout_accuracy", "on held-out pairs"),
            ("heldout_margin", "reward margin on held-out pairs"),
        )
        if isinstance(metrics.get(key), int | float)
    ]
    return "; ".join(parts + ([", ".join(shown)] if shown else [])) + "."


def written_by(synthetic: dict[str, Any]) -> list[str]:
    """Return who wrote and who judged pairs that a model wrote, and what they move against."""
    if not synthetic:
        return []
    licence = synthetic.get("writer_license")
    text = f"synthetic, written by {synthetic.get('writer')}"
    text += f" (whose output has the licence {licence})" if licence else ""
    parts = [text + f", judged by {synthetic.get('judge')}"]
    if synthetic.get("opposes"):
        parts.append(
            f"**the trait moves against the protected preference {synthetic['opposes']}**, which was "
            "allowed explicitly"
        )
    return parts


def hyperparameters(facts: Facts) -> list[str]:
    """Return a policy's training as a sentence and a table."""
    manifest = facts.manifest
    lines = [trained_on(manifest)]
    settings = manifest.get("hyperparameters") or {}
    wanted = (
        "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim", "max_steps",
        "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "beta",
        "max_length", "bf16", "fp16", "seed",
    )  # fmt: skip
    known = {key: settings[key] for key in wanted if key in settings}
    if known:
        lines += ["", *row(["setting", "value"]), *row(["---", "---"])]
        for key, value in known.items():
            lines += row([f"`{key}`", f"{value}"])
    return lines


def training_config(facts: Facts) -> list[str]:
    """Return the config that ``pv-train`` makes the model again with, and the versions."""
    import yaml

    manifest = facts.manifest
    kind = "dpo" if facts.kind == "policy" else "sft"
    config: dict[str, Any] = {"base_model": facts.base.usable}
    for key in ("preference", "dataset", "lora", kind, "adapter_dtype", "seed"):
        if key in manifest:
            config[key] = manifest[key]
    data = config.get("dataset")
    if isinstance(data, dict):
        kept = {key: data[key] for key in ("path", "name", "format", "split") if data.get(key)}
        config["dataset"] = kept | ({"path": shown_path(kept["path"])} if "path" in kept else {})
    config["output_dir"] = "./again"
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    lines = ["```yaml", f"# pv-train {kind} config.yml", *text.rstrip().splitlines(), "```"]
    said = manifest.get("versions") or {}
    if said:
        lines += ["", "Made with " + ", ".join(f"{n} {v}" for n, v in said.items()) + "."]
    return lines


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())
