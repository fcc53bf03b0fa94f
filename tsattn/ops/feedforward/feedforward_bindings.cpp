// Tensors in, tensors out, as tsattn/ops/attention/attention_bindings.cpp does for attention.

#include "feedforward_cpu.h"

#include "../cpu/lasting.h"
#include "../cpu/seed.h"

#include <torch/library.h>

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

void check(const Tensor& x, at::IntArrayRef sizes) {
  TORCH_CHECK(
      x.scalar_type() == at::kFloat && x.sizes() == sizes, "expected float32 ", sizes, ", got ",
      x.scalar_type(), " ", x.sizes());
}

struct Contiguous {
  Tensor x, w1, b1, w2;
  Contiguous(const Tensor& x_, const Tensor& w1_, const Tensor& b1_, const Tensor& w2_)
      : x(x_.contiguous()), w1(w1_.contiguous()), b1(b1_.contiguous()), w2(w2_.contiguous()) {}

  tsattn::FeedForward problem(const OptionalTensor& seed, double p) const {
    TORCH_CHECK(x.dim() >= 1 && w1.dim() == 2, "expected tokens and a matrix");
    const int64_t width = x.size(-1), hidden = w1.size(0);
    TORCH_CHECK(width > 0 && width % 16 == 0, "the width must be a multiple of 16, got ", width);
    check(x, x.sizes());
    check(w1, {hidden, width});
    check(b1, {hidden});
    check(w2, {width, hidden});
    tsattn::FeedForward problem;
    problem.rows = x.numel() / width;
    problem.width = width;
    problem.hidden = hidden;
    problem.x = x.const_data_ptr<float>();
    problem.w1 = w1.const_data_ptr<float>();
    problem.b1 = b1.const_data_ptr<float>();
    problem.w2 = w2.const_data_ptr<float>();
    problem.dropout = tsattn::dropout_of(p, seed);
    return problem;
  }
};

Tensor forward(
    const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2,
    const OptionalTensor& seed, double p) {
  const Contiguous in(x, w1, b1, w2);
  const auto problem = in.problem(seed, p);
  check(b2, {problem.width});
  const Tensor b = b2.contiguous();
  Tensor y = tsattn::empty_lasting(x.sizes(), x.options());
  tsattn::feedforward_forward(problem, b.const_data_ptr<float>(), y.mutable_data_ptr<float>());
  return y;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2,
    const OptionalTensor& seed, double p) {
  const Contiguous in(x, w1, b1, w2);
  const auto problem = in.problem(seed, p);
  check(grad, x.sizes());
  const Tensor g = grad.contiguous();
  const auto options = x.options();
  const auto like = [&](const Tensor& t) { return tsattn::empty_lasting(t.sizes(), options); };
  Tensor grad_x = like(x), grad_w1 = like(w1), grad_b1 = like(b1), grad_w2 = like(w2),
         grad_b2 = tsattn::empty_lasting({problem.width}, options);
  if (problem.rows == 0 || problem.hidden == 0) {
    return {grad_x.zero_(), grad_w1.zero_(), grad_b1.zero_(), grad_w2.zero_(), grad_b2.zero_()};
  }
  tsattn::feedforward_backward(
      problem, g.const_data_ptr<float>(),
      {grad_x.mutable_data_ptr<float>(), grad_w1.mutable_data_ptr<float>(),
       grad_b1.mutable_data_ptr<float>(), grad_w2.mutable_data_ptr<float>(),
       grad_b2.mutable_data_ptr<float>()});
  return {grad_x, grad_w1, grad_b1, grad_w2, grad_b2};
}

} // namespace

TORCH_LIBRARY_IMPL(tsattn, CPU, m) {
  m.impl("feedforward", &forward);
  m.impl("feedforward_backward", &backward);
}
