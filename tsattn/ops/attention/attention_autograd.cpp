// Derivatives of the operators of attention.

#include "../cpu/autograd.h"

#include <ATen/ops/zeros_like.h>

namespace tsattn {
namespace {

using torch::autograd::Function;

// softmax(scale q k' + prev + bias) activation(v); the scores are differentiable, too.
class Attention : public Function<Attention> {
 public:
  static variable_list forward(
      AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
      const OptionalTensor& prev, const OptionalTensor& bias, const OptionalTensor& seed,
      int64_t activation, bool causal, bool return_scores, double dropout_p, double scale) {
    at::AutoDispatchBelowADInplaceOrView below;
    static const auto compute = find<std::tuple<Tensor, Tensor, Tensor>(
        const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&,
        const OptionalTensor&, int64_t, bool, bool, double, double)>("tsattn::attention_forward");
    auto [output, scores, stats] = compute.call(
        q, k, v, prev, bias, seed, activation, causal, return_scores, dropout_p, scale);
    ctx->set_materialize_grads(false);
    ctx->mark_non_differentiable({stats});
    // The sum with earlier scores, which is handed on, saves computing it again: one plane is kept
    // in either case. Not where bfloat16 has rounded it.
    const bool has_scores =
        prev.has_value() && return_scores && scores.scalar_type() == at::kFloat;
    ctx->save_for_backward(
        {q, k, v, has_scores ? scores : or_undefined(prev), or_undefined(bias),
         or_undefined(seed), output, stats});
    ctx->saved_data["has_scores"] = has_scores;
    ctx->saved_data["activation"] = activation;
    ctx->saved_data["causal"] = causal;
    ctx->saved_data["return_scores"] = return_scores;
    ctx->saved_data["dropout_p"] = dropout_p;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["need_prev"] = prev.has_value() && prev->requires_grad();
    ctx->saved_data["need_bias"] = bias.has_value() && bias->requires_grad();
    return {output, scores, stats};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    require_first_derivative();
    static const auto compute = find<std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>(
        const Tensor&, const OptionalTensor&, const Tensor&, const Tensor&, const Tensor&,
        const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const Tensor&,
        const Tensor&, int64_t, bool, double, double, bool, bool, bool)>(
        "tsattn::attention_backward");
    const auto saved = ctx->get_saved_variables();
    auto& settings = ctx->saved_data;
    const bool need_prev = settings["need_prev"].toBool();
    const bool need_bias = settings["need_bias"].toBool();
    const Tensor grad = grads[0].defined() ? grads[0] : at::zeros_like(saved[6]);
    const Tensor from_scores = settings["return_scores"].toBool() ? grads[1] : Tensor();
    auto [grad_q, grad_k, grad_v, grad_prev, grad_bias] = compute.call(
        grad, optional(from_scores), saved[0], saved[1], saved[2], optional(saved[3]),
        optional(saved[4]), optional(saved[5]), saved[6], saved[7],
        settings["activation"].toInt(), settings["causal"].toBool(),
        settings["dropout_p"].toDouble(), settings["scale"].toDouble(),
        settings["has_scores"].toBool(), need_prev, need_bias);
    return {
        grad_q, grad_k, grad_v, need_prev ? grad_prev : Tensor(),
        need_bias ? grad_bias.sum_to_size(saved[4].sizes()) : Tensor(), Tensor(), Tensor(),
        Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

std::tuple<Tensor, Tensor, Tensor> attention(
    const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& prev,
    const OptionalTensor& bias, const OptionalTensor& seed, int64_t activation, bool causal,
    bool return_scores, double dropout_p, double scale) {
  const auto results = Attention::apply(
      q, k, v, prev, bias, seed, activation, causal, return_scores, dropout_p, scale);
  return {results[0], results[1], results[2]};
}

// The gradients of earlier projections arrive and leave through the link alone: each layer adds its
// part, and the projection's own layer, the last in the backward pass, takes the sum.
class SelfAttention : public Function<SelfAttention> {
 public:
  static variable_list forward(
      AutogradContext* ctx, at::TensorList projections, const Tensor& link,
      const OptionalTensor& seed, int64_t heads, int64_t activation, bool causal, double dropout_p,
      double scale) {
    at::AutoDispatchBelowADInplaceOrView below;
    static const auto compute = find<std::tuple<Tensor, Tensor, Tensor>(
        at::TensorList, const Tensor&, const OptionalTensor&, int64_t, int64_t, bool, double,
        double)>("tsattn::self_attention_forward");
    auto [output, next, stats] =
        compute.call(projections, link, seed, heads, activation, causal, dropout_p, scale);
    ctx->set_materialize_grads(false);
    ctx->mark_non_differentiable({stats});
    variable_list saved{or_undefined(seed), output, stats};
    saved.insert(saved.end(), projections.begin(), projections.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["activation"] = activation;
    ctx->saved_data["causal"] = causal;
    ctx->saved_data["dropout_p"] = dropout_p;
    ctx->saved_data["scale"] = scale;
    return {output, next, stats};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    require_first_derivative();
    static const auto compute = find<std::tuple<Tensor, Tensor>(
        const Tensor&, const OptionalTensor&, at::TensorList, const OptionalTensor&, const Tensor&,
        const Tensor&, int64_t, int64_t, bool, double, double)>("tsattn::self_attention_backward");
    const auto saved = ctx->get_saved_variables();
    auto& settings = ctx->saved_data;
    const std::vector<Tensor> projections(saved.begin() + 3, saved.end());
    const Tensor grad = grads[0].defined() ? grads[0] : at::zeros_like(saved[1]);
    auto [own, earlier] = compute.call(
        grad, optional(grads[1]), projections, optional(saved[0]), saved[1], saved[2],
        settings["heads"].toInt(), settings["activation"].toInt(), settings["causal"].toBool(),
        settings["dropout_p"].toDouble(), settings["scale"].toDouble());
    variable_list result(projections.size() + 7);
    result[projections.size() - 1] = own;
    result[projections.size()] = earlier;
    return result;
  }
};

std::tuple<Tensor, Tensor, Tensor> self_attention(
    at::TensorList projections, const Tensor& link, const OptionalTensor& seed, int64_t heads,
    int64_t activation, bool causal, double dropout_p, double scale) {
  const auto results = SelfAttention::apply(
      projections, link, seed, heads, activation, causal, dropout_p, scale);
  return {results[0], results[1], results[2]};
}

} // namespace

TORCH_LIBRARY_IMPL(tsattn, Autograd, m) {
  m.impl("attention_forward", &attention);
  m.impl("self_attention_forward", &self_attention);
}

} // namespace tsattn
