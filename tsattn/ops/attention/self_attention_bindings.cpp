// Tensors in, tensors out, for self-attention on packed projections [B, L, 3 D]: queries, keys and
// values of all heads side by side. The schemas are defined in Python, in self_attention_cpu.py.

#include "fused_cpu.h"

#include "../cpu/lasting.h"
#include "../cpu/seed.h"

#include <torch/library.h>

namespace {

using at::Tensor;
using tsattn::HeadsView;
using OptionalTensor = std::optional<Tensor>;

struct Settings {
  int64_t heads, activation;
  bool causal;
  double dropout_p, scale;
};

// One third of a packed projection, or half of a packed gradient, as heads.
template <class T>
HeadsView<T> part(T* data, at::IntArrayRef sizes, int64_t which, int64_t width, int64_t heads) {
  const int64_t row = sizes[sizes.size() - 1], length = sizes[sizes.size() - 2];
  return {data + which * width, length * row, width / heads, row};
}

template <class T>
HeadsView<const T> read(const Tensor& x, int64_t which, int64_t width, int64_t heads) {
  return part<const T>(x.const_data_ptr<T>(), x.sizes(), which, width, heads);
}

template <class T>
HeadsView<T> write(const Tensor& x, int64_t which, int64_t width, int64_t heads) {
  return part<T>(x.mutable_data_ptr<T>(), x.sizes(), which, width, heads);
}

std::vector<Tensor> checked(at::TensorList projections, const Settings& s) {
  TORCH_CHECK(!projections.empty(), "self-attention needs a projection");
  const Tensor& own = projections[projections.size() - 1];
  TORCH_CHECK(
      own.dim() == 3 && s.heads > 0 && own.size(2) % (3 * s.heads) == 0,
      "expected [batch, length, 3 * heads * width] and ", s.heads, " heads, got ", own.sizes());
  TORCH_CHECK(
      own.scalar_type() == at::kFloat || own.scalar_type() == at::kBFloat16,
      "the cpu implementation takes float32 or bfloat16, got ", own.scalar_type());
  TORCH_CHECK(s.activation >= 0 && s.activation <= 5, "no activation has the number ", s.activation);
  std::vector<Tensor> rows;
  for (const Tensor& x : projections) {
    TORCH_CHECK(
        x.sizes() == own.sizes() && x.scalar_type() == own.scalar_type(),
        "all projections must be like ", own.sizes(), ", got ", x.sizes());
    rows.push_back(x.contiguous());
  }
  return rows;
}

template <class T>
void fill(
    tsattn::Problem<T>& p, const std::vector<Tensor>& rows, const OptionalTensor& seed,
    const Tensor& stats, const Settings& s) {
  const Tensor& own = rows.back();
  const int64_t width = own.size(2) / 3;
  p.batch = own.size(0);
  p.heads = s.heads;
  p.queries = p.keys = own.size(1);
  p.value_width = width / s.heads;
  p.width = p.value_width * static_cast<int64_t>(rows.size());
  for (const Tensor& x : rows) {
    p.factors.push_back(
        {read<T>(x, 0, width, s.heads), read<T>(x, 1, width, s.heads), p.value_width});
  }
  p.v = read<T>(own, 2, width, s.heads);
  p.causal = s.causal;
  p.scale = static_cast<float>(s.scale);
  p.activation = static_cast<tsattn::Activation>(s.activation);
  p.dropout = tsattn::dropout_of(s.dropout_p, seed);
  p.stats = stats.mutable_data_ptr<float>();
}

template <class Run>
void dispatch(const Tensor& like, Run&& run) {
  like.scalar_type() == at::kFloat ? run.template operator()<float>()
                                   : run.template operator()<c10::BFloat16>();
}

// The link carries no numbers, only the gradients of earlier projections: one number, expanded.
Tensor empty_link(const Tensor& own, int64_t layers) {
  const Tensor number = tsattn::empty_lasting({1, 1, 1, 1}, own.options()).zero_();
  return number.expand({layers, own.size(0), own.size(1), own.size(2) / 3 * 2});
}

std::tuple<Tensor, Tensor, Tensor> forward(
    at::TensorList projections, const Tensor& link, const OptionalTensor& seed, int64_t heads,
    int64_t activation, bool causal, double dropout_p, double scale) {
  const Settings s{heads, activation, causal, dropout_p, scale};
  const auto rows = checked(projections, s);
  const Tensor& own = rows.back();
  const int64_t width = own.size(2) / 3, layers = static_cast<int64_t>(rows.size());
  TORCH_CHECK(
      link.dim() == 4 && link.size(0) == layers - 1, "expected a link of ", layers - 1,
      " layers, got ", link.sizes());
  Tensor out = tsattn::empty_lasting({own.size(0), own.size(1), width}, own.options());
  Tensor stats =
      tsattn::empty_lasting({2, own.size(0), heads, own.size(1)}, own.options().dtype(at::kFloat));
  if (own.numel() > 0) {
    dispatch(own, [&]<class T>() {
      tsattn::ForwardProblem<T> p;
      fill(p, rows, seed, stats, s);
      p.out = write<T>(out, 0, width, heads);
      tsattn::attention_forward(p);
    });
  }
  return {out, empty_link(own, layers), stats};
}

std::tuple<Tensor, Tensor> backward(
    const Tensor& grad_output, const OptionalTensor& grad_link, at::TensorList projections,
    const OptionalTensor& seed, const Tensor& output, const Tensor& stats, int64_t heads,
    int64_t activation, bool causal, double dropout_p, double scale) {
  const Settings s{heads, activation, causal, dropout_p, scale};
  const auto rows = checked(projections, s);
  const Tensor& own = rows.back();
  const int64_t width = own.size(2) / 3, layers = static_cast<int64_t>(rows.size());
  const std::vector<int64_t> out_sizes{own.size(0), own.size(1), width};
  const std::vector<int64_t> link_sizes{layers, own.size(0), own.size(1), 2 * width};
  TORCH_CHECK(
      grad_output.sizes() == out_sizes && output.sizes() == out_sizes &&
          grad_output.scalar_type() == own.scalar_type() &&
          output.scalar_type() == own.scalar_type(),
      "output and gradient must be ", own.scalar_type(), " ", out_sizes);
  TORCH_CHECK(
      !grad_link.has_value() ||
          (grad_link->sizes() == link_sizes && grad_link->scalar_type() == own.scalar_type()),
      "the gradient of the link must be ", own.scalar_type(), " ", link_sizes);
  Tensor grad = tsattn::empty_lasting(own.sizes(), own.options());
  Tensor earlier = tsattn::empty_lasting(
      {layers - 1, own.size(0), own.size(1), 2 * width}, own.options());
  if (own.numel() == 0) {
    return {grad, earlier};
  }
  const Tensor go = grad_output.contiguous(), o = output.contiguous();
  const Tensor more = grad_link.has_value() ? grad_link->contiguous() : Tensor();
  dispatch(own, [&]<class T>() {
    tsattn::BackwardProblem<T> p;
    fill(p, rows, seed, stats, s);
    p.out = read<T>(o, 0, width, heads);
    p.grad_out = read<T>(go, 0, width, heads);
    for (int64_t i = 0; i < layers; ++i) {
      tsattn::FactorGradients<T> g;
      const Tensor to = i < layers - 1 ? earlier.select(0, i) : grad;
      g.q = write<T>(to, 0, width, heads);
      g.k = write<T>(to, 1, width, heads);
      if (more.defined()) {
        const Tensor from = more.select(0, i);
        g.more_q = read<T>(from, 0, width, heads);
        g.more_k = read<T>(from, 1, width, heads);
      }
      p.grads.push_back(g);
    }
    p.grad_v = write<T>(grad, 2, width, heads);
    tsattn::attention_backward(p);
  });
  return {grad, earlier};
}

} // namespace

TORCH_LIBRARY_IMPL(tsattn, CPU, m) {
  m.impl("self_attention_forward", &forward);
  m.impl("self_attention_backward", &backward);
}
