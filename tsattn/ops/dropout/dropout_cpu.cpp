// Dropout on CPUs: one pass, the mask is drawn where it is used and never stored.

#include "dropout_cpu.h"

#include <ATen/Parallel.h>

#include <type_traits>

namespace tsattn {
namespace {

template <DropoutTask kTask>
TSATTN_INLINE Vec element(const Vec& x, const Vec& other, uint32_t bits, const Vec& scale) {
  if constexpr (kTask == DropoutTask::kPlain) {
    return keep(x * scale, bits);
  } else if constexpr (kTask == DropoutTask::kAdd) {
    return other + keep(x * scale, bits);
  } else if constexpr (kTask == DropoutTask::kGelu) {
    return keep(gelu(x) * scale, bits);
  } else {
    return keep(other * scale, bits) * gelu_slope(x);
  }
}

template <DropoutTask kTask>
TSATTN_INLINE void group(
    const float* x, const float* other, float* y, const uint16_t (&bits)[kGroupParts],
    const Vec& scale) {
#pragma GCC unroll 4
  for (int64_t i = 0; i < kGroup; i += kLanes) {
    const uint32_t here = bits[i / kGroupLanes] >> (i % kGroupLanes);
    element<kTask>(Vec::loadu(x + i), Vec::loadu(other + i), here, scale).store(y + i);
  }
}

template <DropoutTask kTask, class X, class Y>
void elements(const X* x, const Y* other, Y* y, int64_t n, const Dropout& dropout) {
  constexpr int64_t kGrain = 64; // groups
  const int64_t groups = (n + kGroup - 1) / kGroup;
  const Vec scale(dropout.scale);
  at::parallel_for(0, groups, kGrain, [&](int64_t begin, int64_t end) {
    alignas(64) float xs[kGroup] = {}, others[kGroup] = {}, ys[kGroup];
    for (int64_t g = begin; g < end; ++g) {
      uint16_t bits[kGroupParts];
      draw_group(dropout, g, bits);
      const int64_t at = g * kGroup, count = std::min(kGroup, n - at);
      if constexpr (std::is_same_v<X, float> && std::is_same_v<Y, float>) {
        if (count == kGroup) {
          group<kTask>(x + at, other + at, y + at, bits, scale);
          continue;
        }
      }
      widen(x + at, xs, count);
      widen(other + at, others, count);
      group<kTask>(xs, others, ys, bits, scale);
      narrow(ys, y + at, count);
    }
  });
}

} // namespace

template <class X, class Y>
void dropout_elements(
    DropoutTask task, const X* x, const Y* other, Y* y, int64_t n, const Dropout& dropout) {
  switch (task) {
    case DropoutTask::kPlain:
      return elements<DropoutTask::kPlain>(x, other, y, n, dropout);
    case DropoutTask::kAdd:
      return elements<DropoutTask::kAdd>(x, other, y, n, dropout);
    case DropoutTask::kGelu:
      return elements<DropoutTask::kGelu>(x, other, y, n, dropout);
    case DropoutTask::kGeluBackward:
      return elements<DropoutTask::kGeluBackward>(x, other, y, n, dropout);
  }
}

#define TSATTN_INSTANTIATE(X, Y) \
  template void dropout_elements<X, Y>( \
      DropoutTask, const X*, const Y*, Y*, int64_t, const Dropout&);
TSATTN_INSTANTIATE(float, float)
TSATTN_INSTANTIATE(c10::BFloat16, c10::BFloat16)
TSATTN_INSTANTIATE(c10::BFloat16, float)

} // namespace tsattn
