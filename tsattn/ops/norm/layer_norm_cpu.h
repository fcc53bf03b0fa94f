// Layer normalisation of a residual path on CPUs.
#pragma once

#include "../cpu/philox.h"

namespace tsattn {

// `rows` rows of `features` numbers, contiguous; statistics are of each row.
struct LayerNormShape {
  int64_t rows = 0, features = 0;
  float eps = 0.0f;
};

// total = residual + drop(x); out = (total - mean) * inverse * weight + bias, where inverse is that of
// the row's deviation
template <class X>
void layer_norm_forward(
    const LayerNormShape& shape, const Dropout& dropout, const float* residual, const X* x,
    const float* weight, const float* bias, float* out, float* total, float* mean, float* inverse);

template <class X>
void layer_norm_backward(
    const LayerNormShape& shape, const Dropout& dropout, const float* grad, const float* total,
    const float* mean, const float* inverse, const float* weight, float* grad_residual, X* grad_x,
    float* grad_weight, float* grad_bias);

} // namespace tsattn
