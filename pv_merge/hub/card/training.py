"""What a card says of training: the data, the settings, and the config that makes it again."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from pv_merge.hub.card.markdown import code, inline
from pv_merge.hub.card.tables import number
from pv_merge.hub.facts import Facts
from pv_merge.hub.machine_paths import shown_path
from pv_merge.hub.manifest_parts import mapping, text_of

HELD_OUT = {
    "heldout_accuracy": "reward accuracy",
    "heldout_margin": "reward margin",
    "heldout_loss": "loss",
    "heldout_token_accuracy": "token accuracy",
}
"""Metrics of held-out rows, and what they are."""
POLICY_METRICS = ("heldout_accuracy", "heldout_margin")
BASE_METRICS = ("heldout_loss", "heldout_token_accuracy")


def trained_on(manifest: dict[str, Any]) -> Markup:
    """Return one training's data, settings and metrics as a sentence, as far as they are known."""
    parts = []
    if manifest.get("path"):
        parts.append(
            f"{code(shown_path(manifest['path']))} ({inline(manifest.get('form', 'checkpoint'))})"
        )
    data = mapping(manifest.get("dataset"))
    if data.get("path"):
        text = f"{inline(data['pairs'])} pairs of " if "pairs" in data else "pairs of "
        text += code(shown_path(data["path"]))
        text += ", labels swapped" if data.get("labels_swapped") else ""
        if data.get("fingerprint"):
            text += f" (fingerprint {code(str(data['fingerprint'])[:16] + '…')})"
        parts.append(text)
    for key, name in (("lora", "LoRA"), ("dpo", "DPO")):
        if settings := mapping(manifest.get(key)):
            said = ", ".join(f"{option} {value}" for option, value in settings.items())
            parts.append(f"{name} {inline(said)}")
    if "seed" in manifest:
        parts.append(f"seed {inline(manifest['seed'])}")
    parts += filter(None, [_training_accuracy(manifest), _held_out(manifest)])
    return Markup("; ".join(parts) + ".")


def _training_accuracy(manifest: dict[str, Any]) -> str:
    metrics = mapping(manifest.get("metrics"))
    value, steps = number(metrics.get("accuracy"), ".3g"), number(metrics.get("steps"), ".0f")
    if not value:
        return ""
    over = f" (mean over the last quarter of {steps} steps)" if steps else ""
    return f"reward accuracy on the training pairs {value}{over}"


def _held_out(manifest: dict[str, Any]) -> str:
    metrics = mapping(manifest.get("metrics"))
    wanted = POLICY_METRICS if any(key in metrics for key in POLICY_METRICS) else BASE_METRICS
    shown = [
        f"{HELD_OUT[key]} {value}" for key in wanted if (value := number(metrics.get(key), ".3g"))
    ]
    count = number(manifest.get("heldout_rows"), ".0f")
    where = f"{count} held-out rows" if count else "held-out rows (how many was not recorded)"
    return f"on {where} {', '.join(shown)}" if shown else ""


def has_held_out(facts: Facts) -> bool:
    """Return whether the card shows a figure of held-out rows."""
    return any(_held_out(manifest) for manifest in (facts.manifest, *facts.halves.values()))


def training_config(facts: Facts) -> str:
    """Return the config that ``pv-train`` makes the model again with."""
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
        path = text_of(kept.get("path"))
        config["dataset"] = kept | ({"path": shown_path(path)} if path else {})
    config["output_dir"] = "./again"
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return f"# pv-train {kind} config.yml\n{text.rstrip()}"
