"""Which operators a computation calls, below autograd and autocast."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Calls(TorchDispatchMode):
    """Notes the operators that are called, and the seeds that those of this library get."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.seeds: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Take notes, and call."""
        schema = func._schema
        self.names.add(schema.name)
        if schema.name.startswith("tsattn::"):
            for argument, given in zip(schema.arguments, args, strict=False):
                if argument.name == "seed" and given is not None:
                    self.seeds.add(int(given))
        return func(*args, **kwargs or {})
