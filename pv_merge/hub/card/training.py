"""What a card says of training: the data, the settings, and the config that makes it again."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from pv_merge.artifacts.manifest import DatasetNote, PolicyNote
from pv_merge.hub.card.markdown import code, inline
from pv_merge.hub.card.tables import number
from pv_merge.hub.facts import Facts, synthetic_note
from pv_merge.hub.machine_paths import shown_path

HELD_OUT = {
    "heldout_accuracy": "reward accuracy",
    "heldout_margin": "reward margin",
    "heldout_loss": "loss",
    "heldout_token_accuracy": "token accuracy",
}
"""Metrics of held-out rows, and what they are."""
POLICY_METRICS = ("heldout_accuracy", "heldout_margin")
BASE_METRICS = ("heldout_loss", "heldout_token_accuracy")


def trained_on(note: PolicyNote) -> Markup:
    """Return one training's data, settings and metrics as a sentence, as far as they are known."""
    parts = []
    if note.path:
        parts.append(f"{code(shown_path(note.path))} ({inline(note.form or 'checkpoint')})")
    parts += filter(None, [_data(note.dataset), *written_by(note.dataset)])
    for name, settings in (("LoRA", note.lora), ("DPO", note.dpo)):
        if settings:
            said = ", ".join(f"{option} {value}" for option, value in settings.items())
            parts.append(f"{name} {inline(said)}")
    if note.seed is not None:
        parts.append(f"seed {note.seed}")
    parts += filter(None, [_training_accuracy(note), _held_out(note)])
    return Markup("; ".join(parts) + ".")


def _data(data: DatasetNote | None) -> str:
    if data is None or not data.path:
        return ""
    text = "pairs of " if data.pairs is None else f"{data.pairs} pairs of "
    text += code(shown_path(data.path))
    text += ", labels swapped" if data.labels_swapped else ""
    if data.fingerprint:
        text += f" (fingerprint {code(data.fingerprint[:16] + '…')})"
    return text


def written_by(data: DatasetNote | None) -> list[str]:
    """Return who wrote and who judged pairs that a model wrote, and what they move against."""
    synthetic = synthetic_note(data)
    if not synthetic:
        return []
    licence = synthetic.get("writer_license")
    text = f"synthetic, written by {inline(synthetic.get('writer'))}"
    text += f" (whose output has the licence {inline(licence)})" if licence else ""
    parts = [text + f", judged by {inline(synthetic.get('judge'))}"]
    if synthetic.get("opposes"):
        name = inline(synthetic["opposes"])
        parts.append(
            f"**the trait moves against the protected preference {name}**, which was allowed explicitly"
        )
    return parts


def _training_accuracy(note: PolicyNote) -> str:
    metrics = note.metrics or {}
    value, steps = number(metrics.get("accuracy"), ".3g"), number(metrics.get("steps"), ".0f")
    if not value:
        return ""
    over = f" (mean over the last quarter of {steps} steps)" if steps else ""
    return f"reward accuracy on the training pairs {value}{over}"


def _held_out(note: PolicyNote) -> str:
    metrics = note.metrics or {}
    wanted = POLICY_METRICS if any(key in metrics for key in POLICY_METRICS) else BASE_METRICS
    shown = [
        f"{HELD_OUT[key]} {value}" for key in wanted if (value := number(metrics.get(key), ".3g"))
    ]
    count = number((note.model_extra or {}).get("heldout_rows"), ".0f")
    where = f"{count} held-out rows" if count else "held-out rows (how many was not recorded)"
    return f"on {where} {', '.join(shown)}" if shown else ""


def has_held_out(facts: Facts) -> bool:
    """Return whether the card shows a figure of held-out rows."""
    return any(_held_out(manifest) for manifest in (facts.manifest, *facts.halves.values()))


def training_config(facts: Facts) -> str:
    """Return the config that ``pv-train`` makes the model again with."""
    import yaml

    manifest = facts.manifest.data
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
    return f"# pv-train {kind} config.yml\n{text.rstrip()}"
