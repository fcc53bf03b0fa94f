// Active attention on CPUs, backward: weights are computed again, block by block, never stored.
//
// With P the weights, M the dropout mask with its factor, A = activation(V), dO the gradient:
//   dA = (M P)' dO     dP = M (dO A')     D = rowsum(dO O)     dS = P (dP - D) + gradient of S
//   dQ = scale dS K    dK = scale dS' Q   dV = dA activation'(V)

#include "tile.h"

#include <ATen/Parallel.h>

namespace tsattn {
namespace {

template <class T>
class BackwardHead {
 public:
  explicit BackwardHead(const BackwardProblem<T>& p)
      : p_(p),
        padded_(round_up(p.keys, kLanes)),
        wide_(std::max(p.width, p.value_width)),
        exact_(sizeof(T) < sizeof(float) && p.keys <= kTile),
        scratch_(
            Scratch::size(p.keys * p.width) + 2 * Scratch::size(p.keys * p.value_width + kLanes) +
            Scratch::size(kTile * wide_) + 2 * Scratch::size(kTile * p.width) +
            2 * Scratch::size(kTile * p.value_width) + Scratch::size(padded_ * p.width) +
            Scratch::size(padded_ * p.value_width) + Scratch::size(kLanes * wide_) +
            6 * Scratch::size(kTile * kTile) + TileMask::floats(p.keys)),
        keys_(scratch_.take(p.keys * p.width)),
        values_(scratch_.take(p.keys * p.value_width + kLanes)),
        grad_values_(scratch_.take(p.keys * p.value_width + kLanes)),
        rows_(scratch_.take(kTile * wide_)),
        query_(scratch_.take(kTile * p.width)),
        grad_query_(scratch_.take(kTile * p.width)),
        grad_out_(scratch_.take(kTile * p.value_width)),
        out_(scratch_.take(kTile * p.value_width)),
        grad_k_(scratch_.take(padded_ * p.width)),
        grad_v_(scratch_.take(padded_ * p.value_width)),
        row_(scratch_.take(kLanes * wide_)),
        weights_(scratch_.take(kTile * kTile)),
        grads_(scratch_.take(kTile * kTile)),
        weights_t_(scratch_.take(kTile * kTile)),
        grads_t_(scratch_.take(kTile * kTile)),
        prev_(scratch_.take(kTile * kTile)),
        grad_scores_(scratch_.take(kTile * kTile)),
        mask_(scratch_.take(TileMask::floats(p.keys)), p.keys) {}

  void start(int64_t head) {
    b_ = head / p_.heads;
    n_ = head % p_.heads;
    k_ = keys_of(p_, b_, n_, keys_);
    v_ = values_of(p_, b_, n_, values_);
    start_grad_keys();
    std::fill_n(grad_v_, padded_ * p_.value_width, 0.0f);
  }

  template <int R>
  void tile(int64_t q0, int64_t count, const Tiles& key_blocks) {
    constexpr int64_t ld = R * kLanes;
    const Tail tail(count - (R - 1) * kLanes);
    queries_of(p_, b_, n_, q0, count, rows_, query_, ld);
    Vec delta[R], largest[R], inverse[R];
    load_rows<R>(q0, count, tail, delta, largest, inverse);
    start_grad_queries(q0, count, ld);
    if (p_.dropout.on) {
      mask_.draw(p_.dropout, b_ * p_.heads + n_, p_.queries, q0, count);
    }
    const bool skip = p_.causal && p_.grad_scores.data == nullptr &&
        p_.grad_prev.data == nullptr && p_.grad_bias.data == nullptr;
    for (int64_t i = 0; i < key_blocks.count; ++i) {
      const int64_t k0 = i * key_blocks.step;
      if (skip && k0 >= q0 + count) {
        break;
      }
      block<R>(q0, count, k0, key_blocks.size(i), tail, delta, largest, inverse);
    }
    const float* from = grad_query_;
    for (size_t i = 0; i < p_.grads.size(); ++i) {
      const HeadsView<T>& to = p_.grads[i].q;
      const int64_t width = p_.factors[i].width;
      unpack(from, ld, count, width, p_.scale, to.at(b_, n_) + q0 * to.row, to.row, row_);
      from += width * ld;
    }
  }

  void finish() {
    const float* from = grad_k_;
    for (size_t i = 0; i < p_.grads.size(); ++i) {
      const HeadsView<T>& to = p_.grads[i].k;
      const int64_t width = p_.factors[i].width;
      unpack(from, padded_, p_.keys, width, 1.0f, to.at(b_, n_), to.row, row_);
      from += width * padded_;
    }
    if (p_.activation == Activation::kIdentity) {
      unpack(
          grad_v_, padded_, p_.keys, p_.value_width, 1.0f, p_.grad_v.at(b_, n_), p_.grad_v.row,
          row_);
      return;
    }
    unpack(
        grad_v_, padded_, p_.keys, p_.value_width, 1.0f, grad_values_, p_.value_width, row_);
    pack(p_.v.at(b_, n_), p_.v.row, p_.keys, p_.value_width, values_);
    multiply_slope(p_.activation, values_, grad_values_, p_.keys * p_.value_width);
    for (int64_t key = 0; key < p_.keys; ++key) {
      narrow(
          grad_values_ + key * p_.value_width, p_.grad_v.at(b_, n_) + key * p_.grad_v.row,
          p_.value_width);
    }
  }

 private:
  // Gradients start at what is added to them, divided by the factor they are given in the end.
  void start_grad_queries(int64_t q0, int64_t count, int64_t ld) {
    float* to = grad_query_;
    for (size_t i = 0; i < p_.grads.size(); ++i) {
      const int64_t size = p_.factors[i].width * ld;
      start_gradient(p_.grads[i].more_q, p_.factors[i].width, q0, count, to, ld);
      for (float* at = to; p_.grads[i].more_q.data != nullptr && at < to + size; at += kLanes) {
        (Vec::loadu(at) * Vec(1.0f / p_.scale)).store(at);
      }
      to += size;
    }
  }

  void start_grad_keys() {
    float* to = grad_k_;
    for (size_t i = 0; i < p_.grads.size(); ++i) {
      for (int64_t k0 = 0; k0 < p_.keys; k0 += kTile) {
        const int64_t count = std::min(kTile, p_.keys - k0);
        start_gradient(p_.grads[i].more_k, p_.factors[i].width, k0, count, to + k0, padded_);
      }
      to += p_.factors[i].width * padded_;
    }
  }

  // Rows [first, first + count) of `more`, or zeros, as [width][lane].
  void start_gradient(
      const HeadsView<const T>& more, int64_t width, int64_t first, int64_t count, float* to,
      int64_t ld) {
    if (more.data != nullptr) {
      const Rows rows = as_floats(more.at(b_, n_) + first * more.row, more.row, count, width, rows_);
      transpose(rows.data, rows.ld, count, width, to, ld);
      return;
    }
    for (int64_t w = 0; w < width; ++w) {
      std::fill_n(to + w * ld, round_up(count, kLanes), 0.0f);
    }
  }

  // dO and D = rowsum(dO O) of the tile, and the softmax statistics of its queries.
  template <int R>
  void load_rows(
      int64_t q0, int64_t count, const Tail& tail, Vec (&delta)[R], Vec (&largest)[R],
      Vec (&inverse)[R]) {
    constexpr int64_t ld = R * kLanes;
    const auto load = [&](const HeadsView<const T>& view, float* into) {
      const Rows rows = as_floats(
          view.at(b_, n_) + q0 * view.row, view.row, count, p_.value_width, rows_);
      transpose(rows.data, rows.ld, count, p_.value_width, into, ld);
    };
    load(p_.grad_out, grad_out_);
    load(p_.out, out_);
    const float* stats = p_.stats + (b_ * p_.heads + n_) * p_.queries + q0;
    const float* inverses = stats + p_.batch * p_.heads * p_.queries;
    for (int r = 0; r < R; ++r) {
      const int64_t at = r * kLanes;
      delta[r] = Vec(0.0f);
      for (int64_t w = 0; w < p_.value_width; ++w) {
        delta[r] = at::vec::fmadd(
            Vec::loadu(grad_out_ + w * ld + at), Vec::loadu(out_ + w * ld + at), delta[r]);
      }
      largest[r] = r < R - 1 ? Vec::loadu(stats + at) : tail.load(stats + at);
      inverse[r] = r < R - 1 ? Vec::loadu(inverses + at) : tail.load(inverses + at);
    }
  }

  template <int R>
  void block(
      int64_t q0, int64_t count, int64_t k0, int64_t keys, const Tail& tail, const Vec (&delta)[R],
      const Vec (&largest)[R], const Vec (&inverse)[R]) {
    constexpr int64_t ld = R * kLanes;
    const float* k = k_.data + k0 * k_.ld;
    weigh_again<R>(q0, count, k0, keys, tail, largest, inverse);
    if (p_.dropout.on) {
      differentiate<R, true>(q0, count, k0, keys, tail, delta);
    } else {
      differentiate<R, false>(q0, count, k0, keys, tail, delta);
    }
    product<R>(k, 1, k_.ld, p_.width, grads_, ld, keys, Into<R, true>{grad_query_, ld});
    with_vectors(keys, [&]<int S>() {
      constexpr int64_t ldt = S * kLanes;
      transpose(weights_, ld, keys, count, weights_t_, ldt);
      transpose(grads_, ld, keys, count, grads_t_, ldt);
      product<S>(
          grad_out_, ld, 1, p_.value_width, weights_t_, ldt, count,
          Into<S, true>{grad_v_ + k0, padded_});
      product<S>(
          query_, ld, 1, p_.width, grads_t_, ldt, count, Into<S, true>{grad_k_ + k0, padded_});
    });
  }

  // weights_ becomes P.
  template <int R>
  void weigh_again(
      int64_t q0, int64_t count, int64_t k0, int64_t keys, const Tail& tail,
      const Vec (&largest)[R], const Vec (&inverse)[R]) {
    constexpr int64_t ld = R * kLanes;
    const float* k = k_.data + k0 * k_.ld;
    if (!p_.causal && p_.prev.data == nullptr && p_.bias.data == nullptr) {
      product<R>(k, k_.ld, 1, keys, query_, ld, p_.width, [&](int64_t key, const Vec(&s)[R]) {
#pragma GCC unroll 3
        for (int r = 0; r < R; ++r) {
          (exp(s[r] - largest[r]) * inverse[r]).store(weights_ + key * ld + r * kLanes);
        }
      });
      return;
    }
    product<R>(k, k_.ld, 1, keys, query_, ld, p_.width, Into<R>{weights_, ld});
    const TilePlane prev(p_.prev, b_, n_, q0, count, k0, keys, prev_, ld);
    const float* bias = p_.bias.at(b_, n_);
    for (int64_t key = 0; key < keys; ++key) {
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) {
        float* weight = weights_ + key * ld + r * kLanes;
        Vec s = Vec::loadu(weight);
        if (prev.data != nullptr) {
          s = s + prev.load<R>(key, r, tail);
        }
        if (bias != nullptr) {
          const float* at = bias + (k0 + key) * p_.bias.key + (q0 + r * kLanes) * p_.bias.query;
          s = s + (p_.bias.query == 0 ? Vec(*at) : r < R - 1 ? Vec::loadu(at) : tail.load(at));
        }
        if (p_.causal) {
          s = only_past(s, q0 + r * kLanes, k0 + key);
        }
        (exp(s - largest[r]) * inverse[r]).store(weight);
      }
    }
  }

  // grads_ becomes dS, and weights_, which holds P, M P.
  template <int R, bool kDrop>
  void differentiate(
      int64_t q0, int64_t count, int64_t k0, int64_t keys, const Tail& tail,
      const Vec (&delta)[R]) {
    constexpr int64_t ld = R * kLanes;
    const float* v = v_.data + k0 * v_.ld;
    const bool plain = !exact_ && p_.grad_scores.data == nullptr &&
        p_.grad_prev.data == nullptr && p_.grad_bias.data == nullptr;
    if (plain) {
      product<R>(
          v, v_.ld, 1, keys, grad_out_, ld, p_.value_width, [&](int64_t key, const Vec(&dp)[R]) {
#pragma GCC unroll 3
            for (int r = 0; r < R; ++r) {
              softmax_gradient<kDrop>(
                  weights_ + key * ld + r * kLanes, dp[r], mask_, k0 + key, r, delta[r])
                  .store(grads_ + key * ld + r * kLanes);
            }
          });
      return;
    }
    product<R>(v, v_.ld, 1, keys, grad_out_, ld, p_.value_width, Into<R>{grads_, ld});
    const TilePlane from_scores(p_.grad_scores, b_, n_, q0, count, k0, keys, grad_scores_, ld);
    float* grad_prev = p_.grad_prev.at(b_, n_);
    float* grad_bias = p_.grad_bias.at(b_, n_);
    Vec sums[R];
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r) {
      sums[r] = delta[r];
    }
    if (exact_) {
      row_sums<R, kDrop>(k0, keys, sums);
    }
    for (int64_t key = 0; key < keys; ++key) {
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) {
        const auto put = [&](float* plane, int64_t stride, const Vec& x) {
          float* at = plane + (k0 + key) * stride + q0 + r * kLanes;
          r < R - 1 ? x.store(at) : tail.store(at, x);
        };
        float* grad = grads_ + key * ld + r * kLanes;
        Vec ds = softmax_gradient<kDrop>(
            weights_ + key * ld + r * kLanes, Vec::loadu(grad), mask_, k0 + key, r, sums[r]);
        if (grad_bias != nullptr) {
          put(grad_bias, p_.grad_bias.key, ds);
        }
        if (from_scores.data != nullptr) {
          ds = ds + from_scores.load<R>(key, r, tail);
        }
        if (grad_prev != nullptr) {
          put(grad_prev, p_.grad_prev.key, ds);
        }
        ds.store(grad);
      }
    }
  }

  // P (dP - D) from dO A'; *weight, which holds P, becomes M P.
  template <bool kDrop>
  TSATTN_INLINE Vec softmax_gradient(
      float* weight, Vec dp, const TileMask& mask, int64_t key, int r, const Vec& delta) const {
    const Vec p = Vec::loadu(weight), factor(p_.dropout.scale);
    if constexpr (kDrop) {
      const uint32_t bits = mask.bits(key, r);
      dp = keep(dp * factor, bits);
      keep(p * factor, bits).store(weight);
    }
    return p * (dp - delta);
  }

  // D from P and dP, where all keys are at hand: free of the rounding of a bfloat16 output.
  template <int R, bool kDrop>
  void row_sums(int64_t k0, int64_t keys, Vec (&sums)[R]) {
    constexpr int64_t ld = R * kLanes;
    const Vec factor(p_.dropout.scale);
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r) {
      sums[r] = Vec(0.0f);
      for (int64_t key = 0; key < keys; ++key) {
        const Vec p = Vec::loadu(weights_ + key * ld + r * kLanes);
        Vec dp = Vec::loadu(grads_ + key * ld + r * kLanes);
        if constexpr (kDrop) {
          dp = keep(dp * factor, mask_.bits(k0 + key, r));
        }
        sums[r] = at::vec::fmadd(p, dp, sums[r]);
      }
    }
  }

  const BackwardProblem<T>& p_;
  int64_t padded_, wide_;
  bool exact_; // one block holds all keys, and the output was rounded
  Scratch scratch_;
  float *keys_, *values_, *grad_values_, *rows_, *query_, *grad_query_, *grad_out_, *out_, *grad_k_,
      *grad_v_, *row_, *weights_, *grads_, *weights_t_, *grads_t_, *prev_, *grad_scores_;
  TileMask mask_;
  int64_t b_ = 0, n_ = 0;
  Rows k_{}, v_{};
};

// One head is one piece of work: sums over queries always run in the same order.
template <class T>
void backward(const BackwardProblem<T>& p) {
  const Tiles tiles(p.queries), key_blocks(p.keys);
  const int64_t work = p.queries * p.keys * (3 * p.width + 2 * p.value_width + 32);
  at::parallel_for(
      0, p.batch * p.heads, std::max<int64_t>(1, 65536 / std::max<int64_t>(1, work)),
      [&](int64_t begin, int64_t end) {
        BackwardHead<T> head(p);
        for (int64_t item = begin; item < end; ++item) {
          head.start(item);
          for (int64_t t = 0; t < tiles.count; ++t) {
            with_vectors(tiles.size(t), [&]<int R>() {
              head.template tile<R>(t * tiles.step, tiles.size(t), key_blocks);
            });
          }
          head.finish();
        }
      });
}

} // namespace

void attention_backward(const BackwardProblem<float>& problem) {
  backward(problem);
}

void attention_backward(const BackwardProblem<c10::BFloat16>& problem) {
  backward(problem);
}

} // namespace tsattn
