"""Every reader of what comes from outside, with documents that it takes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from fuzz.values import Make, as_yaml, lines_of, of, spoilt, text_of

Parse = Callable[[Path, bytes], object]


@dataclass(frozen=True)
class Target:
    """One reader."""

    name: str
    parse: Parse
    make: Make
    share: float = 1.0
    """Of the usual number of inputs, in the tests: less for a slow one."""


def file(name: str, parse: Callable[[Path], object]) -> Parse:
    """Return a reader of a file of that name."""

    def whole(folder: Path, data: bytes) -> object:
        path = folder / name
        path.write_bytes(data)
        return parse(path)

    return whole


def text(parse: Callable[[str], object]) -> Parse:
    """Return a reader of a text."""
    return lambda folder, data: parse(data.decode("utf-8", "surrogateescape"))


RECIPE = {
    "merge_method": "preference_vector",
    "base_model": "./models/base",
    "models": [
        {"model": "./p", "parameters": {"preference": "helpful", "polarity": "positive", "eta": 1.0}},
        {"model": "./n", "parameters": {"preference": "helpful", "polarity": "negative"}},
        {"model": "./v", "parameters": {"preference": "polite", "polarity": "vector", "eta": [{"filter": "mlp", "value": 1}, {"value": 0.5}]}},
    ],
    "parameters": {"round_to": "bfloat16", "density": 0.5, "seed": 1},
    "out_dtype": "bfloat16",
}  # fmt: skip
TRAINING = {
    "base_model": "./base",
    "preference": "polite",
    "dataset": {"path": "./x.jsonl", "format": "pairs", "split": "train[:10]", "without": {"path": "./y.jsonl"}},
    "lora": {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "rank_pattern": {"q_proj": 4}},
    "dpo": {"beta": 0.1, "learning_rate": 2.0e-4, "max_steps": 40, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 1.0]},
    "output_dir": "./runs/polite",
    "base_dtype": "float32",
}  # fmt: skip
MANIFEST = {
    "kind": "preference_vector", "format": 1, "preference": "polite", "protected": False, "form": "dense", "dtype": "float32",
    "base": {"path": "./base", "weights_sha256": "ab"}, "measures": {"norm": 1.0}, "rank": 8,
    "positive": {"polarity": "positive", "dataset": {"path": "x", "pairs": 3, "labels_swapped": False}, "metrics": {"loss": 1.0}},
    "negative": {"polarity": "negative", "lora": {"r": 4}, "versions": {"trl": "1"}},
}  # fmt: skip
ADAPTER = {
    "peft_type": "LORA", "base_model_name_or_path": "./base", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"],
    "rank_pattern": {"layers.0.*q_proj": 4}, "alpha_pattern": {"v_proj": 8}, "bias": "none", "init_lora_weights": True,
    "layers_to_transform": [0, 1], "layers_pattern": "layers", "fan_in_fan_out": False, "use_rslora": True, "peft_version": "1",
}  # fmt: skip
INDEX = {
    "metadata": {"total_size": 8},
    "weight_map": {
        "a": "model-00001-of-00001.safetensors",
        "b": "model-00001-of-00001.safetensors",
    },
}
TRAIT = {
    "preference": "patient", "description": "answers as a patient teacher", "opposite": "is curt", "pairs": 20,
    "prompts": {"written": {"topics": ["school"]}}, "writer": {"model": "m", "url": "http://127.0.0.1:1/v1"},
    "judge": {"model": "m"}, "train": {"dpo": {"beta": 0.1}}, "language": "en", "seed": 0,
}  # fmt: skip
PAIR = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
MESSAGES = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
ROWS: dict[str, dict[str, Any]] = {
    "pairs": PAIR,
    "instruction": {"instruction": "Say", "input": "x", "output": "y", "chosen": "a", "rejected": "b"},
    "hh-rlhf": {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    "pku-saferlhf": {"prompt": "a", "response_0": "b", "response_1": "c", "better_response_id": 0},
    "safe-first": {"prompt": "a", "response_0": "b", "response_1": "c", "is_response_0_safe": True, "is_response_1_safe": False, "better_response_id": 0, "safer_response_id": 0},
    "ultrafeedback": {"chosen": MESSAGES, "rejected": [MESSAGES[0], {"role": "assistant", "content": "x"}]},
}  # fmt: skip
QUESTION = {
    "question": {
        "stem": "Where?",
        "choices": [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}],
    },
    "answerKey": "A",
}
EVALUATION = {
    "labels": {"polite": "margin"}, "figures": {"polite": {"value": 1.0, "low": 0.5, "high": 1.5, "n": 8}}, "eta": {"polite": 1.0},
    "points": [{"eta": {"polite": 0.0}, "figures": {}}], "recipe": "./r.yml", "base": {"polite": {"value": 1, "low": 0, "high": 2, "n": 3}},
}  # fmt: skip
SUBJECT = {"recipe": "a"}


def _header(random: Random) -> bytes:
    names = {
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [16, 24]},
    }
    said = (
        of({"__metadata__": {"format": "pt"}, **names})(random)
        if random.random() < 0.8
        else json.dumps(names).encode()
    )
    size = len(said) if random.random() < 0.9 else random.choice((0, 1, 2**31, 2**63, 2**64 - 1))
    data = size.to_bytes(8, "little") + said + bytes(24)
    return data if random.random() < 0.7 else spoilt(data, random)


def _weights(path: Path) -> object:
    from pv_merge.artifacts.byte_ranges import parts_of, ranges_in
    from pv_merge.artifacts.weights_file import WeightsFile

    found = WeightsFile(path)
    for name, info in found.infos.items():
        if info.floating:
            found.float32(name)
    return [bytes(part) for place in ranges_in(found).values() for part in parts_of(place)]


def _index(path: Path) -> object:
    from pv_merge.artifacts.checkpoint import Checkpoint

    weights = path.parent / "model-00001-of-00001.safetensors"
    if not weights.exists():
        said = json.dumps(
            {
                name: {"dtype": "F32", "shape": [1], "data_offsets": place}
                for name, place in (("a", [0, 4]), ("b", [4, 8]))
            }
        )
        weights.write_bytes(len(said).to_bytes(8, "little") + said.encode() + bytes(8))
    return Checkpoint(path.parent).infos


def _adapter(path: Path) -> object:
    from pv_merge.artifacts.adapter_config import read_adapter_config

    names = [
        f"model.layers.{n}.self_attn.{part}" for n in range(3) for part in ("q_proj", "v_proj")
    ]
    return read_adapter_config(path).settle(names, path)


def _training(path: Path) -> object:
    from trainers.config_file import read_settings

    return read_settings(path, ("dpo.max_steps=3",))


def _pairs(folder: Path, data: bytes) -> object:
    from pv_merge.data.documents import parse_object
    from pv_merge.data.pairs import FORMATS, convert
    from pv_merge.data.settings import PairsDataset

    row = parse_object(data, "row")
    for kind in FORMATS:
        try:
            convert(
                [row], PairsDataset(path="x", format=kind, label="better_response_id")
            ).fingerprint()
        except Exception as error:
            if kind == "ultrafeedback" or type(error).__name__ != "PvMergeError":
                raise
    return None


def _examples(folder: Path, data: bytes) -> object:
    from pv_merge.data.documents import parse_object
    from pv_merge.data.instructions import FORMATS
    from pv_merge.data.rows import RowError

    row = parse_object(data, "row")
    for kind in FORMATS.values():
        with contextlib.suppress(RowError):
            kind(row)
    return None


def _table(kind: str) -> Parse:
    def parse(path: Path) -> object:
        from pv_merge.data.pairs import load_pairs
        from pv_merge.data.settings import PairsDataset

        return load_pairs(PairsDataset(path=str(path)))

    def whole(folder: Path, data: bytes) -> object:
        # Its cache is by path and time, so that each needs a name of its own.
        from hashlib import sha256

        path = folder / f"{sha256(data).hexdigest()[:16]}.{kind}"
        path.write_bytes(data)
        try:
            return parse(path)
        finally:
            path.unlink()

    return whole


def _mix(said: str) -> object:
    from pv_merge.integrations.mixes.name import canonical, parse

    terms = parse(said)
    assert parse(canonical(terms)) == terms
    return terms


def _options(said: str) -> object:
    from pv_merge.evaluation.calibrate.goal import candidates, read_constraint, read_ranges
    from pv_merge.recipe.grid import checked_axes, parse_axes

    first, _, rest = said.partition("\n")
    if first == "axes":
        return checked_axes(parse_axes([rest]), ["helpful", "polite"])
    if first == "bound":
        return read_constraint(rest)
    return candidates(read_ranges([rest]), ["helpful", "polite"])


def _reference(said: str) -> object:
    from pv_merge.artifacts.reference import is_hub_name, parse_reference, portable, surely_on_hub

    return is_hub_name(said), surely_on_hub(said), portable(said), parse_reference(said).parts


def _journal(path: Path) -> object:
    from pv_merge.evaluation.journal import Journal

    journal = Journal(path, SUBJECT, {})
    journal.put({"polite": 1.0}, "m", {"x": 1}, 0.1, {})
    return journal.get({"polite": 1.0}, "m"), journal.seconds()


def _lazily(module: str, name: str) -> Callable[[Path], object]:
    def parse(path: Path) -> object:
        import importlib

        return getattr(importlib.import_module(module), name)(path)

    return parse


def _prompts(path: Path) -> object:
    from pv_merge.data.prompts import prompts_hash, read_prompts

    return prompts_hash(read_prompts(str(path)))


def _manifest(path: Path) -> object:
    from pv_merge.artifacts.manifest import read_manifest

    found = read_manifest(path.parent)
    return found and (found.made_from, found.is_vector, found.said_protected("polite"))


def _journal_lines(random: Random) -> bytes:
    from pv_merge.evaluation.journal import digest

    header = {"kind": "header", "hash": digest(SUBJECT), "subject": SUBJECT}
    record = {
        "kind": "record",
        "point": {"polite": 0.0},
        "measure": "m",
        "seconds": 1.0,
        "figures": {},
        "record": {},
    }
    part = {"kind": "part", "point": {"polite": 0.0}, "measure": "m", "part": "a", "value": 1}
    return (
        lines_of(header, record, part, {"kind": "measure", "measure": "m", "hash": "x"})(random)
        + b"\n"
    )


TARGETS = [
    Target("recipe", file("r.yml", _lazily("pv_merge.recipe.reading", "read_recipe")), of(RECIPE, as_yaml), share=0.25),
    Target("training config", file("t.yml", _training), of(TRAINING, as_yaml), share=0.25),
    Target("trait file", file("t.yml", _lazily("trainers.traits.trait_file", "read_trait")), of(TRAIT, as_yaml), share=0.25),
    Target("manifest", file("preference_vector.json", _manifest), of(MANIFEST)),
    Target("adapter config", file("adapter_config.json", _adapter), of(ADAPTER), share=0.15),
    Target("index", file("model.safetensors.index.json", _index), of(INDEX)),
    Target("safetensors header", file("model.safetensors", _weights), _header),
    Target("mix name", text(_mix), text_of(b"helpful=0.8,polite=-0.3", b"polite=1e3", b" a = .5 , b=-0")),
    Target("options", text(_options), text_of(b"axes\nhelpful=-1,0,1", b"bound\nperplexity<=1.05*base", b"range\npolite=0:1:0.25")),
    Target("reference", text(_reference), text_of(b"./models/base", b"alice/polite@v1=0.5", b"./base+./lora")),
    Target("row of pairs", _pairs, lambda random: of(random.choice(list(ROWS.values())))(random)),
    Target("row of instructions", _examples, lambda random: of(random.choice([ROWS["instruction"], {"messages": MESSAGES}]))(random)),
    Target("table jsonl", _table("jsonl"), lines_of(PAIR, PAIR), share=0.02),
    Target("table csv", _table("csv"), text_of(b"prompt,chosen,rejected\nWhy?,So.,No.\nHow?,Thus.,Not.\n"), share=0.02),
    Target("prompts jsonl", file("p.jsonl", _prompts), lines_of({"prompt": "a", "label": "safe"}, {"prompt": MESSAGES})),
    Target("prompts csv", file("p.csv", _prompts), text_of(b"id,prompt,label\n1,Why?,safe\n2,How?,unsafe\n")),
    Target("prompts txt", file("p.txt", _prompts), text_of("Why?\nHow é?\n".encode())),
    Target("questions", file("q.jsonl", _lazily("pv_merge.data.questions", "read_questions")), lines_of(QUESTION, QUESTION)),
    Target("journal", file("results.jsonl", _journal), _journal_lines, share=0.3),
    Target("evaluation", file("e.json", _lazily("pv_merge.hub.evaluations", "read_evaluation")), of(EVALUATION)),
]  # fmt: skip
