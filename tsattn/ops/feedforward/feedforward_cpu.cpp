// The feed-forward of a layer on CPUs, tile by tile.
//
// Gradients of weights are summed over slices of tokens, and the slices in their order: the result
// does not depend on the number of threads.

#include "feedforward_cpu.h"
#include "feedforward_tile.h"

#include <ATen/Parallel.h>

#include <vector>

namespace tsattn {
namespace {

constexpr int64_t kSlice = 10 * 48; // tokens; whole tiles, and whole groups of dropout decisions
static_assert(kSlice % kTile == 0);

} // namespace

void feedforward_forward(const FeedForward& p, const float* b2, float* y) {
  const int64_t tiles = (p.rows + kTile - 1) / kTile;
  at::parallel_for(0, tiles, 4, [&](int64_t begin, int64_t end) {
    FeedForwardTile tile(p);
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = t * kTile, count = std::min(kTile, p.rows - row);
      with_vectors(count, [&]<int R>() { tile.template forward<R>(row, count, b2, y); });
    }
  });
}

void feedforward_backward(
    const FeedForward& p, const float* grad, const FeedForwardGradients& gradients) {
  const int64_t slices = (p.rows + kSlice - 1) / kSlice;
  const int64_t weights = p.hidden * p.width, size = 2 * weights + p.hidden + p.width;
  std::vector<float> sums(slices * size, 0.0f);
  const auto part = [&](int64_t slice) {
    float* here = sums.data() + slice * size;
    return FeedForwardGradients{
        gradients.x, here, here + 2 * weights, here + weights, here + 2 * weights + p.hidden};
  };
  at::parallel_for(0, slices, 1, [&](int64_t begin, int64_t end) {
    FeedForwardTile tile(p);
    for (int64_t s = begin; s < end; ++s) {
      const FeedForwardGradients out = part(s);
      tile.start_slice();
      const int64_t last = std::min(p.rows, (s + 1) * kSlice);
      for (int64_t row = s * kSlice; row < last; row += kTile) {
        const int64_t count = std::min(kTile, last - row);
        with_vectors(count, [&]<int R>() { tile.template backward<R>(row, count, grad, out); });
      }
      tile.finish_slice(out);
    }
  });
  for (int64_t s = 1; s < slices; ++s) {
    for (int64_t i = 0; i < size; ++i) {
      sums[i] += sums[s * size + i];
    }
  }
  const FeedForwardGradients total = part(0);
  std::copy_n(total.w1, weights, gradients.w1);
  std::copy_n(total.b1, p.hidden, gradients.b1);
  std::copy_n(total.b2, p.width, gradients.b2);
  for (int64_t f = 0; f < p.hidden; ++f) {
    for (int64_t d = 0; d < p.width; ++d) {
      gradients.w2[d * p.hidden + f] = total.w2[f * p.width + d];
    }
  }
}

} // namespace tsattn
