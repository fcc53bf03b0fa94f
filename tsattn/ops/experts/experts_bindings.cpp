// Tensors in, tensors out, and the derivatives. Schemas in fused_cpu.py.

#include "experts_cpu.h"

#include "../cpu/autograd.h"
#include "../cpu/lasting.h"
#include "../cpu/seed.h"

#include <ATen/autocast_mode.h>

namespace tsattn {
namespace {

using torch::autograd::Function;
using Pair = std::tuple<Tensor, Tensor>;
using Six = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using Experts = Pair(
    const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
    const Tensor&, const Tensor&, const OptionalTensor&, double, int64_t, bool);
using ExpertsBackward = Six(
    const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
    const Tensor&, const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&, double,
    int64_t);

void check(const char* name, const Tensor& x, at::ScalarType dtype, at::IntArrayRef sizes) {
  TORCH_CHECK(
      x.scalar_type() == dtype && x.sizes() == sizes, name, " must be ", dtype, " ", sizes,
      ", got ", x.scalar_type(), " ", x.sizes());
}

// What both passes are given, checked and contiguous.
struct Given {
  Blocks blocks;
  ExpertsProblem problem;

  Given(
      const Tensor& x, const Tensor& weights, const Tensor& order, const Tensor& counts,
      const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2,
      const OptionalTensor& seed, double p, int64_t activation)
      : blocks(cut(x, weights, order, counts, w1, b1, w2, b2, activation)),
        problem{
            x.contiguous(), weights.contiguous(), order.contiguous(), w1.contiguous(),
            b1.to(at::kFloat).contiguous(), w2.contiguous(), b2.to(at::kFloat).contiguous(),
            blocks, weights.size(1), static_cast<Activation>(activation), dropout_of(p, seed)} {}
  Given(const Given&) = delete;

 private:
  static Blocks cut(
      const Tensor& x, const Tensor& weights, const Tensor& order, const Tensor& counts,
      const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2, int64_t activation) {
    TORCH_CHECK(
        x.dim() == 2 && weights.dim() == 2 && w1.dim() == 3,
        "expected tokens [N, D], weights [N, K] and matrices [E, F, D]");
    const int64_t experts = w1.size(0), hidden = w1.size(1), width = w1.size(2);
    const auto dtype = x.scalar_type();
    TORCH_CHECK(
        width > 0 && hidden > 0 && width % 16 == 0 && hidden % 16 == 0,
        "widths must be multiples of 16, got ", width, " and ", hidden);
    TORCH_CHECK(
        dtype == at::kFloat || dtype == at::kBFloat16, "expected float32 or bfloat16, got ", dtype);
    TORCH_CHECK(activation >= 0 && activation <= 5, "no activation has the number ", activation);
    const int64_t slots = weights.numel();
    check("x", x, dtype, {weights.size(0), width});
    check("weights", weights, at::kFloat, weights.sizes());
    check("order", order, at::kLong, {slots});
    check("counts", counts, at::kLong, {experts});
    check("expand_weight", w1, dtype, {experts, hidden, width});
    check("expand_bias", b1, dtype, {experts, hidden});
    check("contract_weight", w2, dtype, {experts, width, hidden});
    check("contract_bias", b2, dtype, {experts, width});
    const Tensor whole = counts.contiguous();
    const int64_t* each = whole.const_data_ptr<int64_t>();
    int64_t total = 0;
    for (int64_t e = 0; e < experts; ++e) {
      TORCH_CHECK(each[e] >= 0, "counts must not be negative");
      total += each[e];
    }
    TORCH_CHECK(total == slots, "counts must add up to the ", slots, " slots, got ", total);
    const Tensor places = order.contiguous();
    const int64_t* place = places.const_data_ptr<int64_t>();
    for (int64_t s = 0; s < slots; ++s) {
      TORCH_CHECK(place[s] >= 0 && place[s] < slots, "order must name slots, got ", place[s]);
    }
    return Blocks(each, experts);
  }
};

Pair forward(
    const Tensor& x, const Tensor& weights, const Tensor& order, const Tensor& counts,
    const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2,
    const OptionalTensor& seed, double p, int64_t activation, bool keep_hidden) {
  const Given given(x, weights, order, counts, w1, b1, w2, b2, seed, p, activation);
  const ExpertsProblem& problem = given.problem;
  const Tensor y = tsattn::empty_lasting(x.sizes(), x.options());
  const bool keeps = keep_hidden && !problem.is_narrow();
  const Tensor before =
      tsattn::empty_lasting({keeps ? problem.slots() : 0, problem.hidden()}, x.options());
  const Tensor kept = keeps ? before : Tensor();
  if (problem.is_narrow()) {
    narrow_experts_forward(problem, y);
  } else if (x.scalar_type() == at::kFloat) {
    experts_forward<float>(problem, kept, y);
  } else {
    experts_forward<c10::BFloat16>(problem, kept, y);
  }
  return {y, before};
}

Six backward(
    const Tensor& grad, const Tensor& before, const Tensor& x, const Tensor& weights,
    const Tensor& order, const Tensor& counts, const Tensor& w1, const Tensor& b1,
    const Tensor& w2, const Tensor& b2, const OptionalTensor& seed, double p,
    int64_t activation) {
  const Given given(x, weights, order, counts, w1, b1, w2, b2, seed, p, activation);
  const ExpertsProblem& problem = given.problem;
  check("grad", grad, x.scalar_type(), x.sizes());
  const int64_t kept = problem.is_narrow() ? 0 : problem.slots();
  check("hidden", before, x.scalar_type(), {kept, problem.hidden()});
  const auto like = [](const Tensor& t) { return tsattn::empty_lasting(t.sizes(), t.options()); };
  const ExpertsGradients out{
      like(x), like(weights), like(w1), like(problem.b1), like(w2), like(problem.b2)};
  if (problem.slots() == 0) {
    for (const Tensor& gradient : {out.x, out.weights, out.w1, out.b1, out.w2, out.b2}) {
      gradient.zero_(); // nothing below would write to it
    }
  } else if (problem.is_narrow()) {
    narrow_experts_backward(problem, grad.contiguous(), out);
  } else if (x.scalar_type() == at::kFloat) {
    experts_backward<float>(problem, grad.contiguous(), before.contiguous(), out);
  } else {
    experts_backward<c10::BFloat16>(problem, grad.contiguous(), before.contiguous(), out);
  }
  return {out.x, out.weights, out.w1, out.b1.to(b1.scalar_type()), out.w2,
          out.b2.to(b2.scalar_type())};
}

class ExpertFeedForward : public Function<ExpertFeedForward> {
 public:
  static variable_list forward(
      AutogradContext* ctx, const Tensor& x, const Tensor& weights, const Tensor& order,
      const Tensor& counts, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2,
      const OptionalTensor& seed, double p, int64_t activation, bool keep_hidden) {
    at::AutoDispatchBelowADInplaceOrView below;
    static const auto compute = find<Experts>("tsattn::expert_feedforward");
    auto [y, before] = compute.call(
        x, weights, order, counts, w1, b1, w2, b2, seed, p, activation, keep_hidden);
    ctx->set_materialize_grads(false);
    ctx->mark_non_differentiable({before});
    ctx->save_for_backward(
        {before, x, weights, order, counts, w1, b1, w2, b2, or_undefined(seed)});
    ctx->saved_data["p"] = p;
    ctx->saved_data["activation"] = activation;
    return {y, before};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    require_first_derivative();
    if (!grads[0].defined()) {
      return variable_list(12);
    }
    static const auto compute = find<ExpertsBackward>("tsattn::expert_feedforward_backward");
    const auto s = ctx->get_saved_variables();
    auto [x, weights, w1, b1, w2, b2] = compute.call(
        grads[0], s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], optional(s[9]),
        ctx->saved_data["p"].toDouble(), ctx->saved_data["activation"].toInt());
    const Tensor none;
    return {x, weights, none, none, w1, b1, w2, b2, none, none, none, none};
  }
};

Pair recorded(
    const Tensor& x, const Tensor& weights, const Tensor& order, const Tensor& counts,
    const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2,
    const OptionalTensor& seed, double p, int64_t activation, bool keep_hidden) {
  const auto results = ExpertFeedForward::apply(
      x, weights, order, counts, w1, b1, w2, b2, seed, p, activation, keep_hidden);
  return {results[0], results[1]};
}

Pair in_autocast(
    const Tensor& x, const Tensor& weights, const Tensor& order, const Tensor& counts,
    const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2,
    const OptionalTensor& seed, double p, int64_t activation, bool keep_hidden) {
  c10::impl::ExcludeDispatchKeyGuard below(c10::DispatchKey::AutocastCPU);
  static const auto compute = find<Experts>("tsattn::expert_feedforward");
  const auto dtype = at::autocast::get_autocast_dtype(at::kCPU);
  const auto cast = [&](const Tensor& t) {
    return at::autocast::cached_cast(dtype, t, c10::DeviceType::CPU);
  };
  return compute.call(
      cast(x), weights, order, counts, cast(w1), cast(b1), cast(w2), cast(b2), seed, p, activation,
      keep_hidden);
}

} // namespace

TORCH_LIBRARY_IMPL(tsattn, CPU, m) {
  m.impl("expert_feedforward", &forward);
  m.impl("expert_feedforward_backward", &backward);
}

TORCH_LIBRARY_IMPL(tsattn, Autograd, m) {
  m.impl("expert_feedforward", &recorded);
}

TORCH_LIBRARY_IMPL(tsattn, AutocastCPU, m) {
  m.impl("expert_feedforward", &in_autocast);
}

} // namespace tsattn
