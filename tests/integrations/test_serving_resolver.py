"""The resolver and the worker's hook, with a stand-in for vLLM in place of the engine."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pv_merge.integrations.vllm import restore
from pv_merge.integrations.vllm.register import NAME, SAID, register

import serving_tiny
from test_serving_names import HOSTILE


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return serving_tiny.write_vectors(tmp_path_factory.mktemp("serving"))


@pytest.fixture
def registry(
    world: tuple[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> serving_tiny.Registry:
    caplog.set_level(logging.INFO, logger="vllm.pv_merge")
    serving_tiny.clear_environment(monkeypatch)
    monkeypatch.setenv("PV_MERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PV_MERGE_VECTORS", str(world[1]))
    monkeypatch.setattr(restore, "log", logging.getLogger("vllm.pv_merge"))
    monkeypatch.setenv(SAID, "")  # so that it is put back
    restore.open_shelf.cache_clear()
    return serving_tiny.fake_vllm(monkeypatch)


class Server:
    """What vLLM's server does around a resolver, as far as names go."""

    def __init__(self, registry: serving_tiny.Registry, base: str) -> None:
        self.resolver = registry.resolvers[NAME]
        self.base = base
        self.count = 0
        self.requests: dict[str, Any] = {}
        self.worker = sys.modules["vllm.lora.worker_manager"].WorkerLoRAManager()

    def ask(self, name: str) -> Any:
        return asyncio.run(self.resolve(name))

    async def resolve(self, name: str) -> Any:
        if name in self.requests:
            return self.requests[name]
        self.count += 1
        given = self.count
        request = await self.resolver.resolve_lora(self.base, name)
        if request is not None:
            request.lora_int_id = given
            self.worker._load_adapter(request)
            self.requests[name] = request
        return request


@pytest.fixture
def server(registry: serving_tiny.Registry, world: tuple[str, Path]) -> Server:
    register()
    return Server(registry, world[0])


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


# ---- registering ---------------------------------------------------------------------------------


def test_silent_without_the_variable(
    registry: serving_tiny.Registry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("PV_MERGE_VECTORS")
    register()
    assert (registry.resolvers, caplog.records) == ({}, [])


def test_importing_the_entry_point_loads_nothing() -> None:
    code = (
        "import sys, pv_merge.integrations.vllm.register as r; r.register();"
        "print([m for m in ('torch', 'vllm', 'click', 'mergekit', 'transformers') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env={}
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_it_says_what_it_serves(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    said = [record.getMessage() for record in caplog.get_records("setup")]
    assert said == ["pv-merge: serves any mix of harmless, helpful, polite"]
    register()  # as in the next process, which inherits the environment
    assert not caplog.records


def dense(folder: Path, world: tuple[str, Path]) -> None:
    from pv_merge import PreferenceVector

    vector = PreferenceVector.load(world[1] / "polite")
    changes: dict[str, Any] = {name: vector.dense(name) for name in vector.names}
    PreferenceVector("polite", changes, vector.manifest).save(folder / "polite")


def another_base(folder: Path, world: tuple[str, Path]) -> None:
    for name in ("polite", "helpful"):
        shutil.copytree(world[1] / name, folder / name)
    manifest = folder / "polite" / "preference_vector.json"
    manifest.write_text(manifest.read_text().replace('"weights_sha256": "', '"weights_sha256": "f'))


def truncated(folder: Path, world: tuple[str, Path]) -> None:
    shutil.copytree(world[1] / "polite", folder / "polite")
    file = folder / "polite" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def with_a_bad_name(folder: Path, world: tuple[str, Path]) -> None:
    shutil.copytree(world[1] / "polite", folder / "polite, mostly")


def with_a_bad_minimum(folder: Path, world: tuple[str, Path]) -> None:
    shutil.copytree(world[1] / "harmless", folder / "harmless")
    manifest = folder / "harmless" / "preference_vector.json"
    manifest.write_text(manifest.read_text().replace("{", '{"protected_minimum": 1,', 1))


def with_a_stray_folder(folder: Path, world: tuple[str, Path]) -> None:
    shutil.copytree(world[1] / "polite", folder / "polite")
    (folder / "notes").mkdir()


BAD = {
    "holds no vectors": lambda folder, world: folder.mkdir(),
    "no such folder": lambda folder, world: None,
    "is a dense vector": dense,
    "different bases": another_base,
    "not a whole safetensors file": truncated,
    "clients write this name": with_a_bad_name,
    "protected_minimum is 1": with_a_bad_minimum,
    "is no preference vector": with_a_stray_folder,
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_folder_costs_one_line(
    reason: str,
    registry: serving_tiny.Registry,
    world: tuple[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "bad"
    monkeypatch.setenv("PV_MERGE_VECTORS", str(folder))
    BAD[reason](folder, world)
    register()
    register()
    (line,) = lines(caplog)
    assert line.startswith("pv-merge: serves no mixes: ") and reason in line and "\n" not in line
    assert not registry.resolvers


def test_a_bad_setting_costs_one_line(
    registry: serving_tiny.Registry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PV_MERGE_SERVE_MAX_TERMS", "many")
    register()
    (line,) = lines(caplog)
    assert "PV_MERGE_SERVE_MAX_TERMS: expected a whole number" in line
    assert not registry.resolvers


def test_without_vllm_it_is_one_line(
    registry: serving_tiny.Registry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "vllm.lora.resolver", None)
    register()
    (line,) = lines(caplog)
    assert "vllm.lora.resolver" in line


# ---- resolving -----------------------------------------------------------------------------------


def test_spellings_share_one_adapter(server: Server) -> None:
    names = ["helpful=0.8,polite=-0.3", "polite=-.30, helpful=0.80", "helpful=+0.8,polite=-0.3"]
    requests = [server.ask(name) for name in names]
    assert len({id(request) for request in requests}) == 1
    assert requests[0].lora_name == "helpful=0.8,polite=-0.3"
    # vLLM gave out 1, 2 and 3; the batch of a worker must see one id under one name
    assert [entry[1] for entry in server.worker.loaded] == [1, 1, 1]


def test_mixes_do_not_share(server: Server) -> None:
    requests = [server.ask(name) for name in ("polite=0.5", "polite=0.51", "helpful=0.5")]
    assert len({request.lora_path for request in requests}) == 3
    assert len({request.lora_int_id for request in requests}) == 3
    assert len({request.lora_name for request in requests}) == 3


@pytest.mark.parametrize(
    "name", [name for name in HOSTILE if "honest" not in name], ids=lambda text: ascii(text)[:40]
)
def test_hostile_names_are_not_found(
    name: str, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    assert server.ask(name) is None
    (line,) = lines(caplog)
    assert line.startswith("pv-merge: no adapter for model ") and HOSTILE[name] in line
    assert line.isascii() and line.isprintable() and len(line) < 400
    assert not (tmp_path / "cache").exists()  # nothing was read or written for it


def test_the_servers_word_frees_protected_preferences(
    registry: serving_tiny.Registry, world: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PV_MERGE_SERVE_ALLOW_PROTECTED_NEGATIVE", "1")
    register()
    assert Server(registry, world[0]).ask("harmless=-1").lora_name == "harmless=-1"


def test_a_renamed_copy_stays_protected(
    registry: serving_tiny.Registry,
    world: tuple[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(world[1] / "harmless", tmp_path / "vectors" / "kind")
    monkeypatch.setenv("PV_MERGE_VECTORS", str(tmp_path / "vectors"))
    register()
    assert Server(registry, world[0]).ask("kind=-1") is None


def test_any_failure_is_a_line_and_no_adapter(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left\non device")

    with monkeypatch.context() as patch:
        patch.setattr("pv_merge.integrations.mixes.cache.write_mix", full)
        assert server.ask("polite=0.5") is None
    (line,) = lines(caplog)
    assert "the disk is full" in line and line.isprintable()
    assert server.ask("polite=0.5") is not None


def test_a_server_of_another_base_serves_none(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from pv_merge.artifacts.base_hash import weights_hash
    from pv_merge.artifacts.checkpoint import Checkpoint

    import models

    server.base = models.save(models.tiny(seed=9), tmp_path / "other")
    weights_hash(Checkpoint(server.base))
    assert server.ask("polite=0.5") is None
    assert "was made from another base than" in lines(caplog)[0]
    resolver = server.resolver
    resolver.settings = dataclasses.replace(resolver.settings, allow_related_base=True)
    assert server.ask("polite=0.25") is not None


def test_many_at_once(server: Server) -> None:
    async def all_at_once() -> list[Any]:
        names = [f"polite={digit % 5 / 10},helpful=1" for digit in range(1, 40)]
        return await asyncio.gather(*(server.resolve(name) for name in names))

    requests = asyncio.run(all_at_once())
    assert len({request.lora_int_id for request in requests}) == 5
    assert len({request.lora_path for request in requests}) == 5


# ---- the worker ----------------------------------------------------------------------------------


def load_again(server: Server, request: Any) -> dict[str, torch.Tensor]:
    server.worker._load_adapter(request)
    name, number, tensors = server.worker.loaded[-1]
    assert (name, number) == (request.lora_name, request.lora_int_id)
    result: dict[str, torch.Tensor] = tensors
    return result


@pytest.mark.parametrize("gone", ["the mix", "every mix", "the cache", "the vectors too"])
def test_the_worker_makes_a_dropped_mix_again(
    gone: str,
    registry: serving_tiny.Registry,
    world: tuple[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = Path(shutil.copytree(world[1], tmp_path / "vectors"))
    monkeypatch.setenv("PV_MERGE_VECTORS", str(vectors))
    register()
    server = Server(registry, world[0])
    for name in ("helpful=0.8,polite=-0.3", "polite=0"):
        request = server.ask(name)
        first = server.worker.loaded[-1][2]
        path = Path(request.lora_path)
        shutil.rmtree({"the mix": path, "every mix": path.parent}.get(gone, tmp_path / "cache"))
        if gone == "the vectors too":
            shutil.rmtree(vectors, ignore_errors=True)
        again = load_again(server, request)
        assert first.keys() == again.keys()
        assert all(torch.equal(first[key], again[key]) for key in first)
    assert not list((tmp_path / "cache").rglob(".restored-*"))


def test_more_mixes_than_the_cache_holds(
    registry: serving_tiny.Registry, world: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PV_MERGE_SERVE_CACHE_MIXES", "2")
    register()
    server = Server(registry, world[0])
    requests = [server.ask(f"polite=0.{digit}") for digit in range(1, 8)]
    first = [entry[2] for entry in server.worker.loaded]
    kept = [request for request in requests if Path(request.lora_path).exists()]
    assert len(kept) == 2
    for request, tensors in zip(requests, first, strict=True):
        again = load_again(server, request)
        assert all(torch.equal(tensors[key], again[key]) for key in tensors)


def test_an_adapter_that_does_not_fit_still_fails(server: Server) -> None:
    request = server.ask("polite=0.5")
    (Path(request.lora_path) / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(Exception, match="header"):
        server.worker._load_adapter(request)


def test_other_adapters_are_none_of_ours(server: Server, tmp_path: Path) -> None:
    request = serving_tiny.LoRARequest("other", 7, str(tmp_path / "mixes" / "gone"))
    with pytest.raises(FileNotFoundError):
        server.worker._load_adapter(request)


def test_an_engine_without_the_method_evicts_nothing(
    registry: serving_tiny.Registry,
    world: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sys.modules["vllm.lora.worker_manager"], "WorkerLoRAManager", object)
    monkeypatch.setenv("PV_MERGE_SERVE_CACHE_MIXES", "1")
    register()
    resolver = registry.resolvers[NAME]
    assert asyncio.run(resolver.resolve_lora(world[0], "polite=0.1")) is not None
    assert asyncio.run(resolver.resolve_lora(world[0], "polite=0.2")) is None
    said = lines(caplog)
    assert "cannot be loaded again" in said[0] and "new ones are refused" in said[1]
    assert "the cache is full (1 mixes)" in said[2]


def test_the_method_is_wrapped_when_its_module_comes(
    registry: serving_tiny.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "lora").mkdir()
    for name in ("__init__", "lora/__init__"):
        (tmp_path / "vllm" / f"{name}.py").touch()
    (tmp_path / "vllm" / "lora" / "worker_manager.py").write_text(
        "class WorkerLoRAManager:\n    def _load_adapter(self, request):\n        return 1\n"
    )
    for name in ("vllm", "vllm.lora", "vllm.lora.worker_manager"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    restore.activate()
    restore.activate()
    assert "vllm.lora.worker_manager" not in sys.modules
    assert restore.can_restore()
    assert not any(isinstance(finder, restore._Finder) for finder in sys.meta_path)
    for name in ("vllm", "vllm.lora", "vllm.lora.worker_manager"):
        monkeypatch.delitem(sys.modules, name)
