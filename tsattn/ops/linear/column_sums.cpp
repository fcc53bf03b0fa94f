// Sums over the rows of a matrix, chunk by chunk; the chunks are added in their order.

#include "column_sums.h"

#include "../cpu/simd.h"

#include <ATen/Parallel.h>

#include <vector>

namespace tsattn {
namespace {

constexpr int64_t kRows = 256; // of a chunk

TSATTN_INLINE Vec load(const float* x) {
  return Vec::loadu(x);
}

TSATTN_INLINE Vec load(const c10::BFloat16* x) {
#if defined(CPU_CAPABILITY_AVX512)
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
#else
  float wide[kLanes];
  widen(x, wide, kLanes);
  return Vec::loadu(wide);
#endif
}

// Sums of kVecs vectors of columns.
template <int kVecs, class T>
TSATTN_INLINE void vector_sums(const T* x, int64_t rows, int64_t columns, float* sums) {
  Vec sum[kVecs];
#pragma GCC unroll 8
  for (int i = 0; i < kVecs; ++i) {
    sum[i] = Vec(0.0f);
  }
  for (int64_t r = 0; r < rows; ++r) {
#pragma GCC unroll 8
    for (int i = 0; i < kVecs; ++i) {
      sum[i] = sum[i] + load(x + r * columns + i * kLanes);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kVecs; ++i) {
    sum[i].store(sums + i * kLanes);
  }
}

template <class T>
void chunk_sums(const T* x, int64_t rows, int64_t columns, float* sums) {
  int64_t c = 0;
  for (; c + 8 * kLanes <= columns; c += 8 * kLanes) {
    vector_sums<8>(x + c, rows, columns, sums + c);
  }
  for (; c + kLanes <= columns; c += kLanes) {
    vector_sums<1>(x + c, rows, columns, sums + c);
  }
  for (; c < columns; ++c) {
    float sum = 0.0f;
    for (int64_t r = 0; r < rows; ++r) {
      sum += static_cast<float>(x[r * columns + c]);
    }
    sums[c] = sum;
  }
}

} // namespace

template <class T>
void column_sums(const T* x, int64_t rows, int64_t columns, float* sums) {
  const int64_t chunks = (rows + kRows - 1) / kRows;
  std::vector<float> parts(chunks * columns);
  at::parallel_for(0, chunks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      chunk_sums(
          x + c * kRows * columns, std::min(kRows, rows - c * kRows), columns, &parts[c * columns]);
    }
  });
  for (int64_t i = 0; i < columns; ++i) {
    double sum = 0.0;
    for (int64_t c = 0; c < chunks; ++c) {
      sum += parts[c * columns + i];
    }
    sums[i] = static_cast<float>(sum);
  }
}

template void column_sums<float>(const float*, int64_t, int64_t, float*);
template void column_sums<c10::BFloat16>(const c10::BFloat16*, int64_t, int64_t, float*);

} // namespace tsattn
