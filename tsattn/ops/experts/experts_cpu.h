// Feed-forward experts on CPUs: the weighted sum of the chosen ones for every token.
#pragma once

#include "expert_blocks.h"

#include "../cpu/activations.h"
#include "../cpu/philox.h"

#include <ATen/core/Tensor.h>

namespace tsattn {

constexpr int64_t kNarrow = 32; // tokens at most this wide have kernels of their own

// y[n] = sum over the slots s of token n of weights[s] expert(x[n]); slot s is token s / K's.
// Everything is contiguous, widths are multiples of 16; x and the matrices are of one dtype.
struct ExpertsProblem {
  at::Tensor x, weights, order, w1, b1, w2, b2; // biases and weights in float
  const Blocks& blocks;
  int64_t top_k;
  Activation activation;
  Dropout dropout;

  int64_t tokens() const { return x.size(0); }
  int64_t slots() const { return order.size(0); }
  int64_t width() const { return w1.size(2); }
  int64_t hidden() const { return w1.size(1); }
  bool is_narrow() const {
    return x.scalar_type() == at::kFloat && width() <= kNarrow && activation == Activation::kGelu;
  }
};

struct ExpertsGradients {
  at::Tensor x, weights, w1, b1, w2, b2; // of the dtypes of what they are gradients of; biases float
};

// Keeps what goes into the activation in `before` [S, F], unless that is undefined.
template <class T>
void experts_forward(const ExpertsProblem& p, const at::Tensor& before, const at::Tensor& y);

template <class T>
void experts_backward(
    const ExpertsProblem& p, const at::Tensor& grad, const at::Tensor& before,
    const ExpertsGradients& out);

// The same where `is_narrow`; no hidden units are kept.
void narrow_experts_forward(const ExpertsProblem& p, const at::Tensor& y);
void narrow_experts_backward(
    const ExpertsProblem& p, const at::Tensor& grad, const ExpertsGradients& out);

} // namespace tsattn
