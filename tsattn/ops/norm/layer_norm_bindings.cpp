// Tensors in, tensors out, and derivatives: layer normalisation of a residual path.

#include "layer_norm_cpu.h"

#include "../cpu/autograd.h"
#include "../cpu/lasting.h"
#include "../cpu/seed.h"

namespace tsattn {
namespace {

using torch::autograd::Function;
using Results = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using Forward = Results(
    const Tensor&, const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&, double,
    double);
using Backward = Results(
    const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
    const OptionalTensor&, double, at::ScalarType);

void check(const Tensor& x, at::IntArrayRef sizes) {
  TORCH_CHECK(
      x.scalar_type() == at::kFloat && x.sizes() == sizes, "expected float32 ", sizes, ", got ",
      x.scalar_type(), " ", x.sizes());
}

LayerNormShape shape_of(const Tensor& x, double eps) {
  TORCH_CHECK(x.dim() >= 2 && x.numel() > 0, "expected rows of features, got ", x.sizes());
  return {x.numel() / x.size(-1), x.size(-1), static_cast<float>(eps)};
}

Results forward(
    const Tensor& residual, const Tensor& x, const Tensor& weight, const Tensor& bias,
    const OptionalTensor& seed, double p, double eps) {
  const auto shape = shape_of(x, eps);
  check(residual, x.sizes());
  check(weight, {shape.features});
  check(bias, {shape.features});
  const auto dropout = dropout_of(p, seed);
  const Tensor r = residual.contiguous(), in = x.contiguous(), w = weight.contiguous(),
               b = bias.contiguous();
  Tensor out = empty_lasting(x.sizes(), residual.options()),
         total = empty_lasting(x.sizes(), residual.options()),
         mean = empty_lasting({shape.rows}, residual.options()),
         inverse = empty_lasting({shape.rows}, residual.options());
  const auto run = [&]<class X>() {
    layer_norm_forward<X>(
        shape, dropout, r.const_data_ptr<float>(), in.const_data_ptr<X>(),
        w.const_data_ptr<float>(), b.const_data_ptr<float>(), out.mutable_data_ptr<float>(),
        total.mutable_data_ptr<float>(), mean.mutable_data_ptr<float>(),
        inverse.mutable_data_ptr<float>());
  };
  x.scalar_type() == at::kFloat ? run.operator()<float>() : run.operator()<c10::BFloat16>();
  return {out, total, mean, inverse};
}

Results backward(
    const Tensor& grad, const Tensor& total, const Tensor& mean, const Tensor& inverse,
    const Tensor& weight, const OptionalTensor& seed, double p, at::ScalarType dtype) {
  const auto shape = shape_of(total, 0.0);
  check(grad, total.sizes());
  check(mean, {shape.rows});
  check(inverse, {shape.rows});
  check(weight, {shape.features});
  const auto dropout = dropout_of(p, seed);
  const Tensor g = grad.contiguous(), s = total.contiguous(), w = weight.contiguous();
  Tensor grad_residual = empty_lasting(total.sizes(), total.options()),
         grad_x = empty_lasting(total.sizes(), total.options().dtype(dtype)),
         grad_weight = empty_lasting({shape.features}, total.options()),
         grad_bias = empty_lasting({shape.features}, total.options());
  const auto run = [&]<class X>() {
    layer_norm_backward<X>(
        shape, dropout, g.const_data_ptr<float>(), s.const_data_ptr<float>(),
        mean.const_data_ptr<float>(), inverse.const_data_ptr<float>(), w.const_data_ptr<float>(),
        grad_residual.mutable_data_ptr<float>(), grad_x.mutable_data_ptr<X>(),
        grad_weight.mutable_data_ptr<float>(), grad_bias.mutable_data_ptr<float>());
  };
  dtype == at::kFloat ? run.operator()<float>() : run.operator()<c10::BFloat16>();
  return {grad_residual, grad_x, grad_weight, grad_bias};
}

class AddDropoutLayerNorm : public Function<AddDropoutLayerNorm> {
 public:
  static variable_list forward(
      AutogradContext* ctx, const Tensor& residual, const Tensor& x, const Tensor& weight,
      const Tensor& bias, const OptionalTensor& seed, double p, double eps) {
    at::AutoDispatchBelowADInplaceOrView below;
    static const auto compute = find<Forward>("tsattn::add_dropout_layer_norm");
    auto [output, total, mean, inverse] = compute.call(residual, x, weight, bias, seed, p, eps);
    ctx->set_materialize_grads(false);
    ctx->mark_non_differentiable({total, mean, inverse});
    ctx->save_for_backward({total, mean, inverse, weight, or_undefined(seed)});
    ctx->saved_data["p"] = p;
    ctx->saved_data["dtype"] = x.scalar_type();
    return {output, total, mean, inverse};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    require_first_derivative();
    static const auto compute = find<Backward>("tsattn::add_dropout_layer_norm_backward");
    if (!grads[0].defined()) {
      return variable_list(7);
    }
    const auto saved = ctx->get_saved_variables();
    auto [grad_residual, grad_x, grad_weight, grad_bias] = compute.call(
        grads[0], saved[0], saved[1], saved[2], saved[3], optional(saved[4]),
        ctx->saved_data["p"].toDouble(), ctx->saved_data["dtype"].toScalarType());
    return {grad_residual, grad_x, grad_weight, grad_bias, Tensor(), Tensor(), Tensor()};
  }
};

Results add_dropout_layer_norm(
    const Tensor& residual, const Tensor& x, const Tensor& weight, const Tensor& bias,
    const OptionalTensor& seed, double p, double eps) {
  const auto results = AddDropoutLayerNorm::apply(residual, x, weight, bias, seed, p, eps);
  return {results[0], results[1], results[2], results[3]};
}

} // namespace

TORCH_LIBRARY_IMPL(tsattn, CPU, m) {
  m.impl("add_dropout_layer_norm", &forward);
  m.impl("add_dropout_layer_norm_backward", &backward);
}

TORCH_LIBRARY_IMPL(tsattn, Autograd, m) {
  m.impl("add_dropout_layer_norm", &add_dropout_layer_norm);
}

} // namespace tsattn
