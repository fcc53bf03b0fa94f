// Active attention on CPUs, backward: weights are computed again, block by block, never stored.
//
// With P the weights, M the dropout mask with its factor, A = activation(V), dO the gradient:
//   dA = (M P)' dO     dP = M (dO A')     D = rowsum(dO O)     dS = P (dP - D) + gradient of S
//   dQ = scale dS K    dK = scale dS' Q   dV = dA activation'(V)
//
// Rows of P (dP - D) sum to zero, and what rounding leaves of a sum, r, is the error of D: over many
// keys dQ = scale (dS K - r P K). Wide heads and products of bfloat16 take the mean key for P K, and
// with dropout M P K does; all are the same in exact numbers, where r is zero.

#include "float_products.h"
#include "pair_products.h"

#include <ATen/Parallel.h>

namespace tsattn {
namespace {

template <class T, class Products>
class BackwardHead {
 public:
  explicit BackwardHead(const BackwardProblem<T>& p)
      : p_(p),
        exact_(p.keys <= kTile && (sizeof(T) < sizeof(float) || p.causal || p.bias.data)),
        key_blocks_(p.keys, exact_ ? kVecs : Products::key_vectors(p)),
        scratch_(
            4 * Scratch::size(kTile * kTile) + TileMask::floats(p.keys) + Products::floats(p)),
        weights_(scratch_.take(kTile * kTile)),
        grads_(scratch_.take(kTile * kTile)),
        prev_(scratch_.take(kTile * kTile)),
        grad_scores_(scratch_.take(kTile * kTile)),
        mask_(scratch_.take(TileMask::floats(p.keys)), p.keys),
        products_(p, scratch_, weights_, grads_) {}

  void start(int64_t head) {
    b_ = head / p_.heads;
    n_ = head % p_.heads;
    products_.start(b_, n_);
  }

  template <int R>
  TSATTN_FLATTEN void tile(int64_t q0, int64_t count) {
    const Tail tail(count - (R - 1) * kLanes);
    products_.template start_tile<R>(q0, count);
    Vec delta[R], largest[R], inverse[R];
    load_rows<R>(q0, count, tail, delta, largest, inverse);
    Vec rest[R];
    std::fill_n(rest, R, Vec(0.0f));
    if (p_.dropout.on) {
      mask_.draw(p_.dropout, b_ * p_.heads + n_, p_.queries, q0, count);
    }
    const bool skip = p_.causal && p_.grad_scores.data == nullptr &&
        p_.grad_prev.data == nullptr && p_.grad_bias.data == nullptr;
    for (int64_t i = 0; i < key_blocks_.count; ++i) {
      const int64_t k0 = i * key_blocks_.step, keys = key_blocks_.size(i);
      if (skip && k0 >= q0 + count) {
        break;
      }
      const Planes planes{
          {p_.prev, b_, n_, q0, count, k0, keys, prev_, R * kLanes},
          {p_.grad_scores, b_, n_, q0, count, k0, keys, grad_scores_, R * kLanes},
          {p_.grad_prev, b_, n_, q0, k0},
          {p_.grad_bias, b_, n_, q0, k0}};
      weigh_again<R>(planes, q0, k0, keys, tail, largest, inverse);
      if (p_.dropout.on) {
        differentiate<R, true>(planes, k0, keys, tail, delta, rest);
      } else {
        differentiate<R, false>(planes, k0, keys, tail, delta, rest);
      }
      products_.template accumulate<R>(count, k0, keys);
    }
    if (p_.keys > kTile) {
      products_.template subtract_rest<R>(count, rest);
    }
    products_.template finish_tile<R>(q0, count);
  }

  void finish() { products_.finish(); }

 private:
  // D = rowsum(dO O) of the queries of the tile, and their softmax statistics.
  template <int R>
  void load_rows(
      int64_t q0, int64_t count, const Tail& tail, Vec (&delta)[R], Vec (&largest)[R],
      Vec (&inverse)[R]) {
    if (!exact_) {
      products_.template row_sums<R>(q0, count, delta);
    }
    const float* stats = p_.stats + (b_ * p_.heads + n_) * p_.queries + q0;
    const float* inverses = stats + p_.batch * p_.heads * p_.queries;
    const Vec huge(std::numeric_limits<float>::max());
    const Vec no_query = huge - tail.only(huge); // weights behind the last query are zero
    for (int r = 0; r < R; ++r) {
      const int64_t at = r * kLanes;
      largest[r] = r < R - 1 ? Vec::loadu(stats + at) : tail.load(stats + at) + no_query;
      inverse[r] = r < R - 1 ? Vec::loadu(inverses + at) : tail.load(inverses + at);
    }
  }

  // The planes of one block: scores, where gradients come from, where they go.
  struct Planes {
    TilePlane scores, grad_scores;
    TileOut grad_prev, grad_bias;
    bool take_gradients() const { return grad_scores || grad_prev || grad_bias; }
  };

  // weights_ becomes P.
  template <int R>
  TSATTN_INLINE void weigh_again(
      const Planes& planes, int64_t q0, int64_t k0, int64_t keys, const Tail& tail,
      const Vec (&largest)[R], const Vec (&inverse)[R]) {
    const float* bias = p_.bias.floats(b_, n_);
    float* const weights = weights_; // what lies behind `this` is read again after every store
    const bool diagonal = p_.causal && k0 + keys > q0;
    const auto biased = [&](int64_t key, int r, const Vec& s) {
      if (bias == nullptr) {
        return s;
      }
      const float* at = bias + (k0 + key) * p_.bias.key + (q0 + r * kLanes) * p_.bias.query;
      return s + (p_.bias.query == 0 ? Vec(*at) : r < R - 1 ? Vec::loadu(at) : tail.load(at));
    };
    const auto weigh = [&](int64_t key, int r, const Vec& score) {
      const Vec s = diagonal ? only_past(score, q0 + r * kLanes, k0 + key) : score;
      (exp(s - largest[r]) * inverse[r]).store(weights + (key * R + r) * kLanes);
    };
    const auto fetch = [&](int64_t key) { // what `differentiate` wants next
      planes.grad_scores.template fetch<R>(key);
      planes.grad_prev.template fetch<R>(key);
    };
    if (p_.has_scores) {
      for (int64_t key = 0; key < keys; ++key) {
        fetch(key);
#pragma GCC unroll 3
        for (int r = 0; r < R; ++r) {
          weigh(key, r, biased(key, r, planes.scores.template load<R>(key, r, tail)));
        }
      }
    } else if (planes.scores || bias != nullptr) {
      products_.template scores<R>(k0, keys, [&](int64_t key, const Vec(&s)[R]) {
        fetch(key);
#pragma GCC unroll 3
        for (int r = 0; r < R; ++r) {
          const Vec sum =
              planes.scores ? s[r] + planes.scores.template load<R>(key, r, tail) : s[r];
          weigh(key, r, biased(key, r, sum));
        }
      });
    } else {
      products_.template scores<R>(k0, keys, [&](int64_t key, const Vec(&s)[R]) {
#pragma GCC unroll 3
        for (int r = 0; r < R; ++r) {
          weigh(key, r, s[r]);
        }
      });
    }
  }

  // Hands M P and dS to the products, and adds P (dP - D) to `rest`; weights_ holds P.
  template <int R, bool kDrop>
  TSATTN_INLINE void differentiate(
      const Planes& planes, int64_t k0, int64_t keys, const Tail& tail, const Vec (&delta)[R],
      Vec (&rest)[R]) {
    const float* const all = weights_;
    const auto put = products_.template puts<R>();
    const auto each_key = [&]<bool kPlanes>(const Vec(&d)[R], std::bool_constant<kPlanes>) {
      return [&](int64_t key, const Vec(&dp)[R]) {
        if constexpr (kPlanes) { // the next block's
          planes.scores.template fetch<R>(key + keys);
        }
        Vec weights[R], grads[R];
#pragma GCC unroll 3
        for (int r = 0; r < R; ++r) {
          const Vec p = Vec::loadu(all + (key * R + r) * kLanes);
          grads[r] = p * (dropped<kDrop>(dp[r], k0 + key, r) - d[r]);
          rest[r] = rest[r] + grads[r];
          if constexpr (kPlanes) {
            grads[r] = through<R>(planes, key, r, tail, grads[r]);
          }
          weights[r] = dropped<kDrop>(p, k0 + key, r);
        }
        put.template weights<kDrop>(key, weights);
        put.grads(key, grads);
      };
    };
    if (exact_) {
      Vec sums[R];
      weigh_gradients<R, kDrop>(k0, keys, sums);
      const auto finish = each_key(sums, std::true_type());
      for (int64_t key = 0; key < keys; ++key) {
        Vec dp[R];
#pragma GCC unroll 3
        for (int r = 0; r < R; ++r) {
          dp[r] = Vec::loadu(grads_ + key * R * kLanes + r * kLanes);
        }
        finish(key, dp);
      }
    } else if (planes.take_gradients()) {
      products_.template grad_weights<R>(k0, keys, each_key(delta, std::true_type()));
    } else {
      products_.template grad_weights<R>(k0, keys, each_key(delta, std::false_type()));
    }
  }

  // grads_ becomes dP, and sums D from P and dP: free of the rounding of the output.
  template <int R, bool kDrop>
  void weigh_gradients(int64_t k0, int64_t keys, Vec (&sums)[R]) {
    std::fill_n(sums, R, Vec(0.0f));
    products_.template grad_weights<R>(k0, keys, [&](int64_t key, const Vec(&dp)[R]) {
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) {
        const int64_t at = (key * R + r) * kLanes;
        const Vec x = dropped<kDrop>(dp[r], k0 + key, r);
        sums[r] = at::vec::fmadd(Vec::loadu(weights_ + at), x, sums[r]);
        dp[r].store(grads_ + at);
      }
    });
  }

  // dS of P (dP - D)
  template <int R>
  TSATTN_INLINE Vec
  through(const Planes& planes, int64_t key, int r, const Tail& tail, const Vec& ds) const {
    if (planes.grad_bias) {
      planes.grad_bias.template store<R>(key, r, tail, ds);
    }
    const Vec all =
        planes.grad_scores ? ds + planes.grad_scores.template load<R>(key, r, tail) : ds;
    if (planes.grad_prev) {
      planes.grad_prev.template store<R>(key, r, tail, all);
    }
    return all;
  }

  // M x
  template <bool kDrop>
  TSATTN_INLINE Vec dropped(const Vec& x, int64_t key, int r) const {
    return kDrop ? keep(x * Vec(p_.dropout.scale), mask_.bits(key, r)) : x;
  }

  const BackwardProblem<T>& p_;
  // One block holds all keys, and rounding would show: in an output of bfloat16, or where a query sees
  // so few keys that its gradients cancel.
  bool exact_;
  Tiles key_blocks_;
  Scratch scratch_;
  float *weights_, *grads_, *prev_, *grad_scores_;
  TileMask mask_;
  Products products_;
  int64_t b_ = 0, n_ = 0;
};

// One head is one piece of work: sums over queries always run in the same order.
template <class Products, class T>
void backward(const BackwardProblem<T>& p) {
  const Tiles tiles(p.queries);
  const int64_t work = p.queries * p.keys * (3 * p.width + 2 * p.value_width + 32);
  at::parallel_for(
      0, p.batch * p.heads, std::max<int64_t>(1, 65536 / std::max<int64_t>(1, work)),
      [&](int64_t begin, int64_t end) {
        BackwardHead<T, Products> head(p);
        for (int64_t item = begin; item < end; ++item) {
          head.start(item);
          for (int64_t t = 0; t < tiles.count; ++t) {
            with_vectors(tiles.size(t), [&]<int R>() {
              head.template tile<R>(t * tiles.step, tiles.size(t));
            });
          }
          head.finish();
        }
      });
}

} // namespace

void attention_backward(const BackwardProblem<float>& problem) {
  backward<FloatBackward<float>>(problem);
}

void attention_backward(const BackwardProblem<c10::BFloat16>& problem) {
#if defined(TSATTN_PAIRS)
  backward<PairBackward>(problem);
#else
  backward<FloatBackward<c10::BFloat16>>(problem);
#endif
}

} // namespace tsattn
