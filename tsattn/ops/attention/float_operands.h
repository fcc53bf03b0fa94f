// What attention multiplies in float32: keys, values and queries of a head.
#pragma once

#include "tile.h"

namespace tsattn {
inline namespace CPU_CAPABILITY {

// Keys of one head [keys, width], the factors side by side: in place or through a copy.
template <class T>
inline Rows keys_of(const Problem<T>& p, int64_t b, int64_t n, float* buffer) {
  if (p.factors.size() == 1) {
    const HeadsView<const T>& k = p.factors[0].k;
    return as_floats(k.at(b, n), k.row, p.keys, p.width, buffer);
  }
  float* to = buffer;
  for (const Factor<T>& factor : p.factors) {
    const T* from = factor.k.at(b, n);
    for (int64_t key = 0; key < p.keys; ++key) {
      widen(from + key * factor.k.row, to + key * p.width, factor.width);
    }
    to += factor.width;
  }
  return {buffer, p.width};
}

// Values of one head [keys, value width] after the activation, and its derivatives if asked for.
template <class T>
inline Rows values_of(const Problem<T>& p, int64_t b, int64_t n, float* buffer, float* slopes) {
  if (p.activation == Activation::kIdentity) {
    return as_floats(p.v.at(b, n), p.v.row, p.keys, p.value_width, buffer);
  }
  pack(p.v.at(b, n), p.v.row, p.keys, p.value_width, buffer);
  const int64_t size = p.keys * p.value_width;
  if (slopes != nullptr) {
    activate_and_differentiate(p.activation, buffer, buffer, slopes, size);
  } else {
    activate(p.activation, buffer, buffer, size);
  }
  return {buffer, p.value_width};
}

// Scaled queries of a tile, [width][lane]; `rows` is scratch.
template <class T>
inline void queries_of(
    const Problem<T>& p, int64_t b, int64_t n, int64_t q0, int64_t count, float* rows, float* to,
    int64_t ld) {
  float* here = to;
  for (const Factor<T>& factor : p.factors) {
    const Rows q = as_floats(
        factor.q.at(b, n) + q0 * factor.q.row, factor.q.row, count, factor.width, rows);
    transpose(q.data, q.ld, count, factor.width, here, ld);
    here += factor.width * ld;
  }
  for (float* at = to; at < here; at += kLanes) {
    (Vec::loadu(at) * Vec(p.scale)).store(at);
  }
}

// Keys, values after the activation, and scaled queries of a tile.
template <class T>
class FloatOperands {
 public:
  static int64_t floats(const Problem<T>& p) {
    return Scratch::size(p.keys * p.width) + Scratch::size(p.keys * p.value_width + kLanes) +
        Scratch::size(kTile * std::max(p.width, p.value_width)) + Scratch::size(kTile * p.width) +
        Scratch::size(kLanes * std::max(p.width, p.value_width));
  }

  FloatOperands(const Problem<T>& p, Scratch& scratch)
      : keys_(scratch.take(p.keys * p.width)),
        values_(scratch.take(p.keys * p.value_width + kLanes)),
        rows_(scratch.take(kTile * std::max(p.width, p.value_width))),
        query_(scratch.take(kTile * p.width)),
        row_(scratch.take(kLanes * std::max(p.width, p.value_width))),
        problem_(p) {}

  void start(int64_t b, int64_t n, float* slopes = nullptr) {
    b_ = b;
    n_ = n;
    k_ = keys_of(problem_, b, n, keys_);
    v_ = values_of(problem_, b, n, values_, slopes);
  }

  void start_queries(int64_t q0, int64_t count, int64_t ld) {
    queries_of(problem_, b_, n_, q0, count, rows_, query_, ld);
  }

  // done(key, scores of the lanes) for keys [k0, k0 + keys)
  template <int R, class Done>
  TSATTN_INLINE void scores(int64_t k0, int64_t keys, Done&& done) const {
    product<R>(
        k_.data + k0 * k_.ld, k_.ld, 1, keys, query_, R * kLanes, problem_.width, done);
  }

 protected:
  float *keys_, *values_, *rows_, *query_, *row_;
  int64_t b_ = 0, n_ = 0;
  Rows k_{}, v_{};

 private:
  const Problem<T>& problem_;
};

} // namespace CPU_CAPABILITY
} // namespace tsattn
