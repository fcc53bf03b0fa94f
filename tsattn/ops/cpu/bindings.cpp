// Tensors in, tensors out: checks, allocates, and calls the kernels. The schemas are defined in
// Python, beside the references: tsattn/ops/attention/fused_cpu.py, tsattn/ops/dropout/fused_cpu.py.
// The one file that includes torch's operators, because they take most of the build's time.

#include "../attention/fused_cpu.h"
#include "../dropout/dropout_cpu.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

namespace {

using at::Tensor;
using tsattn::HeadsView;
using tsattn::PlaneView;
using OptionalTensor = std::optional<Tensor>;

uint64_t seed_of(const OptionalTensor& seed) {
  if (!seed.has_value()) {
    return 0;
  }
  TORCH_CHECK(
      seed->scalar_type() == at::kLong && seed->numel() == 1, "seed must be one int64 number");
  return static_cast<uint64_t>(*seed->const_data_ptr<int64_t>());
}

tsattn::Dropout dropout_of(double p, const OptionalTensor& seed) {
  TORCH_CHECK(p >= 0.0 && p < 1.0, "dropout_p must be in [0, 1), got ", p);
  TORCH_CHECK(p == 0.0 || seed.has_value(), "dropout needs a seed");
  return {p, seed_of(seed)};
}

// Attention -----------------------------------------------------------------------------------

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
  return {
      const_cast<float*>(x->const_data_ptr<float>()), x->stride(0), x->stride(1), x->stride(2),
      x->stride(3)};
}

// [B, L, N, W] in memory, so that the heads of one position lie side by side.
Tensor empty_heads(const Tensor& like, int64_t length, int64_t width) {
  return at::empty({like.size(0), length, like.size(1), width}, like.options()).transpose(1, 2);
}

// [B, N, K, Q] in memory, as the kernels work.
Tensor empty_plane(bool wanted, const Tensor& q, const Tensor& k) {
  const auto options = q.options().dtype(at::kFloat);
  if (!wanted) {
    return at::empty({0}, options);
  }
  return at::empty({q.size(0), q.size(1), k.size(2), q.size(2)}, options).transpose(2, 3);
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
        prev->scalar_type() == at::kFloat && prev->sizes() == full,
        "prev_scores must be float32 ", full, ", got ", prev->scalar_type(), " ", prev->sizes());
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
  p.q = view<T>(in.q);
  p.k = view<T>(in.k);
  p.v = view<T>(in.v);
  p.prev = plane(in.prev);
  p.bias = plane(in.bias);
  if (p.queries == 1) {
    p.prev.query = p.bias.query = 1;
  }
  p.causal = in.causal;
  p.scale = static_cast<float>(in.scale);
  p.activation = static_cast<tsattn::Activation>(in.activation);
  p.dropout = dropout_of(in.dropout_p, in.seed);
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
  Tensor scores = empty_plane(return_scores, q, k);
  Tensor stats =
      at::empty({2, q.size(0), q.size(1), q.size(2)}, q.options().dtype(at::kFloat));
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
    bool causal, double dropout_p, double scale, bool need_prev, bool need_bias) {
  const Inputs in = prepare(q, k, v, prev, bias, seed, activation, causal, dropout_p, scale);
  TORCH_CHECK(
      grad_out.sizes() == out.sizes() && grad_out.scalar_type() == q.scalar_type() &&
          out.scalar_type() == q.scalar_type() && out.dim() == 4 && out.size(2) == q.size(2) &&
          out.size(3) == v.size(3),
      "the gradient must be like the output, got ", grad_out.scalar_type(), " ", grad_out.sizes());
  TORCH_CHECK(
      !grad_scores.has_value() ||
          (grad_scores->scalar_type() == at::kFloat &&
           grad_scores->sizes() == at::IntArrayRef({q.size(0), q.size(1), q.size(2), k.size(2)})),
      "the gradient must be like the scores");
  TORCH_CHECK(stats.numel() == 2 * q.size(0) * q.size(1) * q.size(2) && stats.is_contiguous());
  Tensor grad_q = empty_heads(q, q.size(2), q.size(3));
  Tensor grad_k = empty_heads(k, k.size(2), k.size(3));
  Tensor grad_v = empty_heads(v, v.size(2), v.size(3));
  Tensor grad_prev = empty_plane(need_prev, q, k);
  Tensor grad_bias = empty_plane(need_bias, q, k);
  if (is_empty(q, k, v)) {
    return {grad_q.zero_(), grad_k.zero_(), grad_v.zero_(), grad_prev.zero_(), grad_bias.zero_()};
  }
  const Tensor go = unit_width(grad_out), o = unit_width(out);
  const OptionalTensor gs = readable(grad_scores);
  const auto run = [&]<class T>() {
    tsattn::BackwardProblem<T> p;
    fill(p, in, stats);
    p.out = view<T>(o);
    p.grad_out = view<T>(go);
    p.grad_scores = plane(gs);
    p.grad_q = view_out<T>(grad_q);
    p.grad_k = view_out<T>(grad_k);
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

// Dropout -------------------------------------------------------------------------------------

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
  Tensor y = at::empty(x.sizes(), other.options());
  const tsattn::Dropout dropout = dropout_of(p, seed);
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
  m.impl("attention_forward", &attention_forward);
  m.impl("attention_backward", &attention_backward);
}
