// Large tensors in memory that outlives them.
#pragma once

#include <ATen/core/Tensor.h>

namespace tsattn {

// An uninitialised tensor on the CPU. Getting many megabytes from the system, a page at a time, takes
// about as long as filling them, on a virtual machine often longer, and the next step wants the same
// again. So the memory of large tensors that are gone is kept for tensors of their size: of what was
// given back last, a GiB at most (a sixteenth of the machine's memory, if that is less), and no tensor
// of more than half of that. TSATTN_KEEP_MIB sets another limit; 0 keeps nothing.
at::Tensor empty_lasting(at::IntArrayRef sizes, const at::TensorOptions& options);

} // namespace tsattn
