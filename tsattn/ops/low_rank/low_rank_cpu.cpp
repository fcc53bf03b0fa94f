// Low-rank quadratic logits: query and keys of a tile of tokens, one token per lane, never leave the
// cache. Schemas in fused_cpu.py.
//
// With rows m of M = [Q; K_1; ..; K_E] and P = M x + b: logit_e = sum_j P_j P_(e, j), and backwards
//   dP_j = sum_e g_e P_(e, j)    dP_(e, j) = g_e P_j    dx = M' dP    dM = dP x'    db = dP
// computed from the tokens once more. Gradients of M and b are summed over slices of tokens, and the
// slices in their order.

#include "../attention/tile.h"
#include "../cpu/autograd.h"
#include "../cpu/lasting.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

namespace tsattn {
namespace {

using torch::autograd::Function;
using Three = std::tuple<Tensor, Tensor, Tensor>;
using Logits = Tensor(const Tensor&, const Tensor&, const OptionalTensor&, int64_t);
using LogitsBackward =
    Three(const Tensor&, const Tensor&, const Tensor&, const OptionalTensor&, int64_t);

constexpr int64_t kSlice = 10 * kTile; // tokens

struct LowRank {
  int64_t tokens, width, maps, rank, experts;
  const float *x, *matrix, *bias;
};

class LowRankTile {
 public:
  explicit LowRankTile(const LowRank& p)
      : p_(p),
        scratch_(
            2 * Scratch::size(p.width * kTile) + 2 * Scratch::size(p.maps * kTile) +
            Scratch::size(p.experts * kTile) + Scratch::size(p.maps * kLanes)),
        tokens_(scratch_.take(p.width * kTile)),
        result_(scratch_.take(p.width * kTile)),
        mapped_(scratch_.take(p.maps * kTile)),
        grad_(scratch_.take(p.maps * kTile)),
        logits_(scratch_.take(p.experts * kTile)),
        bias_(scratch_.take(p.maps * kLanes)) {}

  template <int R>
  void forward(int64_t row, int64_t count, float* logits) {
    constexpr int64_t ld = R * kLanes;
    map<R>(row, count);
    for (int64_t e = 0; e < p_.experts; ++e) {
      for (int r = 0; r < R; ++r) {
        Vec sum(0.0f);
        for (int64_t j = 0; j < p_.rank; ++j) {
          sum = at::vec::fmadd(query<R>(j, r), key<R>(e, j, r), sum);
        }
        sum.store(logits_ + e * ld + r * kLanes);
      }
    }
    transpose_back(logits_, ld, count, p_.experts, 1.0f, logits + row * p_.experts, p_.experts);
  }

  template <int R>
  void backward(int64_t row, int64_t count, const float* grad, float* to_x, float* to_matrix) {
    constexpr int64_t ld = R * kLanes;
    map<R>(row, count);
    transpose(grad + row * p_.experts, p_.experts, count, p_.experts, logits_, ld);
    for (int r = 0; r < R; ++r) {
      const Tail tail(std::min(kLanes, count - r * kLanes));
      for (int64_t e = 0; e < p_.experts; ++e) {
        float* g = logits_ + e * ld + r * kLanes;
        tail.only(Vec::loadu(g)).store(g);
      }
      for (int64_t j = 0; j < p_.rank; ++j) {
        Vec sum(0.0f);
        for (int64_t e = 0; e < p_.experts; ++e) {
          const Vec g = Vec::loadu(logits_ + e * ld + r * kLanes);
          sum = at::vec::fmadd(g, key<R>(e, j, r), sum);
          keep_gradient<R>(p_.rank * (1 + e) + j, r, g * query<R>(j, r));
        }
        keep_gradient<R>(j, r, sum);
      }
    }
    product<R>(p_.matrix, 1, p_.width, p_.width, grad_, ld, p_.maps, Into<R>{result_, ld});
    transpose_back(result_, ld, count, p_.width, 1.0f, to_x + row * p_.width, p_.width);
    for (int64_t d = 0; d < p_.width; d += kTile) {
      with_vectors(std::min(kTile, p_.width - d), [&]<int S>() {
        product<S>(
            grad_, ld, 1, p_.maps, p_.x + row * p_.width + d, p_.width, count,
            Into<S, true>{to_matrix + d, p_.width});
      });
    }
  }

  void start_slice() { std::fill_n(bias_, p_.maps * kLanes, 0.0f); }

  void finish_slice(float* to_bias) const {
    for (int64_t m = 0; m < p_.maps; ++m) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        to_bias[m] += bias_[m * kLanes + lane];
      }
    }
  }

 private:
  template <int R>
  void map(int64_t row, int64_t count) {
    constexpr int64_t ld = R * kLanes;
    transpose(p_.x + row * p_.width, p_.width, count, p_.width, tokens_, ld);
    product<R>(
        p_.matrix, p_.width, 1, p_.maps, tokens_, ld, p_.width,
        [&](int64_t m, const Vec(&c)[R]) {
          const Vec bias(p_.bias == nullptr ? 0.0f : p_.bias[m]);
          for (int r = 0; r < R; ++r) {
            (c[r] + bias).store(mapped_ + m * ld + r * kLanes);
          }
        });
  }

  template <int R>
  TSATTN_INLINE Vec query(int64_t j, int r) const {
    return Vec::loadu(mapped_ + (j * R + r) * kLanes);
  }

  template <int R>
  TSATTN_INLINE Vec key(int64_t e, int64_t j, int r) const {
    return Vec::loadu(mapped_ + ((p_.rank * (1 + e) + j) * R + r) * kLanes);
  }

  template <int R>
  TSATTN_INLINE void keep_gradient(int64_t m, int r, const Vec& value) {
    value.store(grad_ + (m * R + r) * kLanes);
    (Vec::loadu(bias_ + m * kLanes) + value).store(bias_ + m * kLanes);
  }

  const LowRank& p_;
  Scratch scratch_;
  float *tokens_, *result_, *mapped_, *grad_, *logits_, *bias_;
};

LowRank problem_of(
    const Tensor& x, const Tensor& maps, const OptionalTensor& bias, int64_t rank) {
  TORCH_CHECK(
      x.dim() == 2 && maps.dim() == 2 && x.size(1) == maps.size(1) && x.size(1) % 16 == 0 &&
          x.size(1) > 0,
      "expected tokens [N, D] and maps [R + E R, D] with D a multiple of 16, got ", x.sizes(),
      " and ", maps.sizes());
  const int64_t rows = maps.size(0);
  TORCH_CHECK(
      rank >= 1 && rows > rank && rows % rank == 0, "expected a query and keys of rank ", rank,
      ", got ", rows, " rows");
  TORCH_CHECK(!bias.has_value() || bias->sizes() == maps.sizes().slice(0, 1), "expected a bias a row");
  for (const Tensor& t : {x, maps, bias.value_or(x)}) {
    TORCH_CHECK(t.scalar_type() == at::kFloat, "expected float32, got ", t.scalar_type());
  }
  return {
      x.size(0), x.size(1), rows, rank, rows / rank - 1, x.const_data_ptr<float>(),
      maps.const_data_ptr<float>(), bias.has_value() ? bias->const_data_ptr<float>() : nullptr};
}

OptionalTensor whole(const OptionalTensor& x) {
  return x.has_value() ? OptionalTensor(x->contiguous()) : x;
}

template <class Body>
void over_tiles(int64_t first, int64_t last, Body&& body) {
  for (int64_t row = first; row < last; row += kTile) {
    const int64_t count = std::min(kTile, last - row);
    with_vectors(count, [&]<int R>() { body.template operator()<R>(row, count); });
  }
}

Tensor forward(const Tensor& x_, const Tensor& maps_, const OptionalTensor& bias_, int64_t rank) {
  const Tensor x = x_.contiguous(), maps = maps_.contiguous();
  const OptionalTensor bias = whole(bias_);
  const LowRank p = problem_of(x, maps, bias, rank);
  const Tensor logits = empty_lasting({p.tokens, p.experts}, x.options());
  float* to = logits.mutable_data_ptr<float>();
  at::parallel_for(0, (p.tokens + kTile - 1) / kTile, 4, [&](int64_t begin, int64_t end) {
    LowRankTile tile(p);
    over_tiles(begin * kTile, std::min(p.tokens, end * kTile), [&]<int R>(int64_t row, int64_t n) {
      tile.template forward<R>(row, n, to);
    });
  });
  return logits;
}

Three backward(
    const Tensor& grad_, const Tensor& x_, const Tensor& maps_, const OptionalTensor& bias_,
    int64_t rank) {
  const Tensor x = x_.contiguous(), maps = maps_.contiguous(), grad = grad_.contiguous();
  const OptionalTensor bias = whole(bias_);
  const LowRank p = problem_of(x, maps, bias, rank);
  TORCH_CHECK(
      grad.dim() == 2 && grad.size(0) == p.tokens && grad.size(1) == p.experts &&
          grad.scalar_type() == at::kFloat,
      "expected a gradient of the logits");
  const int64_t slices = (p.tokens + kSlice - 1) / kSlice;
  const Tensor to_x = empty_lasting(x.sizes(), x.options());
  const Tensor matrices = at::zeros({slices, p.maps, p.width}, x.options());
  const Tensor biases = at::zeros({slices, p.maps}, x.options());
  at::parallel_for(0, slices, 1, [&](int64_t begin, int64_t end) {
    LowRankTile tile(p);
    for (int64_t s = begin; s < end; ++s) {
      float* matrix = matrices.mutable_data_ptr<float>() + s * p.maps * p.width;
      tile.start_slice();
      over_tiles(
          s * kSlice, std::min(p.tokens, (s + 1) * kSlice), [&]<int R>(int64_t row, int64_t n) {
            tile.template backward<R>(
                row, n, grad.const_data_ptr<float>(), to_x.mutable_data_ptr<float>(), matrix);
          });
      tile.finish_slice(biases.mutable_data_ptr<float>() + s * p.maps);
    }
  });
  const Tensor to_bias = bias.has_value() ? biases.sum(0) : empty_lasting({0}, x.options());
  return {to_x, matrices.sum(0), to_bias};
}

class LowRankLogits : public Function<LowRankLogits> {
 public:
  static Tensor forward(
      AutogradContext* ctx, const Tensor& x, const Tensor& maps, const OptionalTensor& bias,
      int64_t rank) {
    at::AutoDispatchBelowADInplaceOrView below;
    static const auto compute = find<Logits>("tsattn::low_rank_logits");
    ctx->save_for_backward({x, maps, or_undefined(bias)});
    ctx->saved_data["rank"] = rank;
    return compute.call(x, maps, bias, rank);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    require_first_derivative();
    static const auto compute = find<LogitsBackward>("tsattn::low_rank_logits_backward");
    const auto saved = ctx->get_saved_variables();
    auto [x, maps, bias] = compute.call(
        grads[0], saved[0], saved[1], optional(saved[2]), ctx->saved_data["rank"].toInt());
    return {x, maps, saved[2].defined() ? bias : Tensor(), Tensor()};
  }
};

Tensor recorded(const Tensor& x, const Tensor& maps, const OptionalTensor& bias, int64_t rank) {
  return LowRankLogits::apply(x, maps, bias, rank);
}

} // namespace

TORCH_LIBRARY_IMPL(tsattn, CPU, m) {
  m.impl("low_rank_logits", &forward);
  m.impl("low_rank_logits_backward", &backward);
}

TORCH_LIBRARY_IMPL(tsattn, Autograd, m) {
  m.impl("low_rank_logits", &recorded);
}

} // namespace tsattn
