// Dropout on CPUs, alone and fused with what stands beside it.
#pragma once

#include "../cpu/activations.h"
#include "../cpu/philox.h"

namespace tsattn {

enum class DropoutTask {
  kPlain, // y = drop(x)
  kAdd, // y = other + drop(x)
  kGelu, // y = drop(gelu(x))
  kGeluBackward, // y = drop(other) gelu'(x)
};

// Contiguous arrays of n elements; element i is decision i of the generator's stream.
template <class X, class Y>
void dropout_elements(
    DropoutTask task, const X* x, const Y* other, Y* y, int64_t n, const Dropout& dropout);

} // namespace tsattn
