// One head of attention forwards, tile by tile: softmax(scale Q K' + prev + bias) activation(V).
#pragma once

#include "float_products.h"
#include "pair_products.h"

namespace tsattn {
inline namespace CPU_CAPABILITY {

template <class T, class Products>
class ForwardHead {
 public:
  explicit ForwardHead(const ForwardProblem<T>& p)
      : p_(p),
        plain_(!p.prev.data && !p.bias.data && !p.scores.data),
        scratch_(
            Scratch::size(kTile * (p.keys + 1)) + Scratch::size(kTile * p.keys) +
            TileMask::floats(p.keys) + Products::floats(p)),
        scores_(scratch_.take(kTile * (p.keys + 1))),
        plane_(scratch_.take(kTile * p.keys)),
        mask_(scratch_.take(TileMask::floats(p.keys)), p.keys),
        products_(p, scratch_, scores_) {}

  void start(int64_t head) {
    b_ = head / p_.heads;
    n_ = head % p_.heads;
    products_.start(b_, n_);
  }

  template <int R>
  TSATTN_FLATTEN void tile(int64_t q0, int64_t count) {
    constexpr int64_t ld = R * kLanes;
    const Tail tail(count - (R - 1) * kLanes);
    // Behind a causal mask whole blocks of keys are skipped, unless their scores are asked for.
    const bool skip = p_.causal && p_.scores.data == nullptr;
    const int64_t keys = skip ? std::min(p_.keys, q0 + count) : p_.keys;
    products_.start_queries(q0, count, ld);
    Vec largest[R], inverse[R];
    for (int r = 0; r < R; ++r) {
      largest[r] = Vec(-std::numeric_limits<float>::infinity());
    }
    if (plain_ && !p_.causal) {
      plain_scores<R, false>(q0, keys, largest);
    } else if (plain_) {
      plain_scores<R, true>(q0, keys, largest);
    } else {
      products_.template scores<R>(0, keys, Into<R>{scores_, ld});
      finish_scores<R>(q0, count, keys, tail, largest);
    }
    if (p_.dropout.on) {
      mask_.draw(p_.dropout, b_ * p_.heads + n_, p_.queries, q0, count);
      weights<R, true>(keys, largest, inverse);
    } else {
      weights<R, false>(keys, largest, inverse);
    }
    float* stats = p_.stats + (b_ * p_.heads + n_) * p_.queries + q0;
    float* inverses = stats + p_.batch * p_.heads * p_.queries;
    for (int r = 0; r < R; ++r) {
      const auto put = [&](float* at, const Vec& x) {
        r < R - 1 ? x.store(at + r * kLanes) : tail.store(at + r * kLanes, x);
      };
      put(stats, largest[r]);
      put(inverses, inverse[r]);
      inverse[r] = inverse[r] * Vec(p_.dropout.scale);
    }
    products_.template output<R>(q0, count, keys, inverse);
  }

 private:
  static constexpr int64_t kAhead = 32; // rows of planes asked for before they are wanted

  template <int R, bool kCausal>
  void plain_scores(int64_t q0, int64_t keys, Vec (&largest)[R]) {
    float* scores = scores_;
    products_.template scores<R>(0, keys, [&, scores](int64_t key, const Vec(&s)[R]) {
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) {
        const Vec x = kCausal ? only_past(s[r], q0 + r * kLanes, key) : s[r];
        x.store(scores + (key * R + r) * kLanes);
        largest[r] = at::vec::clamp_min(x, largest[r]);
      }
    });
  }

  // Adds previous scores, hands the scores out, masks them, and finds the largest per query.
  template <int R>
  void finish_scores(int64_t q0, int64_t count, int64_t keys, const Tail& tail, Vec (&largest)[R]) {
    constexpr int64_t ld = R * kLanes;
    const TilePlane prev(p_.prev, b_, n_, q0, count, 0, keys, plane_, ld);
    const TilePlane bias = bias_tile(q0);
    const TileOut out(p_.scores, b_, n_, q0, 0);
    for (int64_t key = 0; key < keys; ++key) {
      float* row = scores_ + key * ld;
      prev.fetch<R>(key + kAhead);
      out.fetch<R>(key + kAhead);
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) {
        Vec s = Vec::loadu(row + r * kLanes);
        if (prev) {
          s = s + prev.load<R>(key, r, tail);
        }
        if (out) {
          out.store<R>(key, r, tail, s);
        }
        if (bias.data != nullptr) {
          s = s + (p_.bias.query == 0 ? Vec(bias.data[key * bias.ld]) : bias.load<R>(key, r, tail));
        }
        if (p_.causal) {
          s = only_past(s, q0 + r * kLanes, key);
        }
        s.store(row + r * kLanes);
        largest[r] = at::vec::clamp_min(s, largest[r]);
      }
    }
  }

  TilePlane bias_tile(int64_t q0) const {
    TilePlane tile;
    if (p_.bias.data != nullptr) {
      tile.data = p_.bias.floats(b_, n_) + q0 * p_.bias.query;
      tile.ld = p_.bias.key;
    }
    return tile;
  }

  // Weights are exp(score - largest), with dropped ones zero; inverse is 1 / their sum.
  template <int R, bool kDrop>
  void weights(int64_t keys, Vec (&largest)[R], Vec (&inverse)[R]) {
    constexpr int64_t ld = R * kLanes;
    const Vec zero(0.0f), nothing(-std::numeric_limits<float>::infinity());
    Vec sum[2][R];
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r) {
      // a query without any key: exp(-inf - 0) = 0 everywhere
      largest[r] = Vec::blendv(largest[r], zero, largest[r] == nothing);
      sum[0][r] = sum[1][r] = zero;
    }
    Vec e[2][R];
    const auto weigh = [&](int64_t key, int i) __attribute__((always_inline)) {
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) {
        const Vec x = exp(Vec::loadu(scores_ + key * ld + r * kLanes) - largest[r]);
        sum[i][r] = sum[i][r] + x;
        e[i][r] = kDrop ? keep(x, mask_.bits(key, r)) : x;
      }
    };
    int64_t key = 0;
    for (; key + 2 <= keys; key += 2) {
      weigh(key, 0);
      weigh(key + 1, 1);
      products_.put(key, e);
    }
    if (key < keys) {
      weigh(key, 0);
      std::fill_n(e[1], R, zero);
      products_.put(key, e);
    }
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r) {
      const Vec total = sum[0][r] + sum[1][r];
      inverse[r] = Vec::blendv(Vec(1.0f) / total, zero, total == zero);
    }
  }

  const ForwardProblem<T>& p_;
  bool plain_; // scores are products of queries and keys, and nobody asks for them
  Scratch scratch_;
  float *scores_, *plane_;
  TileMask mask_;
  Products products_;
  int64_t b_ = 0, n_ = 0;
};

#if defined(TSATTN_PAIRS)
template <class T>
using ForwardProducts =
    std::conditional_t<std::is_same_v<T, float>, FloatForward<float>, PairForward>;
#else
template <class T>
using ForwardProducts = FloatForward<T>;
#endif

} // namespace CPU_CAPABILITY
} // namespace tsattn
