// A tile of attention: up to kVecs vectors of queries, one query per lane, against rows of keys.
// Scores of a tile lie as [key][query lane], so that softmax needs no sum across lanes and every
// product is the same loop: rows of scalars, broadcast, times vectors.
#pragma once

#include "fused_cpu.h"

#include <array>
#include <utility>
#include <vector>

namespace tsattn {
inline namespace CPU_CAPABILITY {

constexpr int64_t kVecs = 3; // vectors side by side
constexpr int64_t kRows = 4; // rows at once: kRows * kVecs accumulators
constexpr int64_t kTile = kVecs * kLanes;

// c[m][:] = sum_i a[m * a_row + i * a_col] * b[i][:] for M rows; `done(row, c[row])` takes them.
template <int M, int R, class Done>
TSATTN_INLINE void product_rows(
    const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t ldb, int64_t inner,
    int64_t first_row, Done&& done) {
  Vec c[M][R];
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r) {
      c[m][r] = Vec(0.0f);
    }
  }
  for (int64_t i = 0; i < inner; ++i) {
    Vec x[R];
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r) {
      x[r] = Vec::loadu(b + i * ldb + r * kLanes);
    }
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      const Vec scalar(a[m * a_row + i * a_col]);
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) {
        c[m][r] = at::vec::fmadd(scalar, x[r], c[m][r]);
      }
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) {
    done(first_row + m, c[m]);
  }
}

template <int R, class Done>
TSATTN_INLINE void product(
    const float* a, int64_t a_row, int64_t a_col, int64_t rows, const float* b, int64_t ldb,
    int64_t inner, Done&& done) {
  int64_t m = 0;
  for (; m + kRows <= rows; m += kRows) {
    product_rows<kRows, R>(a + m * a_row, a_row, a_col, b, ldb, inner, m, done);
  }
  if (m + 2 <= rows) {
    product_rows<2, R>(a + m * a_row, a_row, a_col, b, ldb, inner, m, done);
    m += 2;
  }
  if (m < rows) {
    product_rows<1, R>(a + m * a_row, a_row, a_col, b, ldb, inner, m, done);
  }
}

// Writes the rows of a product as they are, or adds them to what is there.
template <int R, bool kAdd = false>
struct Into {
  float* data;
  int64_t ld;
  TSATTN_INLINE void operator()(int64_t row, const Vec (&c)[R]) const {
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r) {
      float* p = data + row * ld + r * kLanes;
      (kAdd ? Vec::loadu(p) + c[r] : c[r]).store(p);
    }
  }
};

#if defined(CPU_CAPABILITY_AVX512)
// Lane i of N is the sum over i's share of the lanes of x y[i]; with N = 16 that is the whole sum.
// Folded as they come, so that few are alive.
template <int R, int N>
TSATTN_INLINE __m512 lane_sums(const Vec (&x)[R], const float* y) {
  if constexpr (N == 1) {
    __m512 sum = _mm512_mul_ps(x[0], _mm512_loadu_ps(y));
#pragma GCC unroll 2
    for (int r = 1; r < R; ++r) {
      sum = _mm512_fmadd_ps(x[r], _mm512_loadu_ps(y + r * kLanes), sum);
    }
    return sum;
  } else {
    const __m512 a = lane_sums<R, N / 2>(x, y);
    const __m512 b = lane_sums<R, N / 2>(x, y + N / 2 * R * kLanes);
    if constexpr (N == 2) {
      return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    } else if constexpr (N == 4) {
      const __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
      return _mm512_add_ps(
          _mm512_castpd_ps(_mm512_unpacklo_pd(c, d)), _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
    } else {
      return _mm512_add_ps(
          _mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    }
  }
}

// c[m][key] += sum over lanes of a[m] b[key], for few rows of a and whole vectors of keys. Lanes
// behind the last query are zero in b, and in a finite where the last query's are.
template <int R>
inline void add_lane_products(
    const float* a, int64_t rows, const float* b, int64_t keys, float* c, int64_t ldc) {
  constexpr int64_t ld = R * kLanes;
  for (int64_t m = 0; m < rows; ++m) {
    Vec x[R];
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r) {
      x[r] = Vec::loadu(a + m * ld + r * kLanes);
    }
    for (int64_t k = 0; k < keys; k += kLanes) {
      float* to = c + m * ldc + k;
      (Vec::loadu(to) + Vec(lane_sums<R, kLanes>(x, b + k * ld))).store(to);
    }
  }
}
#endif

// Calls body<R>() with the number of vectors that hold `count` lanes (1..kTile).
template <class Body>
TSATTN_INLINE void with_vectors(int64_t count, Body&& body) {
  if (count <= kLanes) {
    body.template operator()<1>();
  } else if (count <= 2 * kLanes) {
    body.template operator()<2>();
  } else {
    body.template operator()<3>();
  }
}

// Queries are dealt out evenly: 64 with 16 lanes are two tiles of 32, not 48 and 16.
struct Tiles {
  int64_t queries, step, count;
  explicit Tiles(int64_t n, int64_t most = kVecs) : queries(n) {
    const int64_t vectors = (n + kLanes - 1) / kLanes;
    const int64_t tiles = (vectors + most - 1) / most;
    step = (vectors + tiles - 1) / tiles * kLanes;
    count = (n + step - 1) / step;
  }
  int64_t size(int64_t tile) const { return std::min(step, queries - tile * step); }
};

// Scratch memory of one thread, dealt out in whole cache lines.
class Scratch {
 public:
  explicit Scratch(int64_t floats) : memory_(floats + 32), next_(memory_.data()) {
    next_ += (64 - reinterpret_cast<uintptr_t>(next_) % 64) % 64 / sizeof(float);
  }
  static constexpr int64_t size(int64_t floats) { return round_up(floats, 16) + 16; }
  float* take(int64_t floats) {
    float* here = next_;
    next_ += size(floats);
    return here;
  }

 private:
  std::vector<float> memory_;
  float* next_;
};

// Rows of floats: the tensor itself where it has them, else a widened copy in `buffer`.
struct Rows {
  const float* data;
  int64_t ld;
};

inline Rows as_floats(const float* src, int64_t ld, int64_t, int64_t, float*) {
  return {src, ld};
}

inline Rows as_floats(
    const c10::BFloat16* src, int64_t ld, int64_t rows, int64_t cols, float* buffer) {
  if (ld == cols) {
    widen(src, buffer, rows * cols);
  } else {
    for (int64_t r = 0; r < rows; ++r) {
      widen(src + r * ld, buffer + r * cols, cols);
    }
  }
  return {buffer, cols};
}

// mean[c] of the rows [rows, cols]
inline void mean_of_rows(const Rows& x, int64_t rows, int64_t cols, float* mean) {
  std::fill_n(mean, cols, 0.0f);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < cols; ++c) {
      mean[c] += x.data[row * x.ld + c];
    }
  }
  for (int64_t c = 0; c < cols; ++c) {
    mean[c] /= static_cast<float>(rows);
  }
}

// Contiguous floats [rows, cols] in any case.
template <class T>
inline void pack(const T* src, int64_t ld, int64_t rows, int64_t cols, float* buffer) {
  if (ld == cols) {
    widen(src, buffer, rows * cols);
    return;
  }
  for (int64_t r = 0; r < rows; ++r) {
    widen(src + r * ld, buffer + r * cols, cols);
  }
}

// Writes the lanes of src [cols][ld_src] as rows of dst: dst[r][c] = factor * src[c][r].
inline void unpack(
    const float* src, int64_t ld_src, int64_t rows, int64_t cols, float factor, float* dst,
    int64_t ld_dst, float*) {
  transpose_back(src, ld_src, rows, cols, factor, dst, ld_dst);
}

inline void unpack(
    const float* src, int64_t ld_src, int64_t rows, int64_t cols, float factor, c10::BFloat16* dst,
    int64_t ld_dst, float* buffer) {
  for (int64_t r = 0; r < rows; r += kLanes) {
    const int64_t here = std::min(rows - r, kLanes);
    transpose_back(src + r, ld_src, here, cols, factor, buffer, cols);
    for (int64_t i = 0; i < here; ++i) {
      narrow(buffer + i * cols, dst + (r + i) * ld_dst, cols);
    }
  }
}

// Planes stream through the cache once, so that rows are fetched well before they are wanted; which
// row does not matter: a fetch from nowhere is none.
template <int R>
TSATTN_INLINE void fetch_row(const float* data, const c10::BFloat16* halves, int64_t at) {
#pragma GCC unroll 3
  for (int r = 0; r < R; ++r) {
    const int64_t here = at + r * kLanes;
    __builtin_prefetch(halves != nullptr ? static_cast<const void*>(halves + here) : data + here);
  }
}

// A plane as the tile reads it: [key][query lane], in place or through a transposed copy.
struct TilePlane {
  const float* data = nullptr;
  const c10::BFloat16* halves = nullptr; // instead of data
  int64_t ld = 0;

  TilePlane() = default;
  TilePlane(
      const PlaneView& plane, int64_t b, int64_t n, int64_t q0, int64_t queries, int64_t k0,
      int64_t keys, float* buffer, int64_t ld_buffer) {
    const auto read = [&](const auto* first, const auto*& in_place) {
      const auto* from = first + q0 * plane.query + k0 * plane.key;
      ld = plane.key;
      if (plane.query == 1) {
        in_place = from;
        return;
      }
      transpose(from, plane.query, queries, keys, buffer, ld_buffer);
      data = buffer;
      ld = ld_buffer;
    };
    if (plane.data == nullptr) {
      return;
    }
    if (plane.half) {
      read(plane.halves(b, n), halves);
    } else {
      read(plane.floats(b, n), data);
    }
  }

  explicit operator bool() const { return data != nullptr || halves != nullptr; }

  template <int R>
  TSATTN_INLINE void fetch(int64_t key) const {
    fetch_row<R>(data, halves, key * ld);
  }

  template <int R>
  TSATTN_INLINE Vec load(int64_t key, int r, const Tail& tail) const {
    const int64_t at = key * ld + r * kLanes;
    if (halves != nullptr) {
      return (r < R - 1 ? Tail(kLanes) : tail).load(halves + at);
    }
    return r < R - 1 ? Vec::loadu(data + at) : tail.load(data + at);
  }
};

// A plane as the tile writes it, with query stride 1.
struct TileOut {
  float* data = nullptr;
  c10::BFloat16* halves = nullptr; // instead of data
  int64_t ld = 0;

  TileOut(const PlaneView& plane, int64_t b, int64_t n, int64_t q0, int64_t k0) : ld(plane.key) {
    const int64_t first = q0 + k0 * ld;
    if (plane.data != nullptr && plane.half) {
      halves = plane.halves(b, n) + first;
    } else if (plane.data != nullptr) {
      data = plane.floats(b, n) + first;
    }
  }

  explicit operator bool() const { return data != nullptr || halves != nullptr; }

  template <int R>
  TSATTN_INLINE void fetch(int64_t key) const {
    fetch_row<R>(data, halves, key * ld);
  }

  template <int R>
  TSATTN_INLINE void store(int64_t key, int r, const Tail& tail, const Vec& x) const {
    const int64_t at = key * ld + r * kLanes;
    if (halves != nullptr) {
      (r < R - 1 ? Tail(kLanes) : tail).store(halves + at, x);
    } else {
      r < R - 1 ? x.store(data + at) : tail.store(data + at, x);
    }
  }
};

// The kept weights of a tile of queries against all keys.
class TileMask {
 public:
  static int64_t floats(int64_t keys) {
    return Scratch::size((kTile / kGroupLanes + 2) * round_up(keys, kGroupParts) / 2);
  }
  TileMask(float* memory, int64_t keys)
      : bits_(reinterpret_cast<uint16_t*>(memory)), ld_(round_up(keys, kGroupParts)) {}

  // Groups are 16 queries by 8 keys, numbered [head][query / 16][key / 8].
  void draw(const Dropout& dropout, int64_t head, int64_t queries, int64_t q0, int64_t count) {
    const int64_t key_groups = ld_ / kGroupParts;
    const int64_t query_groups = (queries + kGroupLanes - 1) / kGroupLanes;
    first_ = q0 / kGroupLanes;
    offset_ = q0;
    const int64_t last = (q0 + count - 1) / kGroupLanes;
    for (int64_t g = first_; g <= last; ++g) {
      for (int64_t k = 0; k < key_groups; ++k) {
        uint16_t keep[kGroupParts];
        draw_group(dropout, (head * query_groups + g) * key_groups + k, keep);
        std::memcpy(bits_ + (g - first_) * ld_ + k * kGroupParts, keep, sizeof(keep));
      }
    }
  }

  TSATTN_INLINE uint32_t bits(int64_t key, int r) const {
    const int64_t query = offset_ + r * kLanes;
    const uint32_t sixteen = bits_[(query / kGroupLanes - first_) * ld_ + key];
    return kLanes == kGroupLanes ? sixteen : sixteen >> (query % kGroupLanes);
  }

 private:
  uint16_t* bits_;
  int64_t ld_, first_ = 0, offset_ = 0;
};

// Scores behind the diagonal become minus infinity: lane l of vector r is query q0 + r lanes + l.
TSATTN_INLINE Vec only_past(const Vec& score, int64_t first_query, int64_t key) {
  const int64_t hidden = key - first_query; // lanes
  if (hidden <= 0) {
    return score;
  }
  const Vec nothing(-std::numeric_limits<float>::infinity());
#if defined(CPU_CAPABILITY_AVX512)
  const uint32_t lanes = hidden < kLanes ? (1u << hidden) - 1 : 0xffffu;
  return _mm512_mask_mov_ps(score, static_cast<__mmask16>(lanes), nothing);
#else
  const Vec lane = Vec::arange(static_cast<float>(-hidden), 1.0f);
  return Vec::blendv(score, nothing, lane < Vec(0.0f));
#endif
}

} // namespace CPU_CAPABILITY
} // namespace tsattn
