// A linear map between few features, for many tokens, in float32.
#pragma once

#include <cstdint>

namespace tsattn {

// y = x W' + b with x [rows, width] and W [features, width], all contiguous.
struct NarrowLinear {
  int64_t rows, width, features;
  const float* x;
  const float* weight;

  // Whole vectors on every processor, and few enough that weights and their gradients stay in cache.
  static bool fits(int64_t width, int64_t features) {
    return width % 16 == 0 && features % 16 == 0 && width > 0 && features > 0 && width <= 64 &&
        features <= 64;
  }
};

// Where gradients go; null where one is not needed.
struct NarrowLinearGradients {
  float* x;
  float* weight;
  float* bias;
};

void narrow_linear_forward(const NarrowLinear& p, const float* bias, float* y);

// The order of all additions is fixed, whatever the number of threads.
void narrow_linear_backward(const NarrowLinear& p, const float* grad, const NarrowLinearGradients& out);

} // namespace tsattn
