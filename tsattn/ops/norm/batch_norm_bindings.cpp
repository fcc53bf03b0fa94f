// Tensors in, tensors out, as tsattn/ops/attention/attention_bindings.cpp does for attention.

#include "batch_norm_cpu.h"

#include "../cpu/lasting.h"
#include "../cpu/seed.h"

#include <torch/library.h>

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

tsattn::BatchNormShape shape_of(const Tensor& x, double eps) {
  TORCH_CHECK(x.dim() >= 2 && x.numel() > 0, "expected rows of features, got ", x.sizes());
  return {x.numel() / x.size(-1), x.size(-1), static_cast<float>(eps)};
}

void check(const Tensor& x, const Tensor& like, at::ScalarType dtype) {
  TORCH_CHECK(
      x.scalar_type() == dtype && x.sizes() == like.sizes(), "expected ", dtype, " ", like.sizes(),
      ", got ", x.scalar_type(), " ", x.sizes());
}

void check_features(const Tensor& x, const Tensor& rows) {
  TORCH_CHECK(
      x.scalar_type() == at::kFloat && x.dim() == 1 && x.size(0) == rows.size(-1),
      "expected one float32 number per feature, got ", x.scalar_type(), " ", x.sizes());
}

std::tuple<Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& residual, const Tensor& x, const Tensor& weight, const Tensor& bias,
    const OptionalTensor& seed, double p, double eps) {
  check(residual, x, at::kFloat);
  check_features(weight, x);
  check_features(bias, x);
  const auto shape = shape_of(x, eps);
  const auto dropout = tsattn::dropout_of(p, seed);
  const Tensor r = residual.contiguous(), in = x.contiguous(), w = weight.contiguous(),
               b = bias.contiguous();
  Tensor out = tsattn::empty_lasting(x.sizes(), residual.options());
  Tensor total = tsattn::empty_lasting(x.sizes(), residual.options());
  Tensor mean = tsattn::empty_lasting({shape.features}, residual.options());
  Tensor variance = tsattn::empty_lasting({shape.features}, residual.options());
  const auto run = [&]<class X>() {
    tsattn::batch_norm_forward<X>(
        shape, dropout, r.const_data_ptr<float>(), in.const_data_ptr<X>(),
        w.const_data_ptr<float>(), b.const_data_ptr<float>(), out.mutable_data_ptr<float>(),
        total.mutable_data_ptr<float>(), mean.mutable_data_ptr<float>(),
        variance.mutable_data_ptr<float>());
  };
  x.scalar_type() == at::kFloat ? run.operator()<float>() : run.operator()<c10::BFloat16>();
  return {out, total, mean, variance};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& total, const Tensor& mean, const Tensor& variance,
    const Tensor& weight, const OptionalTensor& seed, double p, double eps, at::ScalarType dtype) {
  check(grad, total, at::kFloat);
  for (const Tensor& feature : {mean, variance, weight}) {
    check_features(feature, total);
  }
  const auto shape = shape_of(total, eps);
  const auto dropout = tsattn::dropout_of(p, seed);
  const Tensor g = grad.contiguous(), s = total.contiguous(), w = weight.contiguous();
  Tensor grad_residual = tsattn::empty_lasting(total.sizes(), total.options());
  Tensor grad_x = tsattn::empty_lasting(total.sizes(), total.options().dtype(dtype));
  Tensor grad_weight = tsattn::empty_lasting({shape.features}, total.options());
  Tensor grad_bias = tsattn::empty_lasting({shape.features}, total.options());
  const auto run = [&]<class X>() {
    tsattn::batch_norm_backward<X>(
        shape, dropout, g.const_data_ptr<float>(), s.const_data_ptr<float>(),
        mean.const_data_ptr<float>(), variance.const_data_ptr<float>(), w.const_data_ptr<float>(),
        grad_residual.mutable_data_ptr<float>(), grad_x.mutable_data_ptr<X>(),
        grad_weight.mutable_data_ptr<float>(), grad_bias.mutable_data_ptr<float>());
  };
  dtype == at::kFloat ? run.operator()<float>() : run.operator()<c10::BFloat16>();
  return {grad_residual, grad_x, grad_weight, grad_bias};
}

} // namespace

TORCH_LIBRARY_IMPL(tsattn, CPU, m) {
  m.impl("add_dropout_batch_norm", &forward);
  m.impl("add_dropout_batch_norm_backward", &backward);
}
