// Batch normalisation of a residual path on CPUs.
#pragma once

#include "../cpu/philox.h"

namespace tsattn {

// `rows` rows of `features` numbers, contiguous; statistics are over the rows.
struct BatchNormShape {
  int64_t rows = 0, features = 0;
  float eps = 0.0f;
};

// total = residual + drop(x); out = (total - mean) / sqrt(variance + eps) * weight + bias
template <class X>
void batch_norm_forward(
    const BatchNormShape& shape, const Dropout& dropout, const float* residual, const X* x,
    const float* weight, const float* bias, float* out, float* total, float* mean, float* variance);

template <class X>
void batch_norm_backward(
    const BatchNormShape& shape, const Dropout& dropout, const float* grad, const float* total,
    const float* mean, const float* variance, const float* weight, float* grad_residual, X* grad_x,
    float* grad_weight, float* grad_bias);

} // namespace tsattn
