// The few vector pieces every kernel is made of, on top of ATen's Vectorized.
#pragma once

#include <ATen/cpu/vec/vec.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#define TSATTN_INLINE inline __attribute__((always_inline))
// A function on its own, with all that it calls inside it: whatever the compiler would rather do.
#define TSATTN_FLATTEN __attribute__((noinline, flatten))

namespace tsattn {
inline namespace CPU_CAPABILITY {

using Vec = at::vec::Vectorized<float>;
constexpr int64_t kLanes = Vec::size();

constexpr int64_t round_up(int64_t x, int64_t step) {
  return (x + step - 1) / step * step;
}

// bfloat16 is the upper half of a float; rounding goes to the nearest, ties to even, NaN stays NaN.
#if defined(CPU_CAPABILITY_AVX512)
TSATTN_INLINE Vec widen(const __m256i& halves) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

TSATTN_INLINE __m256i narrow(const Vec& x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i y = _mm512_srli_epi32(up, 16);
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(y, nan, _mm512_set1_epi32(0x7fc0)));
}
#endif

inline void widen(const c10::BFloat16* src, float* dst, int64_t n) {
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
  for (; n >= 8; n -= 8, src += 8, dst += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src));
    const __m256i words = _mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16);
    _mm256_storeu_ps(dst, _mm256_castsi256_ps(words));
  }
#endif
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = static_cast<uint32_t>(src[i].x) << 16;
    std::memcpy(dst + i, &bits, sizeof(bits));
  }
}

inline void narrow(const float* src, c10::BFloat16* dst, int64_t n) {
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
  for (; n >= 8; n -= 8, src += 8, dst += 8) {
    const __m256 x = _mm256_loadu_ps(src);
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i y = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    y = _mm256_blendv_epi8(_mm256_srli_epi32(y, 16), _mm256_set1_epi32(0x7fc0), nan);
    y = _mm256_permute4x64_epi64(_mm256_packus_epi32(y, y), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst), _mm256_castsi256_si128(y));
  }
#endif
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, src + i, sizeof(bits));
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    dst[i].x = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
  }
}

// The last vector of a row: only its first `count` lanes exist in memory.
struct Tail {
#if defined(CPU_CAPABILITY_AVX512)
  __mmask16 lanes;
  explicit Tail(int64_t count) : lanes(static_cast<__mmask16>((1u << count) - 1)) {}
  TSATTN_INLINE Vec load(const float* p) const { return _mm512_maskz_loadu_ps(lanes, p); }
  TSATTN_INLINE Vec only(const Vec& x) const { return _mm512_maskz_mov_ps(lanes, x); }
  TSATTN_INLINE void store(float* p, const Vec& x) const { _mm512_mask_storeu_ps(p, lanes, x); }
  TSATTN_INLINE Vec load(const c10::BFloat16* p) const {
    return widen(_mm256_maskz_loadu_epi16(lanes, p));
  }
  TSATTN_INLINE void store(c10::BFloat16* p, const Vec& x) const {
    _mm256_mask_storeu_epi16(p, lanes, narrow(x));
  }
#else
  int64_t count;
  explicit Tail(int64_t n) : count(n) {}
  TSATTN_INLINE Vec load(const float* p) const { return Vec::loadu(p, count); }
  TSATTN_INLINE Vec only(const Vec& x) const { return Vec::set(Vec(0.0f), x, count); }
  TSATTN_INLINE void store(float* p, const Vec& x) const { x.store(p, count); }
  TSATTN_INLINE Vec load(const c10::BFloat16* p) const {
    float wide[kLanes] = {};
    widen(p, wide, count);
    return Vec::loadu(wide);
  }
  TSATTN_INLINE void store(c10::BFloat16* p, const Vec& x) const {
    float wide[kLanes];
    x.store(wide);
    narrow(wide, p, count);
  }
#endif
};

// x where the lane's bit is set, zero elsewhere.
TSATTN_INLINE Vec keep(const Vec& x, uint32_t bits) {
#if defined(CPU_CAPABILITY_AVX512)
  return _mm512_maskz_mov_ps(static_cast<__mmask16>(bits), x);
#elif defined(CPU_CAPABILITY_AVX2)
  const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i set = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), lane);
  return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, lane)));
#else
  float values[kLanes];
  x.store(values);
  for (int64_t i = 0; i < kLanes; ++i) {
    values[i] = (bits >> i & 1u) != 0 ? values[i] : 0.0f;
  }
  return Vec::loadu(values);
#endif
}

// exp within about one unit in the last place; zero below the smallest normal number; NaN stays.
// 2^n e^r with n = round(x / ln 2) and a polynomial of degree six on [-ln 2 / 2, ln 2 / 2].
TSATTN_INLINE Vec exp(const Vec& x) {
#if defined(CPU_CAPABILITY_AVX512)
  const __m512 n = _mm512_roundscale_ps(
      _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693147181f), x);
  __m512 y = _mm512_set1_ps(0.00138145406f);
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(0.00836874545f));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(0.0416683890f));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(0.166665211f));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(0.499999940f));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f));
  y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0f));
  const __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.3f), _CMP_NLE_UQ);
  return _mm512_maskz_scalef_ps(normal, y, n);
#elif defined(CPU_CAPABILITY_AVX2)
  // max and min return their second operand where one is NaN, so that NaN stays NaN.
  const __m256 low = _mm256_set1_ps(-87.3f);
  __m256 c = _mm256_min_ps(_mm256_set1_ps(88.7f), _mm256_max_ps(low, x));
  const __m256 n = _mm256_round_ps(
      _mm256_mul_ps(c, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693147181f), c);
  __m256 y = _mm256_set1_ps(0.00138145406f);
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(0.00836874545f));
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(0.0416683890f));
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(0.166665211f));
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(0.499999940f));
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.0f));
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.0f));
  // 2^n in two factors: n reaches 128, one more than an exponent holds.
  const __m256i i = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(i, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const auto power = [&](const __m256i& e) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, bias), 23));
  };
  y = _mm256_mul_ps(_mm256_mul_ps(y, power(half)), power(_mm256_sub_epi32(i, half)));
  return _mm256_andnot_ps(_mm256_cmp_ps(x, low, _CMP_LE_OQ), y);
#else
  return x.exp();
#endif
}

// 1 / x within about one unit in the last place, for normal x with a normal inverse.
TSATTN_INLINE Vec reciprocal(const Vec& x) {
#if defined(CPU_CAPABILITY_AVX512)
  const __m512 y = _mm512_rcp14_ps(x);
  return _mm512_mul_ps(y, _mm512_fnmadd_ps(x, y, _mm512_set1_ps(2.0f)));
#else
  return Vec(1.0f) / x;
#endif
}

// Transposes kLanes rows of four columns into four vectors. Rows from `rows` on repeat the last one,
// so that nothing outside the matrix is read.
TSATTN_INLINE void load_columns4(const float* src, int64_t ld, int64_t rows, Vec (&out)[4]) {
  const auto row = [&](int64_t i) { return src + std::min(i, rows - 1) * ld; };
#if defined(CPU_CAPABILITY_AVX512)
  __m512 t[4];
#pragma GCC unroll 4
  for (int64_t i = 0; i < 4; ++i) {
    t[i] = _mm512_castps128_ps512(_mm_loadu_ps(row(i)));
    t[i] = _mm512_insertf32x4(t[i], _mm_loadu_ps(row(i + 4)), 1);
    t[i] = _mm512_insertf32x4(t[i], _mm_loadu_ps(row(i + 8)), 2);
    t[i] = _mm512_insertf32x4(t[i], _mm_loadu_ps(row(i + 12)), 3);
  }
  const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(t[0], t[1]));
  const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(t[0], t[1]));
  const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(t[2], t[3]));
  const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(t[2], t[3]));
  out[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
  out[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
  out[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
  out[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
#elif defined(CPU_CAPABILITY_AVX2)
  __m256 t[4];
#pragma GCC unroll 4
  for (int64_t i = 0; i < 4; ++i) {
    t[i] = _mm256_insertf128_ps(
        _mm256_castps128_ps256(_mm_loadu_ps(row(i))), _mm_loadu_ps(row(i + 4)), 1);
  }
  const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(t[0], t[1]));
  const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(t[0], t[1]));
  const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(t[2], t[3]));
  const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(t[2], t[3]));
  out[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
  out[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
  out[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
  out[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
#else
  float values[4][kLanes];
  for (int64_t i = 0; i < kLanes; ++i) {
    for (int64_t j = 0; j < 4; ++j) {
      values[j][i] = row(i)[j];
    }
  }
  for (int64_t j = 0; j < 4; ++j) {
    out[j] = Vec::loadu(values[j]);
  }
#endif
}

// The way back: four vectors, each a column, become `rows` (at most kLanes) rows of four.
TSATTN_INLINE void store_columns4(const Vec (&columns)[4], int64_t rows, float* dst, int64_t ld) {
#if defined(CPU_CAPABILITY_AVX512)
  const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(columns[0], columns[1]));
  const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(columns[0], columns[1]));
  const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(columns[2], columns[3]));
  const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(columns[2], columns[3]));
  const __m512 t[4] = {
      _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, c)),
      _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)), _mm512_castpd_ps(_mm512_unpackhi_pd(b, d))};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const auto put = [&](int64_t row, const __m128& x) {
      if (row < rows) {
        _mm_storeu_ps(dst + row * ld, x);
      }
    };
    put(i, _mm512_castps512_ps128(t[i]));
    put(i + 4, _mm512_extractf32x4_ps(t[i], 1));
    put(i + 8, _mm512_extractf32x4_ps(t[i], 2));
    put(i + 12, _mm512_extractf32x4_ps(t[i], 3));
  }
#else
  float values[4][kLanes];
  for (int c = 0; c < 4; ++c) {
    columns[c].store(values[c]);
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int c = 0; c < 4; ++c) {
      dst[row * ld + c] = values[c][row];
    }
  }
#endif
}

// dst[c][r] = src[r][c]. dst has room for whole vectors of rows (ld_dst >= round_up(rows, kLanes));
// what is written behind the last row is finite if src is.
inline void transpose(
    const float* src, int64_t ld_src, int64_t rows, int64_t cols, float* dst, int64_t ld_dst) {
  for (int64_t r = 0; r < rows; r += kLanes) {
    const float* from = src + r * ld_src;
    float* to = dst + r;
    const int64_t here = std::min(rows - r, kLanes);
    int64_t c = 0;
    for (; c + 4 <= cols; c += 4) {
      Vec four[4];
      if (here == kLanes) {
        load_columns4(from + c, ld_src, kLanes, four);
      } else {
        load_columns4(from + c, ld_src, here, four);
      }
      for (int64_t j = 0; j < 4; ++j) {
        four[j].store(to + (c + j) * ld_dst);
      }
    }
    for (; c < cols; ++c) {
      for (int64_t i = 0; i < kLanes; ++i) {
        to[c * ld_dst + i] = from[std::min(i, here - 1) * ld_src + c];
      }
    }
  }
}

// Rows of bfloat16 go through a strip that is as wide as a transposition needs.
inline void transpose(
    const c10::BFloat16* src, int64_t ld_src, int64_t rows, int64_t cols, float* dst,
    int64_t ld_dst) {
  constexpr int64_t kWide = 64;
  float strip[kLanes * kWide];
  for (int64_t r = 0; r < rows; r += kLanes) {
    const int64_t here = std::min(rows - r, kLanes);
    for (int64_t c = 0; c < cols; c += kWide) {
      const int64_t wide = std::min(cols - c, kWide);
      for (int64_t i = 0; i < here; ++i) {
        widen(src + (r + i) * ld_src + c, strip + i * kWide, wide);
      }
      transpose(strip, kWide, here, wide, dst + c * ld_dst + r, ld_dst);
    }
  }
}

// Short copies in place: a call of memcpy per row of four floats would cost more than the rest.
inline void widen(const float* src, float* dst, int64_t n) {
  for (; n >= 4; n -= 4, src += 4, dst += 4) {
    std::memcpy(dst, src, 4 * sizeof(float));
  }
  for (; n > 0; --n) {
    *dst++ = *src++;
  }
}

inline void narrow(const float* src, float* dst, int64_t n) {
  widen(src, dst, n);
}

// dst[r][c] = factor * src[c][r]: the lanes of src become rows.
inline void transpose_back(
    const float* src, int64_t ld_src, int64_t rows, int64_t cols, float factor, float* dst,
    int64_t ld_dst) {
  const Vec scale(factor);
  for (int64_t r = 0; r < rows; r += kLanes) {
    const int64_t here = std::min(rows - r, kLanes);
    int64_t c = 0;
    for (; c + 4 <= cols; c += 4) {
      const float* from = src + c * ld_src + r;
      const Vec columns[4] = {
          Vec::loadu(from) * scale, Vec::loadu(from + ld_src) * scale,
          Vec::loadu(from + 2 * ld_src) * scale, Vec::loadu(from + 3 * ld_src) * scale};
      store_columns4(columns, here, dst + r * ld_dst + c, ld_dst);
    }
    for (; c < cols; ++c) {
      for (int64_t i = 0; i < here; ++i) {
        dst[(r + i) * ld_dst + c] = factor * src[c * ld_src + r + i];
      }
    }
  }
}

} // namespace CPU_CAPABILITY
} // namespace tsattn
