// Products of a slice of rows with a packed matrix, while the slice lies in cache.
//
// A number is a word of 32 bits: a float, or two neighbours of bfloat16 on the inner axis, which one
// instruction multiplies and adds in float32. Either way a strip of rows takes one word of each row at
// a time, broadcast, times two vectors of columns. Accumulators stay in registers, of which AVX-512 has
// twice as many as AVX2; without either there is no telling, and libraries multiply.
#pragma once

#include "../attention/pairs.h"

#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
#define TSATTN_PANELS

namespace tsattn {
inline namespace CPU_CAPABILITY {

constexpr int64_t kPanel = 2 * kLanes; // columns
// Rows: 28 accumulators of 32 registers, or 12 of 16, beside two vectors of columns and a broadcast.
constexpr int64_t kStrip = kLanes == 16 ? 14 : 6;
constexpr int64_t kStripWords = kLanes; // between two steps of a packed strip

// A matrix [inner, columns] in panels of kPanel columns: [panel][inner][kPanel] words.
struct Panels {
  const float* words;
  int64_t inner, columns; // inner in words
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
  return at::vec::fmadd(a, b, c);
}

// Whatever the type of the tensor behind it.
TSATTN_INLINE Vec broadcast(const float* word) {
  float bits;
  std::memcpy(&bits, word, sizeof(bits));
  return Vec(bits);
}

// c[m] += sum_i a[m row + i step] b[i] for the first W vectors of a panel
template <class T, int M, int W>
TSATTN_INLINE void add_strip(
    const float* a, int64_t row, int64_t step, const float* b, int64_t inner, Vec (&c)[M][W]) {
  for (int64_t i = 0; i < inner; ++i) {
    Vec x[W];
#pragma GCC unroll 2
    for (int w = 0; w < W; ++w) {
      x[w] = Vec::loadu(b + i * kPanel + w * kLanes);
    }
#pragma GCC unroll 14
    for (int m = 0; m < M; ++m) {
      const Vec word = broadcast(a + m * row + i * step);
#pragma GCC unroll 2
      for (int w = 0; w < W; ++w) {
        c[m][w] = add_product<T>(word, x[w], c[m][w]);
      }
    }
  }
}

constexpr int64_t kBlock = 256; // words of a row

// The same for rows longer than a block. Long sums go block by block, as those of libraries do: less
// rounding.
template <class T, int M, int W>
TSATTN_INLINE void add_strip_in_blocks(
    const float* a, int64_t row, const float* b, int64_t inner, Vec (&c)[M][W]) {
  add_strip<T, M, W>(a, row, 1, b, kBlock, c);
  for (int64_t i = kBlock; i < inner; i += kBlock) {
    float sums[M][W][kLanes];
#pragma GCC unroll 14
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
      for (int w = 0; w < W; ++w) {
        c[m][w].store(sums[m][w]);
        c[m][w] = Vec(0.0f);
      }
    }
    add_strip<T, M, W>(a + i, row, 1, b + i * kPanel, std::min(inner - i, kBlock), c);
#pragma GCC unroll 14
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
      for (int w = 0; w < W; ++w) {
        c[m][w] = c[m][w] + Vec::loadu(sums[m][w]);
      }
    }
  }
}

TSATTN_INLINE void store(float* p, const Tail& lanes, const Vec& x) {
  lanes.store(p, x);
}

TSATTN_INLINE void store(c10::BFloat16* p, const Tail& lanes, const Vec& x) {
#if defined(TSATTN_PAIRS)
  _mm256_mask_storeu_epi16(p, lanes.lanes, (__m256i)_mm512_cvtneps_pbh(x));
#else
  lanes.store(p, x);
#endif
}

// What becomes of a sum before it is stored: nothing.
struct AsItIs {
  TSATTN_INLINE Vec operator()(int64_t, int64_t, const Tail&, const Vec& sum) const { return sum; }
};

// What a strip is multiplied with, and where the product goes.
template <class Y, class Finish>
struct PanelProduct {
  const float* panel;
  int64_t inner;
  const float* bias; // of the panel's columns, or null
  const Finish& finish;
  int64_t column, count; // of the panel
  Y* y;
  int64_t ldy;
};

// y[row + m] = finish(row + m, column, lanes, a[m] b + bias) for M rows and W vectors of columns
template <class T, int M, int W, bool kLong, class Y, class Finish>
__attribute__((noinline)) void strip_product(
    const float* a, int64_t ld, int64_t row, const PanelProduct<Y, Finish>& p) {
  const Tail last(p.count - (W - 1) * kLanes);
  const auto lanes = [&](int w) { return w < W - 1 ? Tail(kLanes) : last; };
  Vec c[M][W];
#pragma GCC unroll 2
  for (int w = 0; w < W; ++w) {
    c[0][w] = p.bias == nullptr ? Vec(0.0f) : lanes(w).load(p.bias + w * kLanes);
#pragma GCC unroll 14
    for (int m = 1; m < M; ++m) {
      c[m][w] = c[0][w];
    }
  }
  if constexpr (kLong) {
    add_strip_in_blocks<T, M, W>(a, ld, p.panel, p.inner, c);
  } else {
    add_strip<T, M, W>(a, ld, 1, p.panel, p.inner, c);
  }
#pragma GCC unroll 14
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
    for (int w = 0; w < W; ++w) {
      const int64_t column = p.column + w * kLanes;
      const Vec done = p.finish(row + m, column, lanes(w), c[m][w]);
      store(p.y + (row + m) * p.ldy + column, lanes(w), done);
    }
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

// y = finish(a B + bias) for a few rows; `ld` words lie between two rows of a.
template <class T, class Y, class Finish = AsItIs>
inline void slice_product(
    const float* a, int64_t ld, int64_t rows, const Panels& b, const float* bias, Y* y,
    int64_t ldy, Ahead ahead = {}, const Finish& finish = {}) {
  for (int64_t n = 0; n < b.columns; n += kPanel) {
    const PanelProduct<Y, Finish> p{
        b.panel(n), b.inner, bias == nullptr ? nullptr : bias + n, finish, n,
        std::min(kPanel, b.columns - n), y, ldy};
    int64_t m = 0;
    const auto strips = [&]<int M>() {
      for (; m + M <= rows; m += M) {
        ahead.fetch();
        const float* here = a + m * ld;
        if (b.inner > kBlock) {
          p.count > kLanes ? strip_product<T, M, 2, true>(here, ld, m, p)
                           : strip_product<T, M, 1, true>(here, ld, m, p);
        } else {
          p.count > kLanes ? strip_product<T, M, 2, false>(here, ld, m, p)
                           : strip_product<T, M, 1, false>(here, ld, m, p);
        }
      }
    };
    strips.template operator()<kStrip>();
    strips.template operator()<8>();
    strips.template operator()<4>();
    strips.template operator()<1>();
  }
}

template <class T>
constexpr int64_t kPerWord = sizeof(float) / sizeof(T);

#if defined(CPU_CAPABILITY_AVX512)
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

// Two rows of bfloat16 as one of pairs; `second` is null where there is none.
template <class X>
TSATTN_INLINE void join_rows(const X* first, const X* second, const Tail& lanes, float* words) {
  const __m512i high = second == nullptr ? _mm512_setzero_si512() : low_halves(second, lanes);
  const __m512i pairs = _mm512_or_si512(low_halves(first, lanes), _mm512_slli_epi32(high, 16));
  _mm512_storeu_si512(words, pairs);
}
#else
template <class X>
void join_rows(const X*, const X*, const Tail&, float*) {} // never: nothing multiplies pairs here
#endif

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
        join_rows(from, r + 1 < rows ? from + ldx : nullptr, lanes, words + c);
      }
    }
  }
}

} // namespace CPU_CAPABILITY
} // namespace tsattn

#endif
