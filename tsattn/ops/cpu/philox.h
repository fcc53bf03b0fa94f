// A counter-based random generator: any part of a mask can be drawn at any time, again and again.
//
// Philox4x32 with seven rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011),
// keyed with the 64-bit seed. A group is 256 decisions: counters 16 g .. 16 g + 15 in lanes 0..15;
// decision 16 p + lane is byte p / 4 of output word p % 4 of that lane, and keeps its element where
// it is at least the threshold. The threshold is a number of 16 bits, its lower half the share of
// the groups in which the upper half counts one more: the rate is exact to 1 / 65536.
// tsattn/ops/dropout/philox.py draws the same numbers in plain torch.
#pragma once

#include "simd.h"

namespace tsattn {
inline namespace CPU_CAPABILITY {

constexpr int64_t kGroup = 256;
constexpr int64_t kGroupLanes = 16;
constexpr int64_t kGroupParts = 16;

struct Dropout {
  bool on = false;
  uint64_t seed = 0;
  uint32_t threshold = 0; // of 65536
  float scale = 1.0f; // of what is kept

  Dropout() = default;
  Dropout(double p, uint64_t s)
      : on(p > 0.0),
        seed(s),
        threshold(static_cast<uint32_t>(std::min(65535.0, p * 65536.0 + 0.5))),
        scale(static_cast<float>(65536.0 / (65536.0 - threshold))) {}
};

// The threshold of a group's bytes, 0..256.
inline uint32_t group_threshold(const Dropout& dropout, uint64_t group) {
  // splitmix64 (Steele, Lea, Flood 2014)
  uint64_t z = dropout.seed + (group + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return (dropout.threshold >> 8) + ((z >> 56) < (dropout.threshold & 255u));
}

// keep[p] has bit `lane` set where decision 16 p + lane of the group keeps its element.
inline void draw_group(const Dropout& dropout, uint64_t group, uint16_t (&keep)[kGroupParts]) {
  constexpr uint32_t m0 = 0xD2511F53u, m1 = 0xCD9E8D57u, w0 = 0x9E3779B9u, w1 = 0xBB67AE85u;
  const uint64_t counter = group * kGroupLanes;
  const uint32_t threshold = group_threshold(dropout, group);
  uint32_t k0 = static_cast<uint32_t>(dropout.seed), k1 = static_cast<uint32_t>(dropout.seed >> 32);
#if defined(CPU_CAPABILITY_AVX512)
  const __m512i mul0 = _mm512_set1_epi64(m0), mul1 = _mm512_set1_epi64(m1);
  const __mmask16 odd = 0xAAAA;
  __m512i x0 = _mm512_add_epi32(
      _mm512_set1_epi32(static_cast<int>(counter)),
      _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  __m512i x1 = _mm512_set1_epi32(static_cast<int>(counter >> 32));
  __m512i x2 = _mm512_setzero_si512(), x3 = _mm512_setzero_si512();
  const auto multiply = [&](const __m512i& x, const __m512i& m, __m512i& high, __m512i& low) {
    const __m512i even_product = _mm512_mul_epu32(x, m);
    const __m512i odd_product = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), m);
    high = _mm512_mask_mov_epi32(_mm512_srli_epi64(even_product, 32), odd, odd_product);
    low = _mm512_mask_mov_epi32(even_product, odd, _mm512_slli_epi64(odd_product, 32));
  };
#pragma GCC unroll 7
  for (int round = 0; round < 7; ++round) {
    __m512i high0, low0, high1, low1;
    multiply(x0, mul0, high0, low0);
    multiply(x2, mul1, high1, low1);
    x0 = _mm512_ternarylogic_epi32(high1, x1, _mm512_set1_epi32(static_cast<int>(k0)), 0x96);
    x2 = _mm512_ternarylogic_epi32(high0, x3, _mm512_set1_epi32(static_cast<int>(k1)), 0x96);
    x1 = low1;
    x3 = low0;
    k0 += w0;
    k1 += w1;
  }
  const __m512i words[4] = {x0, x1, x2, x3};
  const __m512i limit = _mm512_set1_epi8(static_cast<char>(threshold - 1));
#pragma GCC unroll 4
  for (int w = 0; w < 4; ++w) {
    const uint64_t kept =
        threshold == 0 ? ~uint64_t{0} : _mm512_cmpgt_epu8_mask(words[w], limit);
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b) {
      keep[4 * b + w] = static_cast<uint16_t>(_pext_u64(kept, 0x1111111111111111u << b));
    }
  }
#else
  uint32_t x[4][kGroupLanes];
  for (int64_t i = 0; i < kGroupLanes; ++i) {
    x[0][i] = static_cast<uint32_t>(counter) + static_cast<uint32_t>(i);
    x[1][i] = static_cast<uint32_t>(counter >> 32);
    x[2][i] = 0;
    x[3][i] = 0;
  }
  for (int round = 0; round < 7; ++round) {
    for (int64_t i = 0; i < kGroupLanes; ++i) {
      const uint64_t product0 = static_cast<uint64_t>(x[0][i]) * m0;
      const uint64_t product1 = static_cast<uint64_t>(x[2][i]) * m1;
      x[0][i] = static_cast<uint32_t>(product1 >> 32) ^ x[1][i] ^ k0;
      x[2][i] = static_cast<uint32_t>(product0 >> 32) ^ x[3][i] ^ k1;
      x[1][i] = static_cast<uint32_t>(product1);
      x[3][i] = static_cast<uint32_t>(product0);
    }
    k0 += w0;
    k1 += w1;
  }
  for (int part = 0; part < kGroupParts; ++part) {
    uint32_t kept = 0;
    for (int64_t i = 0; i < kGroupLanes; ++i) {
      const uint32_t number = x[part % 4][i] >> (8 * (part / 4)) & 255u;
      kept |= static_cast<uint32_t>(number >= threshold) << i;
    }
    keep[part] = static_cast<uint16_t>(kept);
  }
#endif
}

} // namespace CPU_CAPABILITY
} // namespace tsattn
