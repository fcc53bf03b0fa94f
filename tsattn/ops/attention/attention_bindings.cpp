// Tensors in, tensors out: checks, allocates, and calls the kernels of attention. The schemas are
// defined in Python, in fused_cpu.py.

#include "fused_cpu.h"

#include "../cpu/lasting.h"
#include "../cpu/seed.h"

#include <torch/library.h>

namespace {

using at::Tensor;
using tsattn::HeadsView;
using tsattn::PlaneView;
using OptionalTensor = std::optional<Tensor>;

Tensor unit_width(const Tensor& x) {
  return x.stride(-1) == 1 || x.size(-1) <= 1 ? x : x.contiguous();
}

template <class T>
HeadsView<const T> view(const Tensor& x) {
  return {x.const_data_ptr<T>(), x.stride(0), x.stride(1), x.stride(2)};
}

template <class T>
HeadsView<T> view_out(const Tensor& x) {
  return {x.mutable_data_ptr<T>(), x.stride(0), x.stride(1), x.stride(2)};
}

// The kernels walk along the queries or along the keys, so one of these axes must be contiguous.
OptionalTensor readable(const OptionalTensor& x) {
  if (!x.has_value() || x->dim() != 4 || x->stride(2) == 1 || x->stride(3) == 1) {
    return x;
  }
  return x->contiguous();
}

PlaneView plane(const OptionalTensor& x) {
  if (!x.has_value() || !x->defined() || x->numel() == 0) {
    return {};
  }
  PlaneView view;
  view.data = const_cast<void*>(x->const_data_ptr());
  view.half = x->scalar_type() == at::kBFloat16;
  view.batch = x->stride(0);
  view.head = x->stride(1);
  view.query = x->stride(2);
  view.key = x->stride(3);
  return view;
}

// [B, L, N, W] in memory, so that the heads of one position lie side by side.
Tensor empty_heads(const Tensor& like, int64_t length, int64_t width) {
  return tsattn::empty_lasting({like.size(0), length, like.size(1), width}, like.options())
      .transpose(1, 2);
}

// [B, N, K, Q] in memory, as the kernels work.
Tensor empty_plane(bool wanted, const Tensor& q, const Tensor& k, at::ScalarType dtype) {
  const auto options = q.options().dtype(dtype);
  if (!wanted) {
    return tsattn::empty_lasting({0}, options);
  }
  return tsattn::empty_lasting({q.size(0), q.size(1), k.size(2), q.size(2)}, options)
      .transpose(2, 3);
}

// Scores of bfloat16 queries are bfloat16 where they are handed on, and read as that or float32.
bool is_plane(const Tensor& x, const Tensor& q) {
  return x.scalar_type() == at::kFloat || x.scalar_type() == q.scalar_type();
}

struct Inputs {
  Tensor q, k, v;
  OptionalTensor prev, bias;
  int64_t activation;
  bool causal;
  double dropout_p, scale;
  OptionalTensor seed;
};

void check(const Inputs& in) {
  const auto& [q, k, v, prev, bias, activation, causal, dropout_p, scale, seed] = in;
  TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && v.dim() == 4, "q, k, v must have four axes");
  TORCH_CHECK(
      k.size(0) == q.size(0) && k.size(1) == q.size(1) && k.size(3) == q.size(3) &&
          v.size(0) == q.size(0) && v.size(1) == q.size(1) && v.size(2) == k.size(2),
      "q ", q.sizes(), ", k ", k.sizes(), " and v ", v.sizes(), " do not fit");
  TORCH_CHECK(
      q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type() &&
          (q.scalar_type() == at::kFloat || q.scalar_type() == at::kBFloat16),
      "the cpu implementation takes float32 or bfloat16, got ", q.scalar_type(), ", ",
      k.scalar_type(), ", ", v.scalar_type());
  const std::vector<int64_t> full{q.size(0), q.size(1), q.size(2), k.size(2)};
  if (prev.has_value()) {
    TORCH_CHECK(
        is_plane(*prev, q) && prev->sizes() == full, "prev_scores must be float32, or as q, ", full,
        ", got ", prev->scalar_type(), " ", prev->sizes());
  }
  if (bias.has_value()) {
    TORCH_CHECK(
        bias->scalar_type() == at::kFloat && bias->dim() == 4,
        "the bias must be float32 with four axes, got ", bias->scalar_type(), " ", bias->sizes());
  }
  TORCH_CHECK(activation >= 0 && activation <= 5, "no activation has the number ", activation);
}

// Makes the query axis of the bias contiguous or broadcast, before it is broadcast to the heads.
OptionalTensor query_major(const OptionalTensor& bias, const Tensor& q, const Tensor& k) {
  if (!bias.has_value()) {
    return bias;
  }
  Tensor b = *bias;
  if (b.size(2) > 1 && b.stride(2) != 1) {
    b = b.transpose(2, 3).contiguous().transpose(2, 3);
  }
  b = b.expand({q.size(0), q.size(1), q.size(2), k.size(2)});
  return b;
}

template <class T>
void fill(tsattn::Problem<T>& p, const Inputs& in, const Tensor& stats) {
  p.batch = in.q.size(0);
  p.heads = in.q.size(1);
  p.queries = in.q.size(2);
  p.keys = in.k.size(2);
  p.width = in.q.size(3);
  p.value_width = in.v.size(3);
  p.factors = {{view<T>(in.q), view<T>(in.k), p.width}};
  p.v = view<T>(in.v);
  p.prev = plane(in.prev);
  p.bias = plane(in.bias);
  if (p.queries == 1) {
    p.prev.query = p.bias.query = 1;
  }
  p.causal = in.causal;
  p.scale = static_cast<float>(in.scale);
  p.activation = static_cast<tsattn::Activation>(in.activation);
  p.dropout = tsattn::dropout_of(in.dropout_p, in.seed);
  p.stats = stats.mutable_data_ptr<float>();
}

Inputs prepare(
    const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& prev,
    const OptionalTensor& bias, const OptionalTensor& seed, int64_t activation, bool causal,
    double dropout_p, double scale) {
  Inputs in{q, k, v, prev, bias, activation, causal, dropout_p, scale, seed};
  check(in);
  in.q = unit_width(q);
  in.k = unit_width(k);
  in.v = unit_width(v);
  in.prev = readable(prev);
  in.bias = query_major(bias, q, k);
  return in;
}

bool is_empty(const Tensor& q, const Tensor& k, const Tensor& v) {
  return q.numel() == 0 || k.numel() == 0 || v.numel() == 0;
}

std::tuple<Tensor, Tensor, Tensor> attention_forward(
    const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& prev,
    const OptionalTensor& bias, const OptionalTensor& seed, int64_t activation, bool causal,
    bool return_scores, double dropout_p, double scale) {
  const Inputs in = prepare(q, k, v, prev, bias, seed, activation, causal, dropout_p, scale);
  Tensor out = empty_heads(v, q.size(2), v.size(3));
  Tensor scores = empty_plane(return_scores, q, k, q.scalar_type());
  Tensor stats =
      tsattn::empty_lasting({2, q.size(0), q.size(1), q.size(2)}, q.options().dtype(at::kFloat));
  if (is_empty(q, k, v)) {
    return {out.zero_(), scores.zero_(), stats.zero_()};
  }
  const auto run = [&]<class T>() {
    tsattn::ForwardProblem<T> p;
    fill(p, in, stats);
    p.out = view_out<T>(out);
    p.scores = plane(scores);
    p.scores.query = 1;
    tsattn::attention_forward(p);
  };
  q.scalar_type() == at::kFloat ? run.operator()<float>() : run.operator()<c10::BFloat16>();
  return {out, scores, stats};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> attention_backward(
    const Tensor& grad_out, const OptionalTensor& grad_scores, const Tensor& q, const Tensor& k,
    const Tensor& v, const OptionalTensor& prev, const OptionalTensor& bias,
    const OptionalTensor& seed, const Tensor& out, const Tensor& stats, int64_t activation,
    bool causal, double dropout_p, double scale, bool has_scores, bool need_prev, bool need_bias) {
  const Inputs in = prepare(q, k, v, prev, bias, seed, activation, causal, dropout_p, scale);
  TORCH_CHECK(
      grad_out.sizes() == out.sizes() && grad_out.scalar_type() == q.scalar_type() &&
          out.scalar_type() == q.scalar_type() && out.dim() == 4 && out.size(2) == q.size(2) &&
          out.size(3) == v.size(3),
      "the gradient must be like the output, got ", grad_out.scalar_type(), " ", grad_out.sizes());
  TORCH_CHECK(
      !grad_scores.has_value() ||
          (is_plane(*grad_scores, q) &&
           grad_scores->sizes() == at::IntArrayRef({q.size(0), q.size(1), q.size(2), k.size(2)})),
      "the gradient must be like the scores");
  TORCH_CHECK(stats.numel() == 2 * q.size(0) * q.size(1) * q.size(2) && stats.is_contiguous());
  TORCH_CHECK(!has_scores || prev.has_value(), "has_scores: prev_scores must be the scores");
  Tensor grad_q = empty_heads(q, q.size(2), q.size(3));
  Tensor grad_k = empty_heads(k, k.size(2), k.size(3));
  Tensor grad_v = empty_heads(v, v.size(2), v.size(3));
  const auto prev_dtype = prev.has_value() ? prev->scalar_type() : at::kFloat;
  Tensor grad_prev = empty_plane(need_prev, q, k, prev_dtype);
  Tensor grad_bias = empty_plane(need_bias, q, k, at::kFloat);
  if (is_empty(q, k, v)) {
    return {grad_q.zero_(), grad_k.zero_(), grad_v.zero_(), grad_prev.zero_(), grad_bias.zero_()};
  }
  const Tensor go = unit_width(grad_out), o = unit_width(out);
  const OptionalTensor gs = readable(grad_scores);
  const auto run = [&]<class T>() {
    tsattn::BackwardProblem<T> p;
    fill(p, in, stats);
    p.has_scores = has_scores;
    p.out = view<T>(o);
    p.grad_out = view<T>(go);
    p.grad_scores = plane(gs);
    p.grads = {{view_out<T>(grad_q), view_out<T>(grad_k), {}, {}}};
    p.grad_v = view_out<T>(grad_v);
    p.grad_prev = plane(grad_prev);
    p.grad_bias = plane(grad_bias);
    if (p.queries == 1) {
      p.grad_scores.query = 1;
    }
    tsattn::attention_backward(p);
  };
  q.scalar_type() == at::kFloat ? run.operator()<float>() : run.operator()<c10::BFloat16>();
  return {grad_q, grad_k, grad_v, grad_prev, grad_bias};
}

} // namespace

TORCH_LIBRARY_IMPL(tsattn, CPU, m) {
  m.impl("attention_forward", &attention_forward);
  m.impl("attention_backward", &attention_backward);
}
