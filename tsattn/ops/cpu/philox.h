// A counter-based random generator: any part of a mask can be drawn at any time, again and again.
//
// Philox4x32 with seven rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011),
// keyed with the 64-bit seed. A group is 128 decisions: counters 16 g .. 16 g + 15 in lanes 0..15;
// decision 16 p + lane is the low (p < 4) or high (p >= 4) half of output word p % 4 of that lane,
// and keeps its element where this 16-bit number is at least the threshold.
// tsattn/ops/dropout/philox.py draws the same numbers in plain torch.
#pragma once

#include "simd.h"

namespace tsattn {
inline namespace CPU_CAPABILITY {

constexpr int64_t kGroup = 128;
constexpr int64_t kGroupLanes = 16;
constexpr int64_t kGroupParts = 8;

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

// keep[p] has bit `lane` set where decision 16 p + lane of the group keeps its element.
inline void draw_group(const Dropout& dropout, uint64_t group, uint16_t (&keep)[kGroupParts]) {
  constexpr uint32_t m0 = 0xD2511F53u, m1 = 0xCD9E8D57u, w0 = 0x9E3779B9u, w1 = 0xBB67AE85u;
  const uint64_t counter = group * kGroupLanes;
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
  const __m512i least = _mm512_set1_epi32(static_cast<int>(dropout.threshold << 16));
  const __m512i words[4] = {x0, x1, x2, x3};
#pragma GCC unroll 4
  for (int w = 0; w < 4; ++w) {
    keep[w] = _mm512_cmpge_epu32_mask(_mm512_slli_epi32(words[w], 16), least);
    keep[w + 4] = _mm512_cmpge_epu32_mask(words[w], least);
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
  for (int w = 0; w < 4; ++w) {
    uint32_t low = 0, high = 0;
    for (int64_t i = 0; i < kGroupLanes; ++i) {
      low |= static_cast<uint32_t>((x[w][i] & 0xffffu) >= dropout.threshold) << i;
      high |= static_cast<uint32_t>((x[w][i] >> 16) >= dropout.threshold) << i;
    }
    keep[w] = static_cast<uint16_t>(low);
    keep[w + 4] = static_cast<uint16_t>(high);
  }
#endif
}

} // namespace CPU_CAPABILITY
} // namespace tsattn
