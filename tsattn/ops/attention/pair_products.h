// The products of attention in bfloat16: weights and gradients of scores are rounded, sums are not.
//
// Scores have their queries across the lanes, as the softmax wants them; the results of the other
// products have the width there, so that they are rows at once.
#pragma once

#include "pair_operands.h"

#if defined(TSATTN_PAIRS)

namespace tsattn {
inline namespace CPU_CAPABILITY {

class PairForward : public PairOperands {
 public:
  static int64_t floats(const ForwardProblem<Half>& p) {
    return PairOperands::floats(p) + Scratch::size((p.keys + 1) / 2 * value_columns(p));
  }

  // Weights take the place of the scores: two rows become one of words.
  PairForward(const ForwardProblem<Half>& p, Scratch& scratch, float* scores)
      : PairOperands(p, scratch),
        p_(p),
        weights_(reinterpret_cast<Half*>(scores)),
        value_words_(take(scratch, (p.keys + 1) / 2 * 2 * value_columns_)) {}

  void start(int64_t b, int64_t n) {
    PairOperands::start(b, n);
    pair_rows(values_, p_.keys, value_columns_, value_words_);
  }

  template <int R>
  TSATTN_INLINE void put(int64_t key, const Vec (&weights)[2][R]) {
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r) {
      narrow_pairs(weights[0][r], weights[1][r], weights_ + (key * R + 2 * r) * kLanes);
    }
  }

  template <int R>
  void output(int64_t q0, int64_t count, int64_t keys, const Vec (&factor)[R]) {
    float factors[R * kLanes];
    for (int r = 0; r < R; ++r) {
      factor[r].store(factors + r * kLanes);
    }
    const HeadsView<Half>& to = p_.out;
    Half* out = to.at(b_, n_) + q0 * to.row;
    wide_product(
        weights_, OneWord(), 2 * R * kLanes, count, value_words_, value_columns_, words(keys),
        [&]<int L>(int64_t row, int64_t c, const auto& sum) {
          Words<L>::narrow(out + row * to.row + c, sum, factors[row], p_.value_width - c);
        });
  }

 private:
  const ForwardProblem<Half>& p_;
  Half *weights_, *value_words_;
};

class PairBackward : public PairOperands {
 public:
  static int64_t floats(const BackwardProblem<Half>& p) {
    const int64_t cols = columns(p), value_cols = value_columns(p), pairs = (p.keys + 1) / 2;
    return PairOperands::floats(p) + Scratch::size(pairs * cols) +
        Scratch::size(kTile * cols / 2) + 4 * Scratch::size(kTile * value_cols / 2) +
        Scratch::size(kTile * kTile / 2) + Scratch::size(kTile * cols) +
        Scratch::size(p.keys * cols) + 2 * Scratch::size(p.keys * value_cols + kLanes) +
        2 * Scratch::size(cols);
  }

  // Rounded weights and gradients take the places of the unrounded ones, in half of each.
  PairBackward(const BackwardProblem<Half>& p, Scratch& scratch, float* weights, float* grads)
      : PairOperands(p, scratch),
        p_(p),
        weights_(reinterpret_cast<Half*>(weights)),
        grads_(reinterpret_cast<Half*>(grads)),
        key_words_(take(scratch, (p.keys + 1) / 2 * 2 * columns_)),
        query_pairs_(take(scratch, kTile * columns_)),
        rows_(take(scratch, kTile * value_columns_)),
        grad_out_words_(take(scratch, kTile * value_columns_)),
        grad_out_pairs_(take(scratch, kTile * value_columns_)),
        out_words_(take(scratch, kTile * value_columns_)),
        grad_words_(take(scratch, kTile * kTile)),
        grad_q_(scratch.take(kTile * columns_)),
        grad_k_(scratch.take(p.keys * columns_)),
        grad_v_(scratch.take(p.keys * value_columns_ + kLanes)),
        slopes_(scratch.take(p.keys * value_columns_ + kLanes)),
        key_row_(scratch.take(columns_)),
        mean_key_(scratch.take(columns_)) {}

  static int64_t key_vectors(const BackwardProblem<Half>&) { return kVecs; }

  void start(int64_t b, int64_t n) {
    PairOperands::start(b, n, slopes_);
    pair_rows(keys_, p_.keys, columns_, key_words_);
    std::fill_n(grad_k_, p_.keys * columns_, 0.0f);
    std::fill_n(grad_v_, p_.keys * value_columns_, 0.0f);
    if (p_.keys > kTile) {
      average_keys();
    }
  }

  template <int R>
  void start_tile(int64_t q0, int64_t count) {
    start_queries(q0, count, R * kLanes);
    pair_rows(queries_, count, columns_, query_pairs_);
    const HalfRows rows = rows_of(p_.grad_out, q0, count, p_.value_width, rows_);
    transpose_pairs(rows, count, value_columns_, grad_out_words_, 2 * R * kLanes);
    pair_rows(rows, count, value_columns_, grad_out_pairs_);
    std::fill_n(grad_q_, count * columns_, 0.0f);
    tail_ = first_lanes(count - (R - 1) * kLanes);
  }

  // D = rowsum(dO O)
  template <int R>
  void row_sums(int64_t q0, int64_t count, Vec (&sums)[R]) {
    const HalfRows rows = rows_of(p_.out, q0, count, p_.value_width, rows_);
    transpose_pairs(rows, count, value_columns_, out_words_, 2 * R * kLanes);
    for (int r = 0; r < R; ++r) {
      sums[r] = Vec(0.0f);
      for (int64_t i = r; i < words(p_.value_width) * R; i += R) {
        sums[r] = Words<16>::dot(
            sums[r], Words<16>::load(grad_out_words_ + 2 * i * kLanes),
            Words<16>::load(out_words_ + 2 * i * kLanes));
      }
    }
  }

  // done(key, gradients of the weights of the lanes) for keys [k0, k0 + keys)
  template <int R, class Done>
  void grad_weights(int64_t k0, int64_t keys, Done&& done) const {
    pair_product<16, 8, R>(
        values_.data + k0 * values_.ld, values_.ld, OneWord(), keys, grad_out_words_,
        2 * R * kLanes, words(p_.value_width), done);
  }

  // Where M P and dS of a key go, rounded.
  template <int R>
  struct Puts {
    Half *m, *ds;
    __mmask16 tail;
    template <bool kDrop>
    TSATTN_INLINE void weights(int64_t key, const Vec (&x)[R]) const {
      narrow_lanes<R>(x, tail, m + key * R * kLanes);
    }
    TSATTN_INLINE void grads(int64_t key, const Vec (&x)[R]) const {
      narrow_lanes<R>(x, tail, ds + key * R * kLanes);
    }
  };

  template <int R>
  Puts<R> puts() const {
    return {weights_, grads_, tail_};
  }

  template <int R>
  void accumulate(int64_t count, int64_t k0, int64_t keys) {
    constexpr int64_t ld = R * kLanes;
    add_product(
        weights_, ld, OneWord(), keys, grad_out_pairs_, value_columns_, words(count),
        grad_v_ + k0 * value_columns_);
    add_product(
        grads_, ld, OneWord(), keys, query_pairs_, columns_, words(count), grad_k_ + k0 * columns_);
    pair_rows({grads_, ld}, keys, ld, grad_words_);
    add_product(
        grad_words_, OneWord(), 2 * ld, count, key_words_ + k0 * columns_, columns_, words(keys),
        grad_q_);
  }

  template <int R>
  void subtract_rest(int64_t count, const Vec (&rest)[R]) {
    float sums[R * kLanes];
    for (int r = 0; r < R; ++r) {
      rest[r].store(sums + r * kLanes);
    }
    for (int64_t row = 0; row < count; ++row) {
      for (int64_t c = 0; c < columns_; ++c) {
        grad_q_[row * columns_ + c] -= sums[row] * mean_key_[c];
      }
    }
  }

  template <int R>
  void finish_tile(int64_t q0, int64_t count) {
    give(&FactorGradients<Half>::q, &FactorGradients<Half>::more_q, q0, count, grad_q_);
  }

  void finish() {
    give(&FactorGradients<Half>::k, &FactorGradients<Half>::more_k, 0, p_.keys, grad_k_);
    if (p_.activation != Activation::kIdentity) {
      for (int64_t i = 0; i < p_.keys * value_columns_; i += kLanes) {
        (Vec::loadu(grad_v_ + i) * Vec::loadu(slopes_ + i)).store(grad_v_ + i);
      }
    }
    give_rows(
        grad_v_, value_columns_, p_.keys, p_.value_width, 1.0f, {}, p_.grad_v.at(b_, n_),
        p_.grad_v.row);
  }

 private:
  using Gradients = FactorGradients<Half>;

  void average_keys() {
    std::fill_n(mean_key_, columns_, 0.0f);
    for (int64_t key = 0; key < p_.keys; ++key) {
      widen(keys_.data + key * keys_.ld, key_row_, columns_);
      for (int64_t c = 0; c < columns_; ++c) {
        mean_key_[c] += key_row_[c] / static_cast<float>(p_.keys);
      }
    }
  }

  // Every factor its part of the width.
  void give(
      HeadsView<Half> Gradients::* where, HeadsView<const Half> Gradients::* more, int64_t first,
      int64_t count, const float* from) {
    for (size_t i = 0; i < p_.grads.size(); ++i) {
      const HeadsView<Half>& to = p_.grads[i].*where;
      const HeadsView<const Half>& rest = p_.grads[i].*more;
      const HalfRows rows{
          rest.data == nullptr ? nullptr : rest.at(b_, n_) + first * rest.row, rest.row};
      give_rows(
          from, columns_, count, p_.factors[i].width, p_.scale, rows,
          to.at(b_, n_) + first * to.row, to.row);
      from += 2 * words(p_.factors[i].width);
    }
  }

  const BackwardProblem<Half>& p_;
  __mmask16 tail_ = 0; // lanes of the last vector that hold queries
  Half *weights_, *grads_, *key_words_, *query_pairs_, *rows_, *grad_out_words_, *grad_out_pairs_,
      *out_words_, *grad_words_;
  float *grad_q_, *grad_k_, *grad_v_, *slopes_, *key_row_, *mean_key_;
};

} // namespace CPU_CAPABILITY
} // namespace tsattn

#endif
