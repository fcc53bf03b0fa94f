// Derivatives of dropout, of the normalisations and of the feed-forward.

#include "autograd.h"

namespace tsattn {
namespace {

using torch::autograd::Function;
using Elementwise = Tensor(const Tensor&, const Tensor&, double);
using ElementwiseTwo = Tensor(const Tensor&, const Tensor&, const Tensor&, double);

Tensor drop(const Tensor& x, const Tensor& seed, double p) {
  static const auto compute = find<Elementwise>("tsattn::dropout");
  return compute.call(x, seed, p);
}

class Dropout : public Function<Dropout> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& seed, double p) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({seed});
    ctx->saved_data["p"] = p;
    return drop(x, seed, p);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {drop(grads[0], saved[0], ctx->saved_data["p"].toDouble()), Tensor(), Tensor()};
  }
};

class AddDropout : public Function<AddDropout> {
 public:
  static Tensor forward(
      AutogradContext* ctx, const Tensor& residual, const Tensor& x, const Tensor& seed, double p) {
    at::AutoDispatchBelowADInplaceOrView below;
    static const auto compute = find<ElementwiseTwo>("tsattn::add_dropout");
    ctx->save_for_backward({seed});
    ctx->saved_data["p"] = p;
    ctx->saved_data["dtype"] = x.scalar_type();
    return compute.call(residual, x, seed, p);
  }

  // Rounded before the mask: the same numbers, and half the traffic in bfloat16.
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor grad = grads[0].to(ctx->saved_data["dtype"].toScalarType());
    return {grads[0], drop(grad, saved[0], ctx->saved_data["p"].toDouble()), Tensor(), Tensor()};
  }
};

class GeluDropout : public Function<GeluDropout> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& seed, double p) {
    at::AutoDispatchBelowADInplaceOrView below;
    static const auto compute = find<Elementwise>("tsattn::gelu_dropout");
    ctx->save_for_backward({x, seed});
    ctx->saved_data["p"] = p;
    return compute.call(x, seed, p);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    require_first_derivative();
    static const auto compute = find<ElementwiseTwo>("tsattn::gelu_dropout_backward");
    const auto saved = ctx->get_saved_variables();
    const double p = ctx->saved_data["p"].toDouble();
    return {compute.call(grads[0], saved[0], saved[1], p), Tensor(), Tensor()};
  }
};

class AddDropoutBatchNorm : public Function<AddDropoutBatchNorm> {
 public:
  static variable_list forward(
      AutogradContext* ctx, const Tensor& residual, const Tensor& x, const Tensor& weight,
      const Tensor& bias, const OptionalTensor& seed, double p, double eps) {
    at::AutoDispatchBelowADInplaceOrView below;
    static const auto compute = find<std::tuple<Tensor, Tensor, Tensor, Tensor>(
        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&, double,
        double)>("tsattn::add_dropout_batch_norm");
    auto [output, total, mean, variance] = compute.call(residual, x, weight, bias, seed, p, eps);
    ctx->set_materialize_grads(false);
    ctx->mark_non_differentiable({total, mean, variance});
    ctx->save_for_backward({total, mean, variance, weight, or_undefined(seed)});
    ctx->saved_data["p"] = p;
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["dtype"] = x.scalar_type();
    return {output, total, mean, variance};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    require_first_derivative();
    static const auto compute = find<std::tuple<Tensor, Tensor, Tensor, Tensor>(
        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
        const OptionalTensor&, double, double, at::ScalarType)>(
        "tsattn::add_dropout_batch_norm_backward");
    if (!grads[0].defined()) {
      return variable_list(7);
    }
    const auto saved = ctx->get_saved_variables();
    auto [grad_residual, grad_x, grad_weight, grad_bias] = compute.call(
        grads[0], saved[0], saved[1], saved[2], saved[3], optional(saved[4]),
        ctx->saved_data["p"].toDouble(), ctx->saved_data["eps"].toDouble(),
        ctx->saved_data["dtype"].toScalarType());
    return {grad_residual, grad_x, grad_weight, grad_bias, Tensor(), Tensor(), Tensor()};
  }
};

class FeedForward : public Function<FeedForward> {
 public:
  static Tensor forward(
      AutogradContext* ctx, const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2,
      const Tensor& b2, const OptionalTensor& seed, double p) {
    at::AutoDispatchBelowADInplaceOrView below;
    static const auto compute = find<Tensor(
        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
        const OptionalTensor&, double)>("tsattn::feedforward");
    ctx->save_for_backward({x, w1, b1, w2, or_undefined(seed)});
    ctx->saved_data["p"] = p;
    return compute.call(x, w1, b1, w2, b2, seed, p);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    require_first_derivative();
    static const auto compute = find<std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>(
        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
        const OptionalTensor&, double)>("tsattn::feedforward_backward");
    const auto saved = ctx->get_saved_variables();
    auto [x, w1, b1, w2, b2] = compute.call(
        grads[0], saved[0], saved[1], saved[2], saved[3], optional(saved[4]),
        ctx->saved_data["p"].toDouble());
    return {x, w1, b1, w2, b2, Tensor(), Tensor()};
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor> add_dropout_batch_norm(
    const Tensor& residual, const Tensor& x, const Tensor& weight, const Tensor& bias,
    const OptionalTensor& seed, double p, double eps) {
  const auto results = AddDropoutBatchNorm::apply(residual, x, weight, bias, seed, p, eps);
  return {results[0], results[1], results[2], results[3]};
}

Tensor dropout(const Tensor& x, const Tensor& seed, double p) {
  return Dropout::apply(x, seed, p);
}

Tensor add_dropout(const Tensor& residual, const Tensor& x, const Tensor& seed, double p) {
  return AddDropout::apply(residual, x, seed, p);
}

Tensor gelu_dropout(const Tensor& x, const Tensor& seed, double p) {
  return GeluDropout::apply(x, seed, p);
}

Tensor feedforward(
    const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2,
    const OptionalTensor& seed, double p) {
  return FeedForward::apply(x, w1, b1, w2, b2, seed, p);
}

} // namespace

TORCH_LIBRARY_IMPL(tsattn, Autograd, m) {
  m.impl("dropout", &dropout);
  m.impl("add_dropout", &add_dropout);
  m.impl("gelu_dropout", &gelu_dropout);
  m.impl("add_dropout_batch_norm", &add_dropout_batch_norm);
  m.impl("feedforward", &feedforward);
}

} // namespace tsattn
