// Active attention on CPUs, forward: softmax(scale Q K' + prev + bias) activation(V).

#include "tile.h"

#include <ATen/Parallel.h>

namespace tsattn {
namespace {

template <class T>
class ForwardHead {
 public:
  explicit ForwardHead(const ForwardProblem<T>& p)
      : p_(p),
        plain_(!p.causal && !p.prev.data && !p.bias.data && !p.scores.data),
        scratch_(
            Scratch::size(p.keys * p.width) + 2 * Scratch::size(p.keys * p.value_width + kLanes) +
            Scratch::size(kTile * std::max(p.width, p.value_width)) +
            Scratch::size(kTile * p.width) + Scratch::size(kTile * p.value_width) +
            Scratch::size(kLanes * p.value_width) + 2 * Scratch::size(kTile * p.keys) +
            TileMask::floats(p.keys)),
        keys_(scratch_.take(p.keys * p.width)),
        values_(scratch_.take(p.keys * p.value_width + kLanes)),
        rows_(scratch_.take(kTile * std::max(p.width, p.value_width))),
        query_(scratch_.take(kTile * p.width)),
        output_(scratch_.take(kTile * p.value_width)),
        row_(scratch_.take(kLanes * p.value_width)),
        scores_(scratch_.take(kTile * p.keys)),
        plane_(scratch_.take(kTile * p.keys)),
        mask_(scratch_.take(TileMask::floats(p.keys)), p.keys) {}

  void start(int64_t head) {
    b_ = head / p_.heads;
    n_ = head % p_.heads;
    k_ = keys_of(p_, b_, n_, keys_);
    v_ = values_of(p_, b_, n_, values_);
  }

  template <int R>
  void tile(int64_t q0, int64_t count) {
    constexpr int64_t ld = R * kLanes;
    const Tail tail(count - (R - 1) * kLanes);
    // Behind a causal mask whole blocks of keys are skipped, unless their scores are asked for.
    const bool skip = p_.causal && p_.scores.data == nullptr;
    const int64_t keys = skip ? std::min(p_.keys, q0 + count) : p_.keys;
    queries_of(p_, b_, n_, q0, count, rows_, query_, ld);
    Vec largest[R], inverse[R];
    for (int r = 0; r < R; ++r) {
      largest[r] = Vec(-std::numeric_limits<float>::infinity());
    }
    if (plain_) {
      product<R>(
          k_.data, k_.ld, 1, keys, query_, ld, p_.width, [&](int64_t key, const Vec(&s)[R]) {
#pragma GCC unroll 3
            for (int r = 0; r < R; ++r) {
              s[r].store(scores_ + key * ld + r * kLanes);
              largest[r] = at::vec::clamp_min(s[r], largest[r]);
            }
          });
    } else {
      product<R>(k_.data, k_.ld, 1, keys, query_, ld, p_.width, Into<R>{scores_, ld});
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
    product<R>(
        v_.data, 1, v_.ld, p_.value_width, scores_, ld, keys,
        [&](int64_t row, const Vec(&c)[R]) {
#pragma GCC unroll 3
          for (int r = 0; r < R; ++r) {
            (c[r] * inverse[r]).store(output_ + row * ld + r * kLanes);
          }
        });
    unpack(
        output_, ld, count, p_.value_width, 1.0f, p_.out.at(b_, n_) + q0 * p_.out.row, p_.out.row,
        row_);
  }

 private:
  // Adds previous scores, hands the scores out, masks them, and finds the largest per query.
  template <int R>
  void finish_scores(int64_t q0, int64_t count, int64_t keys, const Tail& tail, Vec (&largest)[R]) {
    constexpr int64_t ld = R * kLanes;
    const TilePlane prev(p_.prev, b_, n_, q0, count, 0, keys, plane_, ld);
    const TilePlane bias = bias_tile(q0);
    float* out = p_.scores.at(b_, n_);
    for (int64_t key = 0; key < keys; ++key) {
      float* row = scores_ + key * ld;
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) {
        Vec s = Vec::loadu(row + r * kLanes);
        if (prev.data != nullptr) {
          s = s + prev.load<R>(key, r, tail);
        }
        if (out != nullptr) {
          float* at = out + key * p_.scores.key + q0 + r * kLanes;
          r < R - 1 ? s.store(at) : tail.store(at, s);
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
      tile.data = p_.bias.at(b_, n_) + q0 * p_.bias.query;
      tile.ld = p_.bias.key;
    }
    return tile;
  }

  // scores_ becomes exp(score - largest), with dropped weights zero; inverse is 1 / their sum.
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
    const auto weigh = [&](int64_t key, Vec(&total)[R]) __attribute__((always_inline)) {
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) {
        float* p = scores_ + key * ld + r * kLanes;
        const Vec e = exp(Vec::loadu(p) - largest[r]);
        total[r] = total[r] + e;
        (kDrop ? keep(e, mask_.bits(key, r)) : e).store(p);
      }
    };
    int64_t key = 0;
    for (; key + 2 <= keys; key += 2) {
      weigh(key, sum[0]);
      weigh(key + 1, sum[1]);
    }
    if (key < keys) {
      weigh(key, sum[0]);
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
  float *keys_, *values_, *rows_, *query_, *output_, *row_, *scores_, *plane_;
  TileMask mask_;
  int64_t b_ = 0, n_ = 0;
  Rows k_{}, v_{};
};

template <class T>
void forward(const ForwardProblem<T>& p) {
  const Tiles tiles(p.queries);
  const int64_t heads = p.batch * p.heads;
  // Few heads: their tiles are shared out as well. Every tile is computed alike in either case.
  const bool split = heads < 4 * at::get_num_threads() && tiles.count > 1;
  const int64_t parts = split ? tiles.count : 1;
  const int64_t work = p.queries * p.keys * (p.width + p.value_width + 16) / parts;
  at::parallel_for(
      0, heads * parts, std::max<int64_t>(1, 65536 / std::max<int64_t>(1, work)),
      [&](int64_t begin, int64_t end) {
        ForwardHead<T> head(p);
        int64_t current = -1;
        for (int64_t item = begin; item < end; ++item) {
          if (item / parts != current) {
            current = item / parts;
            head.start(current);
          }
          for (int64_t t = split ? item % parts : 0; t < (split ? item % parts + 1 : tiles.count);
               ++t) {
            with_vectors(tiles.size(t), [&]<int R>() {
              head.template tile<R>(t * tiles.step, tiles.size(t));
            });
          }
        }
      });
}

} // namespace

void attention_forward(const ForwardProblem<float>& problem) {
  forward(problem);
}

void attention_forward(const ForwardProblem<c10::BFloat16>& problem) {
  forward(problem);
}

} // namespace tsattn
