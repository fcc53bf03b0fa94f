// What attention multiplies in bfloat16: keys, values and queries of a head.
#pragma once

#include "pairs.h"

#if defined(TSATTN_PAIRS)

namespace tsattn {
inline namespace CPU_CAPABILITY {

// Keys, values after the activation, and queries of a tile, as rows of bfloat16 with the factors
// side by side, each padded to whole words. The padding of keys and queries is zero: it is never
// written, and scratch memory begins as zeros.
class PairOperands {
 public:
  static int64_t inner(const Problem<Half>& p) { // words of a row
    int64_t total = 0;
    for (const Factor<Half>& factor : p.factors) {
      total += words(factor.width);
    }
    return total;
  }
  static int64_t columns(const Problem<Half>& p) { return round_up(2 * inner(p), 8); }
  static int64_t value_columns(const Problem<Half>& p) { return round_up(p.value_width, 8); }
  static int64_t floats(const Problem<Half>& p) {
    const int64_t cols = columns(p), value_cols = value_columns(p);
    return Scratch::size(words(p.keys * cols)) + Scratch::size(words(p.keys * value_cols)) +
        2 * Scratch::size(p.keys * value_cols + kLanes) + Scratch::size(words(kTile * cols)) +
        Scratch::size(kTile * cols / 2);
  }

  PairOperands(const Problem<Half>& p, Scratch& scratch)
      : columns_(columns(p)),
        value_columns_(value_columns(p)),
        p_(p),
        key_rows_(take(scratch, p.keys * columns_)),
        value_rows_(take(scratch, p.keys * value_columns_)),
        raw_(scratch.take(p.keys * value_columns_ + kLanes)),
        active_(scratch.take(p.keys * value_columns_ + kLanes)),
        query_rows_(take(scratch, kTile * columns_)),
        query_words_(take(scratch, kTile * columns_)) {}

  static Half* take(Scratch& scratch, int64_t halves) {
    return reinterpret_cast<Half*>(scratch.take(words(halves)));
  }

  // `slopes`, if wanted: derivatives of the activation, [keys, value columns] of floats.
  void start(int64_t b, int64_t n, float* slopes = nullptr) {
    b_ = b;
    n_ = n;
    keys_ = side_by_side(&Factor<Half>::k, 0, p_.keys, key_rows_);
    if (p_.activation == Activation::kIdentity) {
      values_ = rows_of(p_.v, 0, p_.keys, p_.value_width, value_rows_);
      return;
    }
    for (int64_t key = 0; key < p_.keys; ++key) {
      widen(p_.v.at(b_, n_) + key * p_.v.row, raw_ + key * value_columns_, p_.value_width);
    }
    const int64_t size = p_.keys * value_columns_;
    if (slopes == nullptr) {
      activate(p_.activation, raw_, active_, size);
    } else {
      activate_and_differentiate(p_.activation, raw_, active_, slopes, size);
    }
    give_rows(active_, 0, 1, size, 1.0f, {}, value_rows_, 0);
    values_ = {value_rows_, value_columns_};
  }

  void start_queries(int64_t q0, int64_t count, int64_t lanes) {
    queries_ = side_by_side(&Factor<Half>::q, q0, count, query_rows_);
    transpose_pairs(queries_, count, columns_, query_words_, 2 * lanes);
  }

  // done(key, scores of the lanes) for keys [k0, k0 + keys)
  template <int R, class Done>
  void scores(int64_t k0, int64_t keys, Done&& done) const {
    const Vec scale(p_.scale);
    pair_product<16, 8, R>(
        keys_.data + k0 * keys_.ld, keys_.ld, OneWord(), keys, query_words_, 2 * R * kLanes,
        inner(p_), [&](int64_t key, const Vec(&s)[R]) {
          Vec scaled[R];
#pragma GCC unroll 3
          for (int r = 0; r < R; ++r) {
            scaled[r] = s[r] * scale;
          }
          done(key, scaled);
        });
  }

  // Rows of this head: in place where they are aligned to words and need no padding.
  HalfRows rows_of(
      const HeadsView<const Half>& x, int64_t first, int64_t count, int64_t width,
      Half* buffer) const {
    const Half* from = x.at(b_, n_) + first * x.row;
    if (width % 8 == 0 && x.row % 2 == 0) {
      return {from, x.row};
    }
    copy(from, x.row, count, width, buffer, round_up(width, 8));
    return {buffer, round_up(width, 8)};
  }

  HalfRows side_by_side(
      HeadsView<const Half> Factor<Half>::* part, int64_t first, int64_t count,
      Half* buffer) const {
    if (p_.factors.size() == 1) {
      return rows_of(p_.factors[0].*part, first, count, p_.width, buffer);
    }
    Half* to = buffer;
    for (const Factor<Half>& factor : p_.factors) {
      const HeadsView<const Half>& x = factor.*part;
      copy(x.at(b_, n_) + first * x.row, x.row, count, factor.width, to, columns_);
      to += 2 * words(factor.width);
    }
    return {buffer, columns_};
  }

 protected:
  int64_t columns_, value_columns_; // multiples of 8
  int64_t b_ = 0, n_ = 0;
  HalfRows keys_{}, values_{}, queries_{};

 private:
  static void copy(
      const Half* from, int64_t ld, int64_t rows, int64_t width, Half* to, int64_t ld_to) {
    for (int64_t row = 0; row < rows; ++row) {
      copy_halves(from + row * ld, to + row * ld_to, width);
    }
  }

  const Problem<Half>& p_;
  Half *key_rows_, *value_rows_;
  float *raw_, *active_;
  Half *query_rows_, *query_words_;
};

} // namespace CPU_CAPABILITY
} // namespace tsattn

#endif
