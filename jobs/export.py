"""``castbank export``: a finished run in the forms that diffusers, peft and ComfyUI load, each read back."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from data_prep.records import InputError
from jobs.outputs import check_file, check_folder

FORMS = ("diffusers", "peft", "comfyui", "comfyui-whole")  # the keys of pipeline.exports.handover.FORMATS
SUMMARY = """Write a finished run in a form that others load. What was written is read back by the other tool's own
reader, and kept only if every value is what was trained.

--to diffusers       folder: the whole transformer, a LoRA folded in, for from_pretrained
--to peft            folder: the LoRA, for PeftModel.from_pretrained and load_lora_weights of diffusers' pipelines
--to comfyui         file: the LoRA for ComfyUI's models/loras; of a run without one, as comfyui-whole
--to comfyui-whole   file: the whole transformer, a LoRA folded in, for ComfyUI's models/diffusion_models

The identity network and the bank stay with castbank: elsewhere, a prompt draws what the transformer or the LoRA has
learned of the characters, not the faces of a bank.

examples:
  castbank export runs/first --to peft --output first_lora
  castbank export runs/first --to comfyui --output ComfyUI/models/loras/first.safetensors"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``castbank export``."""
    parser.add_argument(
        "run_folder", type=Path, metavar="RUN", help="folder of a finished run, or its export"
    )
    parser.add_argument("--to", choices=FORMS, required=True, metavar="FORM", help=", ".join(FORMS))
    parser.add_argument("--output", type=Path, required=True, metavar="PATH", help="file or folder, new")


def run(args: argparse.Namespace) -> int:
    """Write it; 0, or InputError before anything is written."""
    ending = ".safetensors" if args.to.startswith("comfyui") else ""
    export = _export_of(args.run_folder)
    if ending:
        check_file("--output", args.output, ending)
    else:
        check_folder("--output", args.output.parent)
    if args.output.exists():
        raise InputError(f"--output: {str(args.output)!r} is there already; give another, or delete it")

    from pipeline.exports.handover import FORMATS, hand_over

    written = hand_over(FORMATS[args.to], export, args.output)
    sys.stdout.write(
        f"{args.output}: the {written.what}, {written.num_tensors} tensors; read back by {written.reader}: largest "
        f"difference {written.difference:g}\n"
    )
    if written.remark:
        sys.stdout.write(f"note: {written.remark}\n")
    return 0


def _export_of(folder: Path) -> Path:
    """The export of a run, or the folder itself where it is one."""
    if (folder / "model.yaml").is_file():
        return folder
    if (folder / "export" / "model.yaml").is_file():
        return folder / "export"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a finished run, or its export")
    if (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: the run is not finished, it has no export yet; run castbank train again")
    raise InputError(f"{folder}: neither a run nor an export (no model.yaml in it); give a finished run")
