"""Times and sizes as people write them."""


def duration(seconds: float) -> str:
    """Write seconds as people say them: ``12 ms``, ``38 s``, ``63 min``, ``5.2 h``."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.3g} h"


def memory(mib: float) -> str:
    """Write a memory in MiB below 1 GiB, else in GiB."""
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"
