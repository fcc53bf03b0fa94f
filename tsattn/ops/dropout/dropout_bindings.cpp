// Tensors in, tensors out, as tsattn/ops/attention/attention_bindings.cpp does for attention.

#include "dropout_cpu.h"

#include "../cpu/lasting.h"
#include "../cpu/seed.h"

#include <torch/library.h>

namespace {

using at::Tensor;
using tsattn::DropoutTask;

// y = task(x, other): both float32, both bfloat16, or a bfloat16 x beside a float32 `other`.
Tensor elementwise(
    DropoutTask task, const Tensor& x, const Tensor& other, const Tensor& seed, double p) {
  const auto narrow = x.scalar_type(), wide = other.scalar_type();
  TORCH_CHECK(
      x.sizes() == other.sizes() && (narrow == at::kFloat || narrow == at::kBFloat16) &&
          (wide == narrow || wide == at::kFloat),
      "the cpu implementation takes tensors of one shape in float32 or bfloat16, got ", narrow,
      " ", x.sizes(), " and ", wide, " ", other.sizes());
  const Tensor a = x.contiguous(), b = other.contiguous();
  Tensor y = tsattn::empty_lasting(x.sizes(), other.options());
  const tsattn::Dropout dropout = tsattn::dropout_of(p, seed);
  const auto run = [&]<class X, class Y>() {
    tsattn::dropout_elements<X, Y>(
        task, a.const_data_ptr<X>(), b.const_data_ptr<Y>(), y.mutable_data_ptr<Y>(), x.numel(),
        dropout);
  };
  if (narrow == at::kFloat) {
    run.operator()<float, float>();
  } else if (wide == at::kFloat) {
    run.operator()<c10::BFloat16, float>();
  } else {
    run.operator()<c10::BFloat16, c10::BFloat16>();
  }
  return y;
}

Tensor dropout(const Tensor& x, const Tensor& seed, double p) {
  return elementwise(DropoutTask::kPlain, x, x, seed, p);
}

Tensor add_dropout(const Tensor& residual, const Tensor& x, const Tensor& seed, double p) {
  return elementwise(DropoutTask::kAdd, x, residual, seed, p);
}

Tensor gelu_dropout(const Tensor& x, const Tensor& seed, double p) {
  return elementwise(DropoutTask::kGelu, x, x, seed, p);
}

Tensor gelu_dropout_backward(const Tensor& grad, const Tensor& x, const Tensor& seed, double p) {
  return elementwise(DropoutTask::kGeluBackward, x, grad, seed, p);
}

} // namespace

TORCH_LIBRARY_IMPL(tsattn, CPU, m) {
  m.impl("dropout", &dropout);
  m.impl("add_dropout", &add_dropout);
  m.impl("gelu_dropout", &gelu_dropout);
  m.impl("gelu_dropout_backward", &gelu_dropout_backward);
}
