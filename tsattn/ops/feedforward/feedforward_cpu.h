// The feed-forward of a layer on CPUs, for narrow tokens.
#pragma once

#include "../cpu/philox.h"

namespace tsattn {

// W_2 drop(gelu(W_1 x + b_1)) + b_2 on `rows` tokens; everything is contiguous.
struct FeedForward {
  int64_t rows = 0, width = 0, hidden = 0; // width: a multiple of 16
  const float *x = nullptr, *w1 = nullptr, *b1 = nullptr, *w2 = nullptr;
  int64_t part = 0; // which `rows` of a larger problem these are; they have decisions of their own
  Dropout dropout;
};

struct FeedForwardGradients {
  float *x = nullptr, *w1 = nullptr, *b1 = nullptr, *w2 = nullptr, *b2 = nullptr;
};

void feedforward_forward(const FeedForward& p, const float* b2, float* y);
void feedforward_backward(
    const FeedForward& p, const float* grad, const FeedForwardGradients& gradients);

} // namespace tsattn
