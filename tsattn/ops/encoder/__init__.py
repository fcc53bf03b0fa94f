"""A whole encoder in evaluation."""

from tsattn.ops.encoder.api import LayerWeights, encode, encodes_at_once

__all__ = ["LayerWeights", "encode", "encodes_at_once"]
