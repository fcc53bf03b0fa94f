import subprocess
import sys

PROGRAM = """
import torch
from functools import partial
from tsattn.nn.moe import MoE, QuadraticMonomialGate
from tsattn.models import EncoderDecoderTransformer, PatchTST

options = {"d_model": 8, "num_heads": 2, "d_ff": 16, "value_activation": "tanh"}
inputs = [torch.randn(4, 21, 3), torch.rand(4, 21, 4), torch.rand(4, 5, 4)]
mixture = partial(MoE, gate=partial(QuadraticMonomialGate, rank=2), num_experts=4)
for network in (PatchTST(3, 21, 5, num_layers=1, **options),
                EncoderDecoderTransformer(3, 21, 5, encoder_layers=1, **options),
                PatchTST(3, 21, 5, num_layers=1, **options, feedforward=mixture),
                EncoderDecoderTransformer(3, 21, 5, encoder_layers=1, **options,
                                          feedforward=mixture)):
    compiled = torch.compile(network.eval(), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs).mean, network(*inputs).mean)
print("whole")
"""


def test_torch_compile_captures_a_network_in_one_graph() -> None:
    """In a process of its own, where calls are not checked: the checks cannot be compiled."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.stdout == "whole\n", done.stderr
