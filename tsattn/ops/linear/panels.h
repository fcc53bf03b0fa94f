// Products of a slice of rows with a packed matrix, while the slice lies in cache.
//
// A number is a word of 32 bits: a float, or two neighbours of bfloat16 on the inner axis, which one
// instruction multiplies and adds in float32. Either way a strip of rows takes one word of each row at
// a time, broadcast, times two vectors of columns. Accumulators stay in registers: AVX-512 alone has
// enough of them.
#pragma once

#include "../attention/pairs.h"

#if defined(CPU_CAPABILITY_AVX512)

namespace tsattn {
inline namespace CPU_CAPABILITY {

constexpr int64_t kPanel = 2 * kLanes; // columns
constexpr int64_t kStrip = 14; // rows: 28 accumulators, two vectors of columns, one broadcast
constexpr int64_t kStripWords = 16; // between two steps of a packed strip

// A matrix [inner, columns] in panels of kPanel columns: [panel][inner][kPanel] words.
struct Panels {
  const float* words;
  int64_t inner, columns; // inner in words
  static int64_t size(int64_t inner, int64_t columns) { return inner * round_up(columns, kPanel); }
  const float* panel(int64_t column) const { return words + column * inner; }
};

// c + a b, of words; of pairs only where the processor multiplies them
template <class T>
TSATTN_INLINE Vec add_product(const Vec& a, const Vec& b, const Vec& c) {
#if defined(TSATTN_PAIRS)
  if constexpr (std::is_same_v<T, c10::BFloat16>) {
    const auto pairs = [](const Vec& x) { return (__m512bh)_mm512_castps_si512(x); };
    return _mm512_dpbf16_ps(c, pairs(a), pairs(b));
  }
#endif
  return _mm512_fmadd_ps(a, b, c);
}

// Whatever the type of the tensor behind it.
TSATTN_INLINE Vec broadcast(const float* word) {
  float bits;
  std::memcpy(&bits, word, sizeof(bits));
  return Vec(bits);
}

// c[m] += sum_i a[m row + i step] b[i]
template <class T, int M>
TSATTN_INLINE void add_strip(
    const float* a, int64_t row, int64_t step, const float* b, int64_t inner, Vec (&c)[M][2]) {
  for (int64_t i = 0; i < inner; ++i) {
    const Vec left = Vec::loadu(b + i * kPanel), right = Vec::loadu(b + i * kPanel + kLanes);
#pragma GCC unroll 14
    for (int m = 0; m < M; ++m) {
      const Vec word = broadcast(a + m * row + i * step);
      c[m][0] = add_product<T>(word, left, c[m][0]);
      c[m][1] = add_product<T>(word, right, c[m][1]);
    }
  }
}

// One or two vectors of a row, as many of their lanes as there are columns.
struct Columns {
  Tail left, right;
  explicit Columns(int64_t count)
      : left(std::min(count, kLanes)), right(std::max<int64_t>(count - kLanes, 0)) {}
  TSATTN_INLINE Vec load(const float* p, int half) const {
    return half == 0 ? left.load(p) : right.load(p + kLanes);
  }
  TSATTN_INLINE void store(float* p, const Vec (&c)[2]) const {
    left.store(p, c[0]);
    right.store(p + kLanes, c[1]);
  }
  TSATTN_INLINE void store(c10::BFloat16* p, const Vec (&c)[2]) const {
#if defined(TSATTN_PAIRS)
    _mm256_mask_storeu_epi16(p, left.lanes, (__m256i)_mm512_cvtneps_pbh(c[0]));
    _mm256_mask_storeu_epi16(p + kLanes, right.lanes, (__m256i)_mm512_cvtneps_pbh(c[1]));
#else
    left.store(p, c[0]);
    right.store(p + kLanes, c[1]);
#endif
  }
};

// y[m] = a[m] b + bias for M rows and the columns of one panel
template <class T, int M, class Y>
__attribute__((noinline)) void strip_product(
    const float* a, int64_t row, const float* b, int64_t inner, const float* bias,
    const Columns& columns, Y* y, int64_t ldy) {
  Vec c[M][2];
  const Vec left = bias == nullptr ? Vec(0.0f) : columns.load(bias, 0);
  const Vec right = bias == nullptr ? Vec(0.0f) : columns.load(bias, 1);
#pragma GCC unroll 14
  for (int m = 0; m < M; ++m) {
    c[m][0] = left;
    c[m][1] = right;
  }
  add_strip<T, M>(a, row, 1, b, inner, c);
#pragma GCC unroll 14
  for (int m = 0; m < M; ++m) {
    columns.store(y + m * ldy, c[m]);
  }
}

// Two stretches of memory that are wanted soon, fetched a few lines at a time between products: all at
// once they would be waited for.
class Ahead {
 public:
  Ahead() = default;
  // fetch() will be called `times` times.
  Ahead(const void* one, int64_t one_bytes, const void* two, int64_t two_bytes, int64_t times)
      : one_(static_cast<const char*>(one)),
        two_(static_cast<const char*>(two)),
        one_step_(share(one_bytes, times)),
        two_step_(share(two_bytes, times)) {}

  TSATTN_INLINE void fetch() {
    fetch(one_, one_step_);
    fetch(two_, two_step_);
  }

 private:
  static constexpr int64_t kLine = 64;
  static int64_t share(int64_t bytes, int64_t times) {
    return round_up((bytes + times - 1) / times, kLine);
  }
  static TSATTN_INLINE void fetch(const char*& at, int64_t bytes) {
    for (const char* end = at + bytes; at < end; at += kLine) {
      __builtin_prefetch(at, 0, 2);
    }
  }

  const char *one_ = nullptr, *two_ = nullptr;
  int64_t one_step_ = 0, two_step_ = 0;
};

// y = a B + bias for a few rows; `row` words lie between two rows of a.
template <class T, class Y>
inline void slice_product(
    const float* a, int64_t row, int64_t rows, const Panels& b, const float* bias, Y* y,
    int64_t ldy, Ahead ahead = {}) {
  for (int64_t n = 0; n < b.columns; n += kPanel) {
    const Columns columns(std::min(kPanel, b.columns - n));
    const float* panel = b.panel(n);
    const float* here = bias == nullptr ? nullptr : bias + n;
    int64_t m = 0;
    const auto strips = [&]<int M>() {
      for (; m + M <= rows; m += M) {
        ahead.fetch();
        strip_product<T, M>(a + m * row, row, panel, b.inner, here, columns, y + m * ldy + n, ldy);
      }
    };
    strips.template operator()<kStrip>();
    strips.template operator()<8>();
    strips.template operator()<4>();
    strips.template operator()<1>();
  }
}

// Packs columns [column, column + kPanel) of W' for a W of rows [columns, inner], ld words apart.
inline void pack_turned(
    const float* w, int64_t ld, int64_t column, int64_t columns, int64_t inner, float* panel) {
  transpose(w + column * ld, ld, std::min(kPanel, columns - column), inner, panel, kPanel);
}

template <class T>
constexpr int64_t kPerWord = sizeof(float) / sizeof(T);

// Sixteen numbers as the low halves of words.
TSATTN_INLINE __m512i low_halves(const c10::BFloat16* x, const Tail& lanes) {
  return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes.lanes, x));
}

TSATTN_INLINE __m512i low_halves(const float* x, const Tail& lanes) {
#if defined(TSATTN_PAIRS)
  return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(lanes.load(x)));
#else
  return _mm512_cvtepu16_epi32(narrow(lanes.load(x)));
#endif
}

// Packs `rows` rows of `count` columns as T: [step][ld] words, a step being one row of floats, or two
// of bfloat16, the second zero where it is missing. ld has room for whole vectors.
template <class T, class X>
TSATTN_INLINE void pack_rows(
    const X* x, int64_t ldx, int64_t rows, int64_t count, float* words, int64_t ld) {
  for (int64_t r = 0; r < rows; r += kPerWord<T>, words += ld) {
    for (int64_t c = 0; c < count; c += kLanes) {
      const X* from = x + r * ldx + c;
      const Tail lanes(std::min(kLanes, count - c));
      if constexpr (std::is_same_v<T, float>) {
        lanes.load(from).store(words + c);
      } else {
        const __m512i second =
            r + 1 < rows ? low_halves(from + ldx, lanes) : _mm512_setzero_si512();
        const __m512i pairs = _mm512_or_si512(low_halves(from, lanes), _mm512_slli_epi32(second, 16));
        _mm512_storeu_si512(words + c, pairs);
      }
    }
  }
}

} // namespace CPU_CAPABILITY
} // namespace tsattn

#endif
