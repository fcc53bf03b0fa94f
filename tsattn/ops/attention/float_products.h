// The products of attention in float32, whatever the type of the tensors: what any machine can do.
#pragma once

#include "float_operands.h"

namespace tsattn {
inline namespace CPU_CAPABILITY {

template <class T>
class FloatForward : public FloatOperands<T> {
 public:
  static int64_t floats(const ForwardProblem<T>& p) {
    return FloatOperands<T>::floats(p) + Scratch::size(kTile * p.value_width);
  }

  // Weights take the place of the scores.
  FloatForward(const ForwardProblem<T>& p, Scratch& scratch, float* scores)
      : FloatOperands<T>(p, scratch),
        p_(p),
        weights_(scores),
        output_(scratch.take(kTile * p.value_width)) {}

  // Weights of two keys; those of a key behind the last are zero.
  template <int R>
  TSATTN_INLINE void put(int64_t key, const Vec (&weights)[2][R]) {
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r) {
      weights[0][r].store(weights_ + (key * R + r) * kLanes);
      weights[1][r].store(weights_ + ((key + 1) * R + r) * kLanes);
    }
  }

  // The rows of the tile: factor (weights' values)
  template <int R>
  void output(int64_t q0, int64_t count, int64_t keys, const Vec (&factor)[R]) {
    constexpr int64_t ld = R * kLanes;
    for (int64_t k0 = 0; k0 < keys; k0 += kBlock) {
      const bool is_first = k0 == 0, is_last = k0 + kBlock >= keys;
      product<R>(
          this->v_.data + k0 * this->v_.ld, 1, this->v_.ld, p_.value_width, weights_ + k0 * ld, ld,
          std::min(kBlock, keys - k0), [&](int64_t row, const Vec(&c)[R]) {
#pragma GCC unroll 3
            for (int r = 0; r < R; ++r) {
              float* to = output_ + row * ld + r * kLanes;
              const Vec sum = is_first ? c[r] : Vec::loadu(to) + c[r];
              (is_last ? sum * factor[r] : sum).store(to);
            }
          });
    }
    const HeadsView<T>& to = p_.out;
    unpack(
        output_, ld, count, p_.value_width, 1.0f, to.at(this->b_, this->n_) + q0 * to.row, to.row,
        this->row_);
  }

 private:
  // Sums over more keys go block by block, as those of a matrix product do: less rounding.
  static constexpr int64_t kBlock = 96;

  const ForwardProblem<T>& p_;
  float *weights_, *output_;
};

template <class T>
class FloatBackward : public FloatOperands<T> {
 public:
  static int64_t floats(const BackwardProblem<T>& p) {
    const int64_t padded = round_up(p.keys, kLanes);
    return FloatOperands<T>::floats(p) + Scratch::size(p.keys * p.value_width + kLanes) +
        Scratch::size(kTile * p.width) + 2 * Scratch::size(kTile * p.value_width) +
        Scratch::size(padded * p.width) + 2 * Scratch::size(padded * p.value_width) +
        2 * Scratch::size(kTile * kTile) + Scratch::size(kTile * p.width) + Scratch::size(p.width);
  }

  FloatBackward(const BackwardProblem<T>& p, Scratch& scratch, float* weights, float* grads)
      : FloatOperands<T>(p, scratch),
        p_(p),
        padded_(round_up(p.keys, kLanes)),
        weights_(weights),
        grads_(grads),
        slopes_(scratch.take(p.keys * p.value_width + kLanes)),
        slopes_t_(scratch.take(padded_ * p.value_width)),
        grad_query_(scratch.take(kTile * p.width)),
        grad_out_(scratch.take(kTile * p.value_width)),
        out_(scratch.take(kTile * p.value_width)),
        grad_k_(scratch.take(padded_ * p.width)),
        grad_v_(scratch.take(padded_ * p.value_width)),
        weights_t_(scratch.take(kTile * kTile)),
        grads_t_(scratch.take(kTile * kTile)),
        weighted_keys_(scratch.take(kTile * p.width)),
        mean_key_(scratch.take(p.width)) {}

  // How many vectors of keys are taken at a time. Lane products take one, and so little of the planes
  // and of what is made of them then stays in the first cache.
  static int64_t key_vectors(const BackwardProblem<T>& p) { return is_narrow(p) ? 1 : kVecs; }

  void start(int64_t b, int64_t n) {
    FloatOperands<T>::start(b, n, slopes_);
    start_grad_keys();
    std::fill_n(grad_v_, padded_ * p_.value_width, 0.0f);
    if (p_.keys > kTile && !weighs_keys()) {
      mean_of_rows(this->k_, p_.keys, p_.width, mean_key_);
    }
  }

  template <int R>
  void start_tile(int64_t q0, int64_t count) {
    constexpr int64_t ld = R * kLanes;
    this->start_queries(q0, count, ld);
    load(p_.grad_out, q0, count, grad_out_, ld);
    start_grad_queries(q0, count, ld);
    for (int64_t w = 0; w < p_.width && p_.keys > kTile; ++w) {
      std::fill_n(weighted_keys_ + w * ld, ld, weighs_keys() ? 0.0f : mean_key_[w]);
    }
  }

  // D = rowsum(dO O)
  template <int R>
  void row_sums(int64_t q0, int64_t count, Vec (&sums)[R]) {
    constexpr int64_t ld = R * kLanes;
    load(p_.out, q0, count, out_, ld);
    for (int r = 0; r < R; ++r) {
      sums[r] = Vec(0.0f);
      for (int64_t at = r * kLanes; at < p_.value_width * ld; at += ld) {
        sums[r] = at::vec::fmadd(Vec::loadu(grad_out_ + at), Vec::loadu(out_ + at), sums[r]);
      }
    }
  }

  // done(key, gradients of the weights of the lanes) for keys [k0, k0 + keys)
  template <int R, class Done>
  TSATTN_INLINE void grad_weights(int64_t k0, int64_t keys, Done&& done) const {
    product<R>(
        this->v_.data + k0 * this->v_.ld, this->v_.ld, 1, keys, grad_out_, R * kLanes,
        p_.value_width, done);
  }

  // Where M P and dS of a key go; without dropout M P lies there as P.
  template <int R>
  struct Puts {
    Into<R> m, ds;
    template <bool kDrop>
    TSATTN_INLINE void weights(int64_t key, const Vec (&x)[R]) const {
      if constexpr (kDrop) {
        m(key, x);
      }
    }
    TSATTN_INLINE void grads(int64_t key, const Vec (&x)[R]) const { ds(key, x); }
  };

  template <int R>
  Puts<R> puts() const {
    return {{weights_, R * kLanes}, {grads_, R * kLanes}};
  }

  template <int R>
  void accumulate(int64_t count, int64_t k0, int64_t keys) {
    constexpr int64_t ld = R * kLanes;
    product<R>(
        this->k_.data + k0 * this->k_.ld, 1, this->k_.ld, p_.width, grads_, ld, keys,
        Into<R, true>{grad_query_, ld});
    if (p_.keys > kTile && weighs_keys()) {
      product<R>(
          this->k_.data + k0 * this->k_.ld, 1, this->k_.ld, p_.width, weights_, ld, keys,
          Into<R, true>{weighted_keys_, ld});
    }
#if defined(CPU_CAPABILITY_AVX512)
    if (is_narrow(p_)) {
      add_lane_products<R>(grad_out_, p_.value_width, weights_, keys, grad_v_ + k0, padded_);
      add_lane_products<R>(this->query_, p_.width, grads_, keys, grad_k_ + k0, padded_);
      return;
    }
#endif
    with_vectors(keys, [&]<int S>() {
      constexpr int64_t ldt = S * kLanes;
      // Whole steps of a transposition; what lies behind the last key lands behind the last key.
      const int64_t queries = round_up(count, 4);
      transpose(weights_, ld, ldt, queries, weights_t_, ldt);
      transpose(grads_, ld, ldt, queries, grads_t_, ldt);
      product<S>(
          grad_out_, ld, 1, p_.value_width, weights_t_, ldt, count,
          Into<S, true>{grad_v_ + k0, padded_});
      product<S>(
          this->query_, ld, 1, p_.width, grads_t_, ldt, count,
          Into<S, true>{grad_k_ + k0, padded_});
    });
  }

  template <int R>
  void subtract_rest(int64_t, const Vec (&rest)[R]) {
    for (int64_t w = 0; w < p_.width; ++w) {
      for (int r = 0; r < R; ++r) {
        const int64_t at = (w * R + r) * kLanes;
        const Vec exact = Vec::loadu(grad_query_ + at) - rest[r] * Vec::loadu(weighted_keys_ + at);
        exact.store(grad_query_ + at);
      }
    }
  }

  template <int R>
  void finish_tile(int64_t q0, int64_t count) {
    const float* from = grad_query_;
    for (size_t i = 0; i < p_.grads.size(); ++i) {
      const HeadsView<T>& to = p_.grads[i].q;
      const int64_t width = p_.factors[i].width;
      unpack(
          from, R * kLanes, count, width, p_.scale, to.at(this->b_, this->n_) + q0 * to.row, to.row,
          this->row_);
      from += width * R * kLanes;
    }
  }

  void finish() {
    const float* from = grad_k_;
    for (size_t i = 0; i < p_.grads.size(); ++i) {
      const HeadsView<T>& to = p_.grads[i].k;
      const int64_t width = p_.factors[i].width;
      unpack(from, padded_, p_.keys, width, 1.0f, to.at(this->b_, this->n_), to.row, this->row_);
      from += width * padded_;
    }
    const int64_t width = p_.value_width;
    if (p_.activation != Activation::kIdentity) {
      transpose(slopes_, width, p_.keys, width, slopes_t_, padded_);
      for (float *at = grad_v_, *by = slopes_t_; at < grad_v_ + width * padded_;
           at += kLanes, by += kLanes) {
        (Vec::loadu(at) * Vec::loadu(by)).store(at);
      }
    }
    unpack(
        grad_v_, padded_, p_.keys, width, 1.0f, p_.grad_v.at(this->b_, this->n_), p_.grad_v.row,
        this->row_);
  }

 private:
  // Sums across lanes for so few rows cost less than transposing weights and gradients.
  static constexpr int64_t kNarrow = 8;

  static bool is_narrow(const BackwardProblem<T>& p) {
#if defined(CPU_CAPABILITY_AVX512)
    return std::max(p.width, p.value_width) <= kNarrow;
#else
    return false;
#endif
  }

  // The product P K takes narrow heads a tenth of their time, and wide ones a fifth: where they have
  // the mean key instead.
  bool weighs_keys() const { return p_.width <= 32; }

  void load(
      const HeadsView<const T>& view, int64_t q0, int64_t count, float* into, int64_t ld) {
    const T* from = view.at(this->b_, this->n_) + q0 * view.row;
    const Rows rows = as_floats(from, view.row, count, p_.value_width, this->rows_);
    transpose(rows.data, rows.ld, count, p_.value_width, into, ld);
  }

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
      const T* from = more.at(this->b_, this->n_) + first * more.row;
      const Rows rows = as_floats(from, more.row, count, width, this->rows_);
      transpose(rows.data, rows.ld, count, width, to, ld);
      return;
    }
    for (int64_t w = 0; w < width; ++w) {
      std::fill_n(to + w * ld, round_up(count, kLanes), 0.0f);
    }
  }

  const BackwardProblem<T>& p_;
  int64_t padded_;
  float *weights_, *grads_, *slopes_, *slopes_t_, *grad_query_, *grad_out_, *out_, *grad_k_,
      *grad_v_, *weights_t_, *grads_t_, *weighted_keys_, *mean_key_;
};

} // namespace CPU_CAPABILITY
} // namespace tsattn
