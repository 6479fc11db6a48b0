"""castbank train as a person runs it: to the end, killed and continued, damaged, a LoRA on top, wrong input."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from jobs.__main__ import main
from pipeline.training.run_folder import read_metrics
from tests.small_training import NUM_STEPS, Workplace, start, wait_until


def descendants(folder: Path) -> list[psutil.Process]:
    """Processes that write the logs of a run's ranks: the ranks themselves and what they have started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if Path(f"/proc/{process.pid}/fd/1").readlink().is_relative_to(folder):
                found.append(process)
    return found


def test_a_run_folder_holds_all_there_is_to_know(place: Workplace) -> None:
    folder = place.folder("whole")
    assert [line["step"] for line in place.curve("whole")] == list(range(1, NUM_STEPS + 1))
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "step-00000012",
        "step-00000016",
    ]
    assert {path.name for path in folder.iterdir()} >= {"config.yaml", "run.json", "logs", "export"}
    names = {"loss", "loss_diffusion", "learning_rate_scale", "gradient_norm"}
    assert names <= place.curve("whole")[0].keys()


def mlflow_client(place: Workplace) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{place.root / 'runs' / 'mlflow.db'}")


def tracked(place: Workplace, run: str) -> Any:
    return mlflow_client(place).search_runs(["1"], f"attributes.run_name = '{run}'")


def steps_tracked(place: Workplace, run: Any) -> list[int]:
    return sorted(point.step for point in mlflow_client(place).get_metric_history(run.info.run_id, "loss"))


def test_the_run_is_seen_in_mlflow(place: Workplace) -> None:
    client = mlflow_client(place)
    (run,) = tracked(place, "whole")
    assert run.info.status == "FINISHED"
    assert run.data.params["model.adapter.kind"] == "full"
    assert steps_tracked(place, run) == list(range(1, NUM_STEPS + 1))
    assert run.inputs.dataset_inputs[0].dataset.digest
    shown = sorted(item.path for item in client.list_artifacts(run.info.run_id, "samples"))
    assert [Path(path).suffix for path in shown] == [".mp4", ".png", ".mp4", ".png"]


def test_the_export_loads_and_its_bank_knows_everybody(place: Workplace) -> None:
    from data_prep.shards import ShardSet
    from pipeline.exports.export import last_seen
    from pipeline.generate import load_run
    from pipeline.identity.tokens import fingerprint, tokens_of

    loaded = load_run(place.folder("whole"))
    seen = last_seen(place.folder("whole"))
    note = ShardSet.open(place.root / "shards").read(0).note
    assert seen is not None and (seen.height_px, seen.width_px) == (note.height_px, note.width_px)
    assert sorted(loaded.bank.entries) == ["c01", "c02", "c03"]
    entry = loaded.bank.entry("c02")
    assert entry.consent == "granted"
    assert entry.provenance == ("portrait-c02#0", "portrait-c02#1", "portrait-c02#2")
    assert torch.equal(entry.tokens, tokens_of(loaded.model.identity.encoder, entry.references))
    assert entry.network == fingerprint(loaded.model.identity.encoder)


@pytest.mark.slow
def test_killed_stopped_and_damaged_it_ends_as_if_nothing_had_happened(
    place: Workplace, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, folder = place.arguments("hurt"), place.folder("hurt")
    metrics, checkpoints = folder / "metrics.jsonl", folder / "checkpoints"

    process = start(arguments)
    wait_until(lambda: len(read_metrics(metrics)) >= 6, process)
    children = descendants(folder)
    assert len(children) >= 4  # two ranks, each with a loading process
    process.kill()
    process.join()
    noted = folder / "mlflow_run_id"
    tracked_as = noted.read_text() if noted.is_file() else ""
    psutil.wait_procs(children, timeout=60)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]

    process = start(arguments)
    wait_until((checkpoints / "step-00000008" / "complete.json").is_file, process)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    stopped_at = int(place.curve("hurt")[-1]["step"])
    assert process.exitcode == 75 or stopped_at == NUM_STEPS

    newest = max(checkpoints.iterdir())
    weights = newest / "engine" / "mp_rank_00_model_states.pt"
    weights.write_bytes(weights.read_bytes()[:-1])
    shutil.rmtree(folder / "export", ignore_errors=True)
    assert main(arguments) == 0
    assert f"{newest}: engine/mp_rank_00_model_states.pt damaged" in capfd.readouterr().err

    whole, hurt = place.curve("whole"), place.curve("hurt")
    assert hurt == whole  # every scalar of every step, bit for bit
    assert noted.read_text() == tracked_as or not tracked_as
    (run,) = tracked(place, "hurt")
    assert run.info.status == "FINISHED"
    assert steps_tracked(place, run) == list(range(1, NUM_STEPS + 1))
    assert (folder / "export" / "identity.safetensors").read_bytes() == (
        place.folder("whole") / "export" / "identity.safetensors"
    ).read_bytes()


def test_a_finished_run_has_nothing_to_do(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(place.arguments("whole")) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_lora_on_top_for_one_character(place: Workplace) -> None:
    from pipeline.generate import load_run

    base = place.folder("whole") / "export"
    changes = ["num_steps=3", f"base={base}", "model.adapter.kind=lora", "model.adapter.rank=2"]
    assert main(place.arguments("lora", *changes, "data.include_characters=[c03]", "names.c03=Carla")) == 0
    loaded = load_run(place.folder("lora"))
    assert (loaded.folder / "lora" / "adapter_config.json").is_file()
    assert sorted(loaded.bank.entries) == ["Carla", "c01", "c02", "c03"]
    frozen = "transformer/diffusion_pytorch_model.safetensors"
    assert (loaded.folder / frozen).read_bytes() == (base / frozen).read_bytes()
    assert torch.equal(
        *(outputs(transformer) for transformer in (loaded.model.transformer, plain(loaded.folder)))
    )


def plain(export: Path) -> torch.nn.Module:
    """A fresh transformer of an export with its LoRA, by diffusers and peft alone."""
    from diffusers import WanTransformer3DModel
    from peft import PeftModel

    fresh = WanTransformer3DModel.from_pretrained(export / "transformer")
    without = outputs(fresh)
    made: torch.nn.Module = PeftModel.from_pretrained(fresh, export / "lora").eval()
    assert not torch.equal(outputs(made), without)
    return made


@torch.no_grad()
def outputs(transformer: torch.nn.Module) -> torch.Tensor:
    """What it answers to a random question."""
    generator = torch.Generator().manual_seed(0)
    config: Any = transformer.config
    latents = torch.randn(1, config.in_channels, 3, 2, 3, generator=generator)
    text = torch.randn(1, 8, config.text_dim, generator=generator)
    answer: torch.Tensor = transformer(latents, torch.tensor([500.0]), text, return_dict=False)[0]
    return answer


def test_one_process_that_a_launcher_started(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    variables = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    try:
        assert (
            main(place.arguments("launched", "num_steps=4", "engine.zero_stage=0", "tracking.kind=none")) == 0
        )
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    launched, whole = place.curve("launched"), place.curve("whole")
    assert launched[0]["loss"] == pytest.approx(whole[0]["loss"], abs=1e-5)  # one process or two


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["num_steps=25"], "started with another configuration: num_steps (was 16, is 25)"),
        (
            ["seed=1", "model.noise.text_drop=0.5"],
            "model.noise.text_drop (was 0.1, is 0.5); seed (was 0, is 1)",
        ),
    ],
)
def test_a_run_goes_on_only_as_it_began(
    overrides: list[str], message: str, place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(place.arguments("whole", *overrides)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.shards=/none"], "no such folder"),
        (["batch_size=3"], "batch_size=3 is not a multiple of 2 ranks"),
        (["num_steps=0"], "num_steps=0: must be at least 1"),
        (["model.noise.text_drop=7"], "model.noise.text_drop=7.0: must be from 0 to 1"),
        (["data.num_workers=-1"], "data.num_workers=-1: must be at least 0"),
        (["data.features=/dev/null/none"], "data.features: face embeddings cannot be kept in"),
        (["model.identity.max_cast=2"], "a sample shows 3 characters; set it to 3"),
        (["names.c09=Anna"], "names: c09 not in the samples to train on; they show c01, c02, c03"),
        (["names.c01=Anna", "names.c02=Anna"], "names: Anna would be several characters"),
        (["data.pack=missing"], "no pack is called 'missing'"),
        (["model.identity.embedding_dim=192"], "embeds in 512"),
        (["engine.zero_stage=7"], "engine.zero_stage"),
        (["data.include_characters=[nobody]"], "nobody not in the shards; they show c01, c02, c03"),
        (["engine.num_proceses=1"], "did you mean 'engine.num_processes'"),
    ],
)
def test_wrong_input_is_one_clear_line_and_leaves_no_run(
    overrides: list[str], message: str, place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(place.arguments("wrong", *overrides)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (place.folder("wrong") / "run.json").exists()


@pytest.mark.slow
def test_before_the_first_checkpoint_the_configuration_may_still_change(place: Workplace) -> None:
    broken = [
        "num_steps=2",
        "tracking.kind=none",
        "engine.num_processes=1",
        "model.adapter.learning_rate=1e30",
    ]
    with pytest.raises(RuntimeError, match=r"rank 0 of 1 exited with code 1(.|\n)*lower the learning rate"):
        main(place.arguments("second-try", *broken))
    assert (place.folder("second-try") / "run.json").is_file()
    assert main(place.arguments("second-try", *broken[:3], "seed=5")) == 0


def test_a_base_that_is_another_model_is_refused(
    place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    base = f"base={place.folder('whole') / 'export'}"
    assert main(place.arguments("wrong-base", base, "model.identity.width=32", "num_steps=2")) == 2
    assert "model.identity.width (base 16, here 32)" in capsys.readouterr().err
    assert main(place.arguments("wrong-base", "base=/none")) == 2
    assert "base '/none'" in capsys.readouterr().err
