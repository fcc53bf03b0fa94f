// Products of bfloat16 with sums in float32, two steps of the inner axis at a time (AVX512-BF16).
//
// Matrices are rows of bfloat16. A word is two neighbours along the inner axis of a product: to the
// left of it two neighbours in a row, or a word of `pair_rows`, broadcast; to the right a vector of
// words, made by `pair_rows` or `transpose_pairs`. Strides count bfloat16 everywhere.
#pragma once

#include "tile.h"

#if defined(CPU_CAPABILITY_AVX512) && defined(__AVX512BF16__)
#define TSATTN_PAIRS

namespace tsattn {
inline namespace CPU_CAPABILITY {

using Half = c10::BFloat16;
using OneWord = std::integral_constant<int64_t, 2>; // a stride

constexpr int64_t words(int64_t halves) {
  return (halves + 1) / 2;
}

constexpr __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffffu : (1u << count) - 1);
}

TSATTN_INLINE int32_t word(const Half* p) {
  int32_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return bits;
}

// Vectors of 16 or 8 words, and of as many sums.
template <int L>
struct Words;

template <>
struct Words<16> {
  using Sum = Vec;
  __m512bh bits;
  static TSATTN_INLINE Words load(const Half* p) { return {(__m512bh)_mm512_loadu_si512(p)}; }
  static TSATTN_INLINE Words all(const Half* p) { return {(__m512bh)_mm512_set1_epi32(word(p))}; }
  static TSATTN_INLINE Sum zero() { return _mm512_setzero_ps(); }
  static TSATTN_INLINE Sum dot(const Sum& c, const Words& a, const Words& b) {
    return _mm512_dpbf16_ps(c, a.bits, b.bits);
  }
  static TSATTN_INLINE void add(float* to, const Sum& c) {
    _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), c));
  }
  static TSATTN_INLINE void narrow(Half* to, const Sum& c, float factor, int64_t count) {
    const __m512 x = _mm512_mul_ps(c, _mm512_set1_ps(factor));
    _mm256_mask_storeu_epi16(to, first_lanes(count), (__m256i)_mm512_cvtneps_pbh(x));
  }
};

template <>
struct Words<8> {
  using Sum = __m256;
  __m256bh bits;
  static TSATTN_INLINE Words load(const Half* p) {
    return {(__m256bh)_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
  }
  static TSATTN_INLINE Words all(const Half* p) { return {(__m256bh)_mm256_set1_epi32(word(p))}; }
  static TSATTN_INLINE Sum zero() { return _mm256_setzero_ps(); }
  static TSATTN_INLINE Sum dot(const Sum& c, const Words& a, const Words& b) {
    return _mm256_dpbf16_ps(c, a.bits, b.bits);
  }
  static TSATTN_INLINE void add(float* to, const Sum& c) {
    _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), c));
  }
  static TSATTN_INLINE void narrow(Half* to, const Sum& c, float factor, int64_t count) {
    const __m256 x = _mm256_mul_ps(c, _mm256_set1_ps(factor));
    const auto lanes = static_cast<__mmask8>(first_lanes(count));
    _mm_mask_storeu_epi16(to, lanes, (__m128i)_mm256_cvtneps_pbh(x));
  }
};

// c[m][:] = sum_i a(m, i) b[i][:] over `inner` words for all rows, kRows at once, then half as many
// and so on; `done(row, c[row])` takes them.
template <int L, int kRows, int R, class Row, class Column, class Done>
inline void pair_product(
    const Half* a, Row a_row, Column a_col, int64_t rows, const Half* b, int64_t ldb, int64_t inner,
    Done&& done, int64_t m = 0) {
  using W = Words<L>;
  for (; m + kRows <= rows; m += kRows) {
    typename W::Sum c[kRows][R];
#pragma GCC unroll 12
    for (int j = 0; j < kRows; ++j) {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        c[j][r] = W::zero();
      }
    }
    const Half* left = a + m * a_row;
    for (int64_t i = 0; i < inner; ++i) {
      W x[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        x[r] = W::load(b + i * ldb + 2 * r * L);
      }
#pragma GCC unroll 12
      for (int j = 0; j < kRows; ++j) {
        const W one = W::all(left + j * a_row + i * a_col);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          c[j][r] = W::dot(c[j][r], one, x[r]);
        }
      }
    }
#pragma GCC unroll 12
    for (int j = 0; j < kRows; ++j) {
      done(m + j, c[j]);
    }
  }
  if constexpr (kRows > 1) {
    pair_product<L, kRows / 2, R>(a, a_row, a_col, rows, b, ldb, inner, done, m);
  }
}

// The same for any number of columns, a multiple of 8; `done(row, column, vectors)` takes them.
template <class Row, class Column, class Done>
inline void wide_product(
    const Half* a, Row a_row, Column a_col, int64_t rows, const Half* b, int64_t cols,
    int64_t inner, Done&& done) {
  const auto block = [&]<int L, int R>(int64_t c) {
    pair_product<L, R == 4 ? 6 : 12, R>(
        a, a_row, a_col, rows, b + 2 * c, 2 * cols, inner,
        [&](int64_t row, const typename Words<L>::Sum(&sums)[R]) {
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r) {
            done.template operator()<L>(row, c + r * L, sums[r]);
          }
        });
  };
  int64_t c = 0;
  for (; c + 64 <= cols; c += 64) {
    block.template operator()<16, 4>(c);
  }
  for (; c + 32 <= cols; c += 32) {
    block.template operator()<16, 2>(c);
  }
  if (c + 16 <= cols) {
    block.template operator()<16, 1>(c);
    c += 16;
  }
  if (c < cols) {
    block.template operator()<8, 1>(c);
  }
}

// Adds a product to rows of floats [rows, cols].
template <class Row, class Column>
inline void add_product(
    const Half* a, Row a_row, Column a_col, int64_t rows, const Half* b, int64_t cols,
    int64_t inner, float* to) {
  wide_product(
      a, a_row, a_col, rows, b, cols, inner, [&]<int L>(int64_t row, int64_t c, const auto& sum) {
        Words<L>::add(to + row * cols + c, sum);
      });
}

struct HalfRows {
  const Half* data;
  int64_t ld;
};

// Two rows become words.
TSATTN_INLINE __m512i interleave(const __m256i& low, const __m256i& high) {
  const __m512i above = _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16);
  return _mm512_or_si512(_mm512_cvtepu16_epi32(low), above);
}

// Pairs of rows: word c of dst row i is (src[2 i][c], src[2 i + 1][c]), with zero for a row behind
// the last; cols is a multiple of 8.
inline void pair_rows(const HalfRows& src, int64_t rows, int64_t cols, Half* dst) {
  const auto part = [](const Half* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  };
  const auto whole = [](const Half* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  };
  for (int64_t row = 0; row < rows; row += 2, dst += 2 * cols) {
    const Half* even = src.data + row * src.ld;
    const Half* odd = even + src.ld;
    const bool both = row + 1 < rows;
    int64_t c = 0;
    for (; c + 16 <= cols; c += 16) {
      const __m256i below = both ? whole(odd + c) : _mm256_setzero_si256();
      _mm512_storeu_si512(dst + 2 * c, interleave(whole(even + c), below));
    }
    if (c < cols) {
      const __m128i above = part(even + c), below = both ? part(odd + c) : _mm_setzero_si128();
      const auto to = reinterpret_cast<__m128i*>(dst + 2 * c);
      _mm_storeu_si128(to, _mm_unpacklo_epi16(above, below));
      _mm_storeu_si128(to + 1, _mm_unpackhi_epi16(above, below));
    }
  }
}

// Word r of dst row i is (src[r][2 i], src[r][2 i + 1]): the rows lie across the lanes, those behind
// the last repeat it. ld of src is even, cols a multiple of 8.
inline void transpose_pairs(
    const HalfRows& src, int64_t rows, int64_t cols, Half* dst, int64_t ld_dst) {
  transpose(
      reinterpret_cast<const float*>(src.data), src.ld / 2, rows, cols / 2,
      reinterpret_cast<float*>(dst), ld_dst / 2);
}

inline void copy_halves(const Half* src, Half* dst, int64_t n) {
  for (; n > 0; n -= 16, src += 16, dst += 16) {
    const __mmask16 lanes = first_lanes(n);
    _mm256_mask_storeu_epi16(dst, lanes, _mm256_maskz_loadu_epi16(lanes, src));
  }
}

// Rows of floats [rows, cols] to bfloat16: factor * src + more, if there is more.
inline void give_rows(
    const float* src, int64_t ld_src, int64_t rows, int64_t cols, float factor,
    const HalfRows& more, Half* dst, int64_t ld_dst) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < cols; c += 16) {
      const __mmask16 lanes = first_lanes(cols - c);
      __m512 x = _mm512_maskz_loadu_ps(lanes, src + row * ld_src + c);
      x = _mm512_mul_ps(x, _mm512_set1_ps(factor));
      if (more.data != nullptr) {
        const __m256i halves = _mm256_maskz_loadu_epi16(lanes, more.data + row * more.ld + c);
        const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
        x = _mm512_add_ps(x, _mm512_castsi512_ps(wide));
      }
      _mm256_mask_storeu_epi16(dst + row * ld_dst + c, lanes, (__m256i)_mm512_cvtneps_pbh(x));
    }
  }
}

// Vectors of one row of lanes as bfloat16, side by side; of the last vector `tail`, then zeros.
template <int R>
TSATTN_INLINE void narrow_lanes(const Vec (&x)[R], __mmask16 tail, Half* to) {
  if constexpr (R > 1) {
    const __mmask32 lanes = R == 2 ? static_cast<__mmask32>(tail) << 16 | 0xffffu : ~0u;
    _mm512_storeu_si512(to, (__m512i)_mm512_maskz_cvtne2ps_pbh(lanes, x[1], x[0]));
  }
  if constexpr (R != 2) {
    const auto last = (__m256i)_mm512_maskz_cvtneps_pbh(tail, x[R - 1]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + (R - 1) * 16), last);
  }
}

// Words (low, high) of two vectors of floats.
TSATTN_INLINE void narrow_pairs(const Vec& low, const Vec& high, Half* to) {
  const __m512i step = _mm512_set1_epi32(0x00010001), first = _mm512_set1_epi32(0x00100000);
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i order = _mm512_add_epi32(first, _mm512_mullo_epi32(lane, step));
  const auto both = (__m512i)_mm512_cvtne2ps_pbh(high, low);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order, both));
}

} // namespace CPU_CAPABILITY
} // namespace tsattn

#endif
