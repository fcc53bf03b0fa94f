// What the normalisations share: rows of features in chunks, and dropout of a chunk.
#pragma once

#include "../cpu/philox.h"

namespace tsattn {
inline namespace CPU_CAPABILITY {

// A chunk is as many rows as a group has decisions, so that it begins with a whole group.
constexpr int64_t kChunk = kGroup; // rows

struct Chunks {
  int64_t rows, features;
  int64_t count() const { return (rows + kChunk - 1) / kChunk; }
  int64_t first(int64_t chunk) const { return chunk * kChunk; }
  int64_t size(int64_t chunk) const { return std::min(kChunk, rows - chunk * kChunk); }
};

// Calls body(first feature, lanes) for every vector of features.
template <class Body>
TSATTN_INLINE void over_features(int64_t features, Body&& body) {
  for (int64_t f = 0; f < features; f += kLanes) {
    body(f, Tail(std::min(kLanes, features - f)));
  }
}

// y[i] = other[i] + drop(x[i]) for the `n` numbers from number `start` (a multiple of 256) on;
// without `other`, drop(x[i]).
template <bool kAdd, class X, class Y>
inline void drop(const Dropout& dropout, int64_t start, int64_t n, const float* other, const X* x, Y* y) {
  const Vec scale(dropout.on ? dropout.scale : 1.0f);
  alignas(64) float xs[kGroup] = {}, ys[kGroup];
  for (int64_t at = 0; at < n; at += kGroup) {
    const int64_t here = std::min(kGroup, n - at);
    uint16_t bits[kGroupParts];
    if (dropout.on) {
      draw_group(dropout, (start + at) / kGroup, bits);
    } else {
      std::fill_n(bits, kGroupParts, 0xffff);
    }
    widen(x + at, xs, here);
    for (int64_t i = 0; i < here; i += kLanes) {
      const uint32_t kept = bits[i / kGroupLanes] >> (i % kGroupLanes);
      keep(Vec::loadu(xs + i) * scale, kept).store(ys + i);
    }
    if constexpr (kAdd) {
      for (int64_t i = 0; i < here; ++i) {
        ys[i] += other[at + i];
      }
    }
    narrow(ys, y + at, here);
  }
}

} // namespace CPU_CAPABILITY
} // namespace tsattn
