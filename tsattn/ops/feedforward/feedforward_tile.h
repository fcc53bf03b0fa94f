// A tile of tokens, one per lane, all its hidden units in cache.
//
// The backward pass computes the hidden units again. With H = W_1 x + b_1, A = drop(gelu(H)):
//   dA = W_2' dy    dH = drop(dA) gelu'(H)    dx = W_1' dH    dW_1 = dH x'    dW_2 = dy A'
// A token whose output is multiplied by a weight w has w dH and w A instead, and the gradient of w is
// A . dA + b_2 . dy.
#pragma once

#include "feedforward_cpu.h"

#include "../attention/tile.h"

namespace tsattn {
inline namespace CPU_CAPABILITY {

// What outputs are multiplied by, one number a row, and the gradients of that.
struct TokenWeights {
  const float *given = nullptr, *b2 = nullptr;
  float* grad = nullptr;
};

class FeedForwardTile {
 public:
  explicit FeedForwardTile(const FeedForward& p)
      : p_(p),
        scratch_(
            3 * Scratch::size(p.width * kTile) + 3 * Scratch::size(p.hidden * kTile) +
            Scratch::size(p.hidden * kLanes) + Scratch::size(p.width * kLanes) +
            TileMask::floats(p.hidden)),
        tokens_(scratch_.take(p.width * kTile)),
        grad_(scratch_.take(p.width * kTile)),
        result_(scratch_.take(p.width * kTile)),
        before_(scratch_.take(p.hidden * kTile)),
        hidden_(scratch_.take(p.hidden * kTile)),
        grad_hidden_(scratch_.take(p.hidden * kTile)),
        bias1_(scratch_.take(p.hidden * kLanes)),
        bias2_(scratch_.take(p.width * kLanes)),
        mask_(scratch_.take(TileMask::floats(p.hidden)), p.hidden) {}

  template <int R>
  TSATTN_FLATTEN void forward(int64_t row, int64_t count, const float* b2, float* y) {
    constexpr int64_t ld = R * kLanes;
    start<R>(row, count);
    const Vec scale(p_.dropout.scale);
    product<R>(
        p_.w1, p_.width, 1, p_.hidden, tokens_, ld, p_.width, [&](int64_t f, const Vec(&c)[R]) {
#pragma GCC unroll 3
          for (int r = 0; r < R; ++r) {
            const Vec a = gelu(c[r] + Vec(p_.b1[f]));
            (p_.dropout.on ? keep(a * scale, mask_.bits(f, r)) : a)
                .store(hidden_ + f * ld + r * kLanes);
          }
        });
    product<R>(
        p_.w2, p_.hidden, 1, p_.width, hidden_, ld, p_.hidden, [&](int64_t d, const Vec(&c)[R]) {
#pragma GCC unroll 3
          for (int r = 0; r < R; ++r) {
            (c[r] + Vec(b2[d])).store(result_ + d * ld + r * kLanes);
          }
        });
    transpose_back(result_, ld, count, p_.width, 1.0f, y + row * p_.width, p_.width);
  }

  // Adds this tile's gradients of the weights; `w2` is transposed, [hidden, width].
  template <int R, bool kWeighted = false>
  TSATTN_FLATTEN void backward(
      int64_t row, int64_t count, const float* grad, const FeedForwardGradients& out,
      const TokenWeights& weights = {}) {
    constexpr int64_t ld = R * kLanes;
    start<R>(row, count);
    const float* dy = grad + row * p_.width;
    transpose(dy, p_.width, count, p_.width, grad_, ld);
    product<R>(
        p_.w1, p_.width, 1, p_.hidden, tokens_, ld, p_.width, Into<R>{before_, ld});
    hidden_gradients<R, kWeighted>(row, count, weights);
    product<R>(
        p_.w1, 1, p_.width, p_.width, grad_hidden_, ld, p_.hidden, Into<R>{result_, ld});
    transpose_back(result_, ld, count, p_.width, 1.0f, out.x + row * p_.width, p_.width);
    for (int64_t d = 0; d < p_.width; d += kTile) {
      with_vectors(std::min(kTile, p_.width - d), [&]<int S>() {
        product<S>(
            grad_hidden_, ld, 1, p_.hidden, p_.x + row * p_.width + d, p_.width, count,
            Into<S, true>{out.w1 + d, p_.width});
        product<S>(
            hidden_, ld, 1, p_.hidden, dy + d, p_.width, count,
            Into<S, true>{out.w2 + d, p_.width});
      });
    }
  }

  void start_slice() {
    std::fill_n(bias1_, p_.hidden * kLanes, 0.0f);
    std::fill_n(bias2_, p_.width * kLanes, 0.0f);
  }

  void finish_slice(const FeedForwardGradients& out) const {
    add_lanes(bias1_, p_.hidden, out.b1);
    add_lanes(bias2_, p_.width, out.b2);
  }

 private:
  template <int R>
  void start(int64_t row, int64_t count) {
    transpose(p_.x + row * p_.width, p_.width, count, p_.width, tokens_, R * kLanes);
    if (p_.dropout.on) {
      mask_.draw(p_.dropout, p_.part, p_.rows, row, count);
    }
  }

  // hidden_ becomes A, grad_hidden_ dH; lanes without a token become zero.
  template <int R, bool kWeighted>
  void hidden_gradients(int64_t row, int64_t count, const TokenWeights& weights) {
    constexpr int64_t ld = R * kLanes;
    const Vec scale(p_.dropout.scale);
    uint32_t live[R];
    Vec weight[R], dots[R];
    for (int r = 0; r < R; ++r) {
      live[r] = count >= (r + 1) * kLanes ? 0xffffu : (1u << (count - r * kLanes)) - 1;
      dots[r] = Vec(0.0f);
      if constexpr (kWeighted) {
        weight[r] = Tail(std::min(kLanes, count - r * kLanes)).load(weights.given + row + r * kLanes);
      }
    }
    product<R>(
        p_.w2, 1, p_.hidden, p_.hidden, grad_, ld, p_.width, [&](int64_t f, const Vec(&c)[R]) {
          Vec sum = Vec::loadu(bias1_ + f * kLanes);
#pragma GCC unroll 3
          for (int r = 0; r < R; ++r) {
            const uint32_t bits = p_.dropout.on ? mask_.bits(f, r) & live[r] : live[r];
            const int64_t at = f * ld + r * kLanes;
            const Vec h = Vec::loadu(before_ + at) + Vec(p_.b1[f]);
            const ValueAndSlope g = gelu_pair(h);
            const Vec da = keep(c[r] * scale, bits);
            Vec a = keep(g.value * scale, bits), dh = da * g.slope;
            if constexpr (kWeighted) {
              dots[r] = at::vec::fmadd(da, g.value, dots[r]);
              a = a * weight[r];
              dh = dh * weight[r];
            }
            a.store(hidden_ + at);
            dh.store(grad_hidden_ + at);
            sum = sum + dh;
          }
          sum.store(bias1_ + f * kLanes);
        });
    for (int64_t d = 0; d < p_.width; ++d) {
      Vec sum = Vec::loadu(bias2_ + d * kLanes);
      for (int r = 0; r < R; ++r) {
        Vec dy = keep(Vec::loadu(grad_ + d * ld + r * kLanes), live[r]);
        if constexpr (kWeighted) {
          dots[r] = at::vec::fmadd(dy, Vec(weights.b2[d]), dots[r]);
          dy = dy * weight[r];
        }
        sum = sum + dy;
      }
      sum.store(bias2_ + d * kLanes);
    }
    if constexpr (kWeighted) {
      for (int r = 0; r < R; ++r) {
        Tail(std::min(kLanes, count - r * kLanes)).store(weights.grad + row + r * kLanes, dots[r]);
      }
    }
  }

  static void add_lanes(const float* lanes, int64_t rows, float* sums) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        sums[i] += lanes[i * kLanes + lane];
      }
    }
  }

  const FeedForward& p_;
  Scratch scratch_;
  float *tokens_, *grad_, *result_, *before_, *hidden_, *grad_hidden_, *bias1_, *bias2_;
  TileMask mask_;
};

} // namespace CPU_CAPABILITY
} // namespace tsattn
