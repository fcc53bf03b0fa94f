"""``tsattn export``: a run as a folder that can be given away."""

from collections.abc import Sequence
from pathlib import Path

from tsattn.forecast.export import export as export_run
from tsattn.options import CommandParser


def export(words: Sequence[str]) -> int:
    """Run ``tsattn export`` as typed after that.

    Args:
        words: the run and options.

    Returns:
        Exit status 0.

    Raises:
        TsattnError: the checkpoint cannot be exported, or a folder would be replaced.
    """
    about = (
        "Write a trained network as a folder of safetensors and JSON with a model card; tsattn "
        "forecast and tsattn backtest take it for --ckpt."
    )
    parser = CommandParser(prog="tsattn export", description=about)
    add = parser.add_argument
    add("run", type=Path, help="run folder, or a checkpoint's file")
    add("--out", type=Path, required=True, help="folder to write")
    add("--onnx", action="store_true", help="also write model.onnx, checked in onnxruntime")
    add("--overwrite", action="store_true", help="replace an existing export")
    given = parser.parse_args(list(words))
    made = export_run(
        given.run,
        given.out,
        with_onnx=given.onnx,
        overwrite=given.overwrite,
    )
    if made.onnx:
        print(
            f"model.onnx: opset {made.onnx['opset']}, takes {', '.join(made.onnx['inputs'])}; at "
            f"most {made.onnx['largest_difference']:.1e} standard deviations from the network"
        )
    print(f"fingerprint {made.fingerprint}")
    print(made.folder)
    return 0
